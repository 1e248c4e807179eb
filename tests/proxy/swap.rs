//! What becomes of connections to endpoints when the table changes. That streams go on is `uncut`'s.

use floodway::snapshot::Protocol;

use super::clients::*;
use super::support::*;

#[tokio::test]
async fn connections_to_an_endpoint_that_is_removed_end_with_what_runs_on_them() {
    let (address, mut arrivals) = played().await;
    let (other, _others) = played().await;
    let plane = Plane::start(to(address));
    let mut client = plane.connect().await;
    client.send("GET /kept HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (mut kept, _) = arrivals.request().await;
    let mut streaming = http2(plane.address).await;
    let (answer, _) = streaming.send_request(get("/streaming"), true).unwrap();
    let (mut running, _) = arrivals.request().await;
    running.send(EVENTS).await;
    let mut body = within(answer).await.unwrap().into_body();
    let (answer, _) = streaming.send_request(get("/pending"), true).unwrap();
    let (mut pending, _) = arrivals.request().await;
    kept.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    client.head().await;

    let gone = snapshot(vec![forward("", "backend")], vec![cluster("backend", Protocol::Http1, &[other])]);
    plane.publisher.publish(gone);
    assert!(!kept.closed().await, "within seconds, without a request to notice the change");
    pending.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(within(answer).await.unwrap().status(), 204);
    // Although another stream still runs to that endpoint.
    assert!(!pending.closed().await);
    running.send("3\r\n:x\n\r\n").await;
    assert_eq!(piece(&mut body).await.unwrap().unwrap(), ":x\n");
    running.send("0\r\n\r\n").await;
    assert!(piece(&mut body).await.is_none());
    assert!(!running.closed().await);
}
