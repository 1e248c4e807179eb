//! Endpoints are asked whether they are well, and requests follow: left while they are sick, and taken back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use floodway::snapshot::{
    Cluster, HealthCheck, HttpProbe, Probe, ProbeHeaders, ProbeMethod, Protocol, Resilience, Route, Snapshot, Statuses,
};
use tokio::time::Instant;

use super::support::*;

/// A backend that answers requests with its name, and checks as it feels.
struct Backend {
    address: std::net::SocketAddr,
    sick: Arc<AtomicBool>,
    checks: Arc<AtomicUsize>,
}

impl Backend {
    async fn start(name: &'static str) -> Backend {
        let (sick, checks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (feels, counts) = (Arc::clone(&sick), Arc::clone(&checks));
        let serve = move |mut client: Raw| {
            let (sick, checks) = (Arc::clone(&feels), Arc::clone(&counts));
            async move {
                while let Some(head) = client.request().await {
                    if head.starts_with("GET /stream ") {
                        client.send(EVENTS).await;
                        let _ = client.closed().await;
                        return;
                    }
                    let (status, text) = if head.starts_with("GET /healthz ") {
                        checks.fetch_add(1, Ordering::SeqCst);
                        (if sick.load(Ordering::SeqCst) { 503 } else { 200 }, "")
                    } else {
                        (200, name)
                    };
                    let length = text.len();
                    client.send(format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{text}")).await;
                }
            }
        };
        Backend { address: backend(serve).await, sick, checks }
    }

    fn sick(&self, sick: bool) {
        self.sick.store(sick, Ordering::SeqCst);
    }

    fn checks(&self) -> usize {
        self.checks.load(Ordering::SeqCst)
    }
}

const INTERVAL: Duration = Duration::from_millis(100);

fn check() -> HealthCheck {
    HealthCheck {
        probe: Probe::Http(HttpProbe {
            protocol: None,
            method: ProbeMethod::Get,
            path: "/healthz".to_owned(),
            host: None,
            headers: ProbeHeaders::default(),
            statuses: vec![Statuses(200..=299)],
            body: None,
        }),
        port: None,
        interval: INTERVAL,
        unhealthy_interval: INTERVAL,
        timeout: Duration::from_secs(10),
        healthy_threshold: 2,
        unhealthy_threshold: 3,
        only_with_traffic: false,
        before_use: false,
    }
}

fn checked(check: HealthCheck, backends: &[&Backend]) -> Cluster {
    let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
    let resilience = Arc::new(Resilience { health: Some(check), ..Resilience::default() });
    Cluster { resilience, ..cluster("backend", Protocol::Http1, &addresses) }
}

fn with(routes: Vec<Route>, check: HealthCheck, backends: &[&Backend]) -> Snapshot {
    snapshot(routes, vec![checked(check, backends)])
}

fn everything() -> Vec<Route> {
    vec![forward("", "backend")]
}

/// The status of an answer, and who gave it.
async fn ask(plane: &Plane, path: &str) -> (String, String) {
    let answer = plane.exchange(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().to_owned(), body.to_owned())
}

/// Asks until this many answers in a row come from `names`, each at least once.
async fn answers_come_from(plane: &Plane, names: &[&str]) {
    let all = async {
        loop {
            let mut answers = Vec::new();
            for _ in 0..30 {
                let (status, name) = ask(plane, "/").await;
                assert_eq!(status, "200");
                answers.push(name);
            }
            let only = answers.iter().all(|name| names.contains(&&**name));
            if only && names.iter().all(|name| answers.iter().any(|answer| answer == name)) {
                return;
            }
        }
    };
    within(all).await;
}

#[tokio::test]
async fn a_backend_that_turns_sick_is_left_and_comes_back() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let plane = Plane::start(with(everything(), check(), &[&one, &two]));
    answers_come_from(&plane, &["one", "two"]).await;
    one.sick(true);
    answers_come_from(&plane, &["two"]).await;
    one.sick(false);
    answers_come_from(&plane, &["one", "two"]).await;
    assert!(plane.metric("floodway_health_checks_total", "outcome=\"unexpected\",upstream=\"backend\"") >= 3.0);
}

/// Three checks fail: no sooner, and none more is needed.
#[tokio::test]
async fn a_sick_backend_is_left_when_the_threshold_is_reached() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let long = Duration::from_secs(3600);
    // Only its failures are asked for often.
    let check = HealthCheck { interval: INTERVAL, unhealthy_interval: long, ..check() };
    one.sick(true);
    let plane = Plane::start(with(everything(), check, &[&one, &two]));
    answers_come_from(&plane, &["two"]).await;
    assert_eq!(one.checks(), 3, "and from then on it is asked each hour");
}

