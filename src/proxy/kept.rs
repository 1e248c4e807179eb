//! Content of a request that may have to be sent again: what was sent is kept until there is an answer, as long as it is not
//! too much.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use super::body::{Body, Content};
use super::error::Error;

/// A request's content that can be sent again, as long as there was little of it.
#[derive(Debug)]
pub(super) struct Kept(Rc<RefCell<Keeping>>);

#[derive(Debug)]
struct Keeping {
    /// What is still to come, unless someone else sends it now.
    rest: Option<Body>,
    /// What was sent, unless it was too much.
    sent: Option<Vec<Bytes>>,
    trailers: Option<HeaderMap>,
    size: usize,
    limit: usize,
}

impl Kept {
    /// Nothing of `body` was sent yet. No more than `limit` bytes are kept.
    pub(super) fn new(body: Body, limit: usize) -> Self {
        let keeping = Keeping { rest: Some(body), sent: Some(Vec::new()), trailers: None, size: 0, limit };
        Kept(Rc::new(RefCell::new(keeping)))
    }

    /// The same content, for someone else to send.
    pub(super) fn share(&self) -> Self {
        Kept(Rc::clone(&self.0))
    }

    /// The request is answered: nothing is kept any longer.
    pub(super) fn forget(&self) {
        self.0.borrow_mut().sent = None;
    }

    /// Whether its beginning is still there.
    pub(super) fn is_whole(&self) -> bool {
        self.0.borrow().sent.is_some()
    }

    /// Whether all of it was read.
    pub(super) fn is_read(&self) -> bool {
        http_body::Body::is_end_stream(self)
    }

    /// All of it, for someone else to send at the same time, if all of it was read and is still there.
    pub(super) fn copy(&self) -> Option<Body> {
        let Keeping { rest, sent, trailers, .. } = &*self.0.borrow();
        rest.as_ref().filter(|rest| http_body::Body::is_end_stream(*rest))?;
        let (sent, trailers) = (sent.clone()?.into_iter(), trailers.clone());
        Some(Body::stream(Again { sent, trailers, rest: Body::empty() }))
    }

    /// All of it, from its beginning, if that is still there. Whoever else sends it is told that this ended.
    pub(super) fn again(&self) -> Option<Body> {
        let mut keeping = self.0.borrow_mut();
        let sent = keeping.sent.take()?;
        let rest = keeping.rest.take()?;
        if sent.is_empty() && keeping.trailers.is_none() {
            return Some(rest);
        }
        Some(Body::stream(Again { sent: sent.into_iter(), trailers: keeping.trailers.take(), rest }))
    }
}

impl Content for Kept {}

impl http_body::Body for Kept {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut keeping = self.0.borrow_mut();
        let keeping = &mut *keeping;
        let Some(rest) = &mut keeping.rest else { return Poll::Ready(Some(Err(Error::UpstreamReset))) };
        let frame = ready!(Pin::new(rest).poll_frame(cx));
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
            if keeping.size > keeping.limit {
                keeping.sent = None;
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0.borrow().rest.as_ref().is_some_and(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.borrow().rest.as_ref().map_or_else(SizeHint::default, http_body::Body::size_hint)
    }
}

/// Content that is sent again, and what of it was never sent.
struct Again {
    sent: std::vec::IntoIter<Bytes>,
    trailers: Option<HeaderMap>,
    rest: Body,
}

impl Content for Again {}

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
