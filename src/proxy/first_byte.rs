//! Holding back the head of an answer until its content begins, or is whole, where a route asks for it: an endpoint that breaks
//! off before is as good as one that never answered, and so may be a call that failed. Who is asked then is `attempts`' to say.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout_at};

use super::body::{Body, Content};
use super::error::Error;
use super::exchange::Exchange;
use super::grpc;
use super::upstream::Answer;
use crate::snapshot::{Retry, Streaming};

/// What is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hold {
    /// The first byte of every answer's content.
    pub first_byte: bool,
    /// All of the content, if its length is known and at most this.
    pub whole: u64,
    /// All of an answer to a call of gRPC, too, whose length nobody tells, if it comes within [`MOMENT`].
    pub calls: bool,
}

/// How long an answer of gRPC is held that may be a short one: its trailers say whether the call failed. A stream, which
/// nothing tells from it, and whose client may wait for its head before it says a word, loses no more than this, once.
const MOMENT: Duration = Duration::from_millis(50);

/// An answer that was held for as long as was asked for.
#[derive(Debug)]
pub(super) struct Held {
    /// The answer. Nothing of it is lost.
    pub answer: Answer,
    /// What its trailers say became of a call, if all of it was held.
    pub status: Option<HeaderValue>,
}

impl Hold {
    /// What is asked for; `None` for nothing.
    pub(super) fn asked_by(streaming: Option<&Streaming>, retry: Option<&Retry>) -> Option<Hold> {
        let first_byte = streaming.is_some_and(|streaming| streaming.hold_first_byte);
        let whole = retry.map_or(0, |retry| retry.hold_bytes);
        let calls = whole > 0 && retry.is_some_and(|retry| retry.on.grpc != 0);
        (first_byte || whole > 0).then_some(Hold { first_byte, whole, calls })
    }
}

/// Waits for the first byte of an answer's content, for all of it, or for its end.
///
/// # Errors
/// Why there is none: the endpoint broke off, or a clock ran out.
pub(super) async fn awaited(mut answer: Answer, hold: Hold, exchange: &Exchange) -> Result<Held, Error> {
    let mut status = None;
    if answer.takeover.is_none() {
        let body = std::mem::take(&mut answer.response.body);
        let calls = hold.calls && grpc::is_grpc(&answer.response.head.fields);
        (answer.response.body, status) = begun(body, Hold { calls, ..hold }, exchange).await?;
    }
    Ok(Held { answer, status: status.filter(|_| hold.calls) })
}

async fn begun(mut body: Body, hold: Hold, exchange: &Exchange) -> Result<(Body, Option<HeaderValue>), Error> {
    let length = body.size_hint().exact();
    let whole = length.is_some_and(|length| length <= hold.whole);
    let moment = (length.is_none() && hold.calls).then(|| Instant::now() + MOMENT);
    if body.is_end_stream() || !whole && moment.is_none() && !hold.first_byte {
        return Ok((body, None));
    }
    exchange.awaits_content();
    let reading = async {
        let (mut first, mut size) = (VecDeque::new(), 0);
        loop {
            let frame = match moment {
                Some(until) if !hold.first_byte || !first.is_empty() => {
                    let Ok(frame) = timeout_at(until, body.frame()).await else { break };
                    frame
                }
                _ => body.frame().await,
            };
            let Some(frame) = frame.transpose()? else { break };
            let data = frame.data_ref();
            if data.is_none_or(|data| !data.is_empty()) {
                // What is kept of the smallest frame is more than its content.
                size += data.map_or(0, |data| data.len().max(size_of::<Frame<Bytes>>()) as u64);
                first.push_back(frame);
                if !whole && (moment.is_none() || size > hold.whole) {
                    break;
                }
            }
        }
        Ok(first)
    };
    let read = exchange.within(pin!(reading)).await.flatten();
    match read {
        Ok(first) if first.is_empty() => Ok((body, None)),
        Ok(first) => {
            let trailers = first.back().and_then(Frame::trailers_ref);
            let status = trailers.and_then(|trailers| trailers.get("grpc-status")).cloned();
            Ok((Body::stream(Begun { first, rest: body }), status))
        }
        // The client got nothing of it.
        Err(Error::UpstreamCut) => Err(Error::UpstreamReset),
        Err(error) => Err(error),
    }
}

/// Content whose beginning was read already.
struct Begun {
    first: VecDeque<Frame<Bytes>>,
    rest: Body,
}

impl Content for Begun {}

impl HttpBody for Begun {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.first.pop_front() {
            Some(first) => Poll::Ready(Some(Ok(first))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let first = self.first.iter().filter_map(Frame::data_ref).map(|data| data.len() as u64).sum::<u64>();
        let rest = self.rest.size_hint();
        let mut all = SizeHint::new();
        all.set_lower(rest.lower() + first);
        if let Some(upper) = rest.upper() {
            all.set_upper(upper + first);
        }
        all
    }
}
