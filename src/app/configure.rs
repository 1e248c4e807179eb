//! From the flags, the settings file and the defaults of a command to its settings. A flag wins over the file, the file
//! over the defaults.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::Failure;
use crate::api::ClientCertificateMode;
use crate::args::{ClientMode, GatewayArgs, ServerArgs, SidecarArgs};
use crate::settings::{ClientCertificates, LogFormat, Settings};

/// The settings of `floodway gateway`.
pub(super) fn gateway(args: &GatewayArgs) -> Result<Settings, Failure> {
    let mut settings = read(&args.server, Settings::default())?;
    replace_list(&mut settings.watch_namespaces, &args.watch_namespaces);
    Ok(settings)
}

/// The settings of a `floodway gateway` that runs elsewhere, whose settings file says `file`.
pub(super) fn gateway_elsewhere(args: &GatewayArgs, file: Settings) -> Result<Settings, Failure> {
    let server = ServerArgs { config: None, ..args.server.clone() };
    let mut settings = read(&server, file)?;
    replace_list(&mut settings.watch_namespaces, &args.watch_namespaces);
    Ok(settings)
}

/// The settings of `floodway standalone`.
pub(super) fn standalone(args: &ServerArgs) -> Result<Settings, Failure> {
    read(args, standalone_settings())
}

/// Namespaces beside its own whose objects a sidecar watches. API servers allow a connection a hundred streams.
const MOST_NAMESPACES: usize = 20;

/// The settings of `floodway sidecar`: one thread, small buffers, no wait for load balancers, which are not told of a sidecar, and no
/// access log unless it is asked for, since a request between two pods would be in two of them.
pub(super) fn sidecar(args: &SidecarArgs) -> Result<Settings, Failure> {
    if !args.server.http.is_empty() || !args.server.https.is_empty() {
        let why = "a sidecar listens where --inbound and --outbound say; leave --http and --https out";
        return Err(Failure::configuration(why.to_owned()));
    }
    let mut defaults = Settings::default();
    defaults.listeners.admin = SocketAddr::from(([0, 0, 0, 0], 15190));
    defaults.workers = Some(1);
    defaults.limits.connections = 16_384;
    defaults.limits.stream_buffer_bytes = 32 * 1024;
    defaults.drain.delay = Duration::ZERO;
    defaults.drain.grace = Duration::from_secs(25);
    defaults.log.access = "off".to_owned();
    if args.outbound_namespaces.len() > MOST_NAMESPACES {
        let why = format!(
            "--outbound-namespace: at most {MOST_NAMESPACES}; each is four watches, and all share a connection"
        );
        return Err(Failure::configuration(why));
    }
    let mut settings = read(&args.server, defaults)?;
    // They belong to the namespace of the pod.
    let here = |name: &String| format!("{}/{name}", args.namespace);
    settings.watch_namespaces = [args.namespace.clone()].into_iter().chain(args.outbound_namespaces.clone()).collect();
    settings.kubernetes.secrets.namespaces = vec![args.namespace.clone()];
    let tls = &mut settings.listeners.tls;
    if let Some(name) = &args.tls_secret {
        tls.default_certificate = Some(here(name));
        tls.strict_sni = false;
    }
    if let Some(name) = &args.client_ca_secret {
        let mode = match args.client_certificates.unwrap_or_default() {
            ClientMode::Required => ClientCertificateMode::Required,
            ClientMode::Optional => ClientCertificateMode::Optional,
        };
        tls.client_certificates =
            Some(ClientCertificates { mode, ca_secret: Some(here(name)), ..ClientCertificates::default() });
    }
    settings.validate()?;
    Ok(settings)
}

/// The settings of `floodway demo`: its terminal is for people, who ask for an access log if they want one, and who do
/// not wait long for the clock, which never ends by itself.
pub(super) fn demo(args: &ServerArgs) -> Result<Settings, Failure> {
    let mut defaults = standalone_settings();
    defaults.listeners.https = vec![SocketAddr::from(([127, 0, 0, 1], 8443))];
    defaults.log.access = "off".to_owned();
    defaults.log.level = "warn".to_owned();
    defaults.drain.grace = Duration::from_secs(2);
    read(args, defaults)
}

/// What `floodway standalone` uses when nobody says otherwise: only this machine can reach it, its log is for people,
/// and it does not wait for load balancers when it ends.
pub fn standalone_settings() -> Settings {
    let mut settings = Settings::default();
    settings.listeners.http = vec![SocketAddr::from(([127, 0, 0, 1], 8080))];
    settings.listeners.admin = SocketAddr::from(([127, 0, 0, 1], 9901));
    settings.drain.delay = Duration::ZERO;
    settings.log.format = LogFormat::Text;
    settings
}

/// What a settings file says of a gateway.
pub(super) fn file(path: &Path) -> Result<Settings, Failure> {
    over(path, &Settings::default())
}

