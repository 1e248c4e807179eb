//! Large files that lie nowhere: `/1GiB` is made while it is sent, the same bytes each time. And a place to upload to.

use std::convert::Infallible;
use std::ops::Range;
use std::sync::LazyLock;

use bytes::Bytes;
use futures_util::stream;
use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use ring::digest::{Context, SHA256};
use serde_json::json;
use tokio::time::Instant;

use super::reply::{self, Body};

/// The content repeats after this many bytes: a prime, so that no block of a power of two looks like the one before.
const PERIOD: usize = 65_521;
/// Bytes per frame.
const CHUNK: usize = 64 * 1024;
/// More than anybody waits for.
const MOST: u64 = 1 << 40;

/// One period and a chunk, so that every chunk is a slice of it and nothing is copied.
static CONTENT: LazyLock<Bytes> = LazyLock::new(|| {
    let mut random = fastrand::Rng::with_seed(1);
    let period = (0..PERIOD).map(|_| random.u8(..)).collect::<Vec<_>>();
    period.iter().copied().cycle().take(PERIOD + CHUNK).collect()
});

/// Downloads by name, uploads at `/upload`.
pub(super) async fn answer(request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path();
    let reading = matches!(*request.method(), Method::GET | Method::HEAD);
    if path == "/upload" {
        return match *request.method() {
            Method::POST | Method::PUT => upload(request.into_body()).await,
            _ => reply::only("POST, PUT"),
        };
    }
    let name = path.trim_start_matches('/');
    match (name.strip_suffix(".sha256"), reading) {
        (_, false) => reply::only("GET, HEAD"),
        (Some(name), true) => match size(name) {
            Some(size) => reply::whole("text/plain", format!("{}  {name}\n", checksum(size).await)),
            None => not_a_size(),
        },
        (None, true) => match size(name) {
            Some(size) => download(request.headers(), size),
            None => not_a_size(),
        },
    }
}

fn not_a_size() -> Response<Body> {
    reply::refusal(StatusCode::NOT_FOUND, "Name a size, like 1GiB, 64MiB, 10KiB or 1000; at most 1024GiB.")
}

/// `1GiB`, `64MiB`, `10KiB` or `1000`, in bytes.
fn size(name: &str) -> Option<u64> {
    let digits = name.bytes().take_while(u8::is_ascii_digit).count();
    let (count, unit) = name.split_at(digits);
    let unit = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    count.parse::<u64>().ok()?.checked_mul(unit).filter(|size| *size <= MOST)
}

fn download(headers: &HeaderMap, size: u64) -> Response<Body> {
    let etag = format!("\"floodway-demo-{size}\"");
    // RFC 9110 13.1.5: a range of another version is not a range of this one.
    let same = headers.get(IF_RANGE).is_none_or(|known| known.as_bytes() == etag.as_bytes());
    let wanted = headers.get(RANGE).filter(|_| same).and_then(|value| value.to_str().ok());
    let (status, range) = match wanted.map_or(Wanted::All, |text| wanted_range(text, size)) {
        Wanted::All => (StatusCode::OK, 0..size),
        Wanted::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Wanted::Nothing => {
            let mut response = reply::refusal(StatusCode::RANGE_NOT_SATISFIABLE, "The file is shorter than that.");
            insert(&mut response, CONTENT_RANGE, format!("bytes */{size}"));
            return response;
        }
    };
    let mut response = Response::new(StreamBody::new(content(range.clone())).boxed_unsync());
    *response.status_mut() = status;
    if status == StatusCode::PARTIAL_CONTENT {
        insert(&mut response, CONTENT_RANGE, format!("bytes {}-{}/{size}", range.start, range.end - 1));
    }
    insert(&mut response, CONTENT_LENGTH, (range.end - range.start).to_string());
    insert(&mut response, CONTENT_TYPE, "application/octet-stream".to_owned());
    insert(&mut response, ACCEPT_RANGES, "bytes".to_owned());
    insert(&mut response, ETAG, etag);
    response
}

