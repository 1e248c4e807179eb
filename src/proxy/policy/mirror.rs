//! Copies of requests for another service. A copy is made while the request passes, and sent by a task of its own once all of it is there:
//! no request waits for it, and what becomes of it is known to metrics alone. What it may take has bounds: how many there are at once,
//! how much content is kept, how long it takes, and how much of its answer is read.
//!
//! Whom it is sent to is balanced, checked and guarded like any upstream, by its own settings.

use std::cell::Cell;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout_at};

use super::aside;
use crate::clock;
use crate::proxy::body::{Body, Content};
use crate::proxy::error::Error;
use crate::proxy::exchange::{Beside, Exchange};
use crate::proxy::fields::Known;
use crate::proxy::headers;
use crate::proxy::message::RequestHead;
use crate::proxy::upstream::{self, Upstream, Wish};
use crate::proxy::worker::Worker;
use crate::resilience::Copying;
use crate::snapshot::{Cluster, Mirror, Policy, Snapshot};

/// What is read of the answer to a copy, so that its connection can be used again.
const DISCARDED: usize = 1 << 20;

/// An answer came, whatever it says.
const SENT: &str = "sent";
/// It was not sent: there were too many, its content was too much or did not come to its end, or its service had no place to spare.
const DROPPED: &str = "dropped";
/// It was sent in vain.
const FAILED: &str = "failed";

/// What is wanted of a request.
#[derive(Debug)]
pub(in crate::proxy) struct Mirrored {
    mirror: Arc<Mirror>,
    cluster: Arc<Cluster>,
}

/// Whether there is to be a copy of a request, and for whom. Its fields are those that came.
pub(in crate::proxy) fn mirrored(policy: &Policy, head: &RequestHead, snapshot: &Snapshot) -> Option<Box<Mirrored>> {
    let mirror = policy.mirror.as_ref()?;
    let cluster = snapshot.clusters.get(mirror.cluster.as_ref()?)?;
    // A copy of a copy could go round for ever.
    if head.fields.contains(Known::Mirror) || fastrand::u8(..100) >= mirror.percent {
        return None;
    }
    Some(Box::new(Mirrored { mirror: Arc::clone(mirror), cluster: Arc::clone(cluster) }))
}

/// Has a request copied that goes on with this head; returns its content, of which a copy is kept as it passes.
pub(in crate::proxy) fn copied(
    worker: &Rc<Worker>,
    mirrored: Mirrored,
    head: &RequestHead,
    content: Body,
    exchange: &Rc<Exchange>,
) -> Body {
    let Mirrored { mirror, cluster } = mirrored;
    let upstream = worker.upstreams.of(&cluster);
    let Some(place) = upstream.copy(mirror.concurrent) else {
        worker.recorder.mirrored(cluster.name.as_str(), DROPPED);
        return content;
    };
    let head = marked(head, &mirror, exchange);
    let copy = Copy {
        worker: Rc::clone(worker),
        upstream,
        mirror,
        head,
        client: exchange.client(),
        outcome: Cell::new(DROPPED),
        place,
    };
    if content.is_end_stream() {
        copy.send(Body::empty());
        return content;
    }
    if content.size_hint().lower() > copy.mirror.body_bytes as u64 {
        return content;
    }
    Body::stream(Tee { content, copying: Some(Box::new((copy, Vec::new()))), exchange: Rc::clone(exchange) })
}

/// The head of a copy.
fn marked(head: &RequestHead, mirror: &Mirror, exchange: &Exchange) -> RequestHead {
    let mut head = head.clone();
    // All of the content is there when it is sent.
    head.fields.remove(Known::Expect);
    if mirror.without_credentials {
        head.fields.remove_each(&[Known::Authorization, Known::Cookie]);
    }
    let route = exchange.route_name().map(|name| &*name.object).unwrap_or_default();
    head.fields.set(headers::MIRROR, route.as_bytes());
    head
}

