//! `floodway sidecar`: its flags, which whoever injects it writes. What they mean together is `app`'s to say.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args as Flags, ValueEnum};
use serde::Deserialize;

use super::{ServerArgs, listening};

/// `floodway sidecar`
#[derive(Clone, Debug, Flags)]
pub struct SidecarArgs {
    /// How connections of the pod come here
    #[arg(long, value_name = "MODE", default_value = "local")]
    pub mode: Mode,
    /// The port of the app, on loopback, in front of which --inbound stands; nothing comes in there when absent
    #[arg(long, value_name = "PORT", value_parser = port)]
    pub app_port: Option<u16>,
    /// A further port of the app whose connections are captured; may be repeated
    #[arg(long = "inbound-port", value_name = "PORT", value_parser = port)]
    pub inbound_ports: Vec<u16>,
    /// A ProxyPolicy of the pod's namespace that requests to the app are under; may be repeated, the first goes before the others
    #[arg(long = "policy", value_name = "NAME")]
    pub policies: Vec<String>,
    /// The Secret, of type kubernetes.io/tls, with whose certificate TLS is ended before the app; plain connections are refused then
    #[arg(long, value_name = "NAME")]
    pub tls_secret: Option<String>,
    /// The Secret whose ca.crt has the authorities that sign certificates of clients
    #[arg(long, value_name = "NAME", requires = "tls_secret")]
    pub client_ca_secret: Option<String>,
    /// What becomes of clients without a certificate; Required when absent
    #[arg(long, value_name = "MODE", requires = "client_ca_secret")]
    pub client_certificates: Option<ClientMode>,
    /// The ProxyUpstream of the pod's namespace whose breaker, limits and health checks guard the app
    #[arg(long, value_name = "NAME")]
    pub upstream: Option<String>,
    /// Where connections to the app come in; may be repeated
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:15106", value_parser = listening)]
    pub inbound: Vec<SocketAddr>,
    /// Where connections of the app go out, on loopback; may be repeated
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:15101", value_parser = listening)]
    pub outbound: Vec<SocketAddr>,
    /// A namespace, beside the pod's own, whose named Services are balanced; may be repeated
    #[arg(long = "outbound-namespace", value_name = "NAMESPACE")]
    pub outbound_namespaces: Vec<String>,
    /// A probe of the kubelet that /probe/NAME of the admin port asks the app, as JSON; may be repeated
    #[arg(long = "probe", value_name = "JSON", value_parser = probe)]
    pub probes: Vec<AppProbe>,
    /// The pod's namespace
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE", default_value = "default")]
    pub namespace: String,
    /// Read the objects from a folder of YAML files instead of a cluster, to try it
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// What every server takes.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// How connections of a pod come to its sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Whoever wants to be served connects here; nothing is redirected, and nobody needs a privilege
    Local,
    /// The kernel redirects them, and says where they were to go (SO_ORIGINAL_DST)
    Transparent,
}

/// What becomes of clients without a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ClientMode {
    /// They are refused.
    #[default]
    #[value(name = "Required")]
    Required,
    /// They are served, and known to nobody.
    #[value(name = "Optional")]
    Optional,
}

/// A probe of the kubelet, as the injector found it in the pod: exactly one of the three ways to ask.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AppProbe {
    /// `CONTAINER/readiness`, `/liveness` or `/startup`: what follows `/probe/` on the admin port.
    pub name: String,
    /// A request that has to be answered with 2xx or 3xx.
    #[serde(default)]
    pub http_get: Option<HttpGet>,
    /// A port that has to take connections.
    #[serde(default)]
    pub tcp_socket: Option<TcpProbe>,
    /// `grpc.health.v1.Health/Check`, which has to say SERVING.
    #[serde(default)]
    pub grpc: Option<GrpcProbe>,
    /// Seconds for all of it; 1 when absent, as in Kubernetes.
    #[serde(default = "one_second")]
    pub timeout_seconds: u32,
}

/// A request of a probe.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpGet {
    /// Path and query; `/` when absent.
    #[serde(default)]
    pub path: Option<String>,
    /// The app's port.
    pub port: u16,
    /// Whether the app speaks TLS there, with whatever certificate.
    #[serde(default)]
    pub scheme: Scheme,
    /// The Host, unless a header says it.
    #[serde(default)]
    pub host: Option<String>,
    /// Further fields.
    #[serde(default)]
    pub http_headers: Vec<ProbeField>,
}

/// What a probe speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Scheme {
    /// HTTP/1.1
    #[default]
    Http,
    /// The same over TLS, whose certificate nobody verifies: the kubelet does not either.
    Https,
}

/// A field of a probe's request.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeField {
    /// Its name.
    pub name: String,
    /// Its value.
    #[serde(default)]
    pub value: String,
}

/// A connection of a probe.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcpProbe {
    /// The app's port.
    pub port: u16,
    /// Always loopback here.
    #[serde(default)]
    pub host: Option<String>,
}

