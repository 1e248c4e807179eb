//! The life of a request, as named phases from top to bottom: identify, match, secure, admit, act; and for those that go on: pick, connect,
//! send, answer. Knows `http` types, [`Body`] and takeovers; which protocol carries them, the connection layers know
//! (`http1`, `http2`, `upstream`).

use std::borrow::Cow;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use http::{Method, Version};
use http_body::Body as _;

use super::affinity;
use super::body::Body;
use super::certified;
use super::downstream::Downstream;
use super::error::Error;
use super::exchange::{Exchange, Subject};
use super::fallback;
use super::forward::{self, Outgoing};
use super::grpc;
use super::headers::{self, Client};
use super::message::{RequestHead, Response};
use super::onward;
use super::policy;
use super::reply::{self, Format};
use super::secure;
use super::target::{self, Target};
use super::trace::Trace;
use super::upstream::Takeover;
use super::worker::{Peer, Worker};
use crate::snapshot::{Action, Backend, Matched, Policy, RequestView, Route, Snapshot};
use crate::telemetry::Protocol;

/// What goes back to the client, and how it is told.
#[derive(Debug)]
pub(super) struct Reply {
    /// Head and content.
    pub response: Response,
    /// The exchange it belongs to; whoever sends the content keeps it until the end.
    pub exchange: Rc<Exchange>,
    /// Whether Floodway itself answers, so that nobody reads the request's content any more.
    pub local: bool,
    /// Whether the request leaves it in doubt what follows it, so that the connection carries no other.
    pub last: bool,
    /// The endpoint's side, if both sides switch protocols after the head.
    pub takeover: Option<Takeover>,
}

/// Carries a request from its head to the head of its answer.
#[expect(
    clippy::manual_async_fn,
    reason = "an async fn keeps its arguments twice, and every exchange has room for this"
)]
pub(super) fn handle(
    worker: &Rc<Worker>,
    peer: &Peer,
    mut head: RequestHead,
    mut body: Body,
    downstream: &Rc<Downstream>,
) -> impl Future<Output = Reply> {
    async move {
        let client = headers::client(&head.fields, peer.address.ip(), &worker.settings.forwarding.trusted_proxies);
        let (authority, host) = match target::target(&head) {
            Ok(Target { authority, host }) => (Ok(authority), host),
            Err(error) => (Err(error), "".into()),
        };
        let exchange = begin(worker, peer, &head, client, host, downstream);

        let decided =
            authority.and_then(|authority| decide(worker, peer, &mut head, &body, client, authority, &exchange));
        let step = match decided {
            Ok(Decided::Step(step)) => Ok(step),
            // In a box, because few requests have to wait for that and every exchange has room for what is awaited here.
            Ok(Decided::Ask(found)) => Box::pin(ask(worker, peer, &mut head, &body, client, found, &exchange)).await,
            Err(error) => Err(error),
        };
        let reply = match step {
            Ok(Step::Answer(response)) => Ok(reply_locally(&exchange, response)),
            Ok(Step::Send(mut outgoing)) => {
                if let Some(mirrored) = outgoing.mirror.take() {
                    body = policy::copied(worker, *mirrored, &head, body, &exchange);
                }
                forward::send(worker, &head, &outgoing, body, &exchange).await
            }
            Err(error) => Err(error),
        };
        let mut reply = reply.unwrap_or_else(|error| {
            let pages = exchange.error_pages();
            let pages = pages.as_deref().unwrap_or_default();
            let response = reply::failure(error, Format::preferred(&head.fields), exchange.request_id(), pages);
            exchange.refused(error, response.head.status);
            Reply { response, exchange: Rc::clone(&exchange), local: true, last: error.casts_doubt(), takeover: None }
        });
        policy::finish(&mut reply, &head);
        name(&mut reply.response, &exchange);
        reply
    }
}

/// Tells the client by which id the exchange is known, and how many endpoints were asked if its route asks for more than one.
fn name(response: &mut Response, exchange: &Exchange) {
    exchange.dress(&mut response.head.fields);
    response.head.fields.set(headers::REQUEST_ID, exchange.request_id().as_bytes());
    if let Some(attempts) = exchange.attempts() {
        response.head.fields.set(headers::ATTEMPTS, itoa::Buffer::new().format(attempts).as_bytes());
    }
}

/// The answer to something that is not even a request.
pub(super) fn refuse(worker: &Rc<Worker>, peer: &Peer, downstream: &Rc<Downstream>, error: Error) -> Reply {
    worker.recorder.connection_refused(error.reason());
    let subject = Subject {
        request_id: headers::new_request_id(),
        trace: Trace::none(),
        client: peer.address.ip(),
        client_port: peer.address.port(),
        protocol: Protocol::Http11,
        method: Method::from_bytes(b"-").unwrap_or_default(),
        host: "".into(),
        path: "".into(),
        tls: peer.tls.clone(),
    };
    let exchange = Exchange::new(Rc::clone(worker), subject, Rc::clone(downstream));
    exchange.refused(error, error.status());
    let mut response = reply::failure(error, Format::Plain, exchange.request_id(), &[]);
    name(&mut response, &exchange);
    Reply { response, exchange, local: true, last: true, takeover: None }
}

