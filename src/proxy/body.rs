//! The body type of the data plane: what phases see of a message's content, whoever reads it from the network.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::error::Error;
use super::pipes::Piped;

/// Content, frame by frame. Workers own their connections, so nothing here crosses threads.
#[derive(Default)]
pub(super) struct Body(Inner);

#[derive(Default)]
enum Inner {
    #[default]
    Empty,
    Full(Option<Bytes>),
    Stream(Pin<Box<dyn Content>>),
}

/// Content that comes as it comes.
pub(super) trait Content: HttpBody<Data = Bytes, Error = Error> {
    /// Has the next of it go into `piped` instead of into a frame, unseen: ready with its length, which is not 0. `None` if it has
    /// to be seen, or there is little left of it.
    fn poll_piped(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        _piped: &mut Piped,
    ) -> Option<Poll<Result<usize, Error>>> {
        None
    }
}

impl Body {
    /// No content.
    pub(super) fn empty() -> Self {
        Body(Inner::Empty)
    }

    /// Content that is known as a whole.
    pub(super) fn full(bytes: Bytes) -> Self {
        if bytes.is_empty() { Body::empty() } else { Body(Inner::Full(Some(bytes))) }
    }

    /// Content that comes as it comes.
    pub(super) fn stream(stream: impl Content + 'static) -> Self {
        Body(Inner::Stream(Box::pin(stream)))
    }

    /// As content's.
    pub(super) fn poll_piped(&mut self, cx: &mut Context<'_>, piped: &mut Piped) -> Option<Poll<Result<usize, Error>>> {
        match &mut self.0 {
            Inner::Stream(stream) => stream.as_mut().poll_piped(cx, piped),
            _ => None,
        }
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            Inner::Empty => "Body(empty)",
            Inner::Full(_) => "Body(full)",
            Inner::Stream(_) => "Body(stream)",
        })
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &mut self.get_mut().0 {
            Inner::Empty => Poll::Ready(None),
            Inner::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Inner::Stream(stream) => stream.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Empty => true,
            Inner::Full(bytes) => bytes.is_none(),
            Inner::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Empty => SizeHint::with_exact(0),
            Inner::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Inner::Stream(stream) => stream.size_hint(),
        }
    }
}
