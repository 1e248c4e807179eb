//! When endpoints are asked, with time that stands still and nobody to ask.
#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::failure::Failure;
use super::*;
use crate::snapshot::{self, Endpoint, Probe, Publisher, Resilience};
use crate::telemetry::Telemetry;

/// A check each ten seconds, and each second while unhealthy; two that pass and three that fail count.
pub(super) fn check() -> HealthCheck {
    HealthCheck {
        probe: Probe::Tcp,
        port: None,
        interval: Duration::from_secs(10),
        unhealthy_interval: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        healthy_threshold: 2,
        unhealthy_threshold: 3,
        only_with_traffic: false,
        before_use: false,
    }
}

/// Endpoints as a test wants them.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Played>>);

#[derive(Default)]
struct Played {
    /// How long each answer takes; `None` never comes.
    takes: Option<Duration>,
    sick: bool,
    ours: bool,
    /// When each check began, and of whom.
    asked: Vec<(Instant, u16)>,
    at_a_time: usize,
    most_at_a_time: usize,
}

impl Ask for Fake {
    async fn ask(&self, endpoint: SocketAddr, _: &Settings) -> Result<(), Failure> {
        let takes = {
            let mut played = self.0.lock().unwrap();
            played.asked.push((Instant::now(), endpoint.port()));
            played.at_a_time += 1;
            played.most_at_a_time = played.most_at_a_time.max(played.at_a_time);
            played.takes
        };
        let _leaving = Leaving(self);
        match takes {
            Some(takes) => tokio::time::sleep(takes).await,
            None => std::future::pending().await,
        }
        let played = self.0.lock().unwrap();
        match (played.ours, played.sick) {
            (true, _) => Err(Failure::Ours(std::io::ErrorKind::Other)),
            (_, true) => Err(Failure::Status(503)),
            _ => Ok(()),
        }
    }
}

struct Leaving<'a>(&'a Fake);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.0.lock().unwrap().at_a_time -= 1;
    }
}

struct Stage {
    fake: Fake,
    publisher: Publisher,
    registry: Registry,
    telemetry: Telemetry,
    /// As it was published last.
    cluster: RefCell<Cluster>,
    _checks: AbortOnDropHandle<Infallible>,
}

impl Stage {
    fn new(check: &HealthCheck, ports: &[u16]) -> Stage {
        let fake = Fake::default();
        fake.0.lock().unwrap().takes = Some(Duration::from_millis(1));
        Stage::with(fake, check, ports)
    }

    fn with(fake: Fake, check: &HealthCheck, ports: &[u16]) -> Stage {
        let (publisher, reader) = snapshot::channel();
        let (registry, telemetry) = (Registry::default(), Telemetry::default());
        let checks = Checks::new(fake.clone(), registry.clone(), telemetry.metrics().clone());
        let checks = AbortOnDropHandle::new(tokio::spawn(follow(reader, checks)));
        let cluster = RefCell::new(cluster(Some(check), ports));
        let stage = Stage { fake, publisher, registry, telemetry, cluster, _checks: checks };
        stage.publish(Some(check), ports);
        stage
    }

    fn publish(&self, check: Option<&HealthCheck>, ports: &[u16]) {
        let cluster = cluster(check, ports);
        self.cluster.replace(cluster.clone());
        let clusters = [(cluster.name.clone(), Arc::new(cluster))].into_iter().collect();
        self.publisher.publish(Snapshot { clusters, ..Snapshot::default() });
    }

    /// What every thread knows of an endpoint.
    fn state(&self, port: u16) -> Arc<EndpointState> {
        let states = self.registry.of(&self.cluster.borrow(), clock::now());
        states.into_iter().find(|state| state.address().port() == port).unwrap()
    }

    fn is_out(&self, port: u16) -> bool {
        !self.state(port).is_available()
    }

    fn asked(&self) -> usize {
        self.fake.0.lock().unwrap().asked.len()
    }

    fn sick(&self, sick: bool) {
        self.fake.0.lock().unwrap().sick = sick;
    }

