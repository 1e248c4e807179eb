//! Holding back the head of an answer until its content begins, where a route asks for it: an endpoint that breaks off before
//! is as good as one that never answered. Who is asked then is `attempts`' to say.

use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;

use super::body::Body;
use super::error::Error;
use super::exchange::Exchange;
use super::upstream::Answer;

/// Waits for the first byte of an answer's content, or for its end.
///
/// # Errors
/// Why there is none: the endpoint broke off, or a clock ran out.
pub(super) async fn awaited(mut answer: Answer, exchange: &Exchange) -> Result<Answer, Error> {
    if answer.takeover.is_none() {
        let body = std::mem::take(&mut answer.response.body);
        answer.response.body = begun(body, exchange).await?;
    }
    Ok(answer)
}

async fn begun(mut body: Body, exchange: &Exchange) -> Result<Body, Error> {
    if body.is_end_stream() {
        return Ok(body);
    }
    exchange.awaits_content();
    let first = async {
        while let Some(frame) = body.frame().await.transpose()? {
            if frame.data_ref().is_none_or(|data| !data.is_empty()) {
                return Ok(Some(frame));
            }
        }
        Ok(None)
    };
    match exchange.within(pin!(first)).await.flatten() {
        Ok(Some(first)) => Ok(Body::stream(Begun { first: Some(first), rest: body })),
        Ok(None) => Ok(body),
        // The client got nothing of it.
        Err(Error::UpstreamCut) => Err(Error::UpstreamReset),
        Err(error) => Err(error),
    }
}

/// Content whose beginning was read already.
struct Begun {
    first: Option<Frame<Bytes>>,
    rest: Body,
}

impl HttpBody for Begun {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(Ok(first))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let first = self.first.as_ref().and_then(Frame::data_ref).map_or(0, |data| data.len() as u64);
        let rest = self.rest.size_hint();
        let mut all = SizeHint::new();
        all.set_lower(rest.lower() + first);
        if let Some(upper) = rest.upper() {
            all.set_upper(upper + first);
        }
        all
    }
}
