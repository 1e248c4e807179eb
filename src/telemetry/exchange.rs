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
    /// The id of Floodway's own span in that trace.
    pub span_id: Option<u64>,
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
    /// What the client's handshake came to, if it spoke TLS.
    pub tls: Option<Tls<'a>>,
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
    /// Events or messages to the client; `None` if it was no stream, or one of which nobody could see where they end.
    pub events: Option<u64>,
    /// Time to get a connection; `None` if none was asked for, zero if a kept one was used.
    pub connect: Option<Duration>,
    /// Time from the request head to the first byte of the answer's head.
    pub first_byte: Option<Duration>,
    /// Time from the request head to the end.
    pub duration: Duration,
    /// Endpoints tried.
    pub attempts: u32,
}

/// What a client's handshake came to.
#[derive(Clone, Copy, Debug)]
pub struct Tls<'a> {
    /// `1.2` or `1.3`.
    pub version: &'static str,
    /// The cipher suite, by its name at IANA.
    pub cipher: &'static str,
    /// The host that the client named.
    pub server_name: Option<&'a str>,
    /// The protocol that was chosen, if the client asked.
    pub alpn: Option<&'static str>,
    /// The subject of the client's certificate, if it showed one that was verified.
    pub client_subject: Option<&'a str>,
    /// The SHA-256 of that, in hexadecimal digits.
    pub client_fingerprint: Option<&'a str>,
}

/// What a client spoke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
    /// HTTP/2
    Http2,
    /// TLS, and nobody here knows what in it.
    Tls,
}

/// What kind of stream an exchange was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// An ordinary request.
    Http,
    /// A `text/event-stream` answer.
    Sse,
    /// A WebSocket.
    WebSocket,
    /// gRPC.
    Grpc,
    /// Something else that passes both ways: TLS that is passed on.
    Tunnel,
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum End {
    /// Both sides said all they had to say.
    Complete,
    /// The client left.
    ClientGone,
    /// The upstream broke off after its head.
    UpstreamCut,
    /// Nothing moved for the idle timeout.
    Idle,
    /// A side took nothing of what waited for it.
    Stalled,
    /// The total time of the route was over.
    TimedOut,
    /// The process is going away.
    Drained,
    /// The stream reached its greatest age.
    MaxAge,
    /// Its endpoint is going away.
    EndpointGone,
    /// Its route was removed.
    RouteRemoved,
    /// The token has expired that it was opened with.
    TokenExpired,
    /// A frame or message was over the limit.
    TooLarge,
    /// A side of a WebSocket sent faster than it may.
    TooFast,
    /// Floodway itself answered.
    Answered,
}

impl Protocol {
    /// As logs and labels have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Protocol::Http10 => "HTTP/1.0",
            Protocol::Http11 => "HTTP/1.1",
            Protocol::Http2 => "HTTP/2",
            Protocol::Tls => "TLS",
        }
    }
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 5] = [Kind::Http, Kind::Sse, Kind::WebSocket, Kind::Grpc, Kind::Tunnel];

    /// As logs and labels have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Http => "http",
            Kind::Sse => "sse",
            Kind::WebSocket => "websocket",
            Kind::Grpc => "grpc",
            Kind::Tunnel => "tunnel",
        }
    }

    /// Whether its duration says something about the client rather than about how fast anybody is.
    pub(super) const fn is_stream(self) -> bool {
        matches!(self, Kind::Sse | Kind::WebSocket | Kind::Tunnel)
    }
}

impl End {
    /// As logs and labels have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            End::Complete => "complete",
            End::ClientGone => "client_gone",
            End::UpstreamCut => "upstream_cut",
            End::Idle => "idle",
            End::Stalled => "stalled",
            End::TimedOut => "timed_out",
            End::Drained => "drained",
            End::MaxAge => "max_age",
            End::EndpointGone => "endpoint_gone",
            End::RouteRemoved => "route_removed",
            End::TokenExpired => "token_expired",
            End::TooLarge => "too_large",
            End::TooFast => "too_fast",
            End::Answered => "answered",
        }
    }
}

/// How a stream went that was there while its process went away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Parted {
    /// It was ended politely.
    Polite,
    /// It came to an end of its own.
    Ended,
    /// It was cut at the deadline.
    Cut,
}

impl Parted {
    /// As labels have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Parted::Polite => "polite",
            Parted::Ended => "ended",
            Parted::Cut => "cut",
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An exchange with every fact.
    pub(crate) fn sample() -> Exchange<'static> {
        Exchange {
            request_id: "r-1",
            trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736"),
            span_id: Some(0x00f0_67aa_0ba9_02b7),
            client: IpAddr::from([192, 0, 2, 1]),
            protocol: Protocol::Http11,
            method: "GET",
            host: "chat.example.com",
            path: "/v1/events",
            tls: Some(Tls {
                version: "1.3",
                cipher: "TLS13_AES_128_GCM_SHA256",
                server_name: Some("chat.example.com"),
                alpn: Some("h2"),
                client_subject: Some("CN=cart"),
                client_fingerprint: Some("00ff"),
            }),
            route: Some("shop/chat"),
            rule: Some("completions"),
            upstream: Some("shop/llm:8080"),
            endpoint: Some(SocketAddr::from(([10, 0, 0, 5], 8080))),
            status: 200,
            reason: None,
            kind: Kind::Sse,
            end: End::ClientGone,
            bytes_received: 0,
            bytes_sent: 1234,
            events: Some(17),
            connect: Some(Duration::from_micros(250)),
            first_byte: Some(Duration::from_micros(12_007)),
            duration: Duration::from_secs(90),
            attempts: 2,
        }
    }
}
