//! What is read of an attempt that failed, or of an answer that a route may not want.

use std::time::{Duration, SystemTime};

use http::{HeaderValue, StatusCode};

use crate::proxy::error::Error;
use crate::proxy::fields::{Fields, Known};
use crate::proxy::grpc;
use crate::proxy::message::ResponseHead;

/// Why another attempt is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Cause {
    /// There was no connection.
    ConnectFailure,
    /// The connection or stream ended before an answer, or with one that breaks HTTP.
    Reset,
    /// The endpoint says that it made nothing of the request.
    RefusedStream,
    /// There was no answer in time.
    Timeout,
    /// The answer has this status.
    Status(StatusCode),
    /// The answer has this code of gRPC.
    Grpc(u32),
}

impl Cause {
    /// What a failure before an answer is; `unsent` says that certainly nothing was made of the request.
    pub(super) fn of_failure(error: Error, unsent: bool) -> Option<Cause> {
        match error {
            _ if unsent => Some(Cause::RefusedStream),
            Error::ConnectFailed | Error::ConnectTimeout | Error::UpstreamTls => Some(Cause::ConnectFailure),
            Error::UpstreamReset | Error::UpstreamProtocol => Some(Cause::Reset),
            Error::HeadTimeout | Error::FirstByteTimeout | Error::TryTimeout | Error::UpstreamStalled => {
                Some(Cause::Timeout)
            }
            _ => None,
        }
    }

    /// What an answer is that a route may not want. A call of gRPC that ends with its head has its code there.
    pub(super) fn of_answer(ResponseHead { status, fields }: &ResponseHead) -> Option<Cause> {
        if *status == StatusCode::OK && grpc::is_grpc(fields) {
            return fields.text(Known::GrpcStatus)?.parse().ok().map(Cause::Grpc);
        }
        (status.as_u16() >= 400).then_some(Cause::Status(*status))
    }

    /// What the end of a call is that was held until then.
    pub(super) fn of_status(status: &HeaderValue) -> Option<Cause> {
        status.to_str().ok()?.parse().ok().map(Cause::Grpc)
    }

    /// The label of metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Cause::ConnectFailure => "connect_failure",
            Cause::Reset => "reset",
            Cause::RefusedStream => "refused_stream",
            Cause::Timeout => "timeout",
            Cause::Status(_) => "status",
            Cause::Grpc(_) => "grpc",
        }
    }
}

/// How long an endpoint wants to be left alone. RFC 9110 10.2.3: "The Retry-After field value can be either an HTTP-date or a
/// number of seconds to delay after receiving the response."
pub(super) fn retry_after(fields: &Fields, now: SystemTime) -> Option<Duration> {
    let value = fields.text(Known::RetryAfter)?.trim();
    if value.bytes().all(|byte| byte.is_ascii_digit()) && !value.is_empty() {
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::from(u32::MAX))));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let date = httpdate::fmt_http_date(now + Duration::from_secs(7));
        for (value, expected) in [
            ("0", Some(0)),
            ("120", Some(120)),
            ("99999999999999999999", Some(u64::from(u32::MAX))),
            (&date[..], Some(7)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            let found = retry_after(&Fields::of(&[("retry-after", value)]), now);
            assert_eq!(found, expected.map(Duration::from_secs), "{value}");
        }
    }

    #[test]
    fn causes_are_told_from_what_happened() {
        use Error::*;
        for (error, unsent, expected) in [
            (ConnectFailed, false, Some(Cause::ConnectFailure)),
            (ConnectTimeout, false, Some(Cause::ConnectFailure)),
            (UpstreamReset, false, Some(Cause::Reset)),
            (UpstreamProtocol, false, Some(Cause::Reset)),
            (UpstreamReset, true, Some(Cause::RefusedStream)),
            (HeadTimeout, false, Some(Cause::Timeout)),
            (TryTimeout, false, Some(Cause::Timeout)),
            (FirstByteTimeout, false, Some(Cause::Timeout)),
            (UpstreamStalled, false, Some(Cause::Timeout)),
            (RequestTimeout, false, None),
            (ClientGone, false, None),
            (BodyTooLarge, false, None),
            (NoEndpoint, false, None),
        ] {
            assert_eq!(Cause::of_failure(error, unsent), expected, "{error}");
        }
        let answer = |status: u16, fields: &[(&'static str, &str)]| ResponseHead {
            status: StatusCode::from_u16(status).unwrap_or_default(),
            fields: Fields::of(fields),
        };
        let grpc = ("content-type", "application/grpc");
        for (head, expected) in [
            (answer(200, &[]), None),
            (answer(304, &[]), None),
            (answer(404, &[]), Some(Cause::Status(StatusCode::NOT_FOUND))),
            (answer(503, &[grpc]), Some(Cause::Status(StatusCode::SERVICE_UNAVAILABLE))),
            (answer(200, &[grpc]), None),
            (answer(200, &[grpc, ("grpc-status", "14")]), Some(Cause::Grpc(14))),
            (answer(200, &[("grpc-status", "14")]), None),
        ] {
            assert_eq!(Cause::of_answer(&head), expected, "{head:?}");
        }
    }
}
