//! What guards an endpoint costs a request: leave of a circuit breaker and the report to it, and learning what became of the
//! request; alone, and with all processors doing the same to one endpoint.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use floodway::resilience::{EndpointState, Moment, Outcome, Place, Registry};
use floodway::snapshot::{
    Adaptive, BreakerMode, BreakerWait, BreakerWindow, CircuitBreaker, Cluster, ClusterName, Connections, Ejection,
    Endpoint, Failures, Limits, Protocol, Resilience,
};

use crate::measure::{Report, contended, shown, time};

/// As the API has it if nothing else is said, but for the window.
fn breaker(window: BreakerWindow) -> CircuitBreaker {
    CircuitBreaker {
        mode: BreakerMode::Automatic,
        window,
        minimum_calls: 100,
        failure_rate_percent: 50,
        slow_call_rate_percent: 100,
        slow_call_duration: Duration::from_secs(60),
        wait: BreakerWait {
            first: Duration::from_secs(60),
            growth_percent: 100,
            most: Duration::from_secs(60),
            jitter_percent: 0,
        },
        permitted_in_half_open: 10,
        half_open_limit: None,
        failures: Failures { statuses: vec![(500, 599)], cut: true },
    }
}

#[allow(clippy::needless_update, reason = "a cluster has other settings, too")]
fn endpoint(resilience: Resilience) -> Arc<EndpointState> {
    let cluster = Cluster {
        name: ClusterName::new("shop/llm:80"),
        protocol: Protocol::Http1,
        connections: Connections {
            connect_timeout: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(1),
            max_idle_per_endpoint: 1,
            max_requests: None,
            tcp_keep_alive: None,
            upkeep: Default::default(),
            proxy_protocol: None,
            tls: None,
        }
        .into(),
        endpoints: [Endpoint::new(SocketAddr::from(([10, 0, 0, 1], 8080)))].into(),
        move_after: None,
        resilience: Arc::new(resilience),
    };
    Registry::default().of(&cluster, Moment::default()).remove(0)
}

/// Requests that come and are answered well, 50,000 in a second. Nobody asks a clock.
fn each(mut request: impl FnMut(Moment, Duration)) -> impl FnMut() {
    let mut count = 0;
    move || {
        count += 1;
        let first_byte = Duration::from_micros(500 + count * 7919 % 100);
        request(Moment::from_nanos(3_600_000_000_000 + count * 20_000), first_byte);
    }
}

fn guarded(endpoint: &EndpointState) -> impl FnMut() {
    let circuit = endpoint.breaker().circuit().unwrap();
    each(move |now, first_byte| {
        let permit = circuit.acquire(Place::Endpoint(endpoint), now).unwrap();
        let outcome = Outcome::Answered { status: 200, first_byte };
        circuit.record(Place::Endpoint(endpoint), permit, outcome, first_byte, now);
    })
}

fn reported(endpoint: &EndpointState) -> impl FnMut() {
    each(move |now, first_byte| endpoint.report(Outcome::Answered { status: 200, first_byte }, now))
}

pub(crate) fn run(report: &mut Report) {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    report.table(
        "What guards an endpoint, for each request that is answered well",
        &["What", "Processor time", &format!("{processors} processors at once")],
    );
    let windows = [
        ("leave of the circuit breaker and the report to it, a window of 100 calls", BreakerWindow::Calls(100)),
        ("the same, a window of 20 seconds", BreakerWindow::Time(Duration::from_secs(20))),
    ];
    for (name, window) in windows {
        let endpoint =
            endpoint(Resilience { endpoint_circuit_breaker: Some(breaker(window)), ..Resilience::default() });
        let all = contended(processors, || guarded(&endpoint));
        report.row(&[name, &shown(time(guarded(&endpoint))), &shown(all)]);
    }
    let ejection = Some(Ejection::default());
    let adaptive = Adaptive { min: 1, max: 1000, tolerance_percent: 150, window: Duration::from_secs(1) };
    let limits = Some(Limits { adaptive: Some(adaptive), ..Limits::NONE });
    let settings = [
        ("learning what became of the request", Resilience::default()),
        ("the same with passive health", Resilience { ejection: ejection.clone(), ..Resilience::default() }),
        ("the same with an adaptive limit, too", Resilience { ejection, limits, ..Resilience::default() }),
    ];
    for (name, resilience) in settings {
        let endpoint = endpoint(resilience);
        let all = contended(processors, || reported(&endpoint));
        report.row(&[name, &shown(time(reported(&endpoint))), &shown(all)]);
    }
}
