//! The request's content on its way to the endpoint: counted, bounded, and its end noticed.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::body::{Body, Content};
use super::clocks::Flow;
use super::error::Error;
use super::exchange::Exchange;
use super::headers;
use super::pipes::Piped;

/// A request's content.
#[derive(Debug)]
pub(super) struct Upload {
    body: Body,
    exchange: Rc<Exchange>,
    failure: Rc<Cell<Option<Error>>>,
}

impl Upload {
    /// Content of at most as many bytes as its exchange may have.
    pub(super) fn new(body: Body, exchange: Rc<Exchange>) -> Self {
        Upload { body, exchange, failure: Rc::default() }
    }

    /// Why it could not be read to its end, once that is known.
    pub(super) fn failure(&self) -> Rc<Cell<Option<Error>>> {
        Rc::clone(&self.failure)
    }

    fn count(&self, bytes: usize) -> Result<(), Error> {
        self.exchange.uploaded(bytes);
        if self.exchange.is_too_much(self.exchange.bytes_received()) { Err(Error::BodyTooLarge) } else { Ok(()) }
    }

    fn fail(&self, error: Error) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.failure.set(Some(error));
        Poll::Ready(Some(Err(error)))
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            self.exchange.upload_waits(Flow::Source);
            return Poll::Pending;
        };
        match frame {
            None => {
                self.exchange.upload_waits(Flow::Sink);
                self.exchange.request_sent();
                Poll::Ready(None)
            }
            Some(Err(error)) => self.fail(error),
            Some(Ok(mut frame)) => {
                headers::clean_trailers(&mut frame);
                if let Some(data) = frame.data_ref()
                    && let Err(error) = self.count(data.len())
                {
                    return self.fail(error);
                }
                if self.body.is_end_stream() {
                    self.exchange.request_sent();
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Content for Upload {
    fn poll_piped(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        piped: &mut Piped,
    ) -> Option<Poll<Result<usize, Error>>> {
        let polled = self.body.poll_piped(cx, piped)?;
        if polled.is_pending() {
            self.exchange.upload_waits(Flow::Source);
        }
        Some(polled.map(|length| {
            let counted = length.and_then(|length| self.count(length).map(|()| length));
            counted.inspect_err(|error| self.failure.set(Some(*error)))
        }))
    }
}
