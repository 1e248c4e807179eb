//! Connections of a sidecar, up to where somebody serves them: where each was meant to go, and by its first bytes, what it is. Requests
//! are served as everywhere, by the table of their listener; what nobody here understands is passed on as bytes, or refused where
//! something is demanded of it. The gateway has none of this.

mod bypass;
mod words;

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use socket2::SockRef;
use tokio::net::TcpStream;

use self::words::Said;
use super::io::Io;
use super::target;
use super::transport::Agreed;
use super::worker::Worker;
use crate::snapshot::{Action, HostPattern, Protocol, Snapshot, destination};

/// How long a connection may say nothing until it is taken for one whose server speaks first.
const SILENCE: Duration = Duration::from_secs(2);

/// Tells where a connection was to go before it was redirected here; nothing if it was not.
pub type Destination = Arc<dyn Fn(&TcpStream) -> Option<SocketAddr> + Send + Sync>;

/// What the connections of a listener are.
#[derive(Clone)]
pub struct Capture {
    /// Whose they are.
    pub kind: Captured,
    /// Where they were to go.
    pub destination: Destination,
    /// The ports of this process: who is led to one of them on this machine is led in a circle.
    pub own_ports: Arc<[u16]>,
    /// The address of the pod, if it is known.
    pub pod: Option<IpAddr>,
}

/// Whose connections a listener of a sidecar takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Captured {
    /// Those of others, for the app.
    Inbound(Inbound),
    /// Those of the app.
    Outbound,
}

/// What is in front of an app.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inbound {
    /// The port that connections are for that were not redirected; they are refused when absent.
    pub app_port: Option<u16>,
    /// Whether TLS is ended here, and nothing else served.
    pub tls: bool,
    /// Whether requests are under policies, so that nothing passes that is no request.
    pub demands: bool,
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Capture { kind, destination: _, own_ports, pod } = self;
        f.debug_struct("Capture")
            .field("kind", kind)
            .field("own_ports", own_ports)
            .field("pod", pod)
            .finish_non_exhaustive()
    }
}

/// Where the kernel says that a connection was to go (SO_ORIGINAL_DST). One that it did not redirect was to go here.
pub fn original_destination(stream: &TcpStream) -> Option<SocketAddr> {
    let here = canonical(stream.local_addr().ok()?);
    let socket = SockRef::from(stream);
    let meant = if here.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
    let meant = canonical(meant.ok()?.as_socket()?);
    (meant != here).then_some(meant)
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// By what name the route of a request is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// By its host.
    Host,
    /// By its host and port.
    Authority,
    /// By what its connection was meant for.
    Known(Rc<str>),
}

impl Way {
    /// The name for a request of this host, whose authority the client wrote so.
    pub(super) fn name<'a>(&'a self, host: &'a str, authority: &str) -> Cow<'a, str> {
        match self {
            Way::Host => Cow::Borrowed(host),
            Way::Known(name) => Cow::Borrowed(name),
            Way::Authority => Cow::Owned(destination::of_host(host, target::port_of(authority).unwrap_or(80))),
        }
    }

    /// The host that the certificate of a connection has to be for, for a request of this host. Where its route is not found by its host, there
    /// is one certificate and one demand for all of them, and whoever the client took us for in the handshake is right for what follows.
    pub(super) fn certified<'a>(&self, host: &'a str, agreed: &'a Agreed) -> &'a str {
        match self {
            Way::Host => host,
            Way::Authority | Way::Known(_) => agreed.server_name.as_deref().unwrap_or(host),
        }
    }
}

impl Capture {
    /// How requests of a connection find their routes.
    pub(super) fn way(&self, stream: &TcpStream) -> Way {
        let meant = (self.destination)(stream);
        match (&self.kind, meant) {
            (Captured::Inbound(inbound), meant) => {
                // Who came for no port has been refused.
                let port = meant.map(|meant| meant.port()).or(inbound.app_port).unwrap_or_default();
                Way::Known(destination::of_port(port).into())
            }
            (Captured::Outbound, Some(meant)) => Way::Known(destination::of_address(meant).into()),
            (Captured::Outbound, None) => Way::Authority,
        }
    }

    /// Whether it goes on taking connections while the process goes away: the app may have last things to ask.
    pub(super) fn outlasts(&self) -> bool {
        self.kind == Captured::Outbound
    }

    /// Whether a connection to `meant` that came here at `here` would come here again.
    fn is_circle(&self, meant: SocketAddr, here: Option<IpAddr>) -> bool {
        let ip = meant.ip();
        let is_ours = ip.is_loopback() || ip.is_unspecified() || here == Some(ip) || self.pod == Some(ip);
        is_ours && self.own_ports.contains(&meant.port())
    }
}

/// What is done with a connection.
pub(super) enum Judged {
    /// Its requests are served.
    Serve(Io),
    /// TLS is ended first.
    ShakeHands(TcpStream),
    /// It is passed on.
    Pass(Passed),
}

/// A connection that is passed on.
pub(super) struct Passed {
    client: TcpStream,
    /// What was read of it.
    early: Bytes,
    to: SocketAddr,
    /// Why, from a closed set.
    why: &'static str,
}

impl Passed {
    /// Carries it to its end.
    pub(super) async fn carry(self, worker: Rc<Worker>) {
        bypass::carry(self, worker).await;
    }
}

/// Finds out what a connection is. Nothing is done with one that may not be served, which is counted.
pub(super) async fn judge(stream: TcpStream, worker: Rc<Worker>) -> Option<Judged> {
    let capture = worker.capture.as_ref()?;
    let meant = (capture.destination)(&stream);
    let here = stream.local_addr().ok().map(|here| here.ip().to_canonical());
    let judged = match &capture.kind {
        _ if meant.is_some_and(|meant| capture.is_circle(meant, here)) => Err("circle"),
        Captured::Inbound(inbound) => enters(stream, inbound, meant, &worker).await,
        Captured::Outbound => leaves(stream, meant, &worker).await,
    };
    judged.map_err(|reason| worker.recorder.connection_refused(reason)).ok()
}

