//! When one endpoint is asked, and what follows from its answers.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::Settings;
use super::failure::Failure;
use super::judge::Judge;
use crate::clock;
use crate::resilience::{Change, EndpointState, KeptOut, State, Why};
use crate::telemetry::Metrics;

/// Who asks. Tests ask nobody.
pub(super) trait Ask: Clone + Send + Sync + 'static {
    /// Asks the endpoint; takes as long as it takes.
    fn ask(&self, endpoint: SocketAddr, settings: &Settings) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// Follows one endpoint.
pub(super) struct Checker<A> {
    pub(super) ask: A,
    pub(super) endpoint: Arc<EndpointState>,
    pub(super) settings: watch::Receiver<Arc<Settings>>,
    /// Whether the cluster has traffic; always, if that does not matter.
    pub(super) traffic: watch::Receiver<bool>,
    /// How many checks there are at a time, in the whole process.
    pub(super) turns: Arc<Semaphore>,
    pub(super) metrics: Metrics,
}

impl<A: Ask> Checker<A> {
    /// Asks again and again.
    pub(super) async fn run(mut self) -> Infallible {
        let is_out = |why| self.endpoint.is_kept_out(why);
        let mut judge = Judge::new(is_out(KeptOut::Unhealthy), is_out(KeptOut::Untried));
        // So that endpoints that came together are not asked together for ever.
        let mut share = fastrand::f64();
        loop {
            if !judge.is_untried() {
                // Its sender lives as long as this task.
                let _ = self.traffic.wait_for(|has_some| *has_some).await;
            }
            let settings = Arc::clone(&self.settings.borrow_and_update());
            let began = self.check(&settings, &mut judge).await;
            let check = &settings.check;
            let interval = if judge.is_healthy() { check.interval } else { check.unhealthy_interval };
            let interval = interval.mul_f64(share);
            share = 0.9 + 0.2 * fastrand::f64();
            tokio::select! {
                () = sleep_until(began + interval) => {}
                // Whoever changes how endpoints are asked wants to know what comes of it.
                _ = self.settings.changed() => {}
            }
        }
    }

    /// Asks once, when it is its turn; returns when that was.
    async fn check(&self, settings: &Settings, judge: &mut Judge) -> Instant {
        let turn = self.turns.acquire().await;
        let began = Instant::now();
        let limit = settings.check.timeout;
        let asked = timeout(limit, self.ask.ask(self.endpoint.address(), settings)).await;
        drop(turn);
        let result = asked.unwrap_or(Err(Failure::Timeout(limit)));
        let outcome = result.as_ref().map_or_else(Failure::outcome, |()| "passed");
        self.metrics.health_check(self.endpoint.cluster().name().as_str(), outcome);
        if let Err(Failure::Ours(_)) = result {
            tracing::warn!(endpoint = %self.endpoint.address(), "no health check: {}", Reason(&result));
        } else {
            self.learn(&result, settings, judge);
        }
        began
    }

    fn learn(&self, result: &Result<(), Failure>, settings: &Settings, judge: &mut Judge) {
        let now = clock::now();
        let detail = Reason(result).to_string();
        self.endpoint.learn_check(result.is_ok(), &detail, now);
        let untried = judge.is_untried();
        let changed = judge.learn(result.is_ok(), &settings.check);
        let healthy = judge.is_healthy();
        // Also when nothing changed: somebody with an older table may have let it in.
        self.endpoint.keep_out(KeptOut::Unhealthy, !healthy && !judge.is_untried());
        self.endpoint.keep_out(KeptOut::Untried, judge.is_untried());
        // That a new endpoint passes its first check is no news.
        if changed && !untried {
            let (from, to) =
                if healthy { (State::Unhealthy, State::Healthy) } else { (State::Healthy, State::Unhealthy) };
            self.endpoint.tell(Change { from, to, why: Why::HealthCheck, detail, at: now, until: None });
        }
    }
}

/// How a check went, for people.
struct Reason<'a>(&'a Result<(), Failure>);

impl std::fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Ok(()) => f.write_str("passed"),
            Err(failure) => failure.fmt(f),
        }
    }
}

/// How long a cluster without requests and streams counts as one with traffic, and how soon traffic is seen: an interval,
/// and a second if that is shorter.
pub(super) async fn follow_traffic(
    asked: impl Fn() -> bool,
    settings: watch::Receiver<Arc<Settings>>,
    traffic: watch::Sender<bool>,
) -> Infallible {
    let mut last = None::<Instant>;
    loop {
        let interval = {
            let settings = settings.borrow();
            settings.check.only_with_traffic.then_some(settings.check.interval)
        };
        let now = Instant::now();
        if asked() {
            last = Some(now);
        }
        let has_some = interval.is_none_or(|interval| last.is_some_and(|last| now - last < interval));
        traffic.send_if_modified(|before| std::mem::replace(before, has_some) != has_some);
        let pause = interval.unwrap_or(LOOK).min(LOOK);
        tokio::time::sleep(pause).await;
    }
}

/// How soon traffic is seen, at the latest.
const LOOK: Duration = Duration::from_secs(1);
