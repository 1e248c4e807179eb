//! The facts of one exchange, told once, when it has ended.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// One request and what became of it. Whoever builds it owns the facts; here they are only written down.
#[derive(Clone, Debug)]
pub struct Exchange<'a> {
    /// The id the client and the upstream saw.
    pub request_id: &'a str,
    /// The trace id of a W3C `traceparent`, 32 hexadecimal digits.
    pub trace_id: Option<&'a str>,
    /// The client, found through trusted proxies.
    pub client: IpAddr,
    /// What the client spoke.
    pub protocol: Protocol,
    /// Method as sent.
    pub method: &'a str,
    /// Host as routed; empty if none was found.
    pub host: &'a str,
    /// Path as sent, without the query (which may carry tokens).
    pub path: &'a str,
    /// `namespace/name` of the route's object.
    pub route: Option<&'a str>,
    /// Name of the rule.
    pub rule: Option<&'a str>,
    /// Name of the cluster.
    pub upstream: Option<&'a str>,
    /// The endpoint that answered, or the last one tried.
    pub endpoint: Option<SocketAddr>,
    /// Status the client got; 499 if it left before a head was sent.
    pub status: u16,
    /// Why Floodway itself answered or ended it, from a closed set; `None` if the upstream's answer went through.
    pub reason: Option<&'static str>,
    /// What kind of stream it was.
    pub kind: Kind,
    /// How it ended.
    pub end: End,
    /// Body bytes from the client.
    pub bytes_received: u64,
    /// Body bytes to the client.
    pub bytes_sent: u64,
    /// Time to get a connection; `None` if none was asked for, zero if a kept one was used.
    pub connect: Option<Duration>,
    /// Time from the request head to the first byte of the answer's head.
    pub first_byte: Option<Duration>,
    /// Time from the request head to the end.
    pub duration: Duration,
    /// Endpoints tried.
    pub attempts: u32,
}

/// What a client spoke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
    /// HTTP/2
    Http2,
}

/// What kind of stream an exchange was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An ordinary request.
    Http,
    /// A `text/event-stream` answer.
    Sse,
    /// A WebSocket tunnel.
    WebSocket,
    /// gRPC.
    Grpc,
    /// Another upgrade.
    Tunnel,
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// Both sides said all they had to say.
    Complete,
    /// The client left.
    ClientGone,
    /// The upstream broke off after its head.
    UpstreamCut,
    /// Nothing moved for the idle timeout.
    Idle,
    /// The total time of the route was over.
    TimedOut,
    /// The process is going away.
    Drained,
    /// Floodway itself answered.
    Answered,
}
