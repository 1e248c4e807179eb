//! The command line: one struct per subcommand, no behaviour. How flags and the settings file come together is
//! `app::configure`'s to say.

mod injector;
mod sidecar;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as Flags, Parser, Subcommand};
use ipnet::IpNet;

use crate::settings::LogFormat;
use crate::snapshot::duration;

pub use injector::{CaptureArgs, InjectorArgs};
pub use sidecar::{AppProbe, ClientMode, GrpcProbe, HttpGet, Mode, ProbeField, Scheme, SidecarArgs, TcpProbe};

/// A Kubernetes-native ingress and sidecar for streams.
#[derive(Debug, Parser)]
#[command(name = "floodway", version, arg_required_else_help = true)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the ProxyRoutes of a cluster: controller and data plane in one process
    Gateway(GatewayArgs),
    /// Serve the objects in a folder of YAML files, reloaded as they change; no cluster needed
    Standalone(StandaloneArgs),
    /// Stand beside an app in its pod: policies and TLS in front of it, and its requests to Services balanced
    Sidecar(Box<SidecarArgs>),
    /// Try it: standalone with built-in backends (SSE, WebSocket, files) and a page that shows them
    Demo(DemoArgs),
    /// Validate objects offline, as the API server would, with line numbers
    Check(CheckArgs),
    /// Show what a running Floodway knows of its endpoints: health, ejections, load
    Upstreams(UpstreamsArgs),
    /// Put sidecars into pods: a mutating admission webhook, with a certificate of its own
    Injector(InjectorArgs),
    /// Redirect the connections of a pod to its sidecar; run by the injector's init container, with NET_ADMIN
    Capture(CaptureArgs),
    /// Say whether Floodway works in a cluster, or could, and what it serves there or would; ends with 1 if something does not work
    Doctor(DoctorArgs),
    /// Print the custom resource definitions, for `kubectl apply -f -`
    Crd,
}