/// A copy, whose outcome is counted when it is dropped.
#[derive(Debug)]
struct Copy {
    worker: Rc<Worker>,
    upstream: Rc<Upstream>,
    mirror: Arc<Mirror>,
    head: RequestHead,
    client: SocketAddr,
    outcome: Cell<&'static str>,
    #[allow(dead_code, reason = "held for as long as the copy is there")]
    place: Copying,
}

impl Drop for Copy {
    fn drop(&mut self) {
        self.worker.recorder.mirrored(self.upstream.cluster().name.as_str(), self.outcome.get());
    }
}

impl Copy {
    /// Sends it, in a task of its own.
    fn send(self, content: Body) {
        tokio::task::spawn_local(async move {
            let until = Instant::now() + self.mirror.timeout;
            match self.ask(content, until).await {
                Ok(answer) => {
                    self.outcome.set(SENT);
                    // What is left when the time is over is closed with its connection.
                    let _ = timeout_at(until, discard(answer)).await;
                }
                Err(error) => {
                    tracing::debug!(upstream = %self.upstream.cluster().name, %error, "a copy of a request");
                }
            }
        });
    }

    /// Asks one endpoint, once, and gets the content of its answer.
    async fn ask(&self, content: Body, until: Instant) -> Result<Body, Error> {
        let upstream = Rc::clone(&self.upstream);
        upstream.ask();
        // It never waits in the line of requests.
        let Some(_place) = upstream::spare_place(&upstream) else { return Err(Error::UpstreamOverflow) };
        self.outcome.set(FAILED);
        let wish = Wish::default();
        let permission = upstream.permit(&[], &wish, clock::now())?;
        let picked = Rc::clone(permission.host());
        let choosing = timeout_at(until, upstream::choose(&upstream, &picked, &[], &wish, false)).await;
        let chosen = choosing.map_err(|_| Error::QueueTimeout).flatten()?;
        let Some(permission) = permission.moved_to(chosen.host) else { return Err(Error::NoEndpoint) };
        let attempt = Beside::of(permission);
        let sending = aside::send(&self.worker, &upstream, chosen, &self.head, content, None, self.client);
        let (sent, reused) = match timeout_at(until, sending).await {
            Ok(sent) => sent,
            Err(_) => (Err(Error::HeadTimeout), false),
        };
        match sent {
            // Who switches protocols, which nothing of this asks for, is left with the connection.
            Ok(answer) => {
                attempt.passed_over(&answer.response.head);
                Ok(answer.response.body)
            }
            // That an endpoint closes a connection which was kept, just as it is used again, says nothing of it.
            Err(Error::UpstreamReset) if reused => Err(Error::UpstreamReset),
            Err(error) => {
                attempt.failed(error);
                Err(error)
            }
        }
    }
}

/// Reads an answer that nobody gets.
async fn discard(mut content: Body) {
    let mut left = DISCARDED;
    while content.size_hint().lower() <= left as u64
        && let Some(Ok(frame)) = content.frame().await
    {
        match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

/// The content of a request, and what of it has passed, as long as there may be a copy.
struct Tee {
    content: Body,
    copying: Option<Box<(Copy, Vec<u8>)>>,
    exchange: Rc<Exchange>,
}

impl Tee {
    /// Keeps a copy of what passes. Not the pieces themselves: each may be a little of a large buffer.
    fn keep(&mut self, data: &[u8]) {
        if let Some(copying) = &mut self.copying {
            let (copy, kept) = &mut **copying;
            let size = kept.len() + data.len();
            if size > copy.mirror.body_bytes || self.exchange.is_too_much(size as u64) {
                self.copying = None;
            } else {
                kept.extend_from_slice(data);
            }
        }
    }

    fn ended(&mut self) {
        if let Some((copy, kept)) = self.copying.take().map(|copying| *copying) {
            copy.send(Body::full(kept.into()));
        }
    }
}

impl Content for Tee {}

impl http_body::Body for Tee {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = ready!(Pin::new(&mut self.content).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.keep(data);
                }
                if self.content.is_end_stream() {
                    self.ended();
                }
            }
            Some(Err(_)) => self.copying = None,
            None => self.ended(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.content.size_hint()
    }
}
