//! The content of an answer of an endpoint over HTTP/2.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio_util::task::AbortOnDropHandle;

use super::stream::Inbound;
use crate::proxy::body::Content;
use crate::proxy::error::Error;

/// The content of an answer. Dropping it ends the sending of the request's content, if that goes on.
#[derive(Debug)]
pub(in crate::proxy) struct Http2Body {
    pub(super) inbound: Inbound,
    pub(super) _sending: Option<AbortOnDropHandle<Result<(), Error>>>,
}

impl Content for Http2Body {}

impl http_body::Body for Http2Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Pin::new(&mut self.inbound).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inbound.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inbound.size_hint()
    }
}
