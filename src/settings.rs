//! Process settings: what the settings file and the flags can say, with defaults that are safe on the open internet.
//! Plain data with serde; how a file is found and merged with flags is `args` and `app`. Per-route settings are not
//! here: they are fields of the objects in `api`.

mod client_certificates;
pub mod duration_text;
mod forwarding;
mod load;
mod rate_limits;

pub use client_certificates::{ClientCertificates, Revocation, place};
pub use forwarding::{Forwarding, Tracing};
pub use load::InvalidSettings;
pub use rate_limits::{RateLimits, Redis, RedisTls};

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::api::ProxyPolicySpec;
use crate::snapshot::{HostPattern, KeyHosts, TlsVersion};

/// Everything a settings file can say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Settings {
    /// Routes of this class are served, and those that name none if it is the default one.
    pub class_name: String,
    /// Namespaces to watch in a cluster; all when empty.
    pub watch_namespaces: Vec<String>,
    /// What else is read in a cluster.
    pub kubernetes: Kubernetes,
    /// The zone that this process runs in, as nodes are labelled `topology.kubernetes.io/zone`: whoever balances by locality prefers
    /// its endpoints. Empty, or absent: unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Threads that serve traffic; `None` takes the processors that this process may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<usize>,
    /// The program's log and the access log.
    pub log: Log,
    /// Ports of the data plane.
    pub listeners: Listeners,
    /// Bounds of the data plane against hostile or broken peers.
    pub limits: Limits,
    /// Which inbound forwarding headers are believed.
    pub forwarding: Forwarding,
    /// Traces that begin here.
    pub tracing: Tracing,
    /// Keys of issuers that policies have fetched.
    pub jwks: Jwks,
    /// Values for routes that do not say otherwise.
    pub defaults: RouteDefaults,
    /// What is asked of every request, as a ProxyPolicy says it, unless one nearer to the request says otherwise.
    pub policy: ProxyPolicySpec,
    /// Where rate limits are counted that all replicas share.
    pub rate_limits: RateLimits,
    /// Shutdown.
    pub drain: Drain,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            class_name: crate::api::DEFAULT_CLASS.to_owned(),
            watch_namespaces: Vec::new(),
            kubernetes: Kubernetes::default(),
            zone: None,
            workers: None,
            log: Log::default(),
            listeners: Listeners::default(),
            limits: Limits::default(),
            forwarding: Forwarding::default(),
            tracing: Tracing::default(),
            jwks: Jwks::default(),
            defaults: RouteDefaults::default(),
            policy: ProxyPolicySpec::default(),
            rate_limits: RateLimits::default(),
            drain: Drain::default(),
        }
    }
}

impl Settings {
    /// The namespaces whose Secrets and ConfigMaps are read, all of them if empty; `None`: none is read.
    pub fn secret_namespaces(&self) -> Option<&[String]> {
        let Secrets { watch, namespaces } = &self.kubernetes.secrets;
        watch.then_some(if namespaces.is_empty() { &self.watch_namespaces } else { namespaces })
    }
}

/// What is read in a cluster beside routes, upstreams and Services.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Kubernetes {
    /// Secrets and ConfigMaps that routes and policies refer to.
    pub secrets: Secrets,
}

/// Which Secrets and ConfigMaps are read: TLS Secrets, and what is labelled `floodway.dev/use: "true"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Secrets {
    /// Whether any are.
    pub watch: bool,
    /// Only those in these namespaces; where `watchNamespaces` says when empty.
    pub namespaces: Vec<String>,
}

impl Default for Secrets {
    fn default() -> Self {
        Secrets { watch: true, namespaces: Vec::new() }
    }
}

/// The program's log and the access log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Log {
    /// What the program's log tells: a level, and levels of modules (`info,floodway::proxy=debug`).
    pub level: String,
    /// How the program's log is written.
    pub format: LogFormat,
    /// Where the access log goes: `stdout`, `off`, or a file to append to.
    pub access: String,
}

