//! Why an exchange failed. One enum, no catch-all: each failure knows its status, its word for logs and metrics, and
//! whether another endpoint may be tried. How it looks to a client is `reply`'s to say.

use http::StatusCode;

use crate::telemetry::End;

/// A failed exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    /// The request breaks HTTP; the text says which rule.
    #[error("malformed request: {0}")]
    BadRequest(&'static str),
    /// A version of HTTP that is not served.
    #[error("HTTP version not supported")]
    Version,
    /// CONNECT is not served.
    #[error("method not allowed")]
    Method,
    /// An expectation other than 100-continue.
    #[error("expectation not supported")]
    Expectation,
    /// The request head did not come in time.
    #[error("request head timed out")]
    SlowHead,
    /// The request line is too long.
    #[error("request target too long")]
    TargetTooLong,
    /// Too many or too large fields.
    #[error("request head too large")]
    HeadersTooLarge,
    /// The request body is over the limit.
    #[error("request body too large")]
    BodyTooLarge,
    /// The request body stopped or broke its framing.
    #[error("request body incomplete")]
    BodyIncomplete,
    /// The client left.
    #[error("client gone")]
    ClientGone,
    /// No route takes this host and path.
    #[error("no route")]
    NoRoute,
    /// The rule, or the backend it chose, is broken in the configuration.
    #[error("route is not configured correctly")]
    InvalidRoute,
    /// The client's connection is for other hosts.
    #[error("connection is for other hosts")]
    Misdirected,
    /// A policy that the request is under cannot be applied.
    #[error("policy is not configured correctly")]
    InvalidPolicy,
    /// The client's address may not pass.
    #[error("address not allowed")]
    AddressDenied,
    /// The client has to show a certificate, and its connection has none that counts.
    #[error("client certificate missing")]
    CertificateMissing,
    /// The client's certificate is not one of those that may pass.
    #[error("client certificate not allowed")]
    CertificateDenied,
    /// Pages of this origin may not ask.
    #[error("origin not allowed")]
    OriginDenied,
    /// The route does not take this method.
    #[error("method not allowed here")]
    MethodNotAllowed,
    /// The route does not take content of this type.
    #[error("content type not allowed")]
    ContentType,
    /// No user and password were given.
    #[error("user and password are missing")]
    BasicAuthMissing,
    /// The password is not that of the user.
    #[error("user and password are not valid")]
    BasicAuthInvalid,
    /// No key was given.
    #[error("API key is missing")]
    ApiKeyMissing,
    /// Nobody has the key.
    #[error("API key is not valid")]
    ApiKeyInvalid,
    /// The service that is asked who may pass refused, with this status.
    #[error("the service that says who may pass refuses")]
    AuthDenied(StatusCode),
    /// Nobody can say at the moment whether the request may pass.
    #[error("authentication is not available")]
    AuthUnavailable,
    /// A rate limit has no more for the request's key; there is more after so many seconds.
    #[error("rate limit reached")]
    RateLimited(StatusCode, u32),
    /// The request's key has as much under way as it may have.
    #[error("too many requests and streams at once")]
    TooManyStreams(StatusCode),
    /// Nobody can say at the moment whether a rate limit has more for the request's key.
    #[error("rate limit is not available")]
    LimitUnavailable,
    /// The request lacks what a rate limit counts by.
    #[error("request lacks what its limit is counted by")]
    NoRateKey,
    /// The request has to show a token, and shows none.
    #[error("token missing")]
    TokenMissing,
    /// Its token cannot be believed.
    #[error("token not valid")]
    TokenInvalid,
    /// Its token has expired.
    #[error("token expired")]
    TokenExpired,
    /// Its token does not say what it has to.
    #[error("claims do not suffice")]
    ClaimsRefused,
    /// The keys of the issuer of its token could not be fetched.
    #[error("keys are not available")]
    KeysUnavailable,
    /// The rule has no backend with a weight.
    #[error("no backend")]
    NoBackend,
    /// The backend has no endpoint to send to.
    #[error("no endpoint")]
    NoEndpoint,
    /// The upstream has as much to do as it may have, and no more may wait.
    #[error("upstream is at its limits")]
    UpstreamOverflow,
    /// The request waited too long for the upstream to have less to do.
    #[error("waited too long for an upstream at its limits")]
    QueueTimeout,
    /// A circuit breaker is open. Coming back makes sense after so many seconds; 0 if nobody knows.
    #[error("circuit breaker open")]
    BreakerOpen(u32),
    /// The endpoint refused the connection or could not be reached.
    #[error("upstream connection failed")]
    ConnectFailed,
    /// The endpoint did not accept the connection in time.
    #[error("upstream connection timed out")]
    ConnectTimeout,
    /// There is no TLS with the endpoint: a certificate that is not trusted, or nothing in common.
    #[error("upstream TLS failed")]
    UpstreamTls,
    /// The endpoint broke the connection before its head.
    #[error("upstream connection was reset")]
    UpstreamReset,
    /// The endpoint's answer breaks HTTP.
    #[error("upstream answered with something that is not HTTP")]
    UpstreamProtocol,
    /// A WebSocket was asked for, and the endpoint speaks HTTP/2 that carries none.
    #[error("upstream takes no WebSockets over HTTP/2")]
    NoWebSocket,
    /// The endpoint's head did not come in time.
    #[error("upstream response timed out")]
    HeadTimeout,
    /// The endpoint's answer did not begin in the time that one attempt has.
    #[error("upstream took too long")]
    TryTimeout,
    /// The endpoint's head came, but no content in time.
    #[error("upstream content timed out")]
    FirstByteTimeout,
    /// Nothing moved for too long.
    #[error("exchange idle for too long")]
    Idle,
    /// The client sent nothing of its content for too long.
    #[error("request body timed out")]
    UploadIdle,
    /// The client took nothing of what waits for it for too long.
    #[error("client takes nothing")]
    ClientStalled,
    /// The endpoint took nothing of what waits for it for too long.
    #[error("upstream takes nothing")]
    UpstreamStalled,
    /// The whole exchange took longer than the route allows.
    #[error("request timed out")]
    RequestTimeout,
    /// A frame or message of a WebSocket is over the limit.
    #[error("message too large")]
    MessageTooLarge,
    /// A side of a WebSocket sends faster than it may.
    #[error("messages come too fast")]
    TooFast,
    /// The client answered no ping.
    #[error("client answers no ping")]
    ClientSilent,
    /// The endpoint answered no ping.
    #[error("upstream answers no ping")]
    UpstreamSilent,
    /// The endpoint broke off after its head.
    #[error("upstream broke off")]
    UpstreamCut,
    /// The process is going away.
    #[error("shutting down")]
    Draining,
    /// The stream has reached its greatest age.
    #[error("stream reached its greatest age")]
    MaxAge,
    /// The stream's endpoint is going away.
    #[error("endpoint is going away")]
    EndpointGone,
    /// The stream's route was removed.
    #[error("route was removed")]
    RouteRemoved,
    /// The token has expired that the stream was opened with. A WebSocket is closed with this status.
    #[error("token expired")]
    TokenRanOut(u16),
}

