//! Asking another endpoint beside one that is slow: the first answer that the route wants is the client's, and the other attempt
//! is cancelled and says nothing of its endpoint. After how long that is done, the upstream's earlier answers say; how many
//! such attempts there may be, its budget for retries.

use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::time::{Instant, timeout_at};

use super::{Cause, Retrying, discard};
use crate::clock;
use crate::proxy::attempts;
use crate::proxy::body::Body;
use crate::proxy::downstream::Downstream;
use crate::proxy::error::Error;
use crate::proxy::exchange::{Beside, Exchange};
use crate::proxy::headers::ATTEMPTS;
use crate::proxy::kept::Kept;
use crate::proxy::message::RequestHead;
use crate::proxy::upstream::{self, Admitted, Answer, Lease, SendFailure, SparePlace};
use crate::resilience::{Percentiles, RetryUnderWay};
use crate::snapshot::Hedge;

/// What both attempts share.
#[derive(Clone, Copy)]
pub(in crate::proxy) struct Shared<'a> {
    /// What the request holds of its upstream.
    pub admitted: Option<&'a Rc<Admitted>>,
    /// How long the route lets connecting take.
    pub connect: Option<Duration>,
    /// Whose attempts they are.
    pub exchange: &'a Exchange,
}

/// What came of it.
pub(in crate::proxy) struct Served {
    /// The answer that counts, or the failure.
    pub sent: Sent,
    /// Whose it is.
    pub endpoint: SocketAddr,
    /// Whether its connection had carried a request before.
    pub reused: bool,
    /// Who was asked in vain.
    vain: Option<SocketAddr>,
}

type Sent = Result<Answer, SendFailure>;

/// The second attempt, before it is made.
struct Second<'a> {
    under_way: UnderWay<'a>,
    _place: SparePlace,
    beside: Beside,
    head: RequestHead,
    content: Body,
}

