//! Who gets the next request: the endpoint with less to do, however long streams run and however they end.

use floodway::snapshot::Protocol;

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
