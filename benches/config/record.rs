//! Writing one exchange down: counters alone, and with the access log.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use floodway::telemetry::{AccessLog, End, Exchange, Kind, Protocol, Recorder, Telemetry};

use crate::measure::{Report, shown, time};

fn exchange<'a>(route: &'a str, upstream: &'a str) -> Exchange<'a> {
    Exchange {
        request_id: "0198a1c2-77aa-7d10-9e7f-6b1f0e2d3c4b",
        trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736"),
        span_id: Some(1),
        client: IpAddr::from([192, 0, 2, 1]),
        protocol: Protocol::Http11,
        method: "POST",
        host: "chat.example.com",
        path: "/v1/chat/completions",
        tls: None,
        route: Some(route),
        rule: Some("completions"),
        upstream: Some(upstream),
        endpoint: Some(SocketAddr::from(([10, 0, 0, 5], 8080))),
        status: 200,
        reason: None,
        kind: Kind::Http,
        end: End::Complete,
        bytes_received: 120,
        bytes_sent: 4096,
        events: None,
        connect: Some(Duration::ZERO),
        first_byte: Some(Duration::from_micros(830)),
        duration: Duration::from_micros(1250),
        attempts: 1,
    }
}

pub(crate) fn run(report: &mut Report) {
    report.table("Writing one exchange down", &["What", "Time"]);
    let names: Vec<_> = (0..1000).map(|i| (format!("shop/app-{i}"), format!("shop/app-{i}:8080"))).collect();
    let mut next = 0;
    let mut each = |recorder: &Recorder| {
        next = (next + 1) % names.len();
        recorder.begins(Kind::Http);
        recorder.record(&exchange(&names[next].0, &names[next].1));
        recorder.ends(Kind::Http);
    };
    let telemetry = Telemetry::default();
    let recorder = telemetry.recorder();
    report.row(&["counters, one route", &shown(time(|| recorder.record(&exchange("shop/chat", "shop/llm:8080"))))]);
    report.row(&["counters, 1,000 routes in turn", &shown(time(|| each(&recorder)))]);
    let mut gap = 0;
    let piece = || {
        gap = (gap + 7919) % 2_000_000;
        recorder.gap(Kind::Sse, Duration::from_micros(gap));
        recorder.events(Kind::Sse, 1);
    };
    report.row(&["counters, one piece of a stream", &shown(time(piece))]);
    report.row(&["/metrics of 1,000 routes", &shown(time(|| telemetry.metrics().text()))]);

    let telemetry = Telemetry::new(&AccessLog::File("/dev/null".into())).unwrap();
    let recorder = telemetry.recorder();
    report.row(&["counters and access log, 1,000 routes in turn", &shown(time(|| each(&recorder)))]);
}
