//! Pages of one's own for failures that endpoints tell of, where a policy wants them. Those that Floodway itself tells of, `reply` writes.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use http::Method;
use http_body::Body as _;

use crate::proxy::body::Body;
use crate::proxy::fields::Known;
use crate::proxy::grpc;
use crate::proxy::message::RequestHead;
use crate::proxy::reply::Format;
use crate::proxy::request::Reply;
use crate::snapshot::ErrorPage;

/// Fields that tell of the content that an endpoint sent, and of nothing else.
const OF_CONTENT: [&[u8]; 14] = [
    b"content-type",
    b"content-length",
    b"content-encoding",
    b"content-language",
    b"content-location",
    b"content-range",
    b"content-digest",
    b"content-md5",
    b"repr-digest",
    b"digest",
    b"accept-ranges",
    b"etag",
    b"last-modified",
    b"trailer",
];

/// What stands in the place of the reason, which endpoints do not give.
const REASON: &str = "endpoint";

/// How many pieces are read of an answer that is replaced.
const MOST_READ: usize = 4;

/// Puts a page in the place of what an endpoint says, if one is for it and in the format that the client likes best. What the endpoint
/// still sends is nobody's then, and it learns of that.
pub(super) fn finish(pages: &[ErrorPage], reply: &mut Reply, head: &RequestHead) {
    let status = reply.response.head.status;
    // Floodway's own answers look like that already, or were written by a rule.
    if reply.local || !(status.is_client_error() || status.is_server_error()) || reply.takeover.is_some() {
        return;
    }
    let fields = &mut reply.response.head.fields;
    let events = || fields.get(Known::ContentType).is_some_and(|value| value.starts_with(b"text/event-stream"));
    let upgrade = head.fields.contains(Known::Upgrade);
    if head.method == Method::HEAD || upgrade || grpc::is_grpc(&head.fields) || grpc::is_grpc(fields) || events() {
        return;
    }
    let format = Format::preferred(&head.fields);
    let page = pages.iter().find(|page| page.is_for_endpoints(status.as_u16())).and_then(|page| format.of(page));
    let Some(page) = page else { return };
    fields.retain(|_, name, _| !OF_CONTENT.contains(&name));
    fields.add("content-type", format.content_type());
    fields.add("vary", b"accept");
    let text = page.filled(status.as_u16(), REASON, reply.exchange.request_id());
    // What is there already is read, so that the connection can be used again if that was all.
    let mut unread = std::mem::replace(&mut reply.response.body, Body::full(text.into()));
    for _ in 0..MOST_READ {
        match Pin::new(&mut unread).poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(_))) => {}
            _ => break,
        }
    }
}
