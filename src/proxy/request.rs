//! The life of a request, as named phases from top to bottom: identify, match, act; and for those that go on: pick, connect,
//! send, answer. Knows `http` types, [`Body`] and takeovers; which protocol carries them, the connection layers know
//! (`http1`, `http2`, `upstream`).

use std::rc::Rc;
use std::sync::Arc;

use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, LOCATION, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version};
use http_body::Body as _;

use super::body::Body;
use super::error::Error;
use super::exchange::{Exchange, Subject};
use super::forward::{self, Outgoing};
use super::headers::{self, Client};
use super::http1::RequestHead;
use super::reply::{self, Format};
use super::target::{self, Target};
use super::timer::Timer;
use super::upstream::Takeover;
use super::worker::{Peer, Worker};
use crate::snapshot::{Action, Forward, RequestView, Respond, Route};
use crate::telemetry::Protocol;

/// What goes back to the client, and how it is told.
#[derive(Debug)]
pub(super) struct Reply {
    /// Head and content.
    pub response: Response<Body>,
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
pub(super) async fn handle(worker: &Rc<Worker>, peer: &Peer, mut request: Request<Body>, timer: &Rc<Timer>) -> Reply {
    let trusted = &worker.settings.forwarding.trusted_proxies;
    let client = headers::client(request.headers(), peer.address.ip(), trusted);
    let format = Format::preferred(request.headers());
    let target = target::target(&request);
    let host = target.as_ref().map(|target| target.host.clone()).unwrap_or_default();
    let exchange = begin(worker, &request, client, host, timer);

    let step = target.and_then(|target| decide(worker, peer, &mut request, client, target, &exchange));
    let reply = match step {
        Ok(Step::Answer(response)) => Ok(reply_locally(&exchange, response)),
        Ok(Step::Send(outgoing)) => forward::send(worker, *outgoing, request.into_body(), &exchange).await,
        Err(error) => Err(error),
    };
    let mut reply = reply.unwrap_or_else(|error| {
        exchange.refused(error);
        let response = reply::failure(error, format, exchange.request_id());
        Reply { response, exchange: Rc::clone(&exchange), local: true, last: error.casts_doubt(), takeover: None }
    });
    name(&mut reply.response, &exchange);
    reply
}

/// Tells the client by which id the exchange is known.
fn name(response: &mut Response<Body>, exchange: &Exchange) {
    if let Ok(id) = HeaderValue::from_str(exchange.request_id()) {
        response.headers_mut().insert(headers::REQUEST_ID.clone(), id);
    }
}

/// The answer to something that is not even a request.
pub(super) fn refuse(worker: &Rc<Worker>, peer: &Peer, timer: &Rc<Timer>, error: Error) -> Reply {
    worker.recorder.connection_refused(error.reason());
    let subject = Subject {
        request_id: headers::request_id(&HeaderMap::new(), false),
        trace_id: None,
        client: peer.address.ip(),
        protocol: Protocol::Http11,
        method: Method::from_bytes(b"-").unwrap_or_default(),
        host: "".into(),
        path: "".into(),
    };
    let exchange = Exchange::new(Rc::clone(worker), subject, Rc::clone(timer));
    exchange.refused(error);
    let mut response = reply::failure(error, Format::Plain, exchange.request_id());
    name(&mut response, &exchange);
    Reply { response, exchange, local: true, last: true, takeover: None }
}

/// What happens next.
enum Step {
    Answer(Response<Body>),
    Send(Box<Outgoing>),
}

fn begin<B>(
    worker: &Rc<Worker>,
    request: &Request<B>,
    client: Client,
    host: Box<str>,
    timer: &Rc<Timer>,
) -> Rc<Exchange> {
    let subject = Subject {
        request_id: headers::request_id(request.headers(), client.trusted),
        trace_id: headers::trace_id(request.headers()),
        client: client.address,
        protocol: match request.version() {
            Version::HTTP_10 => Protocol::Http10,
            Version::HTTP_2 => Protocol::Http2,
            _ => Protocol::Http11,
        },
        method: request.method().clone(),
        host,
        path: request.uri().path().into(),
    };
    Exchange::new(Rc::clone(worker), subject, Rc::clone(timer))
}

/// Everything that can be decided from the head alone: no waiting, no network.
fn decide(
    worker: &Rc<Worker>,
    peer: &Peer,
    request: &mut Request<Body>,
    client: Client,
    target: Target,
    exchange: &Rc<Exchange>,
) -> Result<Step, Error> {
    check_limits(worker, request)?;
    let snapshot = worker.snapshot().ok_or(Error::NoRoute)?;

    // Match. The path is matched, rewritten and sent in one normal form, so that no two servers disagree on it.
    let path = crate::snapshot::path::normalize(request.uri().path()).ok_or(Error::BadRequest("path"))?;
    let view = RequestView {
        host: &target.host,
        path: &path,
        query: request.uri().query(),
        method: request.method(),
        headers: request.headers(),
    };
    let matched = snapshot.router.find(view).ok_or(Error::NoRoute)?;
    let route = matched.route;
    exchange.routed(route);

    // Act.
    match &route.action {
        Action::Invalid(_) => Err(Error::InvalidRoute),
        Action::Respond(respond) => {
            exchange.replied(respond.status);
            Ok(Step::Answer(edited(direct(respond), route)))
        }
        Action::Redirect(redirect) => {
            let location = target::location(redirect, matched.path, &target, &path, request.uri().query(), peer.scheme);
            let mut response = Response::new(Body::empty());
            *response.status_mut() = redirect.status;
            response.headers_mut().insert(LOCATION, location.ok_or(Error::InvalidRoute)?);
            exchange.replied(redirect.status);
            Ok(Step::Answer(edited(response, route)))
        }
        Action::Forward(action) => {
            let cluster = forward::choose(&snapshot, action)?;
            let rewritten = match &action.rewrite.path {
                Some(rewrite) => target::rewrite_path(rewrite, matched.path, &path).into(),
                None => path,
            };
            let path_and_query = target::path_and_query(&rewritten, request.uri())?;
            let upgrade = wants_websocket(request)?;
            let route = Arc::clone(route);
            let headers = request_headers(request, peer, client, &target, action, &route, exchange, upgrade);
            Ok(Step::Send(Box::new(Outgoing {
                head: RequestHead { method: request.method().clone(), path_and_query, headers },
                upgrade,
                cluster,
                route,
            })))
        }
    }
}

/// Bounds that the connection layers leave to us, because our answer explains itself.
fn check_limits(worker: &Worker, request: &Request<Body>) -> Result<(), Error> {
    let limits = &worker.settings.limits;
    let bytes: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if request.headers().len() > limits.header_count || bytes > limits.header_bytes {
        return Err(Error::HeadersTooLarge);
    }
    let announced = request.body().size_hint().lower();
    if limits.body_bytes.is_some_and(|limit| announced > limit) {
        return Err(Error::BodyTooLarge);
    }
    if request.version() == Version::HTTP_2 {
        // RFC 9113 8.2.1: "A field value MUST NOT start or end with an ASCII whitespace character".
        let padded = |value: &HeaderValue| {
            let bytes = value.as_bytes();
            bytes.trim_ascii().len() != bytes.len()
        };
        if request.headers().values().any(padded) {
            return Err(Error::BadRequest("field value"));
        }
    }
    Ok(())
}

/// Whether the client asks for a WebSocket (RFC 6455 4.1). Any other upgrade, h2c among them, is not offered: a server
/// "MAY ignore a received Upgrade header field" (RFC 9110 7.8), and the field ends here.
fn wants_websocket(request: &Request<Body>) -> Result<bool, Error> {
    if request.version() != Version::HTTP_11 || request.method() != Method::GET {
        return Ok(false);
    }
    let fields = request.headers();
    let asks = headers::tokens(fields, CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"))
        && fields.get_all(UPGRADE).iter().count() == 1
        && fields.get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    if asks && !request.body().is_end_stream() {
        // Content before a tunnel is where two servers would disagree on where the tunnel begins.
        return Err(Error::BadRequest("content in a request for a WebSocket"));
    }
    Ok(asks)
}

/// The fields that go on.
#[allow(clippy::too_many_arguments, reason = "each is a fact of the request, used once")]
fn request_headers(
    request: &mut Request<Body>,
    peer: &Peer,
    client: Client,
    target: &Target,
    action: &Forward,
    route: &Route,
    exchange: &Exchange,
    upgrade: bool,
) -> HeaderMap {
    let length = request.headers().contains_key(CONTENT_LENGTH).then(|| request.body().size_hint().exact()).flatten();
    let mut fields = std::mem::take(request.headers_mut());
    headers::clean_request(&mut fields);
    headers::join_cookies(&mut fields, request.version());
    headers::set_forwarded(&mut fields, peer.address.ip(), client, peer.scheme, &target.authority);
    if let Ok(id) = HeaderValue::from_str(exchange.request_id()) {
        fields.insert(headers::REQUEST_ID.clone(), id);
    }
    let host = action.rewrite.host.clone().or_else(|| HeaderValue::from_str(&target.authority).ok());
    fields.insert(HOST, host.unwrap_or_else(|| HeaderValue::from_static("")));
    if let Some(edits) = &route.request_headers {
        edits.apply(&mut fields);
    }
    // Framing is made anew: a length only if there is content of that length.
    fields.remove(CONTENT_LENGTH);
    if let Some(length) = length {
        fields.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    if upgrade {
        fields.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        fields.insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
    fields
}

fn direct(respond: &Respond) -> Response<Body> {
    let mut response = Response::new(Body::full(respond.body.clone()));
    *response.status_mut() = respond.status;
    if let Some(content_type) = &respond.content_type {
        response.headers_mut().insert(CONTENT_TYPE, content_type.clone());
    }
    response
}

fn edited(mut response: Response<Body>, route: &Route) -> Response<Body> {
    if let Some(edits) = &route.response_headers {
        edits.apply(response.headers_mut());
    }
    response
}

fn reply_locally(exchange: &Rc<Exchange>, response: Response<Body>) -> Reply {
    Reply { response, exchange: Rc::clone(exchange), local: true, last: false, takeover: None }
}
