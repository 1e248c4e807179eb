//! The health protocol of gRPC: `grpc.health.v1.Health/Check` of
//! <https://github.com/grpc/grpc-proto/blob/master/grpc/health/v1/health.proto>. Its two messages have one field each, so that
//! they are written and read by hand.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, TE};
use http::{HeaderMap, Method, StatusCode};

use super::http::authority;
use super::{Io, absolute, broken_http2, driven, http2, request};
use crate::health::failure::Failure;

const METHOD: &str = "/grpc.health.v1.Health/Check";
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// What a server may answer at most; more than a few bytes are fields that nobody knows.
const MOST_MESSAGE: usize = 1024;

const UNREADABLE: Failure = Failure::Broken("not the answer of a gRPC health service");

/// Asks whether `service` serves.
pub(super) async fn ask(
    io: Io,
    address: SocketAddr,
    secure: bool,
    service: &str,
    host: Option<&str>,
    timeout: Duration,
) -> Result<(), Failure> {
    let mut request = request(Method::POST, absolute(METHOD, &authority(host, address), secure)?, None, ());
    let fields = request.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    fields.insert(TE, HeaderValue::from_static("trailers"));
    // At most eight digits: the longest timeout is a minute.
    if let Ok(value) = HeaderValue::from_str(&format!("{}m", timeout.as_millis())) {
        fields.insert(GRPC_TIMEOUT, value);
    }
    let (client, connection) = http2(io).await?;
    let exchange = async {
        let mut client = client.ready().await.map_err(|error| broken_http2(&error))?;
        let (response, mut stream) = client.send_request(request, false).map_err(|error| broken_http2(&error))?;
        stream.send_data(Bytes::from(question(service)), true).map_err(|error| broken_http2(&error))?;
        let (head, mut body) = response.await.map_err(|error| broken_http2(&error))?.into_parts();
        if head.status != StatusCode::OK {
            return Err(Failure::Status(head.status.as_u16()));
        }
        // A failure may come without a message, its status in the head ("Trailers-Only").
        succeeded(&head.headers)?;
        let mut message = Vec::new();
        while let Some(data) = body.data().await {
            let data = data.map_err(|error| broken_http2(&error))?;
            if message.len() + data.len() > MOST_MESSAGE {
                return Err(UNREADABLE);
            }
            message.extend_from_slice(&data);
        }
        let trailers = body.trailers().await.map_err(|error| broken_http2(&error))?.unwrap_or_default();
        succeeded(&trailers)?;
        answered(&message)
    };
    driven(connection, exchange).await
}

/// Whether the call succeeded, as far as these fields tell.
fn succeeded(fields: &HeaderMap) -> Result<(), Failure> {
    match fields.get(GRPC_STATUS).map(|status| status.to_str().map(str::parse::<u8>)) {
        None | Some(Ok(Ok(0))) => Ok(()),
        Some(Ok(Ok(status))) => Err(Failure::GrpcStatus(status)),
        Some(_) => Err(UNREADABLE),
    }
}

/// A `HealthCheckRequest` (`string service = 1`), not compressed, as a message of gRPC: a flag, the length, and the bytes.
fn question(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(1 << 3 | LENGTH_DELIMITED);
        varint(service.len() as u64, &mut message);
        message.extend_from_slice(service.as_bytes());
    }
    let mut framed = vec![0];
    framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    framed.extend_from_slice(&message);
    framed
}

// Wire types of protocol buffers (https://protobuf.dev/programming-guides/encoding).
const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const LENGTH_DELIMITED: u8 = 2;
const FIXED32: u8 = 5;

fn varint(mut value: u64, to: &mut Vec<u8>) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