#[tokio::test]
async fn an_endpoint_is_asked_once_however_many_routes_lead_there() {
    let backend = Backend::start("one").await;
    let routes = vec![forward("/a", "backend"), forward("/b", "backend"), forward("", "backend")];
    let began = Instant::now();
    let plane = Plane::start(with(routes, check(), &[&backend]));
    for path in ["/a", "/b", "/"] {
        assert_eq!(ask(&plane, path).await.0, "200");
    }
    eventually("ten checks", || backend.checks() >= 10).await;
    // One at once, one at any time within an interval, and then one each nine tenths of it at most.
    let most = 2.0 + began.elapsed().as_secs_f64() / (0.9 * INTERVAL.as_secs_f64()) + 1.0;
    assert!((backend.checks() as f64) < most, "{} checks, at most {most}", backend.checks());

    // A table with other routes, and one with another endpoint more, begin nothing anew.
    let other = Backend::start("two").await;
    let before = (backend.checks(), Instant::now());
    for at in 0..20 {
        let routes = vec![forward(&format!("/{at}"), "backend"), forward("", "backend")];
        plane.publisher.publish(with(routes, check(), &[&backend, &other][..1 + at % 2]));
        ask(&plane, "/").await;
    }
    let most = 2.0 + before.1.elapsed().as_secs_f64() / (0.9 * INTERVAL.as_secs_f64());
    assert!(((backend.checks() - before.0) as f64) < most, "{} checks, at most {most}", backend.checks() - before.0);
}

#[tokio::test]
async fn a_new_endpoint_gets_nothing_before_its_first_check_if_so_asked() {
    let backend = Backend::start("one").await;
    backend.sick(true);
    let careful = HealthCheck { before_use: true, ..check() };
    let plane = Plane::start(with(everything(), careful.clone(), &[&backend]));
    for _ in 0..10 {
        assert_eq!(ask(&plane, "/").await.0, "503");
    }
    backend.sick(false);
    plane.metric_becomes("floodway_health_checks_total", "outcome=\"passed\"", 1.0).await;
    answers_come_from(&plane, &["one"]).await;

    let second = Backend::start("two").await;
    second.sick(true);
    plane.publisher.publish(with(everything(), careful, &[&backend, &second]));
    eventually("checks of the second", || second.checks() > 3).await;
    answers_come_from(&plane, &["one"]).await;
    second.sick(false);
    answers_come_from(&plane, &["one", "two"]).await;
}

#[tokio::test]
async fn nobody_is_asked_without_traffic_if_so_asked() {
    let (quiet, watched) = (Backend::start("quiet").await, Backend::start("watched").await);
    let saving = HealthCheck { only_with_traffic: true, ..check() };
    let mut other = checked(check(), &[&watched]);
    other.name = floodway::snapshot::ClusterName::new("watched");
    let plane = Plane::start(snapshot(everything(), vec![checked(saving, &[&quiet]), other]));
    eventually("checks of the one that is always checked", || watched.checks() >= 5).await;
    assert_eq!(quiet.checks(), 0);
    assert_eq!(ask(&plane, "/").await.1, "quiet");
    eventually("a check", || quiet.checks() > 0).await;
    // A stream keeps it awake.
    let mut stream = plane.connect().await;
    stream.send("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n").await;
    stream.head().await;
    let before = quiet.checks();
    eventually("more checks", || quiet.checks() >= before + 5).await;
}

/// Its connections hang and its checks do: that is the same as an answer that says so.
#[tokio::test]
async fn a_backend_that_hangs_is_left() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let (hanging, mut arrivals) = played().await;
    let hangs = Backend { address: hanging, sick: Arc::clone(&one.sick), checks: Arc::clone(&one.checks) };
    let check = HealthCheck { timeout: Duration::from_millis(300), before_use: true, ..check() };
    let plane = Plane::start(with(everything(), check, &[&hangs, &one, &two]));
    let (_held, head) = arrivals.request().await;
    assert!(head.starts_with("GET /healthz "), "{head}");
    eventually("a timeout", || plane.metric("floodway_health_checks_total", "outcome=\"timeout\"") > 0.0).await;
    answers_come_from(&plane, &["one", "two"]).await;
}

#[tokio::test]
async fn checks_end_with_their_cluster() {
    let backend = Backend::start("one").await;
    let plane = Plane::start(with(everything(), check(), &[&backend]));
    eventually("checks", || backend.checks() > 3).await;
    plane.publisher.publish(to(backend.address));
    eventually("the end of its series", || !plane.telemetry.metrics().text().contains("floodway_health_checks_total{"))
        .await;
    let checks = backend.checks();
    tokio::time::sleep(3 * INTERVAL).await;
    assert!(backend.checks() <= checks + 1, "one may have been on its way");
}