/// `floodway gateway`
#[derive(Debug, Flags)]
pub struct GatewayArgs {
    /// Watch only this namespace; may be repeated. All namespaces when absent
    #[arg(long = "watch-namespace", value_name = "NAMESPACE")]
    pub watch_namespaces: Vec<String>,
    /// What every server takes.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `floodway standalone DIR`
#[derive(Debug, Flags)]
pub struct StandaloneArgs {
    /// Folder of *.yaml and *.yml files with ProxyRoute, ProxyUpstream, Service and EndpointSlice documents
    pub dir: PathBuf,
    /// What every server takes.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `floodway demo`
#[derive(Debug, Flags)]
pub struct DemoArgs {
    /// Folder of the objects, edited while it runs; when absent the examples of the repository, or a copy of them
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// What every server takes.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `floodway check FILE…`
#[derive(Debug, Flags)]
pub struct CheckArgs {
    /// Files, folders, or - for the standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The class whose routes are translated
    #[arg(long, value_name = "NAME", default_value = crate::api::DEFAULT_CLASS)]
    pub class: String,
}

/// `floodway upstreams`
#[derive(Debug, Flags)]
pub struct UpstreamsArgs {
    /// Admin port of the Floodway to ask, as host and port
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9901", value_parser = host_and_port)]
    pub admin: String,
    /// As the JSON of /upstreams
    #[arg(long)]
    pub json: bool,
    /// Again each second, on a terminal four times, until Ctrl-C
    #[arg(long)]
    pub watch: bool,
}

/// `floodway doctor`
#[derive(Debug, Flags)]
pub struct DoctorArgs {
    /// Kubeconfig; when absent that of KUBECONFIG or ~/.kube/config, else the service account of the pod
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// Namespace that Floodway is installed in; when absent that of the pod, else floodway-system
    #[arg(long, short, value_name = "NAMESPACE", value_parser = object_name)]
    pub namespace: Option<String>,
    /// Settings file of that Floodway; when absent what its Deployment or DaemonSet mounts
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Service account whose rights are looked at, as NAME or NAMESPACE/NAME; when absent that of the Deployment or DaemonSet, else
    /// whoever asks
    #[arg(long, value_name = "ACCOUNT", value_parser = account)]
    pub as_service_account: Option<String>,
    /// Admin port of a running Floodway to ask, too, as host and port
    #[arg(long, value_name = "HOST:PORT", value_parser = host_and_port)]
    pub admin: Option<String>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
    /// How long it may take
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration::parse)]
    pub timeout: Duration,
}

fn object_name(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    match !text.is_empty() && text.len() <= 253 && text.bytes().all(plain) {
        true => Ok(text.to_owned()),
        false => Err("write a name of Kubernetes: lower-case letters, digits, '-' and '.'".to_owned()),
    }
}

fn account(text: &str) -> Result<String, String> {
    text.split('/').map(object_name).collect::<Result<Vec<_>, _>>()?;
    match text.matches('/').count() {
        0 | 1 => Ok(text.to_owned()),
        _ => Err("write NAME or NAMESPACE/NAME".to_owned()),
    }
}

fn host_and_port(text: &str) -> Result<String, String> {
    let parts = text.rsplit_once(':').filter(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    match parts {
        Some(_) => Ok(text.to_owned()),
        None => Err("write a host and a port, for example 127.0.0.1:9901".to_owned()),
    }
}

fn listening(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write an IP address and a port, for example 127.0.0.1:8080".to_owned())
}

/// What every server takes. A flag wins over the settings file.
#[derive(Clone, Debug, Default, Flags)]
pub struct ServerArgs {
    /// Settings file (YAML); every flag below has its place in it
    #[arg(long, value_name = "FILE", env = "FLOODWAY_CONFIG")]
    pub config: Option<PathBuf>,
    /// Address that serves HTTP/1 and cleartext HTTP/2; may be repeated
    #[arg(long, value_name = "ADDR", value_parser = listening)]
    pub http: Vec<SocketAddr>,
    /// Address that serves HTTP/1 and HTTP/2 over TLS; may be repeated
    #[arg(long, value_name = "ADDR", value_parser = listening)]
    pub https: Vec<SocketAddr>,
    /// Address of /livez, /readyz, /metrics, /config_dump and /upstreams
    #[arg(long, value_name = "ADDR", value_parser = listening)]
    pub admin: Option<SocketAddr>,
    /// Threads that serve traffic; the processors that this process may use when absent
    #[arg(long, value_name = "N")]
    pub workers: Option<usize>,
    /// The zone that this runs in, whose endpoints are preferred where an upstream says so; unknown when empty
    #[arg(long, value_name = "NAME", env = "FLOODWAY_ZONE")]
    pub zone: Option<String>,
    /// The class of the routes to serve
    #[arg(long, value_name = "NAME")]
    pub class: Option<String>,
    /// What the program's log tells: off, error, warn, info, debug, trace, and per module: info,floodway::proxy=debug
    #[arg(long, value_name = "LEVEL")]
    pub log: Option<String>,
    /// Format of the program's log
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// Where the access log goes: stdout, off, or a file to append to; stdout when absent, and off for a sidecar
    #[arg(long, value_name = "TARGET")]
    pub access_log: Option<String>,
    /// How long streams may run on after SIGTERM before they are cut
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub grace: Option<Duration>,
    /// How long to go on accepting after SIGTERM, not ready, while load balancers notice
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub drain_delay: Option<Duration>,
    /// Percent of the grace over which streams are told to end, each at a time of its own
    #[arg(long, value_name = "PERCENT")]
    pub drain_spread: Option<u8>,
    /// Peers whose X-Forwarded-For, X-Request-Id and traceparent are believed; may be repeated
    #[arg(long = "trusted-proxy", value_name = "CIDR")]
    pub trusted_proxies: Vec<IpNet>,
    /// Bounds against hostile or broken peers.
    #[command(flatten, next_help_heading = "Limits")]
    pub limits: LimitArgs,
}

/// Bounds against hostile or broken peers; the rest are in the settings file.
#[derive(Clone, Debug, Default, Flags)]
pub struct LimitArgs {
    /// Client connections
    #[arg(long, value_name = "N")]
    pub max_connections: Option<usize>,
    /// Fields in a request head
    #[arg(long, value_name = "N")]
    pub max_header_count: Option<usize>,
    /// Bytes of a request head
    #[arg(long, value_name = "BYTES")]
    pub max_header_bytes: Option<usize>,
    /// Bytes of a request body; no bound when absent
    #[arg(long, value_name = "BYTES")]
    pub max_body_bytes: Option<u64>,
    /// Bytes that are held for a stream and direction while its reader is slow
    #[arg(long, value_name = "BYTES")]
    pub stream_buffer_bytes: Option<usize>,
    /// Total time for a request head
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub header_timeout: Option<Duration>,
    /// How long a client connection may be without a request
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub keep_alive_idle: Option<Duration>,
    /// Concurrent streams on one HTTP/2 client connection
    #[arg(long, value_name = "N")]
    pub max_http2_streams: Option<u32>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn flags_are_read() {
        let line = "floodway standalone conf --http 127.0.0.1:1 --http [::1]:2 --grace 1m30s --trusted-proxy 10.0.0.0/8 \
                    --log-format text --max-connections 5";
        let Command::Standalone(args) = Args::try_parse_from(line.split_whitespace()).unwrap().command else {
            panic!("not standalone")
        };
        assert_eq!(args.server.http.len(), 2);
        assert_eq!(args.server.grace, Some(Duration::from_secs(90)));
        assert_eq!(args.server.limits.max_connections, Some(5));
    }

    #[test]
    fn wrong_values_are_explained() {
        for (flag, told) in [("--grace 5", "is not a duration"), ("--http 80", "--http"), ("--log-format x", "json")] {
            let line = format!("floodway standalone conf {flag}");
            let error = Args::try_parse_from(line.split_whitespace()).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(told), "{error}");
        }
    }
}
