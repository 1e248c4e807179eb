//! Who gets the next request: the endpoint with less to do, however long streams run and however they end; and whom the
//! algorithms choose that upstreams ask for.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use floodway::snapshot::{
    Algorithm, Balancing, Cluster, CookieKey, Ejection, Endpoint, HashKey, Hashing, Protocol, Resilience, Snapshot,
    Subset,
};
use http::HeaderName;
use tokio::io::AsyncReadExt;

use super::clients::*;
use super::support::*;

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";

/// A plane with two endpoints, both played.
async fn two() -> (Plane, [Arrivals; 2]) {
    let ((first, arrivals), (second, more)) = (played().await, played().await);
    let backends = cluster("backend", Protocol::Http1, &[first, second]);
    (Plane::start(snapshot(vec![forward("", "backend")], vec![backends])), [arrivals, more])
}

/// A request, and who got it.
async fn request(plane: &Plane, arrivals: &mut [Arrivals; 2], head: &str) -> (usize, Raw, Raw) {
    let mut client = plane.connect().await;
    client.send(format!("{head}\r\nHost: a\r\nConnection: close\r\n\r\n")).await;
    let [first, second] = arrivals;
    let (who, (endpoint, _)) = tokio::select! {
        arrived = first.request() => (0, arrived),
        arrived = second.request() => (1, arrived),
    };
    (who, client, endpoint)
}

#[tokio::test]
async fn an_idle_endpoint_is_preferred_to_one_with_a_stream() {
    let (plane, mut arrivals) = two().await;
    let (busy, mut client, mut endpoint) = request(&plane, &mut arrivals, "GET /stream HTTP/1.1").await;
    endpoint.send(CHUNKED).await;
    client.until("hello\r\n").await;
    for _ in 0..20 {
        let (who, mut client, mut endpoint) = request(&plane, &mut arrivals, "GET / HTTP/1.1").await;
        assert_ne!(who, busy);
        endpoint.send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
        client.to_end().await;
    }
}

#[tokio::test]
async fn streams_are_given_back_however_they_end() {
    let (plane, mut arrivals) = two().await;
    for round in 0..14 {
        let (_, mut client, mut endpoint) = request(&plane, &mut arrivals, &format!("GET /{round} HTTP/1.1")).await;
        match round % 7 {
            // Complete, without and with content.
            0 => endpoint.send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await,
            1 => endpoint.send(format!("{CHUNKED}0\r\n\r\n")).await,
            // The client leaves, before the answer and during it.
            2 => client.reset(),
            3 => {
                endpoint.send(CHUNKED).await;
                client.until("hello\r\n").await;
                drop(client);
            }
            // The endpoint leaves, before its answer and during it.
            4 => endpoint.reset(),
            5 => {
                endpoint.send(CHUNKED).await;
                client.until("hello\r\n").await;
                endpoint.reset();
            }
            // It says something that is not HTTP.
            _ => endpoint.send("SSH-2.0-OpenSSH\r\n\r\n").await,
        }
        plane.logged(&format!("/{round}")).await;
    }
    // Two tunnels, ended by either side.
    for client_first in [true, false] {
        let upgrade = "GET /socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        let mut client = plane.connect().await;
        client.send(upgrade).await;
        let [first, second] = &mut arrivals;
        let (mut endpoint, _) = tokio::select! {
            arrived = first.request() => arrived,
            arrived = second.request() => arrived,
        };
        endpoint.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").await;
        client.head().await;
        if client_first { client.reset() } else { endpoint.reset() }
    }
    plane.logged_times("/socket", 2).await;
    // Cancelled in HTTP/2.
    let mut client = http2(plane.address).await;
    for _ in 0..6 {
        let (answer, mut stream) = client.send_request(get("/two"), true).unwrap();
        let [first, second] = &mut arrivals;
        tokio::select! {
            arrived = first.request() => arrived,
            arrived = second.request() => arrived,
        };
        stream.send_reset(h2::Reason::CANCEL);
        let _ = within(answer).await;
    }
    plane.logged_times("/two", 6).await;

    // If one of them were still counted, these would not be shared evenly.
    let mut open = Vec::new();
    let mut shares = [0_u32, 0];
    for _ in 0..20 {
        let (who, client, endpoint) = request(&plane, &mut arrivals, "GET /held HTTP/1.1").await;
        shares[who] += 1;
        assert!(shares[0].abs_diff(shares[1]) <= 1, "{shares:?}");
        open.push((client, endpoint));
    }
}

/// Backends that answer with their number.
pub(super) async fn numbered(count: usize) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    for number in 0..count {
        addresses.push(answering(200, number).await);
    }
    addresses
}

/// A backend that answers with a status and its number.
async fn answering(status: u16, number: usize) -> SocketAddr {
    let answer = format!("HTTP/1.1 {status} Said\r\nContent-Length: 1\r\n\r\n{number}");
    let serve = move |mut client: Raw| {
        let answer = answer.clone();
        async move {
            while client.request().await.is_some() {
                client.send(&answer).await;
            }
        }
    };
    backend(serve).await
}