fn insert(response: &mut Response<Body>, name: http::HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        response.headers_mut().insert(name, value);
    }
}

/// What a Range field asks for.
#[derive(Debug, PartialEq)]
enum Wanted {
    /// Everything: the field is none of ours, or asks for several ranges, which RFC 9110 14.2 lets a server ignore.
    All,
    Part(Range<u64>),
    /// No byte of the file.
    Nothing,
}

fn wanted_range(text: &str, size: u64) -> Wanted {
    let Some((first, last)) = text.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return Wanted::All;
    };
    let range = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => first..size.min(last.saturating_add(1)),
        (Ok(first), Err(_)) if last.is_empty() => first..size,
        (Err(_), Ok(count)) if first.is_empty() => size.saturating_sub(count)..size,
        _ => return Wanted::All,
    };
    if range.is_empty() { Wanted::Nothing } else { Wanted::Part(range) }
}

/// The bytes at `range`, a slice at a time.
fn content(range: Range<u64>) -> impl futures_util::Stream<Item = Result<Frame<Bytes>, Infallible>> {
    stream::iter(chunks(range).map(|chunk| Ok(Frame::data(chunk))))
}

fn chunks(range: Range<u64>) -> impl Iterator<Item = Bytes> {
    let mut at = range.start;
    std::iter::from_fn(move || {
        let length = usize::try_from(range.end - at).unwrap_or(CHUNK).min(CHUNK);
        let start = usize::try_from(at % PERIOD as u64).ok()?;
        at += length as u64;
        (length > 0).then(|| CONTENT.slice(start..start + length))
    })
}

async fn checksum(size: u64) -> String {
    let mut digest = Context::new(&SHA256);
    for chunk in chunks(0..size) {
        digest.update(&chunk);
        tokio::task::yield_now().await;
    }
    hex(digest)
}

async fn upload(mut body: Incoming) -> Response<Body> {
    let started = Instant::now();
    let mut digest = Context::new(&SHA256);
    let mut bytes = 0_u64;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return reply::refusal(StatusCode::BAD_REQUEST, "The body broke off.") };
        if let Some(data) = frame.data_ref() {
            digest.update(data);
            bytes += data.len() as u64;
        }
    }
    let millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    reply::json(&json!({"bytes": bytes, "sha256": hex(digest), "milliseconds": millis}))
}

fn hex(digest: Context) -> String {
    digest.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_names() {
        for (name, expected) in [
            ("1000", Some(1000)),
            ("10KiB", Some(10_240)),
            ("1GiB", Some(1 << 30)),
            ("1024GiB", Some(MOST)),
            ("1025GiB", None),
            ("99999999999999999999GiB", None),
            ("GiB", None),
            ("1GB", None),
            ("", None),
        ] {
            assert_eq!(size(name), expected, "{name}");
        }
    }

    #[test]
    fn ranges_follow_rfc_9110() {
        for (text, expected) in [
            ("bytes=0-9", Wanted::Part(0..10)),
            ("bytes=90-", Wanted::Part(90..100)),
            ("bytes=-7", Wanted::Part(93..100)),
            ("bytes=-700", Wanted::Part(0..100)),
            ("bytes=50-900", Wanted::Part(50..100)),
            ("bytes=100-", Wanted::Nothing),
            ("bytes=-0", Wanted::Nothing),
            ("bytes=9-1", Wanted::All),
            ("bytes=0-1,5-6", Wanted::All),
            ("lines=0-1", Wanted::All),
        ] {
            assert_eq!(wanted_range(text, 100), expected, "{text}");
        }
    }

    #[test]
    fn a_part_is_a_part_of_the_whole() {
        let bytes = |range: Range<u64>| chunks(range).flatten().collect::<Vec<u8>>();
        let whole = bytes(0..300_000);
        assert_eq!(whole.len(), 300_000);
        assert_eq!(bytes(70_000..200_001), whole[70_000..200_001]);
    }
}
