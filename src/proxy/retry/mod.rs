//! Whether another endpoint is asked after one that did not serve a request, because its route wants that, and when. The
//! attempts themselves are `attempts`' to make.

mod cause;
mod hedge;

use std::cell::Cell;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::HeaderValue;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::time::{Instant, sleep, timeout};

use self::cause::{Cause, retry_after};
pub(super) use self::hedge::Shared;
use super::body::Body;
use super::error::Error;
use super::exchange::Exchange;
use super::headers::ATTEMPTS;
use super::kept::Kept;
use super::message::RequestHead;
use super::upstream::{Answer, Upstream, Wish};
use super::worker::Worker;
use crate::resilience::RetryUnderWay;
use crate::snapshot::Retry;

/// What is read of an answer that is not passed on, so that its connection can be used again.
const DISCARDED: usize = 64 * 1024;
/// For how long.
const DISCARDING: Duration = Duration::from_secs(1);

/// What is remembered between the attempts of one exchange.
#[derive(Debug)]
pub(super) struct Retrying<'a> {
    wish: &'a Wish,
    wanted: Arc<Retry>,
    worker: Rc<Worker>,
    upstream: Rc<Upstream>,
    idempotent: bool,
    /// The request's content, if it has any.
    kept: Option<Kept>,
    /// Attempts that failed.
    failed: u32,
    /// Waits until now.
    waits: u32,
    /// The retry that is being made, and why.
    under_way: Option<(Cause, RetryUnderWay)>,
    /// The head as later endpoints see it.
    head: Option<RequestHead>,
    /// Who was asked beside another one.
    beside: Cell<Option<SocketAddr>>,
}

/// What becomes of an answer.
pub(super) enum Instead {
    /// It is passed on.
    Of(Answer),
    /// Another endpoint is asked, with this content.
    Another(Body),
}

impl<'a> Retrying<'a> {
    pub(super) fn new(
        wanted: &Arc<Retry>,
        worker: &Rc<Worker>,
        upstream: &Rc<Upstream>,
        wish: &'a Wish,
        head: &RequestHead,
    ) -> Self {
        Retrying {
            wish,
            wanted: Arc::clone(wanted),
            worker: Rc::clone(worker),
            upstream: Rc::clone(upstream),
            idempotent: head.method.is_idempotent(),
            kept: None,
            failed: 0,
            waits: 0,
            under_way: None,
            head: None,
            beside: Cell::new(None),
        }
    }

    /// What the route wants.
    pub(super) fn wanted(&self) -> &Retry {
        &self.wanted
    }

    /// Keeps content, so that it can be sent again.
    pub(super) fn keep(&mut self, content: Body) -> Body {
        let kept = Kept::new(content, self.wanted.body_bytes);
        let content = Body::stream(kept.share());
        self.kept = Some(kept);
        content
    }

    /// How many endpoints may be tried until there is a connection.
    pub(super) fn endpoints(&self, default: usize) -> usize {
        match self.wanted.on.connect_failure {
            true => self.wanted.attempts.saturating_sub(self.failed) as usize,
            false => default,
        }
    }

    /// So many endpoints could not be connected to.
    pub(super) fn unconnected(&mut self, endpoints: usize) {
        if self.wanted.on.connect_failure {
            self.failed += endpoints as u32;
        }
    }

    /// An attempt begins: how long it may take, and how the endpoint sees it.
    pub(super) fn begin<'h>(&'h mut self, head: &'h RequestHead, exchange: &Exchange) -> &'h RequestHead {
        exchange.clocks.attempt_until.set(self.wanted.per_try_timeout.map(|limit| Instant::now() + limit));
        if self.failed == 0 {
            return head;
        }
        let again = self.head.get_or_insert_with(|| head.clone());
        again.fields.set(ATTEMPTS, itoa::Buffer::new().format(self.failed + 1).as_bytes());
        again
    }

    /// The answer is passed on.
    pub(super) fn accept(&mut self, answer: Answer, exchange: &Exchange) -> Answer {
        exchange.clocks.attempt_until.set(None);
        if let Some(kept) = &self.kept {
            kept.forget();
        }
        self.settle("answered");
        answer
    }

    /// No endpoint could be connected to. Waits until they may be asked again; whether they may.
    ///
    /// # Errors
    /// A clock that ran out meanwhile.
    pub(super) async fn after_all(
        &mut self,
        error: Error,
        tried: &mut Vec<SocketAddr>,
        exchange: &Exchange,
    ) -> Result<bool, Error> {
        let Some(cause) = Cause::of_failure(error, false).filter(|cause| self.wants(*cause)) else {
            self.settle("failed");
            return Ok(false);
        };
        tried.clear();
        self.pause(cause, None, false, exchange).await
    }

    /// An attempt failed. Waits until another one may begin, and returns the content for it.
    ///
    /// # Errors
    /// Why there is none: the same failure, or a clock that ran out meanwhile.
    pub(super) async fn after(
        &mut self,
        (error, unsent): (Error, Option<Body>),
        endpoint: SocketAddr,
        tried: &mut Vec<SocketAddr>,
        exchange: &Exchange,
    ) -> Result<Body, Error> {
        exchange.clocks.attempt_until.set(None);
        self.failed += 1;
        if let Some(cause) = Cause::of_failure(error, unsent.is_some()).filter(|cause| self.wants(*cause)) {
            exchange.attempt_failed(error);
            let elsewhere = self.elsewhere(endpoint, tried);
            if self.pause(cause, None, elsewhere, exchange).await? {
                return self.content(unsent).ok_or(error);
            }
        }
        self.settle("failed");
        Err(error)
    }

