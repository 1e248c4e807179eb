//! Active health: how endpoints are asked whether they are well.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Protocol;
use crate::api::action::Header;
use crate::api::rules::{duration_within, host, rules, texts};
use crate::api::streaming::TimeBounds;

/// Of `healthCheck.active.interval` and `unhealthyInterval`.
pub const CHECK_INTERVAL: TimeBounds = ("100ms", "1h");
/// Of `healthCheck.active.timeout`.
pub const CHECK_TIMEOUT: TimeBounds = ("10ms", "1m");
/// Of `healthyThreshold` and `unhealthyThreshold` of `healthCheck.active`.
pub const CHECK_THRESHOLD: (u32, u32) = (1, 100);

/// A check that each Floodway makes of each endpoint, once, however many routes lead there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([
    (
        "[has(self.http), has(self.tcp), has(self.grpc), has(self.webSocket)].exists_one(it, it)",
        "a health check needs exactly one of http, tcp, grpc and webSocket, for example http: {path: /healthz}",
    ),
    (
        "!has(self.unhealthyInterval) || \
         duration(self.unhealthyInterval) <= duration(has(self.interval) ? self.interval : '5s')",
        "unhealthyInterval is for seeing sooner that an endpoint is well again: it cannot be more than interval, which \
         is 5s when absent",
    ),
])))]
pub struct ActiveCheck {
    /// A request, and the answer that is expected; for example `{path: /healthz}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,
    /// A connection that is accepted: `{}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpCheck>,
    /// The health protocol of gRPC, `grpc.health.v1.Health/Check`; for example `{service: shop.Cart}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcCheck>,
    /// The opening handshake of a WebSocket, which is closed at once; for example `{path: /ws}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub web_socket: Option<WebSocketCheck>,
    /// The port that is asked; that of the endpoint when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// Time from the beginning of a check to that of the next, for example `10s`; `5s` when absent. It varies by a tenth, so
    /// that checks do not come all at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration_within(CHECK_INTERVAL)))]
    pub interval: Option<String>,
    /// The same while the endpoint is unhealthy, for example `1s`; as `interval` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration_within(CHECK_INTERVAL)))]
    pub unhealthy_interval: Option<String>,
    /// Time for a check as a whole, the connection included, for example `500ms`; `1s` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration_within(CHECK_TIMEOUT)))]
    pub timeout: Option<String>,
    /// How many checks must pass one after the other until an unhealthy endpoint gets requests again; 2 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub healthy_threshold: Option<u32>,
    /// How many checks must fail one after the other until an endpoint gets no more requests; 3 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub unhealthy_threshold: Option<u32>,
    /// Whether nothing is asked while the upstream has no requests and no streams. Checks begin again within an interval of
    /// the next request; what is known of the endpoints holds until then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub only_with_traffic: bool,
    /// `Healthy` (when absent): a new endpoint gets requests until checks fail. `Unhealthy`: it gets none until its first check
    /// has passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_state: Option<InitialState>,
}

/// A request, and the answer that is expected. Redirects are not followed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([(
    "!has(self.expectedBody) || !has(self.method) || self.method != 'HEAD'",
    "the answer to HEAD has no content: expectedBody needs the method GET",
)])))]
pub struct HttpCheck {
    /// Path and query, for example `/healthz`; `/` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), extend("x-kubernetes-validations" = path()))]
    pub path: Option<String>,
    /// `GET` (when absent) or `HEAD`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<CheckMethod>,
    /// The `Host` that the endpoint sees, for example `shop.internal`; the address that is asked when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = host()))]
    pub host: Option<String>,
    /// Further fields of the request, for example `[{name: x-check, value: "1"}]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub headers: Vec<Header>,
    /// Statuses that are well, each one status or a range, for example `["200", "300-399"]`; `["200-299"]` when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 16),
        extend(
            "items" = texts(7, rules([(
                "self.matches('^[2-5][0-9][0-9](-[2-5][0-9][0-9])?$') && \
                 (self.size() == 3 || self.substring(0, 3) <= self.substring(4, 7))",
                "write a status from 200 to 599, or a range from the lower to the higher one, for example '200' or '200-299'",
            )])),
            "x-kubernetes-list-type" = "set"
        )
    )]
    pub expected_statuses: Vec<String>,
    /// What must be in the first 64 KiB of the content, for example `"status":"up"`; the content does not matter when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub expected_body: Option<String>,
    /// What is spoken: `Http1`, `Http2`, or what the upstream speaks (`Auto`, or absent).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
}

/// A connection that is accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TcpCheck {}

/// The health protocol of gRPC, over HTTP/2 in cleartext.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GrpcCheck {
    /// The service that is asked for, for example `shop.Cart`; the server as a whole when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        extend("x-kubernetes-validations" = rules([(
            "self.matches('^[!-~]+$')",
            "write the name of a service without spaces, for example 'shop.Cart'",
        )]))
    )]
    pub service: Option<String>,
    /// The authority that the endpoint sees, for example `cart.internal`; the address that is asked when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = host()))]
    pub host: Option<String>,
}

/// The opening handshake of a WebSocket, over HTTP/1.1.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebSocketCheck {
    /// Path and query, for example `/ws`; `/` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), extend("x-kubernetes-validations" = path()))]
    pub path: Option<String>,
    /// The `Host` that the endpoint sees, for example `chat.internal`; the address that is asked when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = host()))]
    pub host: Option<String>,
    /// Further fields of the request, for example `[{name: sec-websocket-protocol, value: chat}]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub headers: Vec<Header>,
}

/// The method of a check: `GET` (when absent) or `HEAD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum CheckMethod {
    /// The answer has content.
    Get,
    /// The answer has none.
    Head,
}

/// What a new endpoint is taken for: `Healthy` (when absent) or `Unhealthy`, until its first check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum InitialState {
    /// It gets requests until checks fail.
    Healthy,
    /// It gets none until its first check has passed.
    Unhealthy,
}

/// A path as clients ask for it.
fn path() -> serde_json::Value {
    rules([(
        "self.startsWith('/') && self.matches('^[!-;=?-_a-~]+$') && !self.contains('#')",
        "write a path that begins with '/', with a query if need be and without spaces, for example '/healthz?full=1'",
    )])
}