/// What happens next.
enum Step {
    Answer(Response),
    Send(Outgoing),
}

/// What is known of a request at once.
enum Decided {
    /// What happens next.
    Step(Step),
    /// Its policy may have to wait until it knows whether the request passes.
    Ask(Box<Found>),
}

/// Where a request goes that has to wait until it may.
struct Found {
    authority: Box<str>,
    snapshot: Arc<Snapshot>,
    /// Which backend of its route was chosen.
    backend: Option<usize>,
    policy: Arc<Policy>,
}

fn begin(
    worker: &Rc<Worker>,
    peer: &Peer,
    head: &RequestHead,
    client: Client,
    host: Box<str>,
    downstream: &Rc<Downstream>,
) -> Rc<Exchange> {
    let request_id = headers::request_id(&head.fields, client.trusted);
    let begins = worker.settings.tracing.begin;
    let subject = Subject {
        trace: Trace::of(&head.fields, client.trusted, &request_id, begins, headers::new_request_id),
        request_id,
        client: client.address,
        client_port: if client.address == peer.address.ip() { peer.address.port() } else { 0 },
        protocol: match head.version {
            Version::HTTP_10 => Protocol::Http10,
            Version::HTTP_2 => Protocol::Http2,
            _ => Protocol::Http11,
        },
        method: head.method.clone(),
        host,
        path: head.path_and_query.path().into(),
        tls: peer.tls.clone(),
    };
    Exchange::new(Rc::clone(worker), subject, Rc::clone(downstream))
}

/// Everything that can be decided from the head alone: no waiting, no network. What goes on becomes the head that goes on.
fn decide(
    worker: &Rc<Worker>,
    peer: &Peer,
    head: &mut RequestHead,
    body: &Body,
    client: Client,
    authority: Box<str>,
    exchange: &Rc<Exchange>,
) -> Result<Decided, Error> {
    check_limits(worker, head)?;
    let snapshot = worker.snapshot().ok_or(Error::NoRoute)?;
    // RFC 9110 15.5.20: such a request "was directed at a server that is unable or unwilling to produce an authoritative
    // response for the target URI", as when a client of HTTP/2 shares a connection between hosts. It may come again another way.
    if peer.tls.as_ref().is_some_and(|agreed| !agreed.serves(peer.way.certified(exchange.host(), agreed), &snapshot)) {
        return Err(Error::Misdirected);
    }

    // Match. The path is matched, rewritten and sent in one normal form, so that no two servers disagree on it.
    let (matched, path) = find(&snapshot, head, peer, &authority, exchange)?;
    let route = matched.route;
    exchange.routed(route);

    // Secure.
    if let Some(transport) = &route.transport
        && let Some(answer) =
            secure::secure(transport, matched, path.as_deref(), peer, head, client, &authority, exchange)?
    {
        return Ok(Decided::Step(Step::Answer(answer)));
    }
    certified::admit(&snapshot, peer, exchange.host(), route.transport.as_deref())?;

    exchange.clocks.patience.set(grpc::timeout(&head.fields)?);

    // Admit.
    let backend = match &route.action {
        Action::Forward(action) => Some(forward::choose(action)?),
        _ => None,
    };
    if let Some(policy) = backend.map_or(&route.policy, |backend| &backend.policy) {
        let asked = &mut policy::Asked {
            worker,
            snapshot: &snapshot,
            peer,
            client,
            exchange,
            head: &mut *head,
            content: body,
            token: None,
            sender: None,
        };
        let Poll::Ready(admitted) = policy::admit_at_once(policy, asked) else {
            let (policy, snapshot) = (Arc::clone(policy), Arc::clone(&snapshot));
            let backend = backend.and_then(|chosen| forward::place(&route.action, chosen));
            return Ok(Decided::Ask(Box::new(Found { authority, snapshot, backend, policy })));
        };
        if let Some(answer) = admitted? {
            exchange.replied(answer.head.status);
            return Ok(Decided::Step(Step::Answer(answer)));
        }
    }
    act(&snapshot, matched, path, backend, peer, head, body, client, &authority, exchange).map(Decided::Step)
}

/// Waits until it is known whether a request may pass, under the clocks of its exchange.
async fn ask(
    worker: &Worker,
    peer: &Peer,
    head: &mut RequestHead,
    body: &Body,
    client: Client,
    found: Box<Found>,
    exchange: &Rc<Exchange>,
) -> Result<Step, Error> {
    let Found { authority, snapshot, backend, policy } = *found;
    // As it was found before: in the same snapshot, by a head that nobody has changed yet.
    let (matched, path) = find(&snapshot, head, peer, &authority, exchange)?;
    let mut asked = policy::Asked {
        worker,
        snapshot: &snapshot,
        peer,
        client,
        exchange,
        head: &mut *head,
        content: body,
        token: None,
        sender: None,
    };
    if let Some(answer) = exchange.within(pin!(policy::admit(&policy, &mut asked))).await.flatten()? {
        exchange.replied(answer.head.status);
        return Ok(Step::Answer(answer));
    }
    let backend = match &matched.route.action {
        Action::Forward(action) => backend.and_then(|backend| action.backends.get(backend)),
        _ => None,
    };
    act(&snapshot, matched, path, backend, peer, head, body, client, &authority, exchange)
}

