//! The attempt of an exchange at an endpoint, and what it says of the endpoint. It is judged when the answer begins: with its
//! first byte of content, or with its head if it has none. What fails later is a second outcome; a client that leaves
//! says nothing of the endpoint.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::time::Instant;

use super::Exchange;
use crate::clock;
use crate::proxy::error::Error;
use crate::proxy::fields::{Fields, Known};
use crate::proxy::grpc;
use crate::proxy::message::ResponseHead;
use crate::proxy::upstream::{Host, Permission};
use crate::resilience::Outcome;
use crate::snapshot::ClusterName;

/// The attempt that is being made, after those that failed.
#[derive(Debug)]
pub(super) struct Attempt {
    /// How many there were, this one included.
    pub(super) number: Cell<u32>,
    /// Whether more than one was asked for.
    may_repeat: Cell<bool>,
    permission: RefCell<Option<Permission>>,
    began: Cell<Instant>,
    judged: Cell<bool>,
    /// The status of gRPC, as one of HTTP, if the answer has one.
    said: Cell<Option<u16>>,
}

impl Attempt {
    /// None yet.
    pub(super) fn none(now: Instant) -> Self {
        let (number, judged, said) = (Cell::new(0), Cell::new(true), Cell::new(None));
        let may_repeat = Cell::new(false);
        Attempt { number, may_repeat, permission: RefCell::new(None), began: Cell::new(now), judged, said }
    }

    fn report(&self, outcome: Outcome, now: Instant) {
        if let Some(permission) = &*self.permission.borrow() {
            let took = now.saturating_duration_since(self.began.get());
            permission.settle(outcome, took, clock::moment(now));
        }
    }

    /// Only the first judgement counts.
    fn judge(&self, outcome: Outcome, now: Instant) {
        if !self.judged.replace(true) {
            self.report(outcome, now);
        }
    }

    /// It is over, whatever it said.
    pub(super) fn ends(&self) {
        if !self.judged.get() {
            self.judge(Outcome::Unknown, Instant::now());
        }
    }

    pub(super) fn cluster(&self) -> Option<ClusterName> {
        self.permission.borrow().as_ref().map(|permission| permission.host().state.cluster().name().clone())
    }

    pub(super) fn endpoint(&self) -> Option<SocketAddr> {
        self.permission.borrow().as_ref().map(|permission| permission.host().endpoint.address)
    }
}

/// An attempt beside that of an exchange, or one that asks about it. Dropped without a word, it says nothing of its endpoint.
#[derive(Debug)]
pub(in crate::proxy) struct Beside {
    permission: Permission,
    began: Instant,
}

impl Beside {
    /// One that begins now, and is not counted among those of an exchange.
    pub(in crate::proxy) fn of(permission: Permission) -> Self {
        Beside { permission, began: Instant::now() }
    }

    /// The endpoint.
    pub(in crate::proxy) fn host(&self) -> &Rc<Host> {
        self.permission.host()
    }

    fn ends(self, outcome: impl FnOnce(Duration) -> Outcome) {
        let now = Instant::now();
        let took = now.saturating_duration_since(self.began);
        self.permission.settle(outcome(took), took, clock::moment(now));
    }

    /// The endpoint gave no answer.
    pub(in crate::proxy) fn failed(self, error: Error) {
        self.ends(|_| unanswered(error));
    }

    /// The answer is not passed on.
    pub(in crate::proxy) fn passed_over(self, head: &ResponseHead) {
        let status = said(&head.fields).unwrap_or(head.status.as_u16());
        self.ends(|first_byte| Outcome::Answered { status, first_byte });
    }
}

impl Exchange {
    /// An endpoint is tried. That the one before was not judged says nothing of it: an endpoint may close a connection that was
    /// kept, or not take a request.
    pub(in crate::proxy) fn attempt(&self, permission: Permission) {
        self.attempt_is(self.attempt_beside(permission));
    }

    /// An endpoint is tried beside the one that is being tried.
    pub(in crate::proxy) fn attempt_beside(&self, permission: Permission) -> Beside {
        self.attempt.number.set(self.attempt.number.get() + 1);
        Beside::of(permission)
    }

    /// What was an attempt beside another is the only one from now on.
    pub(in crate::proxy) fn attempt_is(&self, beside: Beside) {
        self.attempt.ends();
        let Attempt { number: _, may_repeat: _, permission, began, judged, said } = &self.attempt;
        permission.replace(Some(beside.permission));
        began.set(beside.began);
        judged.set(false);
        said.set(None);
    }

    /// The endpoint gave no answer.
    pub(in crate::proxy) fn attempt_failed(&self, error: Error) {
        self.attempt.judge(unanswered(error), Instant::now());
    }

