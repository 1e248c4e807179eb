use std::time::Duration;

use tokio::time::Instant;

/// Whether a condition becomes true within ten seconds. Threads are tested with it, which nobody polls.
#[allow(clippy::disallowed_methods)]
pub(super) fn becomes(condition: impl Fn() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        if condition() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    false
}

mod counting {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;
    use std::time::Duration;

    use super::super::exchange::tests::sample;
    use super::super::*;

    fn live(routes: &[&str], upstreams: &[&str]) -> Live {
        let set = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect();
        Live { routes: set(routes), upstreams: set(upstreams) }
    }

    /// The value of a series, written as in the text format.
    fn value(telemetry: &Telemetry, series: &str) -> Option<f64> {
        let text = telemetry.metrics().text();
        let rest = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        Some(rest.parse().unwrap())
    }

    #[test]
    fn an_exchange_is_counted_in_every_family() {
        let telemetry = Telemetry::default();
        let recorder = telemetry.recorder();
        let other = telemetry.recorder();
        let plain = Exchange { kind: Kind::Http, end: End::Complete, bytes_received: 7, ..sample() };
        recorder.record(&plain);
        other.record(&plain);
        other.record(&Exchange { status: 503, reason: Some("no_endpoint"), end: End::Answered, ..plain.clone() });
        other.record(&sample());
        let none = Exchange { route: None, upstream: None, status: 404, reason: Some("no_route"), ..plain };
        other.record(&Exchange { protocol: Protocol::Http2, attempts: 0, connect: None, first_byte: None, ..none });
        for (series, expected) in [
            (
                r#"floodway_requests_total{code="200",protocol="HTTP/1.1",route="shop/chat",upstream="shop/llm:8080"}"#,
                3.0,
            ),
            (
                r#"floodway_requests_total{code="503",protocol="HTTP/1.1",route="shop/chat",upstream="shop/llm:8080"}"#,
                1.0,
            ),
            (r#"floodway_requests_total{code="404",protocol="HTTP/2",route="none",upstream="none"}"#, 1.0),
            (r#"floodway_exchanges_ended_total{end="client_gone",kind="sse",route="shop/chat"}"#, 1.0),
            (r#"floodway_exchanges_ended_total{end="complete",kind="http",route="shop/chat"}"#, 2.0),
            (r#"floodway_failures_total{reason="no_endpoint",route="shop/chat"}"#, 1.0),
            (r#"floodway_retries_total{route="shop/chat"}"#, 4.0),
            (r#"floodway_received_bytes_total{route="shop/chat"}"#, 21.0),
            (r#"floodway_sent_bytes_total{route="shop/chat"}"#, 4936.0),
            (r#"floodway_request_duration_seconds_count{route="shop/chat"}"#, 3.0),
            (r#"floodway_request_duration_seconds_sum{route="shop/chat"}"#, 270.0),
            (r#"floodway_request_duration_seconds_bucket{route="shop/chat",le="60"}"#, 0.0),
            (r#"floodway_request_duration_seconds_bucket{route="shop/chat",le="+Inf"}"#, 3.0),
            (r#"floodway_first_byte_seconds_bucket{route="shop/chat",le="0.01"}"#, 0.0),
            (r#"floodway_first_byte_seconds_bucket{route="shop/chat",le="0.025"}"#, 4.0),
            (r#"floodway_stream_duration_seconds_bucket{kind="sse",le="300"}"#, 1.0),
            (r#"floodway_upstream_connect_seconds_count"#, 4.0),
        ] {
            assert_eq!(value(&telemetry, series), Some(expected), "{series}");
        }
    }

    #[test]
    fn statuses_that_endpoints_invent_share_a_series() {
        let telemetry = Telemetry::default();
        let recorder = telemetry.recorder();
        for status in [299, 298, 200] {
            recorder.record(&Exchange { status, ..sample() });
        }
        let text = telemetry.metrics().text();
        assert!(
            text.contains(r#"code="2xx",protocol="HTTP/1.1",route="shop/chat",upstream="shop/llm:8080"} 2"#),
            "{text}"
        );
    }

    #[test]
    fn what_is_open_is_counted() {
        let telemetry = Telemetry::default();
        let recorder = telemetry.recorder();
        recorder.opened();
        recorder.begins(Kind::Http);
        recorder.begins(Kind::Tunnel);
        assert_eq!(value(&telemetry, "floodway_connections_open"), Some(1.0));
        assert_eq!(value(&telemetry, r#"floodway_active_streams{kind="http"}"#), Some(1.0));
        recorder.ends(Kind::Http);
        recorder.begins(Kind::Sse);
        assert_eq!(value(&telemetry, r#"floodway_active_streams{kind="http"}"#), Some(0.0));
        assert_eq!(value(&telemetry, r#"floodway_active_streams{kind="sse"}"#), Some(1.0));
        recorder.ends(Kind::Sse);
        recorder.ends(Kind::Tunnel);
        recorder.closed();
        drop(recorder);
        for kind in Kind::ALL {
            let series = format!(r#"floodway_active_streams{{kind="{}"}}"#, kind.as_str());
            assert_eq!(value(&telemetry, &series), Some(0.0), "{series}");
        }
        assert_eq!(value(&telemetry, "floodway_connections_open"), Some(0.0));
        assert_eq!(value(&telemetry, "floodway_connections_total"), Some(1.0), "counters outlive their worker");
    }

    #[test]
    fn streams_tell_of_their_pieces_and_of_their_parting() {
        let telemetry = Telemetry::default();
        let recorder = telemetry.recorder();
        recorder.gap(Kind::Sse, Duration::from_millis(3));
        recorder.gap(Kind::Sse, Duration::from_secs(2));
        recorder.events(Kind::Sse, 5);
        recorder.drained(Kind::WebSocket, Parted::Cut);
        for (series, expected) in [
            (r#"floodway_stream_gap_seconds_bucket{kind="sse",le="0.001"}"#, 0.0),
            (r#"floodway_stream_gap_seconds_bucket{kind="sse",le="0.005"}"#, 1.0),
            (r#"floodway_stream_gap_seconds_count{kind="sse"}"#, 2.0),
            (r#"floodway_stream_events_total{kind="sse"}"#, 5.0),
            (r#"floodway_drained_streams_total{kind="websocket",outcome="cut"}"#, 1.0),
        ] {
            assert_eq!(value(&telemetry, series), Some(expected), "{series}");
        }
    }

    #[test]
    fn connections_are_counted() {
        let telemetry = Telemetry::default();
        let recorder = telemetry.recorder();
        recorder.connection_refused("too_many_connections");
        recorder.upstream_connect("shop/llm:8080", true);
        recorder.upstream_connect("shop/llm:8080", false);
        recorder.upstream_connect("shop/llm:8080", false);
        let refused = r#"floodway_connections_refused_total{reason="too_many_connections"}"#;
        assert_eq!(value(&telemetry, refused), Some(1.0));
        let failed = r#"floodway_upstream_connects_total{result="failure",upstream="shop/llm:8080"}"#;
        assert_eq!(value(&telemetry, failed), Some(2.0));
    }

    #[test]
    fn series_of_removed_names_end_and_stay_away() {
        let telemetry = Telemetry::default();
        let recorder = telemetry.recorder();
        let chat = sample();
        let other = Exchange { route: Some("shop/other"), upstream: Some("shop/other:80"), ..sample() };
        telemetry.forget_absent(live(&["shop/chat", "shop/other"], &["shop/llm:8080", "shop/other:80"]));
        recorder.record(&chat);
        recorder.record(&other);
        recorder.upstream_connect("shop/llm:8080", true);
        // A stream that outlives its route is counted, but not under its name.
        telemetry.forget_absent(live(&["shop/other"], &["shop/other:80"]));
        assert!(!telemetry.metrics().text().contains("shop/chat"));
        recorder.record(&chat);
        recorder.record(&other);
        recorder.upstream_connect("shop/llm:8080", true);
        let text = telemetry.metrics().text();
        assert!(!text.contains("shop/chat") && !text.contains("shop/llm"), "{text}");
        assert_eq!(value(&telemetry, r#"floodway_retries_total{route="removed"}"#), Some(1.0));
        assert_eq!(value(&telemetry, r#"floodway_retries_total{route="shop/other"}"#), Some(2.0), "others go on");
        // It may come back, and begins at zero.
        telemetry.forget_absent(live(&["shop/chat", "shop/other"], &["shop/llm:8080", "shop/other:80"]));
        recorder.record(&chat);
        assert_eq!(value(&telemetry, r#"floodway_retries_total{route="shop/chat"}"#), Some(1.0));
        assert_eq!(value(&telemetry, r#"floodway_retries_total{route="shop/other"}"#), Some(2.0));
    }

    #[test]
    fn a_route_keeps_its_sums_when_one_upstream_goes() {
        let telemetry = Telemetry::default();
        let recorder = telemetry.recorder();
        recorder.record(&sample());
        recorder.record(&Exchange { upstream: Some("shop/next:80"), ..sample() });
        telemetry.forget_absent(live(&["shop/chat"], &["shop/next:80"]));
        assert_eq!(value(&telemetry, r#"floodway_retries_total{route="shop/chat"}"#), Some(2.0));
        let text = telemetry.metrics().text();
        assert!(text.contains("shop/next:80") && !text.contains("shop/llm:8080"), "{text}");
    }

    #[test]
    fn the_control_thread_counts() {
        let telemetry = Telemetry::default();
        let metrics = telemetry.metrics();
        metrics.published();
        metrics.translated(std::time::Duration::from_millis(2));
        metrics.objects("ProxyRoute", 3, 1);
        metrics.unreadable_objects("ProxyRoute", 1, 0);
        metrics.source_connected("ProxyRoute", true);
        metrics.source_error("ProxyRoute");
        metrics.source_listed("ProxyRoute");
        metrics.source_event("ProxyRoute");
        metrics.dns_lookup(false);
        metrics.status_write("ProxyRoute", true);
        metrics.leader(true);
        for (series, expected) in [
            ("floodway_config_publications_total", 1.0),
            (r#"floodway_config_translation_seconds_bucket{le="0.005"}"#, 1.0),
            (r#"floodway_config_objects{kind="ProxyRoute"}"#, 3.0),
            (r#"floodway_config_rejected_objects{kind="ProxyRoute"}"#, 1.0),
            (r#"floodway_source_connected{source="ProxyRoute"}"#, 1.0),
            (r#"floodway_dns_lookups_total{result="failure"}"#, 1.0),
            (r#"floodway_status_writes_total{kind="ProxyRoute",result="success"}"#, 1.0),
            ("floodway_leader", 1.0),
        ] {
            assert_eq!(value(&telemetry, series), Some(expected), "{series}");
        }
        assert!(value(&telemetry, "floodway_config_last_publish_timestamp_seconds").unwrap() > 1.7e9);
    }

    #[test]
    fn one_writes_while_another_reads() {
        let telemetry = Telemetry::default();
        std::thread::scope(|scope| {
            for worker in 0..3 {
                let telemetry = &telemetry;
                scope.spawn(move || {
                    let recorder = telemetry.recorder();
                    for _ in 0..2_000 {
                        recorder.record(&sample());
                        if worker == 0 {
                            telemetry.forget_absent(live(&["shop/chat"], &["shop/llm:8080"]));
                        }
                    }
                });
            }
            for _ in 0..20 {
                telemetry.metrics().text();
            }
        });
        let retries = value(&telemetry, r#"floodway_retries_total{route="shop/chat"}"#);
        assert_eq!(retries, Some(6_000.0), "nothing is lost while names stay");
    }

    #[test]
    fn names_follow_the_conventions() {
        for metric in ALL {
            assert!(metric.name.starts_with("floodway_") || metric.name.starts_with("process_"), "{}", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Type::Counter, "{}", metric.name);
            assert!(metric.kind != Type::Histogram || metric.name.ends_with("_seconds"), "{}", metric.name);
            assert!(metric.help.ends_with('.'), "{}", metric.name);
        }
    }

    #[test]
    fn the_page_of_metrics_is_true() {
        let page = include_str!("../../docs/metrics.md");
        let rows: Vec<_> = page.lines().filter(|line| line.starts_with("| `")).collect();
        for (metric, row) in ALL.iter().zip(&rows) {
            let labels = metric.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
            let kind = format!("{:?}", metric.kind).to_lowercase();
            let expected = format!("| `{}` | {kind} | {labels} | {} | ", metric.name, metric.help);
            let query = row.strip_prefix(expected.as_str());
            assert!(query.is_some_and(|query| query.contains(metric.name)), "expected {expected}\nfound    {row}");
        }
        assert_eq!(rows.len(), ALL.len(), "a metric that is not declared, or not on the page");
    }

    #[test]
    fn every_declared_metric_can_be_seen() {
        let telemetry = Telemetry::default();
        let recorder = telemetry.recorder();
        recorder.record(&Exchange { reason: Some("idle"), ..sample() });
        recorder.record(&Exchange { kind: Kind::Http, ..sample() });
        recorder.connection_refused("too_many_connections");
        recorder.upstream_connect("shop/llm:8080", true);
        recorder.upstream_retry("shop/llm:8080", "reset", "answered");
        recorder.mirrored("shop/llm:8080", "sent");
        recorder.gap(Kind::Sse, Duration::from_secs(1));
        recorder.events(Kind::Sse, 1);
        recorder.drained(Kind::Sse, Parted::Polite);
        recorder.violation(true, "mask");
        recorder.handshake("1.3", true);
        recorder.passes();
        recorder.passed("not_http", PassedEnd::Complete);
        let metrics = telemetry.metrics();
        metrics.objects("ProxyRoute", 1, 0);
        metrics.unreadable_objects("ProxyRoute", 1, 0);
        metrics.source_connected("ProxyRoute", true);
        metrics.source_error("ProxyRoute");
        metrics.source_listed("ProxyRoute");
        metrics.source_event("ProxyRoute");
        metrics.dns_lookup(true);
        metrics.keys_fetched("https://id.test/keys", "fetched", Some(1));
        metrics.health_check("shop/llm:8080", "passed");
        metrics.status_write("ProxyRoute", true);
        let usage = Usage {
            upstream: "shop/llm:8080".to_owned(),
            limit: "requests",
            active: 2,
            most: Some(3),
            queue: Some(Queue { pending: 1, refused: 4, timed_out: 5 }),
        };
        metrics.ask_standing(|| {
            vec![Standing {
                upstream: "shop/llm:8080".to_owned(),
                endpoints: vec![("available", 1)],
                changes: vec![("ejected", "refused", 2)],
            }]
        });
        metrics.ask_expiry(|| vec![Expiry { secret: "shop/www".to_owned(), not_after: 7 }]);
        metrics.ask_usage(move || vec![usage.clone()]);
        let states = vec![("closed", 1)];
        let breaker = BreakerCount { upstream: "shop/llm:8080".into(), scope: "upstream", states, not_permitted: 0 };
        metrics.breakers(move || vec![breaker.clone()]);
        let limit = RateLimited { policy: "shop/fair".into(), limit: "per-user".into(), refused: 1, keys: 2 };
        metrics.rate_limits(move || (vec![limit.clone()], Some((true, vec![("answered", 1)]))));
        metrics.injections().count("injected");
        let text = metrics.text();
        for metric in ALL {
            let kind = format!("{:?}", metric.kind).to_lowercase();
            let header = format!("# HELP {0} {1}\n# TYPE {0} {kind}\n", metric.name, metric.help);
            assert!(text.contains(&header), "{header}");
        }
    }
}