    fn metric(&self, outcome: &str) -> Option<String> {
        let line = format!("floodway_health_checks_total{{outcome=\"{outcome}\",upstream=\"shop/llm:80\"}} ");
        self.telemetry.metrics().text().lines().find_map(|text| text.strip_prefix(&line).map(str::to_owned))
    }
}

fn cluster(check: Option<&HealthCheck>, ports: &[u16]) -> Cluster {
    let endpoint = |port: &u16| Endpoint::new(([127, 0, 0, 1], *port).into());
    Cluster {
        endpoints: ports.iter().map(endpoint).collect(),
        resilience: Arc::new(Resilience { health: check.cloned(), ..Resilience::default() }),
        ..Cluster::plain()
    }
}

async fn seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn checks_keep_their_interval_and_a_tenth_of_jitter() {
    let stage = Stage::new(&check(), &[1]);
    seconds(1000).await;
    let asked = stage.fake.0.lock().unwrap().asked.clone();
    let gaps: Vec<_> = asked.windows(2).map(|pair| (pair[1].0 - pair[0].0).as_secs_f64()).collect();
    assert!(asked[0].0.elapsed() >= Duration::from_secs(999), "the first is made at once");
    assert!(gaps[0] <= 10.01, "the second comes at any time within the interval: {}", gaps[0]);
    assert!(gaps[1..].iter().all(|gap| (9.0..=11.01).contains(gap)), "{gaps:?}");
    assert!(gaps[1..].iter().any(|gap| (gap - gaps[1]).abs() > 0.1), "they vary");
    assert!((95..=106).contains(&gaps.len()), "{}", gaps.len());
}