/// Finds the route of a request, and its path in normal form if it has another one.
fn find<'a>(
    snapshot: &'a Snapshot,
    head: &RequestHead,
    peer: &Peer,
    authority: &str,
    exchange: &Exchange,
) -> Result<(Matched<'a>, Option<String>), Error> {
    let path = crate::snapshot::path::normalize(head.path_and_query.path()).ok_or(Error::BadRequest("path"))?;
    let query = head.path_and_query.query();
    let host = peer.way.name(exchange.host(), authority);
    let view = RequestView { host: &host, path: &path, query, method: &head.method, headers: &head.fields };
    let matched = snapshot.router.find(view).ok_or(Error::NoRoute)?;
    let changed = match path {
        Cow::Borrowed(_) => None,
        Cow::Owned(changed) => Some(changed),
    };
    Ok((matched, changed))
}

/// Does what the route says with a request that may pass.
#[allow(clippy::too_many_arguments, reason = "each is a fact of the request, used once")]
fn act(
    snapshot: &Snapshot,
    matched: Matched<'_>,
    normal_path: Option<String>,
    backend: Option<&Backend>,
    peer: &Peer,
    head: &mut RequestHead,
    body: &Body,
    client: Client,
    authority: &str,
    exchange: &Rc<Exchange>,
) -> Result<Step, Error> {
    let announced = body.size_hint().lower();
    if exchange.is_too_much(announced) {
        return Err(Error::BodyTooLarge);
    }
    let route = matched.route;
    let path = normal_path.map_or(Cow::Borrowed(head.path_and_query.path()), Cow::Owned);
    let query = head.path_and_query.query();
    match &route.action {
        Action::Invalid(_) => Err(Error::InvalidRoute),
        Action::Respond(respond) => {
            exchange.replied(respond.status);
            Ok(Step::Answer(edited(reply::direct(respond), route)))
        }
        Action::Redirect(redirect) => {
            let location =
                target::location(redirect, matched.path, (authority, exchange.host()), &path, query, peer.scheme());
            Ok(Step::Answer(edited(reply::moved(redirect, location, exchange)?, route)))
        }
        Action::Forward(action) => {
            let cluster = forward::cluster(snapshot, backend.ok_or(Error::NoBackend)?)?;
            let wish_of = |cluster: &_| affinity::wish(cluster, &head.fields, &path, query, client.address);
            let wish = wish_of(&cluster);
            let standby = cluster.resilience.fallback.as_ref().and_then(|fallback| {
                let place = |redirect: &_| {
                    target::location(redirect, matched.path, (authority, exchange.host()), &path, query, peer.scheme())
                };
                fallback::prepare(fallback, snapshot, wish_of, place)
            });
            let rewritten = match action.rewrite.as_deref().and_then(|rewrite| rewrite.path.as_ref()) {
                Some(rewrite) => target::rewrite_path(rewrite, matched.path, &path).into(),
                None => path,
            };
            // An unchanged path keeps its bytes.
            if rewritten != head.path_and_query.path() {
                head.path_and_query = target::path_and_query(&rewritten, query)?;
            }
            let upgrade = onward::wants_websocket(head, body)?;
            let policy = backend.and_then(|backend| backend.policy.as_deref()).filter(|_| !upgrade);
            let mirror = policy.and_then(|policy| policy::mirrored(policy, head, snapshot));
            let host = action.rewrite.as_deref().and_then(|rewrite| rewrite.host.as_ref());
            let host = host.map_or(authority.as_bytes(), |host| host.as_bytes());
            onward::go_on(head, body, peer, client, authority, host, route, exchange, upgrade);
            Ok(Step::Send(Outgoing { upgrade, cluster, standby, route: Arc::clone(route), wish, mirror }))
        }
    }
}

/// Bounds that the connection layers leave to us, because our answer explains itself.
fn check_limits(worker: &Worker, head: &RequestHead) -> Result<(), Error> {
    let limits = &worker.settings.limits;
    if head.fields.len() > limits.header_count || head.fields.bytes() > limits.header_bytes {
        return Err(Error::HeadersTooLarge);
    }
    if head.version == Version::HTTP_2 {
        // RFC 9113 8.2.1: "A field value MUST NOT start or end with an ASCII whitespace character".
        if head.fields.iter().any(|(_, value)| value.trim_ascii().len() != value.len()) {
            return Err(Error::BadRequest("field value"));
        }
    }
    Ok(())
}

/// Edits an answer of Floodway's own as the route asks.
pub(super) fn edited(mut response: Response, route: &Route) -> Response {
    if let Some(edits) = &route.response_headers {
        headers::edit(&mut response.head.fields, edits);
    }
    response
}

/// An answer of Floodway's own.
pub(super) fn reply_locally(exchange: &Rc<Exchange>, response: Response) -> Reply {
    Reply { response, exchange: Rc::clone(exchange), local: true, last: false, takeover: None }
}
