//! The clock: Server-Sent Events, one each full second, or one in so many seconds as `every` asks for. The id is the Unix time,
//! so that a client which comes back with `Last-Event-ID` gets what it missed.

use std::convert::Infallible;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::{Stream, stream};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Response, Uri};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

use super::reply::Body;

/// How many missed events are made up for.
const REPLAY: u64 = 30;

/// The endless answer.
pub(super) fn answer(uri: &Uri, headers: &HeaderMap) -> Response<Body> {
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let now = since_epoch().as_secs();
    let mut response = Response::new(StreamBody::new(events(first(last, now), now, every(uri.query()))).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The id to begin with: this second, or what a client that was here before has missed.
fn first(last: Option<u64>, now: u64) -> u64 {
    last.map_or(now, |last| last.saturating_add(1).clamp(now.saturating_sub(REPLAY), now + 1))
}

/// Seconds between events: `every=20`.
fn every(query: Option<&str>) -> u64 {
    let mut fields = query.unwrap_or_default().split('&');
    let asked = fields.find_map(|field| field.strip_prefix("every=")?.parse().ok());
    asked.map_or(1, |seconds: u64| seconds.clamp(1, 3600))
}

fn events(first: u64, connected: u64, every: u64) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> {
    stream::unfold(first, move |id| async move {
        // In a loop, because the wall clock may be set while we sleep.
        loop {
            let wait = Duration::from_secs(id).saturating_sub(since_epoch());
            if wait.is_zero() {
                break;
            }
            tokio::time::sleep(wait.min(Duration::from_secs(1))).await;
        }
        let retry = if id == first { "retry: 1000\n" } else { "" };
        let time = i64::try_from(id).ok().and_then(|id| jiff::Timestamp::from_second(id).ok()).unwrap_or_default();
        let missed = id < connected;
        let event = format!("{retry}id: {id}\nevent: tick\ndata: {{\"time\":\"{time}\",\"missed\":{missed}}}\n\n");
        Some((Ok(Frame::data(Bytes::from(event))), id + every))
    })
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_can_be_asked_for() {
        for (query, expected) in [
            (None, 1),
            (Some("every=20"), 20),
            (Some("a=1&every=5"), 5),
            (Some("every=0"), 1),
            (Some("every=often"), 1),
            (Some("every=99999"), 3600),
        ] {
            assert_eq!(every(query), expected, "{query:?}");
        }
    }

    #[test]
    fn a_client_that_comes_back_gets_what_it_missed() {
        let now = 1_000_000;
        for (last, expected) in [
            (None, now),
            (Some(now - 3), now - 2),
            (Some(now), now + 1),
            (Some(5), now - REPLAY),
            (Some(u64::MAX), now + 1),
        ] {
            assert_eq!(first(last, now), expected, "{last:?}");
        }
    }
}