impl Default for Log {
    fn default() -> Self {
        Log { level: "info".to_owned(), format: LogFormat::default(), access: "stdout".to_owned() }
    }
}

/// How the program's log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object per line.
    #[default]
    Json,
    /// For people.
    Text,
}

/// Ports of the data plane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Listeners {
    /// Addresses that serve cleartext HTTP/1 and HTTP/2 (prior knowledge).
    pub http: Vec<SocketAddr>,
    /// Connections that a proxy in front makes for its clients.
    pub proxy_protocol: ProxyProtocol,
    /// Addresses that serve HTTP/1 and HTTP/2 over TLS, whichever the client asks for (ALPN).
    pub https: Vec<SocketAddr>,
    /// On what terms TLS is ended.
    pub tls: ListenersTls,
    /// Address of the admin port.
    pub admin: SocketAddr,
    /// Whether whoever reaches the admin port may change the log's level there.
    pub admin_writable: bool,
    /// Silence on a client connection after which TCP asks whether the peer is still there, and how often; zero never asks.
    #[serde(with = "duration_text")]
    pub tcp_keep_alive: Duration,
    /// How long what was sent to a client, a keep-alive probe included, may go unacknowledged until its connection is
    /// given up (TCP_USER_TIMEOUT); zero leaves it to the kernel. Clients that are slow have `stall` instead.
    #[serde(with = "duration_text")]
    pub tcp_user_timeout: Duration,
}

impl Default for Listeners {
    fn default() -> Self {
        Listeners {
            http: vec![SocketAddr::from(([0, 0, 0, 0], 8080))],
            proxy_protocol: ProxyProtocol::default(),
            https: Vec::new(),
            tls: ListenersTls::default(),
            admin: SocketAddr::from(([0, 0, 0, 0], 9901)),
            admin_writable: false,
            tcp_keep_alive: Duration::from_secs(30),
            tcp_user_timeout: Duration::from_secs(60),
        }
    }
}

/// Connections that a proxy in front makes for its clients, and says so in a header of the PROXY protocol, version 1 or 2.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ProxyProtocol {
    /// Peers whose connections begin with such a header; without one they are closed. Empty: nobody's.
    pub from: Vec<IpNet>,
    /// What becomes of connections of other peers, where there are such.
    pub others: Others,
}

/// What becomes of connections that nobody speaks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Others {
    /// They are their peer's own, and served as such.
    #[default]
    Serve,
    /// They are closed.
    Refuse,
}

/// TLS with clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ListenersTls {
    /// `namespace/name` of the Secret with the certificate for clients that name no host that a route gives one; they are refused
    /// when absent. In a folder the namespace of pairs of files is `default`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_certificate: Option<String>,
    /// The port that clients reach TLS at, for redirects of routes with `tls.redirect`.
    pub redirect_port: u16,
    /// Whether clients are refused that name no host (SNI), or one that no route has a certificate for, instead of being shown the
    /// default certificate.
    pub strict_sni: bool,
    /// The oldest version that is spoken, unless a route says otherwise.
    pub min_version: TlsVersion,
    /// Which certificates clients show, unless a route says otherwise; none if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificates: Option<ClientCertificates>,
    /// Total time for a handshake, from the connection's first byte.
    #[serde(with = "duration_text")]
    pub handshake_timeout: Duration,
    /// Handshakes that may be under way in the process; the connections of more are closed at once.
    pub handshakes_in_flight: usize,
}

impl Default for ListenersTls {
    fn default() -> Self {
        ListenersTls {
            default_certificate: None,
            redirect_port: 443,
            strict_sni: false,
            min_version: TlsVersion::V1_2,
            client_certificates: None,
            handshake_timeout: Duration::from_secs(10),
            handshakes_in_flight: 16_384,
        }
    }
}