/// A connection for the app.
async fn enters(
    mut stream: TcpStream,
    inbound: &Inbound,
    meant: Option<SocketAddr>,
    worker: &Worker,
) -> Result<Judged, &'static str> {
    let Inbound { app_port, tls, demands } = inbound;
    let port = meant.map(|meant| meant.port()).or(*app_port).ok_or("no_app_port")?;
    let name = destination::of_port(port);
    let demands = *demands || is_guarded(worker.snapshot().as_deref(), &name);
    let patience = if *tls || demands { worker.settings.limits.header_timeout } else { SILENCE };
    let (said, early) = words::hear(&mut stream, patience).await;
    match said {
        Said::Tls if *tls => return Ok(Judged::ShakeHands(stream)),
        _ if *tls => return Err("tls_required"),
        Said::Http | Said::Http2 if demands || knows(worker.snapshot().as_deref(), &name) => {
            return Ok(Judged::Serve(served(stream, early, worker)));
        }
        _ if demands => return Err("no_request"),
        _ => {}
    }
    let why = if said.is_request() { "unknown" } else { said.word() };
    Ok(Judged::Pass(Passed { client: stream, early, to: (Ipv4Addr::LOCALHOST, port).into(), why }))
}

/// A connection of the app.
async fn leaves(mut stream: TcpStream, meant: Option<SocketAddr>, worker: &Worker) -> Result<Judged, &'static str> {
    // Whoever was not led here has come for a proxy.
    let Some(to) = meant else { return Ok(Judged::Serve(served(stream, Bytes::new(), worker))) };
    let snapshot = worker.snapshot();
    let name = destination::of_address(to);
    if !knows(snapshot.as_deref(), &name) {
        return Ok(Judged::Pass(Passed { client: stream, early: Bytes::new(), to, why: "unknown" }));
    }
    let (said, early) = words::hear(&mut stream, SILENCE).await;
    let why = match said {
        Said::Http => return Ok(Judged::Serve(served(stream, early, worker))),
        // Whoever speaks it without asking knows that the other side does, which the table does not.
        Said::Http2 if !speaks_http2(snapshot.as_deref(), &name) => "http2",
        Said::Http2 => return Ok(Judged::Serve(served(stream, early, worker))),
        other => other.word(),
    };
    Ok(Judged::Pass(Passed { client: stream, early, to, why }))
}

fn served(stream: TcpStream, early: Bytes, worker: &Worker) -> Io {
    let mut io = Io::new(stream, worker.settings.limits.stream_buffer_bytes);
    if !early.is_empty() {
        io.unread(early);
    }
    io
}

/// Whether a table has routes under a name.
fn knows(snapshot: Option<&Snapshot>, name: &str) -> bool {
    snapshot.is_some_and(|snapshot| snapshot.router.host(&HostPattern::Exact(name.into())).is_some())
}

/// Whether requests under a name are under a policy, or go nowhere as long as something is missing.
fn is_guarded(snapshot: Option<&Snapshot>, name: &str) -> bool {
    let host = snapshot.and_then(|snapshot| snapshot.router.host(&HostPattern::Exact(name.into())));
    let mut routes = host.into_iter().flat_map(|host| host.routes());
    routes.any(|route| match &route.action {
        Action::Forward(forward) => {
            forward.backends.iter().any(|backend| backend.policy.is_some() || backend.cluster.is_err())
        }
        _ => true,
    })
}

/// Whether requests under a name go to endpoints that speak HTTP/2.
fn speaks_http2(snapshot: Option<&Snapshot>, name: &str) -> bool {
    let host = snapshot.and_then(|snapshot| snapshot.router.host(&HostPattern::Exact(name.into())));
    let Some((snapshot, route)) = snapshot.zip(host.and_then(|host| host.routes().first())) else { return false };
    let Action::Forward(forward) = &route.action else { return true };
    let clusters = forward.backends.iter().filter_map(|backend| snapshot.clusters.get(backend.cluster.as_ref().ok()?));
    clusters.into_iter().all(|cluster| cluster.protocol != Protocol::Http1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn routes_are_found_by_what_a_connection_was_meant_for() {
        assert_eq!(Way::Host.name("a.example", "a.example:81"), "a.example");
        assert_eq!(Way::Authority.name("llm.shop", "LLM.shop:8080"), "8080.llm.shop");
        assert_eq!(Way::Authority.name("llm", "llm"), "80.llm");
        assert_eq!(Way::Known("80.10.96.0.5".into()).name("whatever", "whatever"), "80.10.96.0.5");
    }

    #[test]
    fn nobody_is_led_in_a_circle() {
        let capture = Capture {
            kind: Captured::Outbound,
            destination: Arc::new(|_| None),
            own_ports: [15101, 15106, 15190].into(),
            pod: Some("10.0.0.9".parse().unwrap()),
        };
        let pod: IpAddr = "10.0.0.5".parse().unwrap();
        for (meant, circle) in [
            ("127.0.0.1:15101", true),
            ("10.0.0.5:15106", true),
            ("10.0.0.9:15106", true),
            ("[::1]:15190", true),
            ("0.0.0.0:15101", true),
            ("10.0.0.6:15106", false),
            ("127.0.0.1:8080", false),
        ] {
            assert_eq!(capture.is_circle(meant.parse().unwrap(), Some(pod)), circle, "{meant}");
        }
    }
}
