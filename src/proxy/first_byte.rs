//! Holding back the head of an answer until its content begins, or is whole, where a route asks for it: an endpoint that breaks
//! off before is as good as one that never answered. Who is asked then is `attempts`' to say.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;

use super::body::Body;
use super::error::Error;
use super::exchange::Exchange;
use super::upstream::Answer;
use crate::snapshot::Forward;

/// What is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hold {
    /// The first byte of every answer's content.
    pub first_byte: bool,
    /// All of the content, if its length is known and at most this.
    pub whole: u64,
}

impl Hold {
    /// What a route asks for; `None` for nothing.
    pub(super) fn asked_by(action: &Forward) -> Option<Hold> {
        let first_byte = action.streaming.as_ref().is_some_and(|streaming| streaming.hold_first_byte);
        let whole = action.retry.as_ref().map_or(0, |retry| retry.hold_bytes);
        (first_byte || whole > 0).then_some(Hold { first_byte, whole })
    }
}

/// Waits for the first byte of an answer's content, for all of it, or for its end.
///
/// # Errors
/// Why there is none: the endpoint broke off, or a clock ran out.
pub(super) async fn awaited(mut answer: Answer, hold: Hold, exchange: &Exchange) -> Result<Answer, Error> {
    if answer.takeover.is_none() {
        let body = std::mem::take(&mut answer.response.body);
        answer.response.body = begun(body, hold, exchange).await?;
    }
    Ok(answer)
}

async fn begun(mut body: Body, hold: Hold, exchange: &Exchange) -> Result<Body, Error> {
    let whole = body.size_hint().exact().is_some_and(|length| length <= hold.whole);
    if body.is_end_stream() || !whole && !hold.first_byte {
        return Ok(body);
    }
    exchange.awaits_content();
    let reading = async {
        let mut first = VecDeque::new();
        while let Some(frame) = body.frame().await.transpose()? {
            if frame.data_ref().is_none_or(|data| !data.is_empty()) {
                first.push_back(frame);
                if !whole {
                    break;
                }
            }
        }
        Ok(first)
    };
    let read = exchange.within(pin!(reading)).await.flatten();
    match read {
        Ok(first) if first.is_empty() => Ok(body),
        Ok(first) => Ok(Body::stream(Begun { first, rest: body })),
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