impl ListenersTls {
    /// Namespace and name of the default certificate, if there is one and both are written.
    pub fn default_secret(&self) -> Option<(&str, &str)> {
        self.default_certificate.as_deref().and_then(place)
    }
}

/// Bounds against hostile or broken peers. Sizes are bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    /// Downstream connections per process; more are accepted and closed at once.
    pub connections: usize,
    /// Fields in a request head.
    pub header_count: usize,
    /// Bytes of a request head, request line included.
    pub header_bytes: usize,
    /// Total time for a request head, from the first byte of the connection or of the head.
    #[serde(with = "duration_text")]
    pub header_timeout: Duration,
    /// How long a kept-alive client connection may be without a request.
    #[serde(with = "duration_text")]
    pub keep_alive_idle: Duration,
    /// Concurrent streams on one HTTP/2 client connection.
    pub http2_streams: u32,
    /// Streams a client may reset before they are accepted by the proxy (rapid reset) until its connection is closed.
    pub http2_pending_resets: usize,
    /// Bytes of a request body; `None` has no bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_bytes: Option<u64>,
    /// The most bytes that Floodway itself holds for a stream and direction while its reader is slow, and about what the
    /// kernel holds of it unsent.
    pub stream_buffer_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 65_536,
            header_count: 100,
            header_bytes: 32 * 1024,
            header_timeout: Duration::from_secs(10),
            keep_alive_idle: Duration::from_secs(75),
            http2_streams: 100,
            http2_pending_resets: 20,
            body_bytes: None,
            stream_buffer_bytes: 64 * 1024,
        }
    }
}

/// Keys of issuers that policies have fetched.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Jwks {
    /// Hosts that may be asked for keys, `id.example.com` or `*.example.com`. Empty: any, so that whoever writes policies can have
    /// Floodway ask whatever it can reach.
    pub allow_hosts: Vec<String>,
}

impl Jwks {
    /// The same, made ready to be asked. `None` if one is no host.
    pub fn hosts(&self) -> Option<KeyHosts> {
        if self.allow_hosts.is_empty() {
            return Some(KeyHosts::default());
        }
        let hosts: Result<Vec<_>, _> = self.allow_hosts.iter().map(|host| HostPattern::parse(host)).collect();
        hosts.ok().map(KeyHosts::only)
    }
}

/// Values for routes that do not say otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RouteDefaults {
    /// Time to connect to an endpoint.
    #[serde(with = "duration_text")]
    pub connect: Duration,
    /// Time from the request sent to the response head.
    #[serde(with = "duration_text")]
    pub response_head: Duration,
    /// Silence in both directions after which a stream is ended.
    #[serde(with = "duration_text")]
    pub idle: Duration,
    /// How long a side may take nothing of what waits for it.
    #[serde(with = "duration_text")]
    pub stall: Duration,
    /// How long an unused upstream connection is kept.
    #[serde(with = "duration_text")]
    pub upstream_idle: Duration,
}

impl Default for RouteDefaults {
    fn default() -> Self {
        RouteDefaults {
            connect: Duration::from_secs(5),
            response_head: Duration::from_secs(60),
            idle: Duration::from_secs(300),
            stall: Duration::from_secs(60),
            upstream_idle: Duration::from_secs(60),
        }
    }
}

/// Shutdown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Drain {
    /// How long to go on accepting after SIGTERM, not ready, while load balancers notice.
    #[serde(with = "duration_text")]
    pub delay: Duration,
    /// How long streams may run on after SIGTERM before they are cut.
    #[serde(with = "duration_text")]
    pub grace: Duration,
    /// The part of the grace, in percent, over which streams are told to end, each at a time of its own; what is left of it
    /// is theirs to finish. 0 tells all of them at once.
    pub spread_percent: u8,
}

impl Default for Drain {
    fn default() -> Self {
        Drain { delay: Duration::from_secs(5), grace: Duration::from_secs(30), spread_percent: 75 }
    }
}
