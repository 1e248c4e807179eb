//! The custom resources: serde and schema types with their CEL rules. No behaviour; what they mean is `translate`'s to
//! say.

mod action;
mod cel;
mod common;
mod crds;
mod nearest;
mod policy;
mod retry;
mod route;
mod rules;
mod streaming;
mod tls;
mod upstream;
mod validate;

pub use action::{Header, HeaderEdits, PathRewrite, PathRewriteType, Redirect, Respond, Rewrite, Scheme, Timeouts};
pub use common::{Condition, TargetRef};
pub use crds::{CRD_FILES, crds, crds_yaml};
pub use nearest::nearest;
pub use policy::{
    ANSWER_REASONS, AUTH_TIMEOUT, AddressKey, ApiKey, BasicAuth, CLOCK_SKEW, ClaimToHeader, ClientCertificate,
    ClientName, Compression, Cors, ErrorPage, ExternalAuth, Frames, FramesFrom, Headers, IpAccess, Issuer, Jwks, Jwt,
    JwtAlgorithm, MAX_STALE, MESSAGE_PERIOD, MIRROR_TIMEOUT, MessageLimit, Mirror, OnAuthFailure, OnExcess, OnExpiry,
    OnFailure, OnMissingKey, PolicyRef, PolicyStatus, PolicyTarget, PolicyTargetKind, ProxyPolicy, ProxyPolicySpec,
    RATE_PERIOD, RateKey, RateLimit, ReferrerPolicy, RequestLimits, RequiredClaim, Scope, SecurityHeaders, StreamLimit,
    Tell, TokenSource,
};
pub use retry::{BACKOFF, Backoff, GRPC_CODES, Hedge, Retry, RetryBudget, RetryMethods};
pub use route::{
    Backend, HeaderMatch, MatchType, Method, PathMatch, PathMatchType, ProxyRoute, ProxyRouteSpec, QueryMatch,
    RouteMatch, RouteStatus, Rule, ServicePort, ServiceRef, UpstreamRef,
};
pub use rules::UNEDITABLE_HEADERS;
pub use streaming::{HEARTBEAT, MAX_AGE, PING, PingTarget, RETRY, Sse, Streaming, TimeBounds, WebSocket};
pub use tls::{
    ClientCertificateHeaders, ClientCertificateMode, ClientCertificates, ExpiredList, HSTS_AGE, Hsts, Revocation,
    RevocationScope, RouteTls, TlsVersion,
};
pub use upstream::{
    ADAPTIVE_WINDOW, ActiveCheck, Adaptive, AfterHalfOpen, Algorithm, BreakerMode, BreakerWindow, CALL, CHECK_INTERVAL,
    CHECK_THRESHOLD, CHECK_TIMEOUT, CONNECTION_AGE, COOKIE_TTL, CheckMethod, CircuitBreaker, Connections, CookieKey,
    DrainMode, EJECTION, EJECTION_INTERVAL, Endpoint, EndpointDrain, Fallback, GrpcCheck, HashKey, HealthCheck,
    HttpCheck, InitialState, IssuedCookie, Limits, LoadBalancing, Locality, PENDING_TIMEOUT, PING_TIMEOUT, Passive,
    Protocol, ProxyProtocol, ProxyUpstream, ProxyUpstreamSpec, SLOW_START, STAGGER, STATE, SameSite, Subset,
    SubsetFallback, TABLE_SIZES, TcpCheck, UpstreamStatus, UpstreamTls, WINDOW, WebSocketCheck,
};
pub use validate::{Violation, structure, validate};

/// The API group of every object.
pub const GROUP: &str = "floodway.dev";
/// The class a route belongs to when it does not say.
pub const DEFAULT_CLASS: &str = "floodway";