    /// An answer is there, and what its trailers say became of a call, if they are, too. If the route does not want it, waits
    /// until another endpoint may be asked instead.
    ///
    /// # Errors
    /// A clock that ran out meanwhile.
    pub(super) async fn instead(
        &mut self,
        answer: Answer,
        ended: Option<HeaderValue>,
        endpoint: SocketAddr,
        tried: &mut Vec<SocketAddr>,
        exchange: &Exchange,
    ) -> Result<Instead, Error> {
        let head = &answer.response.head;
        let cause = ended.as_ref().map_or_else(|| Cause::of_answer(head), Cause::of_status);
        let Some(cause) = cause.filter(|cause| self.failed + 1 < self.wanted.attempts && self.wants(*cause)) else {
            return Ok(Instead::Of(answer));
        };
        let (status, retry_after) = (head.status, retry_after(&head.fields, SystemTime::now()));
        let elsewhere = self.elsewhere(endpoint, tried);
        if !elsewhere && retry_after.is_some_and(|wait| wait > self.wanted.max_retry_after) || !self.begins(cause) {
            return Ok(Instead::Of(answer));
        }
        self.failed += 1;
        exchange.clocks.attempt_until.set(None);
        exchange.attempt_passed_over(status, ended.as_ref());
        let is_read = self.kept.as_ref().is_none_or(Kept::is_read);
        discard(answer, is_read);
        self.wait(retry_after.filter(|_| !elsewhere), exchange).await?;
        let content = self.content(None).ok_or(Error::UpstreamReset)?;
        Ok(Instead::Another(content))
    }

    /// Whether the route wants another attempt after this, as far as the request can be sent again.
    fn wants(&self, cause: Cause) -> bool {
        let Retry { attempts, on, any_method, .. } = &*self.wanted;
        let named = match cause {
            Cause::ConnectFailure => on.connect_failure,
            Cause::Reset => on.reset,
            Cause::RefusedStream => on.refused_stream,
            Cause::Timeout => on.timeout,
            Cause::Status(status) => on.has_status(status.as_u16()),
            Cause::Grpc(code) => on.has_grpc(code),
        };
        // RFC 9110 9.2.2: a client "SHOULD NOT automatically retry a request with a non-idempotent method unless it has some
        // means to know that the request semantics are actually idempotent, regardless of the method, or some means to detect
        // that the original request was never applied". Whoever names a code of gRPC, whose calls are all POST, knows.
        let unserved = matches!(cause, Cause::ConnectFailure | Cause::RefusedStream);
        let harmless = unserved || matches!(cause, Cause::Grpc(_)) || *any_method || self.idempotent;
        let replayable = unserved || self.kept.as_ref().is_none_or(Kept::is_whole);
        named && self.failed < *attempts && harmless && replayable
    }

    /// Whether there is an endpoint that was not asked yet. If not, all but the last one may be asked once more, or that if it
    /// is the only one.
    fn elsewhere(&self, failed: SocketAddr, tried: &mut Vec<SocketAddr>) -> bool {
        tried.push(failed);
        if self.upstream.has_another(tried, self.wish) {
            return true;
        }
        tried.clear();
        tried.push(failed);
        if !self.upstream.has_another(tried, self.wish) {
            tried.clear();
        }
        false
    }

    /// Waits until another attempt may begin; whether one may.
    async fn pause(
        &mut self,
        cause: Cause,
        retry_after: Option<Duration>,
        elsewhere: bool,
        exchange: &Exchange,
    ) -> Result<bool, Error> {
        if !self.begins(cause) {
            return Ok(false);
        }
        self.wait(retry_after.filter(|_| !elsewhere), exchange).await?;
        Ok(true)
    }

    /// Begins a retry, if the cluster bears another one.
    fn begins(&mut self, cause: Cause) -> bool {
        self.settle("failed");
        match self.upstream.retry() {
            Ok(permit) => {
                self.under_way = Some((cause, permit));
                true
            }
            Err(too_many) => {
                self.count(cause, too_many.as_str());
                false
            }
        }
    }

    async fn wait(&mut self, retry_after: Option<Duration>, exchange: &Exchange) -> Result<(), Error> {
        exchange.begins_anew();
        self.waits += 1;
        let backoff = self.wanted.backoff.wait(self.waits, fastrand::f64());
        let wait = retry_after.map_or(backoff, |after| after.max(backoff));
        tracing::debug!(?wait, attempts = self.failed, "a request was not served; trying again");
        exchange.within(pin!(sleep(wait))).await
    }

    /// The request's content, from its beginning.
    fn content(&mut self, unsent: Option<Body>) -> Option<Body> {
        let Some(kept) = &self.kept else { return Some(Body::empty()) };
        match kept.again() {
            Some(content) => Some(self.keep(content)),
            None => unsent,
        }
    }

    /// The retry that is being made has come to an end.
    fn settle(&mut self, outcome: &'static str) {
        if let Some((cause, _)) = self.under_way.take() {
            self.count(cause, outcome);
        }
    }

    fn count(&self, cause: Cause, outcome: &'static str) {
        self.worker.recorder.upstream_retry(self.upstream.cluster().name.as_str(), cause.as_str(), outcome);
    }
}

impl Drop for Retrying<'_> {
    fn drop(&mut self) {
        self.settle("abandoned");
    }
}

/// Reads the rest of an answer that nobody gets, so that its connection can be used again, if there is not too much of it. If
/// the request was not read to its end, there is nothing to save.
pub(super) fn discard(answer: Answer, is_read: bool) {
    let mut body = answer.response.body;
    if !is_read || body.is_end_stream() || body.size_hint().lower() > DISCARDED as u64 {
        return;
    }
    tokio::task::spawn_local(timeout(DISCARDING, async move {
        let mut left = DISCARDED;
        while let Some(Ok(frame)) = body.frame().await {
            match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    }));
}
