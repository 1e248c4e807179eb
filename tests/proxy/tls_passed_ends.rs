//! Tunnels of TLS that is passed on, from their limits to their ends: as those of WebSockets, but for words between the bytes, which
//! they have no room for.

use std::sync::Arc;
use std::time::Duration;

use floodway::snapshot::{
    Action, BreakerMode, ClusterName, Fallback, Invalid, IpAccess, Limits, Networks, Policy, Protocol, RequestLimits,
    Resilience, Route, Snapshot, Streaming,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::outcomes::breaker;
use super::policies::under;
use super::support::*;
use super::tls_clients::*;
use super::tls_passed::*;

const LONG: Duration = Duration::from_secs(600);
const INTERNAL_ERROR: &[u8] = &[21, 3, 3, 0, 2, 2, 80];
const ACCESS_DENIED: &[u8] = &[21, 3, 3, 0, 2, 2, 49];

/// A client that says its first words.
async fn comes(plane: &Plane) -> Raw {
    let mut client = Raw(TcpStream::connect(plane.secure).await.unwrap());
    client.send(hello(&Authority::new().trusted(&[]), HOST)).await;
    client
}

fn timing(route: &mut Route, change: impl FnOnce(&mut floodway::snapshot::Timeouts)) {
    let Action::Forward(action) = &mut route.action else { unreachable!() };
    change(&mut action.timeouts);
}

fn streaming(route: &mut Route, streaming: Streaming) {
    let Action::Forward(action) = &mut route.action else { unreachable!() };
    action.streaming = Some(Arc::new(streaming));
}

/// Both sides still speak with each other.
async fn goes_on(client: &mut Raw, endpoint: &mut Raw) {
    client.send("up").await;
    endpoint.until("up").await;
    endpoint.send("down").await;
    client.until("down").await;
}

#[tokio::test]
async fn each_side_may_end_before_the_other_and_a_loss_reaches_the_other() {
    let (address, mut arrivals) = played().await;
    let plane = secure(passed_to(&[address], |_| {}));
    for client_first in [true, false] {
        let (mut client, mut endpoint) = tunnel(&plane, &mut arrivals).await;
        goes_on(&mut client, &mut endpoint).await;
        let (mut first, mut second) = if client_first { (client, endpoint) } else { (endpoint, client) };
        first.send("last words").await;
        first.0.shutdown().await.unwrap();
        assert_eq!(second.to_end().await, "last words");
        second.send("I still speak").await;
        first.until("I still speak").await;
        drop(second);
        assert!(!first.closed().await, "an end, not a reset");
    }
    let (mut client, mut endpoint) = tunnel(&plane, &mut arrivals).await;
    goes_on(&mut client, &mut endpoint).await;
    client.reset();
    assert!(endpoint.closed().await, "a reset, not an end");
    let (mut client, mut endpoint) = tunnel(&plane, &mut arrivals).await;
    goes_on(&mut client, &mut endpoint).await;
    endpoint.reset();
    assert!(client.closed().await, "a reset, not an end");
    // An endpoint that takes the connection and says nothing has served nobody.
    let (mut client, endpoint) = tunnel(&plane, &mut arrivals).await;
    drop(endpoint);
    client.rest().await;
    drop(client);
    let lines = plane.logged_times("", 5).await;
    let mut ends: Vec<_> = lines.iter().map(|line| line["end"].as_str().unwrap()).collect();
    ends.sort_unstable();
    assert_eq!(ends, ["client_gone", "complete", "complete", "upstream_cut", "upstream_cut"]);
    eventually("nothing in flight", || plane.in_flight() == 0).await;
}

/// Who takes nothing holds up who sends, and costs no more memory for it.
#[tokio::test]
async fn who_takes_nothing_holds_up_who_sends() {
    let (address, mut arrivals) = played().await;
    let plane = secure(passed_to(&[address], |_| {}));
    for to_client in [true, false] {
        let (client, endpoint) = tunnel(&plane, &mut arrivals).await;
        let (mut sender, mut taker) = if to_client { (endpoint, client) } else { (client, endpoint) };
        let sent = fill(&mut sender).await;
        assert!(sent < 32 << 20, "{sent} bytes went somewhere");
        let (mut taken, mut nowhere) = ((&mut taker.0).take(sent as u64), tokio::io::sink());
        assert_eq!(within(tokio::io::copy(&mut taken, &mut nowhere)).await.unwrap(), sent as u64);
    }
}

#[tokio::test]
async fn nothing_is_cut_by_a_change_of_configuration() {
    let authority = Authority::new();
    let (address, mut arrivals) = played().await;
    let plane = secure(passed_to(&[address], |_| {}));
    let (mut client, mut endpoint) = tunnel(&plane, &mut arrivals).await;
    // Other endpoints; then TLS ends here; then nothing is left.
    let (other, mut others) = played().await;
    assert!(plane.publisher.publish(passed_to(&[other], |_| {})));
    let (mut second, mut second_endpoint) = tunnel(&plane, &mut others).await;
    let table = ended(to(other), HOST, &[&authority.certificate(&[HOST])]);
    assert!(plane.publisher.publish(table));
    assert!(shake(plane.secure, HOST, &Arc::new(authority.trusted(&[]))).await.is_ok());
    assert!(plane.publisher.publish(Snapshot::default()));
    let refused = shake(plane.secure, HOST, &Arc::new(authority.trusted(&[]))).await.unwrap_err().to_string();
    assert!(refused.contains("UnrecognisedName"), "{refused}");
    goes_on(&mut client, &mut endpoint).await;
    goes_on(&mut second, &mut second_endpoint).await;
}

#[tokio::test]
async fn endpoints_that_cannot_be_reached_are_passed_over() {
    let (address, mut arrivals) = played().await;
    let plane = secure(passed_to(&[refusing(), address], |_| {}));
    for _ in 0..8 {
        let (mut client, mut endpoint) = tunnel(&plane, &mut arrivals).await;
        goes_on(&mut client, &mut endpoint).await;
    }
}

#[tokio::test]
async fn who_gets_no_endpoint_is_told_and_counted() {
    let (address, mut arrivals) = played().await;
    let nobody = Policy { invalid: Some(Invalid("why".into())), ..Policy::default() };
    let asks = Policy { request_limits: Some(Arc::new(RequestLimits::default())), ..Policy::default() };
    let only = |networks: &str| {
        let allow = Some(Networks::new([networks.parse().unwrap()]));
        Policy { ip_access: Some(Arc::new(IpAccess { allow, deny: Networks::default() })), ..Policy::default() }
    };
    let guarded = |policy: Policy| passed_to(&[address], |route| *route = under(policy, route.clone()));
    let broken = passed_to(&[address], |route| route.action = Action::Invalid(Invalid("why".into())));
    for (table, status, reason, alert) in [
        (passed_to(&[], |_| {}), 503, "no_endpoint", INTERNAL_ERROR),
        (passed_to(&[refusing()], |_| {}), 502, "connect_failed", INTERNAL_ERROR),
        (broken, 500, "invalid_route", INTERNAL_ERROR),
        (guarded(nobody), 503, "invalid_policy", INTERNAL_ERROR),
        (guarded(asks), 503, "invalid_policy", INTERNAL_ERROR),
        (guarded(only("192.0.2.0/24")), 403, "address_denied", ACCESS_DENIED),
    ] {
        let plane = secure(table);
        assert_eq!(comes(&plane).await.rest().await.bytes, alert, "{reason}");
        let line = plane.logged("").await;
        assert_eq!((&line["status"], &line["reason"]), (&status.into(), &reason.into()), "{line}");
        assert_eq!((&line["end"], &line["kind"]), (&"answered".into(), &"tunnel".into()), "{line}");
        assert_eq!(plane.metric("floodway_failures_total", reason), 1.0);
        assert_eq!(plane.metric("floodway_exchanges_ended_total", "kind=\"http\""), 0.0);
        assert_eq!(plane.metric("floodway_stream_duration_seconds_count", "tunnel"), 0.0, "it never began");
    }
    let plane = secure(guarded(only("127.0.0.0/8")));
    tunnel(&plane, &mut arrivals).await;
}

fn limited(address: std::net::SocketAddr, limits: Limits) -> Snapshot {
    let mut backend = cluster("backend", Protocol::Http1, &[address]);
    backend.resilience = Arc::new(Resilience { limits: Some(limits), ..Resilience::default() });
    let table = snapshot(vec![forward("", "backend")], vec![backend]);
    passed(table, HOST, &Arc::new(passing("backend")))
}

#[tokio::test]
async fn streams_of_an_upstream_are_limited() {
    let (address, mut arrivals) = played().await;
    let plane = secure(limited(address, Limits { streams: Some(1), pending: 1, ..Limits::NONE }));
    let (client, endpoint) = tunnel(&plane, &mut arrivals).await;
    let mut waiting = comes(&plane).await;
    plane.metric_becomes("floodway_upstream_pending", "streams", 1.0).await;
    assert_eq!(comes(&plane).await.rest().await.bytes, INTERNAL_ERROR);
    drop((client, endpoint));
    let mut next = arrivals.next().await;
    next.send("hello").await;
    waiting.until("hello").await;
    // Whoever leaves does not wait any longer.
    let leaving = comes(&plane).await;
    plane.metric_becomes("floodway_upstream_pending", "streams", 1.0).await;
    drop(leaving);
    plane.metric_becomes("floodway_upstream_pending", "streams", 0.0).await;
}

/// Connections that were kept for requests make room: a tunnel needs one of its own.
#[tokio::test]
async fn connections_that_rest_make_room_for_a_tunnel() {
    let (address, mut arrivals) = played().await;
    let plane = secure(limited(address, Limits { connections: Some(2), pending: 1, ..Limits::NONE }));
    let mut kept = Vec::new();
    for path in ["/1", "/2"] {
        let mut client = plane.connect().await;
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        kept.push((client, arrivals.request().await.0));
    }
    for (client, endpoint) in &mut kept {
        endpoint.send("HTTP/1.1 204 No Content\r\n\r\n").await;
        client.head().await;
    }
    plane.metric_becomes("floodway_upstream_active", "connections", 2.0).await;
    let (mut client, mut endpoint) = tunnel(&plane, &mut arrivals).await;
    goes_on(&mut client, &mut endpoint).await;
    assert!(plane.metric("floodway_upstream_active", "connections") <= 2.0);
}

#[tokio::test]
async fn clocks_and_ages_end_it() {
    let (address, mut arrivals) = played().await;
    let soon = Duration::from_millis(200);
    let idle = passed_to(&[address], |route| timing(route, |timeouts| timeouts.idle = soon));
    let silent = passed_to(&[address], |route| timing(route, |timeouts| timeouts.first_byte = Some(soon)));
    let old = passed_to(&[address], |route| {
        streaming(route, Streaming { max_age: Some(soon), ..Streaming::default() });
    });
    for (table, end, reason) in
        [(idle, "idle", "idle"), (silent, "idle", "first_byte_timeout"), (old, "max_age", "max_age")]
    {
        let plane = secure(table);
        let (mut client, mut endpoint) = tunnel(&plane, &mut arrivals).await;
        assert!(client.closed().await, "cut, visibly");
        assert!(endpoint.closed().await, "cut, visibly");
        let line = plane.logged("").await;
        assert_eq!((&line["end"], &line["reason"]), (&end.into(), &reason.into()), "{line}");
    }
}

/// A grace for streams of removed rules is for tunnels, too, wherever the rule is looked for.
#[tokio::test]
async fn a_removed_route_ends_it_if_it_says_so() {
    let (address, mut arrivals) = played().await;
    let table = |rule: &str| {
        let mut route = passing("backend");
        route.name.rule = rule.into();
        let grace = Some(Duration::from_millis(200));
        streaming(&mut route, Streaming { removal_grace: grace, ..Streaming::default() });
        let route = Arc::new(route);
        let host = Arc::new(floodway::snapshot::VirtualHost::build(vec![Arc::clone(&route)]));
        let mut table = snapshot(vec![], vec![cluster("backend", Protocol::Http1, &[address])]);
        table.router.set(&floodway::snapshot::HostPattern::parse(HOST).unwrap(), Some(host));
        passed(table, HOST, &route)
    };
    let plane = secure(table("one"));
    let (mut client, mut endpoint) = tunnel(&plane, &mut arrivals).await;
    let mut more = table("one");
    more.clusters
        .insert(floodway::snapshot::ClusterName::new("other"), Arc::new(cluster("other", Protocol::Http1, &[])));
    assert!(plane.publisher.publish(more));
    tokio::time::sleep(Duration::from_millis(400)).await;
    goes_on(&mut client, &mut endpoint).await;
    assert!(plane.publisher.publish(table("two")));
    assert!(client.closed().await);
    assert_eq!(plane.logged("").await["reason"], "route_removed");
}

/// Nobody can say goodbye in it: it has all the time there is, but those who have it do not lose it all at once.
#[tokio::test]
async fn a_drain_cuts_one_after_the_other_and_silent_ones_first() {
    let (address, mut arrivals) = played().await;
    let plane = secure_with(passed_to(&[address], |_| {}), |settings| settings.drain.spread_percent = 0);
    let mut open = Vec::new();
    for _ in 0..40 {
        let (mut client, mut endpoint) = tunnel(&plane, &mut arrivals).await;
        goes_on(&mut client, &mut endpoint).await;
        open.push((client, endpoint));
    }
    // The first one is not silent.
    let (mut client, mut endpoint) = open.remove(0);
    goes_on(&mut client, &mut endpoint).await;
    plane.drain.begin(Duration::from_secs(60));
    let cut = || plane.metric("floodway_drained_streams_total", "kind=\"tunnel\",outcome=\"cut\"");
    // A fortieth of a minute for each of two workers' first one.
    eventually("some are cut", || cut() >= 2.0).await;
    goes_on(&mut client, &mut endpoint).await;
    assert!(cut() < 20.0, "not all at once");
    let (mut last, mut endpoint_of_last) = open.pop().unwrap();
    goes_on(&mut last, &mut endpoint_of_last).await;
    let (mut silent, _endpoint) = open.remove(0);
    assert!(silent.closed().await, "cut, visibly");
    assert_eq!(plane.logged_times("", 2).await[0]["reason"], "draining");
}

#[tokio::test]
async fn a_drain_leaves_it_all_the_time_there_is() {
    let (address, mut arrivals) = played().await;
    let plane = secure_with(passed_to(&[address], |_| {}), |settings| settings.drain.spread_percent = 0);
    let (mut client, mut endpoint) = tunnel(&plane, &mut arrivals).await;
    let (mut ending, mut ended) = tunnel(&plane, &mut arrivals).await;
    // So long that none of them is asked at once, whatever chance says.
    plane.drain.begin(100 * LONG);
    goes_on(&mut client, &mut endpoint).await;
    goes_on(&mut ending, &mut ended).await;
    drop(ending);
    assert!(ended.to_end().await.is_empty());
    drop(ended);
    plane.metric_becomes("floodway_drained_streams_total", "outcome=\"ended\"", 1.0).await;
    // The second signal.
    plane.drain.begin(Duration::from_millis(50));
    client.rest().await;
    endpoint.rest().await;
    plane.metric_becomes("floodway_drained_streams_total", "kind=\"tunnel\",outcome=\"cut\"", 1.0).await;
    within(plane.ended()).await;
}

/// What becomes of connections is what is known of endpoints: who takes them and says nothing opens its breaker, and then the upstream
/// that this one falls back to is asked.
#[tokio::test]
async fn endpoints_are_judged_by_it() {
    let (good, mut arrivals) = played().await;
    let silent = backend(|mut connection| async move {
        let mut some = [0; 16];
        let _ = connection.0.read_exact(&mut some).await;
    })
    .await;
    let guarded = |fallback| {
        let mut backend = cluster("backend", Protocol::Http1, &[silent]);
        let breaker = breaker(BreakerMode::Automatic, 4, LONG);
        let resilience = Resilience { circuit_breaker: Some(breaker), fallback, ..Resilience::default() };
        backend.resilience = Arc::new(resilience);
        let other = cluster("other", Protocol::Http1, &[good]);
        passed(snapshot(vec![], vec![backend, other]), HOST, &Arc::new(passing("backend")))
    };
    let plane = secure(guarded(None));
    for _ in 0..4 {
        assert!(comes(&plane).await.rest().await.bytes.is_empty());
    }
    plane.metric_becomes("floodway_breakers", r#"scope="upstream",state="open""#, 1.0).await;
    assert_eq!(comes(&plane).await.rest().await.bytes, INTERNAL_ERROR);
    plane.metric_becomes("floodway_failures_total", "breaker_open", 1.0).await;
    assert!(plane.publisher.publish(guarded(Some(Fallback::Cluster(ClusterName::new("other"))))));
    let (mut client, mut endpoint) = tunnel(&plane, &mut arrivals).await;
    goes_on(&mut client, &mut endpoint).await;
}
