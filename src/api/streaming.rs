//! What a rule of a ProxyRoute asks for streams: how they are kept alive, how long they may last, how they end. Timers that
//! every exchange has are `action::Timeouts`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules::{duration, duration_within, rules};

/// The shortest and the longest time that a field takes. Translation holds objects from files to the same.
pub type TimeBounds = (&'static str, &'static str);

/// Of `streaming.maxAge`.
pub const MAX_AGE: TimeBounds = ("1s", "8760h");
/// Of `streaming.sse.heartbeat`.
pub const HEARTBEAT: TimeBounds = ("1s", "1h");
/// Of `streaming.sse.retry`.
pub const RETRY: TimeBounds = ("100ms", "1h");
/// Of `streaming.webSocket.pingInterval` and `pongTimeout`.
pub const PING: TimeBounds = ("1s", "1h");

/// How streams are kept alive and ended. Durations are written like `30s`, `1m30s` or `500ms`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Streaming {
    /// The age at which a stream is ended politely, so that its client comes back: an event stream between two events, a
    /// WebSocket with a close frame, a gRPC stream with a status. For example `1h`; no bound when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration_within(MAX_AGE)))]
    pub max_age: Option<String>,
    /// How long streams run on after their rule was removed, until they are ended politely; for example `1m`. They run until they
    /// end by themselves when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration()))]
    pub removal_grace: Option<String>,
    /// Whether the head of the response waits for the first byte of its content. If the endpoint breaks off before, another
    /// one is asked if the request has no content and its method may be repeated; otherwise the client gets a 502 instead of
    /// a broken answer. Leave it off where the head alone tells clients something.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hold_first_byte: bool,
    /// Server-Sent Events: responses of type `text/event-stream` without a content coding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sse: Option<Sse>,
    /// WebSockets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub web_socket: Option<WebSocket>,
}

/// Server-Sent Events.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sse {
    /// Silence after which a comment is sent to the client, always between two events, for example `15s`; none is sent when
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration_within(HEARTBEAT)))]
    pub heartbeat: Option<String>,
    /// How long clients wait before they come back, sent as a `retry:` line before Floodway ends a stream; for example `3s`.
    /// None is sent when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration_within(RETRY)))]
    pub retry: Option<String>,
}

/// WebSockets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([
    (
        "has(self.pingInterval) || !(has(self.pongTimeout) || has(self.pingTarget))",
        "pongTimeout and pingTarget say more of pings: they need a pingInterval, for example 30s",
    ),
    (
        "!has(self.maxFrameBytes) || !has(self.maxMessageBytes) || self.maxFrameBytes <= self.maxMessageBytes",
        "a frame is part of a message: maxFrameBytes cannot be more than maxMessageBytes",
    ),
])))]
pub struct WebSocket {
    /// Silence from a side after which it is sent a ping, for example `30s`; none is sent when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration_within(PING)))]
    pub ping_interval: Option<String>,
    /// How long the answer to a ping may take until the WebSocket is ended, for example `5s`; `10s` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration_within(PING)))]
    pub pong_timeout: Option<String>,
    /// Who is sent pings: `Client` (when absent), `Endpoint` or `Both`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ping_target: Option<PingTarget>,
    /// The most bytes in the payload of a frame, either way, for example `1048576`; a larger one ends the WebSocket with
    /// status 1009. No bound when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 125, max = 2_147_483_647))]
    pub max_frame_bytes: Option<u32>,
    /// The most bytes in a message, over all its frames, either way, for example `16777216`; a larger one ends the WebSocket
    /// with status 1009. No bound when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 125, max = 2_147_483_647))]
    pub max_message_bytes: Option<u32>,
}

/// Who is sent pings: `Client` (when absent), `Endpoint` or `Both`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PingTarget {
    /// The client.
    Client,
    /// The endpoint.
    Endpoint,
    /// Both.
    Both,
}