    /// The answer is not passed on; another endpoint is asked instead. `ended` is what its trailers say became of a call.
    pub(in crate::proxy) fn attempt_passed_over(&self, status: StatusCode, ended: Option<&HeaderValue>) {
        let now = Instant::now();
        let first_byte = now.saturating_duration_since(self.attempt.began.get());
        let said = ended.and_then(|status| grpc::as_http(status.as_bytes())).or(self.attempt.said.get());
        let status = said.unwrap_or(status.as_u16());
        self.attempt.judge(Outcome::Answered { status, first_byte }, now);
    }

    /// Says whether its route or its upstream asks for more than one attempt.
    pub(in crate::proxy) fn may_repeat(&self, may: bool) {
        self.attempt.may_repeat.set(may);
    }

    /// How many endpoints were tried, if more than one attempt was asked for.
    pub(in crate::proxy) fn attempts(&self) -> Option<u32> {
        Some(self.attempt.number.get()).filter(|number| self.attempt.may_repeat.get() && *number > 0)
    }

    /// The answer has begun.
    pub(in crate::proxy) fn attempt_answered(&self, now: Instant) {
        if !self.attempt.judged.get() {
            let status = self.attempt.said.get().unwrap_or(self.status.get().as_u16());
            let first_byte = now.saturating_duration_since(self.attempt.began.get());
            self.attempt.judge(Outcome::Answered { status, first_byte }, now);
        }
    }

    /// The head of a call's answer is its end: "Trailers-Only → HTTP-Status Content-Type Trailers".
    pub(in crate::proxy) fn attempt_said(&self, head: &Fields) {
        self.attempt.said.set(said(head));
    }

    /// The head of a stream came, whose content may come much later.
    pub(super) fn attempt_begins(&self, now: Instant) {
        let Attempt { permission, began, said, .. } = &self.attempt;
        if let Some(permission) = &*permission.borrow() {
            let status = said.get().unwrap_or(self.status.get().as_u16());
            permission.begins(status, now.saturating_duration_since(began.get()), clock::moment(now));
        }
    }

    /// The answer to a call ends with a status. One that has begun and ends with a failure is as good as cut.
    pub(in crate::proxy) fn attempt_ended(&self, trailers: &HeaderMap) {
        let status = trailers.get("grpc-status").and_then(|status| grpc::as_http(status.as_bytes()));
        let Some(status) = status else { return };
        if !self.attempt.judged.get() {
            self.attempt.said.set(Some(status));
        } else if status >= 500 {
            self.attempt.report(Outcome::Cut, Instant::now());
        }
    }

    /// The answer ends before its time.
    pub(super) fn attempt_cut(&self, error: Error) {
        let now = Instant::now();
        match unanswered(error) {
            Outcome::Failed if self.attempt.judged.get() && is_cut(error) => self.attempt.report(Outcome::Cut, now),
            outcome => self.attempt.judge(outcome, now),
        }
    }
}

/// The status of gRPC in the head of an answer, as one of HTTP.
fn said(head: &Fields) -> Option<u16> {
    head.get(Known::GrpcStatus).and_then(grpc::as_http)
}

/// What a failure before the answer says of the endpoint.
fn unanswered(error: Error) -> Outcome {
    use Error::*;
    match error {
        ConnectFailed | ConnectTimeout | UpstreamTls => Outcome::Unreachable,
        UpstreamReset | UpstreamProtocol | HeadTimeout | TryTimeout | FirstByteTimeout | UpstreamStalled
        | UpstreamSilent | UpstreamCut | RequestTimeout => Outcome::Failed,
        BadRequest(_) | Version | Method | Expectation | SlowHead | TargetTooLong | HeadersTooLarge | BodyTooLarge
        | BodyIncomplete | ClientGone | NoRoute | Misdirected | InvalidRoute | InvalidPolicy | AddressDenied
        | RateLimited(..) | TooManyStreams(_) | LimitUnavailable | NoRateKey | BasicAuthMissing | BasicAuthInvalid
        | ApiKeyMissing | ApiKeyInvalid | AuthDenied(_) | AuthUnavailable | CertificateMissing | CertificateDenied
        | OriginDenied | MethodNotAllowed | ContentType | TokenMissing | TokenInvalid | TokenExpired
        | ClaimsRefused | KeysUnavailable | NoBackend | NoEndpoint | BreakerOpen(_) | UpstreamOverflow
        | QueueTimeout | NoWebSocket | Idle | UploadIdle | ClientStalled | MessageTooLarge | TooFast | ClientSilent
        | Draining | MaxAge | EndpointGone | RouteRemoved | TokenRanOut(_) => Outcome::Unknown,
    }
}

/// Whether it is the endpoint that ended an answer which had begun.
fn is_cut(error: Error) -> bool {
    use Error::*;
    matches!(error, UpstreamReset | UpstreamProtocol | UpstreamStalled | UpstreamSilent | UpstreamCut)
}
