//! What is different for gRPC calls (gRPC over HTTP/2, doc/PROTOCOL-HTTP2.md of the gRPC project): deadlines that the client
//! announces, and failures told as a status of gRPC. Messages are content like any other.

use std::time::Duration;

use http::StatusCode;

use super::body::Body;
use super::error::Error;
use super::fields::{Fields, Known};
use super::message::Response;
use super::reply::REASON;

const GRPC: &[u8] = b"application/grpc";

/// A status code of gRPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Cancelled = 1,
    Unknown = 2,
    DeadlineExceeded = 4,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

/// Whether a request is a gRPC call: 'Content-Type → "content-type" "application/grpc" [("+proto" / "+json" / {custom})]', and
/// what gRPC-Web adds to it.
pub(super) fn is_grpc(fields: &Fields) -> bool {
    fields.get(Known::ContentType).is_some_and(|value| {
        value.len() >= GRPC.len()
            && value[..GRPC.len()].eq_ignore_ascii_case(GRPC)
            && matches!(value.get(GRPC.len()), None | Some(b'+' | b';' | b' ' | b'-'))
    })
}

/// How long the client of a gRPC call waits for its end: 'Timeout → "grpc-timeout" TimeoutValue TimeoutUnit'.
///
/// # Errors
/// One that is not written like that.
pub(super) fn timeout(fields: &Fields) -> Result<Option<Duration>, Error> {
    let mut values = fields.all(Known::GrpcTimeout);
    let Some(value) = values.next().filter(|_| is_grpc(fields)) else { return Ok(None) };
    match (duration(value), values.next()) {
        (Some(timeout), None) => Ok(Some(timeout)),
        _ => Err(Error::BadRequest("grpc-timeout")),
    }
}

/// "TimeoutValue → {positive integer as ASCII string of at most 8 digits}", and a unit: "Hour / Minute / Second / Millisecond /
/// Microsecond / Nanosecond". Clients whose deadline has passed send 0.
fn duration(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count = digits.iter().fold(0, |count, digit| count * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(count * 3600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

/// The answer to a failed call: "Trailers-Only → HTTP-Status Content-Type Trailers", where "HTTP-Status → :status 200".
pub(super) fn failure(error: Error) -> Response {
    let mut response = Response::new(StatusCode::OK, Body::empty());
    let fields = &mut response.head.fields;
    fields.add("content-type", b"application/grpc");
    fields.add("grpc-status", itoa::Buffer::new().format(status(error) as u8).as_bytes());
    // Percent-encoding is for other words than ours.
    fields.add("grpc-message", error.to_string().as_bytes());
    fields.add(REASON, error.reason().as_bytes());
    response
}

/// By doc/http-grpc-status-mapping.md, except where the reason says more than the status of HTTP.
fn status(error: Error) -> Status {
    match error {
        Error::ClientGone => Status::Cancelled,
        Error::SlowHead | Error::HeadTimeout | Error::TryTimeout | Error::Idle | Error::RequestTimeout => {
            Status::DeadlineExceeded
        }
        Error::HeadersTooLarge | Error::BodyTooLarge | Error::RateLimited(..) | Error::TooManyStreams(_) => {
            Status::ResourceExhausted
        }
        Error::InvalidRoute | Error::UpstreamProtocol => Status::Internal,
        _ => match error.status().as_u16() {
            400 => Status::Internal,
            401 => Status::Unauthenticated,
            403 => Status::PermissionDenied,
            404 => Status::Unimplemented,
            429 | 502 | 503 | 504 => Status::Unavailable,
            _ => Status::Unknown,
        },
    }
}

/// The status of HTTP that tells as much as a status of gRPC, by which an endpoint is judged: the mapping of Envoy, where 2, 4, 12,
/// 13, 14 and 15 are failures of the server. `None` for what is no status.
pub(super) fn as_http(status: &[u8]) -> Option<u16> {
    let code: u8 = std::str::from_utf8(status).ok()?.parse().ok()?;
    Some(match code {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        2 | 13 | 15 => 500,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn call(content_type: &str, timeouts: &[&str]) -> Fields {
        let mut fields = Fields::of(&[("content-type", content_type)]);
        timeouts.iter().for_each(|timeout| fields.add("grpc-timeout", timeout.as_bytes()));
        fields
    }

    #[test]
    fn calls_are_told_by_their_type() {
        for (content_type, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("Application/GRPC; charset=x", true),
            ("application/grpc-web+proto", true),
            ("application/grpcx", false),
            ("application/json", false),
        ] {
            assert_eq!(is_grpc(&call(content_type, &[])), expected, "{content_type}");
        }
    }

    #[test]
    fn timeouts_are_read_strictly() {
        for (timeout, expected) in [
            ("1H", 3_600_000_000_000),
            ("2M", 120_000_000_000),
            ("99999999S", 99_999_999_000_000_000),
            ("100m", 100_000_000),
            ("0n", 0),
            ("7u", 7_000),
        ] {
            let read = super::timeout(&call("application/grpc", &[timeout])).unwrap().unwrap();
            assert_eq!(read, Duration::from_nanos(expected), "{timeout}");
        }
        for wrong in ["", "S", "1", "1s", "123456789S", "-1S", "1.5S", " 1S", "1 S", "0x1S"] {
            assert!(super::timeout(&call("application/grpc", &[wrong])).is_err(), "{wrong}");
        }
        assert!(super::timeout(&call("application/grpc", &["1S", "1S"])).is_err());
        assert_eq!(super::timeout(&call("text/plain", &["soon"])).unwrap(), None);
    }

    #[test]
    fn statuses_are_judged_like_those_of_http() {
        let failures: Vec<u8> = (0..=20)
            .filter(|code: &u8| as_http(code.to_string().as_bytes()).is_some_and(|status| status >= 500))
            .collect();
        assert_eq!(failures, [2, 4, 12, 13, 14, 15]);
        assert_eq!((as_http(b"0"), as_http(b"17"), as_http(b""), as_http(b"x")), (Some(200), None, None, None));
    }

    #[test]
    fn failures_have_the_status_that_fits() {
        for (error, expected) in [
            (Error::NoEndpoint, Status::Unavailable),
            (Error::ConnectFailed, Status::Unavailable),
            (Error::ConnectTimeout, Status::Unavailable),
            (Error::UpstreamReset, Status::Unavailable),
            (Error::RequestTimeout, Status::DeadlineExceeded),
            (Error::HeadTimeout, Status::DeadlineExceeded),
            (Error::NoRoute, Status::Unimplemented),
            (Error::InvalidRoute, Status::Internal),
            (Error::BadRequest("grpc-timeout"), Status::Internal),
            (Error::BodyTooLarge, Status::ResourceExhausted),
            (Error::RateLimited(StatusCode::TOO_MANY_REQUESTS, 1), Status::ResourceExhausted),
            (Error::Method, Status::Unknown),
        ] {
            assert_eq!(status(error), expected, "{error}");
        }
    }
}
