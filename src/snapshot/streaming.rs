//! What is done with streams: how they are kept alive, how long they may last, and how they end. Timers that every
//! exchange has are [`super::Timeouts`].

use std::time::Duration;

use serde::Serialize;

/// How the streams of a route are kept alive and ended. The default asks for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Streaming {
    /// The age at which a stream is ended politely: an event stream between events, a WebSocket with a close frame, a gRPC
    /// stream with a status. `None` has no bound.
    pub max_age: Option<Duration>,
    /// How long streams run on after their route was removed, until they are ended politely. `None` lets them run.
    pub removal_grace: Option<Duration>,
    /// Whether the answer's head waits for its first byte of content, so that until then another endpoint may be tried.
    pub hold_first_byte: bool,
    /// Server-Sent Events.
    pub sse: Sse,
    /// WebSockets.
    pub web_socket: WebSocket,
}

/// Server-Sent Events (`text/event-stream`, unencoded).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sse {
    /// Silence after which a comment is sent, between events. `None` sends none.
    pub heartbeat: Option<Duration>,
    /// Sent as a `retry:` line before Floodway ends a stream: how long clients wait before they come back. `None` sends none.
    pub retry: Option<Duration>,
}

/// WebSockets (RFC 6455).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WebSocket {
    /// Pings, if any are sent.
    pub ping: Option<Ping>,
    /// The largest payload of a frame in bytes; a larger one ends the WebSocket with 1009. `None` has no bound.
    pub max_frame: Option<u64>,
    /// The largest payload of a message in bytes, over all its frames; a larger one ends the WebSocket with 1009. `None` has
    /// no bound.
    pub max_message: Option<u64>,
}

/// Pings that Floodway sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Ping {
    /// Silence from a side after which it is pinged.
    pub interval: Duration,
    /// How long its pong may take, or anything else it sends, until the WebSocket is ended.
    pub timeout: Duration,
    /// Who is pinged.
    pub target: PingTarget,
}

/// Who is pinged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum PingTarget {
    /// The client.
    #[default]
    Client,
    /// The endpoint.
    Endpoint,
    /// Both.
    Both,
}