/// A table that sends everything to these endpoints.
pub(super) fn balanced(endpoints: Vec<Endpoint>, balancing: Balancing) -> Snapshot {
    let resilience = Arc::new(Resilience { balancing, ..Resilience::default() });
    let cluster = Cluster { endpoints: endpoints.into(), resilience, ..cluster("backend", Protocol::Http1, &[]) };
    snapshot(vec![forward("", "backend")], vec![cluster])
}

pub(super) fn by(algorithm: Algorithm) -> Balancing {
    Balancing { algorithm, ..Balancing::default() }
}

fn ring(keys: Vec<HashKey>) -> Balancing {
    by(Algorithm::RingHash { hashing: Hashing { keys: keys.into(), bounded_percent: None }, points: 100 })
}

pub(super) fn each(addresses: &[SocketAddr]) -> Vec<Endpoint> {
    addresses.iter().copied().map(Endpoint::new).collect()
}

/// The answer to a request with these lines: its head, and the number of the backend.
pub(super) async fn ask_with(plane: &Plane, lines: &str) -> (String, String) {
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{lines}\r\n");
    let answer = plane.exchange(request).await;
    let (head, content) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), content.to_owned())
}

async fn ask_as(plane: &Plane, user: usize) -> String {
    ask_with(plane, &format!("X-User: {user}\r\n")).await.1
}

pub(super) const X_USER: HeaderName = HeaderName::from_static("x-user");

#[tokio::test]
async fn weights_are_kept_turn_by_turn() {
    let addresses = numbered(3).await;
    let mut endpoints = each(&addresses);
    endpoints[0].weight = 5;
    let plane = Plane::start(balanced(endpoints, by(Algorithm::WeightedRoundRobin)));
    // One connection is one worker, which takes turns for itself.
    let mut client = plane.connect().await;
    let mut counts = [0; 3];
    for _ in 0..14 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.head().await;
        let number = usize::from(within(client.0.read_u8()).await.unwrap() - b'0');
        counts[number] += 1;
    }
    assert_eq!(counts, [10, 2, 2]);
}

#[tokio::test]
async fn a_key_stays_with_its_endpoint_and_moves_only_if_that_goes() {
    for maglev in [false, true] {
        let addresses = numbered(4).await;
        let hashing = Hashing { keys: [HashKey::Header(X_USER)].into(), bounded_percent: None };
        let balancing = match maglev {
            true => by(Algorithm::Maglev { hashing, table_size: 16_381 }),
            false => by(Algorithm::RingHash { hashing, points: 100 }),
        };
        let plane = Plane::start(balanced(each(&addresses), balancing.clone()));
        let mut before = Vec::new();
        for user in 0..40 {
            before.push(ask_as(&plane, user).await);
            // Another connection is another worker, perhaps.
            assert_eq!(ask_as(&plane, user).await, before[user]);
        }
        assert_eq!(before.iter().collect::<BTreeSet<_>>().len(), 4, "all are used: {before:?}");
        plane.publisher.publish(balanced(each(&addresses[1..]), balancing));
        let mut moved = 0;
        for (user, was) in before.iter().enumerate() {
            let is = ask_as(&plane, user).await;
            assert_ne!(is, "0");
            moved += u32::from(is != *was && was != "0");
        }
        assert!(moved <= if maglev { 5 } else { 0 }, "{moved} of 40 moved without need");
    }
}

#[tokio::test]
async fn a_cookie_is_issued_once_and_leads_back() {
    let cookie = CookieKey { name: "sid".into(), issued: Some("Path=/; Max-Age=60; HttpOnly".into()) };
    let addresses = numbered(4).await;
    let plane = Plane::start(balanced(each(&addresses), ring(vec![HashKey::Cookie(cookie)])));
    let mut chosen = BTreeSet::new();
    for _ in 0..60 {
        let (head, number) = ask_with(&plane, "").await;
        let line = head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
        let pair = line.strip_suffix("; Path=/; Max-Age=60; HttpOnly").unwrap();
        let (head, again) = ask_with(&plane, &format!("Cookie: other=1; {pair}\r\n")).await;
        assert!(again == number && !head.contains("set-cookie"), "{head}");
        chosen.insert(number);
    }
    assert_eq!(chosen.len(), 4, "clients are spread");
}

#[tokio::test]
async fn a_key_whose_endpoint_refuses_goes_to_the_next_and_comes_back_nowhere_else() {
    let mut addresses = numbered(3).await;
    addresses.push(refusing());
    let plane = Plane::start(balanced(each(&addresses), ring(vec![HashKey::Header(X_USER)])));
    for user in 0..40 {
        let number = ask_as(&plane, user).await;
        assert!(!number.is_empty());
        assert_eq!(ask_as(&plane, user).await, number, "those behind it on the ring");
    }
}