fn over(path: &Path, defaults: &Settings) -> Result<Settings, Failure> {
    let name = path.display().to_string();
    let text =
        std::fs::read(path).map_err(|error| Failure::configuration(format!("{name}: cannot be read: {error}")))?;
    Ok(defaults.overlaid(&name, &text)?)
}

fn read(args: &ServerArgs, defaults: Settings) -> Result<Settings, Failure> {
    let mut settings = match &args.config {
        None => defaults,
        Some(path) => over(path, &defaults)?,
    };
    overlay(args, &mut settings);
    settings.validate()?;
    Ok(settings)
}

fn overlay(args: &ServerArgs, settings: &mut Settings) {
    // Every flag is named, so that one that is forgotten here does not compile.
    let ServerArgs {
        config: _,
        http,
        https,
        admin,
        workers,
        zone,
        class,
        log,
        log_format,
        access_log,
        grace,
        drain_delay,
        drain_spread,
        trusted_proxies,
        limits,
    } = args.clone();
    replace_list(&mut settings.listeners.http, &http);
    replace_list(&mut settings.listeners.https, &https);
    replace(&mut settings.listeners.admin, admin);
    settings.workers = workers.or(settings.workers);
    settings.zone = zone.or(settings.zone.take()).filter(|zone| !zone.is_empty());
    replace(&mut settings.class_name, class);
    replace(&mut settings.log.level, log);
    replace(&mut settings.log.format, log_format);
    replace(&mut settings.log.access, access_log);
    replace(&mut settings.drain.grace, grace);
    replace(&mut settings.drain.delay, drain_delay);
    replace(&mut settings.drain.spread_percent, drain_spread);
    replace_list(&mut settings.forwarding.trusted_proxies, &trusted_proxies);
    let crate::args::LimitArgs {
        max_connections,
        max_header_count,
        max_header_bytes,
        max_body_bytes,
        stream_buffer_bytes,
        header_timeout,
        keep_alive_idle,
        max_http2_streams,
    } = limits;
    replace(&mut settings.limits.connections, max_connections);
    replace(&mut settings.limits.header_count, max_header_count);
    replace(&mut settings.limits.header_bytes, max_header_bytes);
    settings.limits.body_bytes = max_body_bytes.or(settings.limits.body_bytes);
    replace(&mut settings.limits.stream_buffer_bytes, stream_buffer_bytes);
    replace(&mut settings.limits.header_timeout, header_timeout);
    replace(&mut settings.limits.keep_alive_idle, keep_alive_idle);
    replace(&mut settings.limits.http2_streams, max_http2_streams);
}

fn replace<T>(setting: &mut T, flag: Option<T>) {
    if let Some(flag) = flag {
        *setting = flag;
    }
}

fn replace_list<T: Clone>(setting: &mut Vec<T>, flags: &[T]) {
    if !flags.is_empty() {
        *setting = flags.to_vec();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_defaults() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("settings.yaml");
        std::fs::write(&path, "listeners: {http: ['127.0.0.1:1']}\nlimits: {connections: 5, headerCount: 6}\n")
            .unwrap();
        let mut args = ServerArgs { config: Some(path), ..ServerArgs::default() };
        args.limits.max_connections = Some(9);
        let settings = standalone(&args).unwrap();
        assert_eq!(settings.limits.connections, 9);
        assert_eq!(settings.limits.header_count, 6);
        assert_eq!(settings.listeners.http, ["127.0.0.1:1".parse().unwrap()]);
        assert_eq!(settings.listeners.admin, "127.0.0.1:9901".parse().unwrap());
    }

    fn beside_an_app(line: &[&str]) -> Result<Settings, String> {
        use clap::Parser as _;
        let line = ["floodway", "sidecar"].iter().chain(line);
        match crate::args::Args::try_parse_from(line).unwrap().command {
            crate::args::Command::Sidecar(args) => sidecar(&args).map_err(|failure| failure.to_string()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_sidecar_writes_an_access_log_only_if_it_is_told_to() {
        assert_eq!(beside_an_app(&[]).unwrap().log.access, "off");
        assert_eq!(beside_an_app(&["--access-log=stdout"]).unwrap().log.access, "stdout");
    }

    #[test]
    fn a_sidecar_watches_no_more_namespaces_than_a_connection_has_streams_for() {
        let flags: Vec<String> = (0..21).map(|name| format!("--outbound-namespace=ns-{name}")).collect();
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        assert_eq!(beside_an_app(&flags[..20]).unwrap().watch_namespaces.len(), 21);
        assert!(beside_an_app(&flags).unwrap_err().contains("at most 20"));
    }

    #[test]
    fn a_flag_without_sense_is_refused() {
        let args = ServerArgs { workers: Some(0), ..ServerArgs::default() };
        let error = standalone(&args).unwrap_err().to_string();
        assert_eq!(error, "settings: workers: 0 is too small; use at least 1");
    }
}