/// A call of a probe.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrpcProbe {
    /// The app's port.
    pub port: u16,
    /// The service that is asked for; the server as a whole when absent.
    #[serde(default)]
    pub service: Option<String>,
}

fn one_second() -> u32 {
    1
}

fn port(text: &str) -> Result<u16, String> {
    text.parse()
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| "write a port from 1 to 65535, for example 8080".to_owned())
}

fn probe(text: &str) -> Result<AppProbe, String> {
    let example = "write for example {\"name\":\"app/readiness\",\"httpGet\":{\"path\":\"/ready\",\"port\":8080}}";
    let probe: AppProbe = serde_json::from_str(text).map_err(|error| format!("{error}; {example}"))?;
    let AppProbe { name, http_get, tcp_socket, grpc, timeout_seconds } = &probe;
    let ways = [http_get.is_some(), tcp_socket.is_some(), grpc.is_some()];
    let ports = [
        http_get.as_ref().map(|probe| probe.port),
        tcp_socket.as_ref().map(|probe| probe.port),
        grpc.as_ref().map(|probe| probe.port),
    ];
    if ways.iter().filter(|way| **way).count() != 1 {
        return Err(format!("a probe needs exactly one of httpGet, tcpSocket and grpc; {example}"));
    }
    if name.split('/').count() != 2 || name.split('/').any(str::is_empty) {
        return Err(format!("the name of a probe is that of a container and a kind; {example}"));
    }
    if ports.contains(&Some(0)) || *timeout_seconds == 0 {
        return Err(format!("the port and timeoutSeconds of a probe are above zero; {example}"));
    }
    Ok(probe)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use clap::Parser as _;

    use super::super::{Args, Command};
    use super::*;

    fn read(line: &[&str]) -> Result<SidecarArgs, String> {
        let line = ["floodway", "sidecar"].iter().chain(line);
        match Args::try_parse_from(line).map_err(|error| error.to_string())?.command {
            Command::Sidecar(args) => Ok(*args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_the_injector_writes_is_read() {
        let probe = r#"{"name":"app/readiness","httpGet":{"path":"/ready","port":8080,"scheme":"HTTPS",
                        "httpHeaders":[{"name":"x-a","value":"b"}]},"timeoutSeconds":2}"#;
        let probe = format!("--probe={probe}");
        let line = [
            "--mode=transparent",
            "--app-port=8080",
            "--inbound-port=8080",
            "--inbound-port=9090",
            "--policy=signed-in",
            "--policy=fair",
            "--tls-secret=app-tls",
            "--client-ca-secret=clients",
            "--client-certificates=Optional",
            "--upstream=app",
            "--inbound=0.0.0.0:15106",
            "--outbound=127.0.0.1:15101",
            "--admin=0.0.0.0:15190",
            "--outbound-namespace=shared",
            &probe,
            "--log=debug",
        ];
        let args = read(&line).unwrap();
        assert_eq!(
            (args.mode, args.app_port, &args.inbound_ports[..]),
            (Mode::Transparent, Some(8080), &[8080, 9090][..])
        );
        assert_eq!(
            (args.policies, args.client_certificates),
            (vec!["signed-in".to_owned(), "fair".to_owned()], Some(ClientMode::Optional))
        );
        assert_eq!(args.server.admin, Some("0.0.0.0:15190".parse().unwrap()));
        let get = args.probes[0].http_get.as_ref().unwrap();
        assert_eq!((get.port, get.scheme, args.probes[0].timeout_seconds), (8080, Scheme::Https, 2));
    }

    #[test]
    fn nothing_has_to_be_said() {
        let args = read(&[]).unwrap();
        assert_eq!((args.mode, args.app_port), (Mode::Local, None));
        assert_eq!(args.inbound, ["0.0.0.0:15106".parse().unwrap()]);
        assert_eq!(args.outbound, ["127.0.0.1:15101".parse().unwrap()]);
    }

    #[test]
    fn wrong_values_are_explained() {
        for (line, told) in [
            (&["--mode=none"][..], "transparent"),
            (&["--app-port=0"], "65535"),
            (&["--client-ca-secret=a"], "--tls-secret"),
            (&["--tls-secret=a", "--client-certificates=Required"], "--client-ca-secret"),
            (&["--probe={}"], "name"),
            (&[r#"--probe={"name":"a/readiness"}"#], "exactly one of"),
            (&[r#"--probe={"name":"a","tcpSocket":{"port":1}}"#], "container"),
            (&[r#"--probe={"name":"a/b","tcpSocket":{"port":0}}"#], "above zero"),
            (&[r#"--probe={"name":"a/b","exec":{}}"#], "exec"),
        ] {
            let error = read(line).unwrap_err();
            assert!(error.contains(told), "{line:?}: {error}");
        }
    }
}