impl Retrying<'_> {
    /// Whether another endpoint may be asked beside the next one, as far as its route and method say.
    pub(in crate::proxy) fn hedges(&self) -> bool {
        let harmless = self.wanted.any_method || self.idempotent;
        self.wanted.hedge.is_some() && self.beside.get().is_none() && harmless && self.failed + 1 < self.wanted.attempts
    }

    /// Sends a request to `endpoint`, and to another one that is not in `tried`, if that takes long.
    ///
    /// # Errors
    /// A clock that ran out.
    pub(in crate::proxy) async fn hedged(
        &mut self,
        lease: Lease,
        head: &RequestHead,
        content: Body,
        endpoint: SocketAddr,
        tried: &mut Vec<SocketAddr>,
        shared: Shared<'_>,
    ) -> Result<Served, Error> {
        self.begin(head, shared.exchange);
        let served = {
            let racing = self.race(lease, (head, content), endpoint, tried, shared);
            shared.exchange.within(pin!(racing)).await
        };
        let vain = served.as_ref().map_or(self.beside.get(), |served| served.vain);
        if let Some(vain) = vain {
            self.failed += 1;
            tried.push(vain);
        }
        served
    }

    async fn race(
        &self,
        lease: Lease,
        (head, content): (&RequestHead, Body),
        endpoint: SocketAddr,
        tried: &[SocketAddr],
        shared: Shared<'_>,
    ) -> Served {
        let exchange = shared.exchange;
        let head = if self.failed == 0 { head } else { self.head.as_ref().unwrap_or(head) };
        let mut timing = Timing::begin(self.upstream.heads(), self.wanted.hedge.as_ref());
        let reused = lease.reused;
        let of_first = |sent, vain| Served { sent, endpoint, reused, vain };
        let mut first = pin!(lease.send(head, content, exchange.downstream()));
        let in_time = match timing.late() {
            Some(late) => timeout_at(late, first.as_mut()).await.ok(),
            None => Some(first.as_mut().await),
        };
        let second = match in_time {
            Some(sent) => {
                timing.ends(&sent);
                return of_first(sent, None);
            }
            None => self.second(head, endpoint, tried, exchange),
        };
        let Some(Second { mut under_way, _place, beside, head, content }) = second else {
            let sent = first.await;
            timing.ends(&sent);
            return of_first(sent, None);
        };
        let other = beside.host().endpoint.address;
        let of_second = |(sent, reused), vain| Served { sent, endpoint: other, reused, vain };
        let host = Rc::clone(beside.host());
        let asking = pin!(self.ask(&host, &head, content, shared));
        match select(first, asking).await {
            Either::Left((sent, asking)) => {
                timing.ends(&sent);
                if self.is_wanted(&sent) {
                    under_way.outcome = "beaten";
                    return of_first(sent, None);
                }
                match sent {
                    Ok(answer) => {
                        exchange.attempt_said(&answer.response.head.fields);
                        exchange.attempt_passed_over(answer.response.head.status, None);
                        discard(answer, self.kept.as_ref().is_none_or(Kept::is_read));
                    }
                    Err(SendFailure { error, unsent: None }) => exchange.attempt_failed(error),
                    Err(SendFailure { unsent: Some(_), .. }) => {}
                }
                exchange.attempt_is(beside);
                let answered = asking.await;
                under_way.outcome = if self.is_wanted(&answered.0) { "answered" } else { "failed" };
                of_second(answered, Some(endpoint))
            }
            Either::Right((answered, first)) => {
                if self.is_wanted(&answered.0) {
                    exchange.attempt_is(beside);
                    under_way.outcome = "answered";
                    return of_second(answered, None);
                }
                under_way.outcome = "failed";
                drop(under_way);
                match answered.0 {
                    Ok(answer) => {
                        beside.passed_over(&answer.response.head);
                        discard(answer, true);
                    }
                    Err(SendFailure { error, unsent: None }) => beside.failed(error),
                    Err(SendFailure { unsent: Some(_), .. }) => {}
                }
                let sent = first.await;
                timing.ends(&sent);
                of_first(sent, Some(other))
            }
        }
    }

    /// Whether an answer ends the race: not if the route rather asks another endpoint.
    fn is_wanted(&self, sent: &Sent) -> bool {
        let unwanted = |answer: &Answer| Cause::of_answer(&answer.response.head).is_some_and(|cause| self.wants(cause));
        sent.as_ref().is_ok_and(|answer| !unwanted(answer))
    }

    /// Begins an attempt beside the one at `endpoint`, which is slow; `None` if there is nobody else to ask, if all of the content is
    /// not there yet or any more, or if the upstream does not bear it.
    fn second(
        &self,
        head: &RequestHead,
        endpoint: SocketAddr,
        tried: &[SocketAddr],
        exchange: &Exchange,
    ) -> Option<Second<'_>> {
        let content = match &self.kept {
            Some(kept) => kept.copy()?,
            None => Body::empty(),
        };
        let asked = [tried, &[endpoint]].concat();
        if !self.upstream.has_another(&asked, self.wish) {
            return None;
        }
        let permit = self.upstream.hedge().map_err(|too_many| self.count_hedge(too_many.as_str())).ok()?;
        let place = upstream::spare_place(&self.upstream)?;
        let now = Instant::now();
        let permission = self.upstream.permit(&asked, self.wish, clock::moment(now)).ok()?;
        if let Some(limit) = self.wanted.per_try_timeout {
            exchange.clocks.attempt_until.set(Some(now + limit));
        }
        let mut head = head.clone();
        head.fields.set(ATTEMPTS, itoa::Buffer::new().format(self.failed + 2).as_bytes());
        let beside = exchange.attempt_beside(permission);
        let other = beside.host().endpoint.address;
        self.beside.set(Some(other));
        tracing::debug!(%endpoint, %other, "a request is slow; asking another endpoint, too");
        let under_way = UnderWay { retrying: self, outcome: "abandoned", _permit: permit };
        Some(Second { under_way, _place: place, beside, head, content })
    }

    async fn ask(
        &self,
        host: &Rc<upstream::Host>,
        head: &RequestHead,
        content: Body,
        Shared { admitted, connect, exchange }: Shared<'_>,
    ) -> (Sent, bool) {
        let mut lease = match Lease::waiting(&self.upstream, host) {
            Some(lease) => lease,
            None => {
                let limit = connect.unwrap_or(self.upstream.cluster().connections.connect_timeout);
                let connected = Lease::connect(&self.upstream, host, None, exchange.client(), limit).await;
                attempts::count_connect(&self.worker, &self.upstream, &connected);
                match connected {
                    Ok(lease) => lease,
                    Err(error) => return (Err(SendFailure { error, unsent: None }), false),
                }
            }
        };
        lease.hold(admitted);
        let reused = lease.reused;
        // What it says before its answer is for the client only if that is, too.
        let own = Downstream::default();
        let sent = lease.send(head, content, &own).await;
        if sent.is_ok() {
            while let Some(interim) = own.told() {
                exchange.downstream().tell(interim);
            }
        }
        (sent, reused)
    }

    fn count_hedge(&self, outcome: &'static str) {
        self.worker.recorder.upstream_retry(self.upstream.cluster().name.as_str(), "hedge", outcome);
    }
}

/// A second attempt that is under way; counted when it is over.
struct UnderWay<'a> {
    retrying: &'a Retrying<'a>,
    outcome: &'static str,
    _permit: RetryUnderWay,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.retrying.count_hedge(self.outcome);
    }
}

/// How long the head of a first attempt's answer takes to come.
///
/// One that is given up when it is late counts with the time it had: it would have taken longer, so that as many are late as
/// should be. Without it, whoever hedges would believe that answers are never slow.
struct Timing<'a> {
    heads: &'a Percentiles,
    began: Instant,
    /// After how long another endpoint is asked, if enough is known to say.
    delay: Option<Duration>,
    over: bool,
}

impl<'a> Timing<'a> {
    fn begin(heads: &'a Percentiles, hedge: Option<&Hedge>) -> Self {
        let delay = hedge.and_then(|hedge| {
            let delay = heads.within(hedge.percentile)?.max(hedge.min_delay);
            Some(hedge.max_delay.map_or(delay, |max| delay.min(max)))
        });
        Timing { heads, began: Instant::now(), delay, over: false }
    }

    /// When another endpoint is asked.
    fn late(&self) -> Option<Instant> {
        self.delay.map(|delay| self.began + delay)
    }

    /// It ended. Failures may be faster than answers ever are.
    fn ends(&mut self, sent: &Sent) {
        self.over = true;
        self.note(sent.as_ref().is_ok_and(|answer| !answer.response.head.status.is_server_error()));
    }

    fn note(&self, answered: bool) {
        let took = self.began.elapsed();
        if answered || self.delay.is_some_and(|delay| took >= delay) {
            self.heads.observe(took);
        }
    }
}

impl Drop for Timing<'_> {
    fn drop(&mut self) {
        if !self.over {
            self.note(false);
        }
    }
}