#[tokio::test(start_paused = true)]
async fn a_sick_endpoint_is_left_within_threshold_times_interval_and_comes_back_sooner() {
    let stage = Stage::new(&check(), &[1]);
    seconds(60).await;
    assert!(!stage.is_out(1));
    stage.sick(true);
    seconds(17).await;
    assert!(!stage.is_out(1), "at most two checks failed");
    seconds(17).await;
    assert!(stage.is_out(1));
    assert_eq!(stage.state(1).checked().unwrap().reason, "status 503");
    let untold = stage.registry.untold();
    let told: Vec<_> = untold.transitions.iter().map(|told| (told.change.to, told.change.detail.as_str())).collect();
    assert_eq!(told, [(State::Unhealthy, "status 503")]);

    let before = stage.asked();
    seconds(20).await;
    assert!((17..=23).contains(&(stage.asked() - before)), "it is asked each second");
    stage.sick(false);
    seconds(3).await;
    assert!(!stage.is_out(1));
    assert_eq!(stage.registry.untold().transitions[0].change.to, State::Healthy);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_takes_too_long_is_a_failure() {
    let fake = Fake::default();
    let stage = Stage::with(fake, &HealthCheck { unhealthy_threshold: 1, ..check() }, &[1]);
    tokio::time::sleep(Duration::from_millis(1010)).await;
    assert!(stage.is_out(1));
    assert_eq!(stage.state(1).checked().unwrap().reason, "no answer within 1s");
    assert_eq!(stage.metric("timeout").as_deref(), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn what_floodway_itself_lacks_is_no_failure_of_the_endpoint() {
    let stage = Stage::new(&HealthCheck { unhealthy_threshold: 1, ..check() }, &[1]);
    stage.fake.0.lock().unwrap().ours = true;
    seconds(100).await;
    assert!(!stage.is_out(1) && stage.asked() > 8);
    assert_eq!(stage.metric("not_made"), Some(stage.asked().to_string()));
}

#[tokio::test(start_paused = true)]
async fn without_traffic_nothing_is_asked() {
    let quiet = HealthCheck { only_with_traffic: true, ..check() };
    let stage = Stage::new(&quiet, &[1, 2]);
    seconds(100).await;
    assert_eq!(stage.asked(), 0);

    stage.state(1).cluster().ask();
    seconds(2).await;
    assert!((2..=4).contains(&stage.asked()), "a request wakes the checks of all endpoints within a second");
    seconds(100).await;
    assert!(stage.asked() <= 6, "and they end again: {}", stage.asked());

    // A stream is traffic for as long as it runs.
    let before = stage.asked();
    stage.state(1).enter();
    seconds(100).await;
    assert!(stage.asked() >= before + 18, "{}", stage.asked());
    stage.state(1).leave();
}

#[tokio::test(start_paused = true)]
async fn a_new_endpoint_waits_for_its_first_check_if_so_asked() {
    let careful = HealthCheck { before_use: true, only_with_traffic: true, ..check() };
    let stage = Stage::new(&careful, &[1]);
    assert!(stage.is_out(1), "before anybody asked");
    seconds(1).await;
    assert!(!stage.is_out(1), "one check that passes is enough, also without traffic");

    stage.sick(true);
    stage.publish(Some(&careful), &[1, 2]);
    seconds(30).await;
    assert!(stage.is_out(2) && !stage.is_out(1));
    stage.sick(false);
    seconds(2).await;
    assert!(!stage.is_out(2));
}

#[tokio::test(start_paused = true)]
async fn endpoints_that_go_are_asked_no_more_and_forgotten() {
    let stage = Stage::new(&check(), &[1, 2]);
    seconds(30).await;
    let gone = Arc::downgrade(&stage.state(2));
    stage.publish(Some(&check()), &[1]);
    seconds(1).await;
    assert!(gone.upgrade().is_none());
    stage.fake.0.lock().unwrap().asked.clear();
    seconds(50).await;
    assert!(stage.asked() >= 4);
    assert!(stage.fake.0.lock().unwrap().asked.iter().all(|(_, port)| *port == 1));

    let last = Arc::downgrade(&stage.state(1));
    stage.publisher.publish(Snapshot::default());
    seconds(1).await;
    assert!(last.upgrade().is_none());
    assert_eq!(stage.metric("passed"), None, "its series end");
}

#[tokio::test(start_paused = true)]
async fn other_settings_count_at_once_and_no_check_lets_everybody_in() {
    let stage = Stage::new(&check(), &[1]);
    stage.sick(true);
    seconds(40).await;
    assert!(stage.is_out(1));
    let hourly = Duration::from_secs(3600);
    stage.publish(Some(&HealthCheck { interval: hourly, unhealthy_interval: hourly, ..check() }), &[1]);
    seconds(5).await;
    assert!(stage.is_out(1), "what is known holds");
    stage.sick(false);
    stage.publish(Some(&check()), &[1]);
    seconds(3).await;
    assert!(!stage.is_out(1), "nobody waits for the hour to be over");

    stage.sick(true);
    seconds(40).await;
    let state = stage.state(1);
    assert!(state.is_kept_out(KeptOut::Unhealthy));
    stage.publish(None, &[1]);
    seconds(1).await;
    assert!(state.is_available());
    let told = stage.registry.untold().transitions.pop_back().unwrap().change;
    assert_eq!((told.to, told.why), (State::Healthy, Why::Reconfigured));
}

#[tokio::test(start_paused = true)]
async fn many_endpoints_are_asked_a_bounded_number_at_a_time() {
    let ports: Vec<u16> = (1..=10_000).collect();
    let fake = Fake::default();
    fake.0.lock().unwrap().takes = Some(Duration::from_millis(100));
    let stage = Stage::with(fake, &check(), &ports);
    seconds(5).await;
    let played = stage.fake.0.lock().unwrap();
    assert!(played.asked.len() >= 10_000, "{}", played.asked.len());
    assert_eq!(played.most_at_a_time, AT_A_TIME);
}

#[tokio::test(start_paused = true)]
async fn endpoints_that_hang_do_not_make_others_sick() {
    let fake = Fake::default();
    let stage = Stage::with(fake, &HealthCheck { unhealthy_threshold: 1, ..check() }, &(1..=1000).collect::<Vec<_>>());
    tokio::time::sleep(Duration::from_millis(1500)).await;
    // Everybody who is asked hangs; who waits for a turn is not judged for it.
    let out = (1..=1000).filter(|port| stage.is_out(*port)).count();
    assert_eq!(out, AT_A_TIME);
}