impl Error {
    /// The status for a client that has not got a head yet.
    pub(super) fn status(self) -> StatusCode {
        use Error::*;
        match self {
            BadRequest(_) | BodyIncomplete | NoRateKey => StatusCode::BAD_REQUEST,
            RateLimited(status, _) | TooManyStreams(status) => status,
            TooFast => StatusCode::TOO_MANY_REQUESTS,
            Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Method | MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Expectation => StatusCode::EXPECTATION_FAILED,
            SlowHead | UploadIdle | ClientStalled => StatusCode::REQUEST_TIMEOUT,
            TargetTooLong => StatusCode::URI_TOO_LONG,
            HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            BodyTooLarge | MessageTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ClientGone | ClientSilent => CLIENT_CLOSED_REQUEST,
            NoRoute => StatusCode::NOT_FOUND,
            Misdirected => StatusCode::MISDIRECTED_REQUEST,
            InvalidRoute => StatusCode::INTERNAL_SERVER_ERROR,
            AddressDenied | ClaimsRefused | OriginDenied | CertificateMissing | CertificateDenied => {
                StatusCode::FORBIDDEN
            }
            AuthDenied(status) => status,
            TokenMissing | TokenInvalid | TokenExpired | TokenRanOut(_) | BasicAuthMissing | BasicAuthInvalid
            | ApiKeyMissing | ApiKeyInvalid => StatusCode::UNAUTHORIZED,
            InvalidPolicy | AuthUnavailable | LimitUnavailable | KeysUnavailable | NoBackend | NoEndpoint
            | BreakerOpen(_) | UpstreamOverflow | QueueTimeout | Draining | MaxAge | EndpointGone | RouteRemoved => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            ConnectFailed | UpstreamTls | UpstreamReset | UpstreamProtocol | NoWebSocket | UpstreamCut => {
                StatusCode::BAD_GATEWAY
            }
            ConnectTimeout | HeadTimeout | TryTimeout | FirstByteTimeout | Idle | UpstreamStalled | UpstreamSilent
            | RequestTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// The word for metrics, logs and the `x-floodway-reason` field: a closed set, listed in docs/errors.md.
    pub(super) fn reason(self) -> &'static str {
        use Error::*;
        match self {
            BadRequest(_) => "bad_request",
            Version => "http_version",
            Method => "method",
            Expectation => "expectation",
            SlowHead => "slow_head",
            TargetTooLong => "target_too_long",
            HeadersTooLarge => "headers_too_large",
            BodyTooLarge => "body_too_large",
            BodyIncomplete => "body_incomplete",
            ClientGone => "client_gone",
            NoRoute => "no_route",
            Misdirected => "misdirected",
            InvalidRoute => "invalid_route",
            InvalidPolicy => "invalid_policy",
            AddressDenied => "address_denied",
            CertificateMissing => "client_certificate_missing",
            CertificateDenied => "client_certificate_denied",
            OriginDenied => "origin_denied",
            MethodNotAllowed => "method_not_allowed",
            ContentType => "content_type",
            BasicAuthMissing => "basic_auth_missing",
            BasicAuthInvalid => "basic_auth_invalid",
            ApiKeyMissing => "api_key_missing",
            ApiKeyInvalid => "api_key_invalid",
            AuthDenied(_) => "auth_denied",
            AuthUnavailable => "auth_unavailable",
            RateLimited(..) => "rate_limited",
            TooManyStreams(_) => "too_many_streams",
            LimitUnavailable => "rate_limit_unavailable",
            NoRateKey => "no_rate_key",
            TokenMissing => "token_missing",
            TokenInvalid => "token_invalid",
            TokenExpired | TokenRanOut(_) => "token_expired",
            ClaimsRefused => "claims_refused",
            KeysUnavailable => "keys_unavailable",
            NoBackend => "no_backend",
            NoEndpoint => "no_endpoint",
            UpstreamOverflow => "upstream_overflow",
            QueueTimeout => "queue_timeout",
            BreakerOpen(_) => "breaker_open",
            ConnectFailed => "connect_failed",
            ConnectTimeout => "connect_timeout",
            UpstreamTls => "upstream_tls",
            UpstreamReset => "upstream_reset",
            UpstreamProtocol => "upstream_protocol",
            NoWebSocket => "no_websocket",
            HeadTimeout => "head_timeout",
            TryTimeout => "try_timeout",
            FirstByteTimeout => "first_byte_timeout",
            Idle => "idle",
            UploadIdle => "upload_idle",
            ClientStalled => "client_stalled",
            UpstreamStalled => "upstream_stalled",
            RequestTimeout => "request_timeout",
            MessageTooLarge => "message_too_large",
            TooFast => "message_rate",
            ClientSilent | UpstreamSilent => "pong_timeout",
            UpstreamCut => "upstream_cut",
            Draining => "draining",
            MaxAge => "max_age",
            EndpointGone => "endpoint_gone",
            RouteRemoved => "route_removed",
        }
    }

    /// How an exchange ended that was cut for it after its head.
    pub(super) fn end(self) -> End {
        use Error::*;
        match self {
            Idle | UploadIdle | HeadTimeout | TryTimeout | FirstByteTimeout => End::Idle,
            ClientStalled | UpstreamStalled => End::Stalled,
            RequestTimeout => End::TimedOut,
            Draining => End::Drained,
            MaxAge => End::MaxAge,
            EndpointGone => End::EndpointGone,
            RouteRemoved => End::RouteRemoved,
            TokenRanOut(_) => End::TokenExpired,
            MessageTooLarge => End::TooLarge,
            TooFast => End::TooFast,
            ClientGone | ClientSilent | BodyIncomplete => End::ClientGone,
            _ => End::UpstreamCut,
        }
    }

    /// Whether the request leaves it in doubt what follows it on its connection: another server might find its end elsewhere,
    /// or take what follows a CONNECT for a tunnel.
    pub(super) fn casts_doubt(self) -> bool {
        use Error::*;
        match self {
            BadRequest(_) | Version | Method | Expectation | SlowHead | TargetTooLong | HeadersTooLarge
            | BodyTooLarge | BodyIncomplete | ClientGone | UploadIdle | ClientStalled | ClientSilent
            | MessageTooLarge | TooFast => true,
            NoRoute | Misdirected | InvalidRoute | InvalidPolicy | AddressDenied | RateLimited(..)
            | TooManyStreams(_) | LimitUnavailable | NoRateKey | BasicAuthMissing | BasicAuthInvalid
            | ApiKeyMissing | ApiKeyInvalid | AuthDenied(_) | AuthUnavailable | CertificateMissing
            | CertificateDenied | OriginDenied | MethodNotAllowed | ContentType | TokenMissing | TokenInvalid
            | TokenExpired | ClaimsRefused | KeysUnavailable | NoBackend | NoEndpoint | BreakerOpen(_)
            | UpstreamOverflow | QueueTimeout | ConnectFailed | UpstreamTls | ConnectTimeout | UpstreamReset
            | UpstreamProtocol | NoWebSocket | HeadTimeout | TryTimeout | FirstByteTimeout | Idle | UpstreamStalled
            | RequestTimeout | UpstreamSilent | UpstreamCut | Draining | MaxAge | EndpointGone | RouteRemoved
            | TokenRanOut(_) => false,
        }
    }

    /// When the client may come again, in seconds, if that can be said.
    pub(super) fn retry_after(self) -> Option<u32> {
        match self {
            Error::BreakerOpen(seconds @ 1..) => Some(seconds),
            Error::RateLimited(_, seconds) => Some(seconds),
            // Room may come at any time; a client that asks again at once would only wait in line again.
            Error::UpstreamOverflow
            | Error::QueueTimeout
            | Error::TooManyStreams(_)
            | Error::LimitUnavailable
            | Error::AuthUnavailable
            | Error::KeysUnavailable => Some(1),
            _ => None,
        }
    }

    /// Whether the upstream has nobody who could be asked, so that its fallback takes the request.
    pub(super) fn calls_for_fallback(self) -> bool {
        matches!(self, Error::BreakerOpen(_) | Error::NoEndpoint)
    }

    /// Whether the request may go to another endpoint: only if nothing of it was sent.
    pub(super) fn retryable(self) -> bool {
        matches!(self, Error::ConnectFailed | Error::ConnectTimeout | Error::UpstreamTls)
    }
}

/// 499, nginx's word for a client that left before its answer. No client ever sees it.
pub(super) const CLIENT_CLOSED_REQUEST: StatusCode = match StatusCode::from_u16(499) {
    Ok(status) => status,
    Err(_) => StatusCode::BAD_REQUEST,
};