/// What a framed `HealthCheckResponse` (`ServingStatus status = 1`) says.
fn answered(framed: &[u8]) -> Result<(), Failure> {
    let Some((&[0, a, b, c, d], message)) = framed.split_first_chunk() else { return Err(UNREADABLE) };
    if u32::from_be_bytes([a, b, c, d]) as usize != message.len() {
        return Err(UNREADABLE);
    }
    // "UNKNOWN = 0; SERVING = 1; NOT_SERVING = 2; SERVICE_UNKNOWN = 3"; a field that is absent is 0.
    match status(message).ok_or(UNREADABLE)? {
        1 => Ok(()),
        2 => Err(Failure::NotServing("NOT_SERVING")),
        3 => Err(Failure::NotServing("SERVICE_UNKNOWN")),
        _ => Err(Failure::NotServing("UNKNOWN")),
    }
}

/// The field 1 of a message; the last one counts, and others are passed over. `None` if it is no message.
fn status(mut message: &[u8]) -> Option<u64> {
    let mut status = 0;
    while !message.is_empty() {
        let tag = read_varint(&mut message)?;
        let skipped = match (tag >> 3, (tag & 7) as u8) {
            (field, VARINT) => {
                let value = read_varint(&mut message)?;
                status = if field == 1 { value } else { status };
                0
            }
            (_, FIXED64) => 8,
            (_, LENGTH_DELIMITED) => usize::try_from(read_varint(&mut message)?).ok()?,
            (_, FIXED32) => 4,
            _ => return None,
        };
        message = message.get(skipped..)?;
    }
    Some(status)
}

fn read_varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(message: &[u8]) -> Vec<u8> {
        [&[0], &(message.len() as u32).to_be_bytes()[..], message].concat()
    }

    #[test]
    fn questions_are_written_as_the_encoding_says() {
        assert_eq!(question(""), [0, 0, 0, 0, 0]);
        assert_eq!(question("a.B"), b"\0\0\0\0\x05\x0a\x03a.B");
        let long = question(&"x".repeat(200));
        assert_eq!((long.len(), &long[..8]), (208, &[0, 0, 0, 0, 203, 0x0a, 0xc8, 0x01][..]));
    }

    #[test]
    fn answers_are_read_as_the_encoding_says() {
        assert_eq!(answered(&framed(&[8, 1])), Ok(()));
        for (message, status) in [
            (&[][..], "UNKNOWN"),
            (&[8, 2], "NOT_SERVING"),
            (&[8, 3], "SERVICE_UNKNOWN"),
            (&[8, 0x81, 0x80, 0x01], "UNKNOWN"),
        ] {
            assert_eq!(answered(&framed(message)), Err(Failure::NotServing(status)), "{message:?}");
        }
        // Fields of a later version: a text, a number, and fixed ones.
        let later = [0x12, 2, b'h', b'i', 0x18, 0xff, 0x01, 0x21, 0, 0, 0, 0, 0, 0, 0, 0, 0x2d, 0, 0, 0, 0, 8, 1];
        assert_eq!(answered(&framed(&later)), Ok(()));
    }

    #[test]
    fn what_is_no_answer_is_told_from_one() {
        for wrong in [
            &b""[..],
            b"\0\0\0\0",
            b"\x01\0\0\0\x02\x08\x01",
            b"\0\0\0\0\x03\x08\x01",
            b"\0\0\0\0\x02\x08\x01\0",
            b"\0\0\0\0\x01\x08",
            b"\0\0\0\0\x02\x0b\x01",
            b"\0\0\0\0\x03\x12\x7fa",
            b"\0\0\0\0\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\0\0\0\0\x0a\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        ] {
            assert_eq!(answered(wrong), Err(UNREADABLE), "{wrong:?}");
        }
    }

    #[test]
    fn statuses_of_calls_are_told() {
        let fields = |status: &'static str| HeaderMap::from_iter([(GRPC_STATUS, HeaderValue::from_static(status))]);
        assert_eq!(succeeded(&HeaderMap::new()), Ok(()));
        assert_eq!(succeeded(&fields("0")), Ok(()));
        assert_eq!(succeeded(&fields("12")), Err(Failure::GrpcStatus(12)));
        assert_eq!(succeeded(&fields("twelve")), Err(UNREADABLE));
    }
}