#[tokio::test]
async fn a_field_chooses_a_subset() {
    let addresses = numbered(4).await;
    let mut endpoints = each(&addresses);
    for (number, endpoint) in endpoints.iter_mut().enumerate().take(3) {
        endpoint.subset = Some(Box::new(if number == 0 { "v1" } else { "v2" }.into()));
    }
    let version = HeaderName::from_static("x-version");
    let with =
        |or_any| Balancing { subset: Some(Subset { header: version.clone(), or_any }), ..by(Algorithm::RoundRobin) };
    let plane = Plane::start(balanced(endpoints.clone(), with(false)));
    let used = async |lines: &str| {
        let mut used = BTreeSet::new();
        for _ in 0..24 {
            used.insert(ask_with(&plane, lines).await.1);
        }
        used.into_iter().collect::<String>()
    };
    assert_eq!(used("X-Version: v1\r\n").await, "0");
    assert_eq!(used("X-Version: v2\r\n").await, "12");
    assert_eq!(used("").await, "0123");
    let (head, content) = ask_with(&plane, "X-Version: v3\r\n").await;
    assert!(head.starts_with("HTTP/1.1 503") && content.contains("no_endpoint"), "{head} {content}");
    plane.publisher.publish(balanced(endpoints, with(true)));
    assert_eq!(used("X-Version: v3\r\n").await, "0123");
}

#[tokio::test]
async fn the_few_that_are_well_are_spared_in_a_panic_unless_there_is_none() {
    for panic_percent in [0, 50] {
        let mut addresses = numbered(1).await;
        for number in 1..4 {
            addresses.push(answering(500, number).await);
        }
        let ejection = Ejection {
            consecutive_failures: 1,
            consecutive_gateway_failures: 0,
            max_percent: 100,
            ..Ejection::default()
        };
        let balancing = Balancing { panic_percent, ..by(Algorithm::RoundRobin) };
        let resilience = Arc::new(Resilience { balancing, ejection: Some(ejection), ..Resilience::default() });
        let cluster = Cluster { resilience, ..cluster("backend", Protocol::Http1, &addresses) };
        let plane = Plane::start(snapshot(vec![forward("", "backend")], vec![cluster]));
        for _ in 0..16 {
            ask_with(&plane, "").await;
        }
        let mut failed = 0;
        for _ in 0..16 {
            failed += u32::from(ask_with(&plane, "").await.1 != "0");
        }
        assert_eq!(failed > 0, panic_percent > 0, "{failed} of 16 failed");
    }
}

#[tokio::test]
async fn streams_over_http2_and_websockets_count_until_they_end() {
    // Endpoints whose streams begin, and end when the test says so.
    let (end, _) = tokio::sync::broadcast::channel::<()>(1);
    let mut addresses = Vec::new();
    for number in 0..2 {
        let end = end.clone();
        let serve = move |request: http::Request<h2::RecvStream>, mut answer: h2::server::SendResponse<Bytes>| {
            let mut ended = end.subscribe();
            async move {
                let kind = if request.uri().path() == "/events" { "text/event-stream" } else { "application/grpc" };
                let head =
                    http::Response::builder().header("content-type", kind).header("x-number", number).body(()).unwrap();
                let streams = request.uri().path() != "/short";
                let mut stream = answer.send_response(head, !streams).unwrap();
                if streams {
                    stream.send_data(Bytes::from_static(b"data: x\n\n"), false).unwrap();
                    let _ = ended.recv().await;
                    stream.send_trailers(http::HeaderMap::new()).unwrap();
                }
            }
        };
        addresses.push(http2_backend(serve).await);
    }
    let plane =
        Plane::start(snapshot(vec![forward("", "backend")], vec![cluster("backend", Protocol::Http2, &addresses)]));
    let client = http2(plane.address).await;
    let number = |answer: &http::Response<h2::RecvStream>| answer.headers()["x-number"].to_str().unwrap().to_owned();
    for path in ["/events", "/grpc.Service/Method"] {
        let mut stream = ask(&client, get(path)).await;
        piece(stream.body_mut()).await.unwrap().unwrap();
        assert_eq!(plane.in_flight(), 1, "{path}");
        for _ in 0..10 {
            let short = ask(&client, get("/short")).await;
            assert_ne!(number(&short), number(&stream), "{path} is still open");
        }
        end.send(()).unwrap();
        content(stream.body_mut()).await.unwrap();
        eventually("the stream to be over", || plane.in_flight() == 0).await;
    }

    let (plane, mut arrivals) = two().await;
    let mut client = plane.connect().await;
    client.send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    let [first, second] = &mut arrivals;
    let (busy, (mut endpoint, _)) = tokio::select! {
        arrived = first.request() => (0, arrived),
        arrived = second.request() => (1, arrived),
    };
    endpoint.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    client.head().await;
    assert_eq!(plane.in_flight(), 1);
    for _ in 0..10 {
        let (who, mut client, mut endpoint) = request(&plane, &mut arrivals, "GET / HTTP/1.1").await;
        assert_ne!(who, busy);
        endpoint.send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
        client.to_end().await;
    }
    client.reset();
    eventually("the WebSocket to be over", || plane.in_flight() == 0).await;
}
