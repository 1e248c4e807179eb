//! Content of a request that an endpoint may turn away unread: the beginning is kept until there is an answer, so that the
//! request can be sent again.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use crate::proxy::body::Body;
use crate::proxy::error::Error;

/// Bytes of a request that are kept until it is answered, in case that it must be sent again.
const KEPT: usize = 64 * 1024;

/// A request's content that can be sent again, as long as there was little of it.
#[derive(Debug)]
pub(super) struct Kept(Rc<RefCell<Keeping>>);

#[derive(Debug)]
struct Keeping {
    rest: Body,
    /// What was sent, unless it was too much.
    sent: Option<Vec<Bytes>>,
    trailers: Option<HeaderMap>,
    size: usize,
}

impl Kept {
    /// Nothing of `body` was sent yet.
    pub(super) fn new(body: Body) -> Self {
        Kept(Rc::new(RefCell::new(Keeping { rest: body, sent: Some(Vec::new()), trailers: None, size: 0 })))
    }

    /// The same content, for someone else to send.
    pub(super) fn share(&self) -> Self {
        Kept(Rc::clone(&self.0))
    }

    /// The request is answered: nothing is kept any longer.
    pub(super) fn forget(&self) {
        self.0.borrow_mut().sent = None;
    }

    /// All of it, from its beginning, if that is still there.
    pub(super) fn again(self) -> Option<Body> {
        let mut keeping = self.0.borrow_mut();
        let sent = keeping.sent.take()?;
        let rest = std::mem::take(&mut keeping.rest);
        if sent.is_empty() && keeping.trailers.is_none() {
            return Some(rest);
        }
        Some(Body::stream(Again { sent: sent.into_iter(), trailers: keeping.trailers.take(), rest }))
    }
}

impl http_body::Body for Kept {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut keeping = self.0.borrow_mut();
        let keeping = &mut *keeping;
        let frame = ready!(Pin::new(&mut keeping.rest).poll_frame(cx));
        if let Some(sent) = &mut keeping.sent {
            match &frame {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        keeping.size += data.len();
                        sent.push(data.clone());
                    }
                    keeping.trailers = frame.trailers_ref().cloned();
                }
                Some(Err(_)) => keeping.sent = None,
                None => {}
            }
            if keeping.size > KEPT {
                keeping.sent = None;
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0.borrow().rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.borrow().rest.size_hint()
    }
}

/// Content that is sent again, and what of it was never sent.
struct Again {
    sent: std::vec::IntoIter<Bytes>,
    trailers: Option<HeaderMap>,
    rest: Body,
}

impl http_body::Body for Again {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Some(data) = self.sent.next() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let Some(trailers) = self.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        Pin::new(&mut self.rest).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.sent.as_slice().is_empty() && self.trailers.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let sent: u64 = self.sent.as_slice().iter().map(|data| data.len() as u64).sum();
        match self.rest.size_hint().exact() {
            Some(rest) => SizeHint::with_exact(sent + rest),
            None => SizeHint::default(),
        }
    }
}
