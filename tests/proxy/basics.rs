//! One request, one answer.

use super::support::*;

#[tokio::test]
async fn a_request_reaches_its_endpoint_and_the_answer_comes_back() {
    let plane = Plane::start(to(mirror().await));
    let answer = plane.exchange("GET /a/b?c=d HTTP/1.1\r\nHost: example.com:81\r\nConnection: close\r\n\r\n").await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("\r\nconnection: close"), "{head}");
    assert!(body.starts_with("GET /a/b?c=d HTTP/1.1\r\n"), "{body}");
    for field in ["host: example.com:81", "x-forwarded-for: 127.0.0.1", "x-forwarded-proto: http", "x-request-id: "] {
        assert!(body.contains(&format!("\r\n{field}")), "{field} in {body}");
    }
    assert!(!body.contains("connection"), "{body}");
}

#[tokio::test]
async fn requests_follow_each_other_on_one_connection() {
    let plane = Plane::start(to(mirror().await));
    let mut client = plane.connect().await;
    // Both at once: the second waits in our buffer while the first is answered.
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    for path in ["/1", "/2"] {
        assert!(client.head().await.starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(client.head().await.starts_with(&format!("GET {path} ")));
    }
}

#[tokio::test]
async fn a_miss_is_404_with_a_reason() {
    let plane = Plane::start(snapshot(vec![forward("/x", "backend")], vec![]));
    let answer = plane.exchange("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 404 Not Found\r\n"), "{answer}");
    assert!(answer.contains("\r\nx-floodway-reason: no_route\r\n"), "{answer}");
}
