//! Without redirection: whoever wants to be served connects to the sidecar.

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Backend, Pod, eventually, get, said, service};

#[tokio::test]
async fn what_comes_in_reaches_the_app_with_the_client_named() {
    let app = Backend::start("app").await;
    let pod = Pod::start("", &[&format!("--app-port={}", app.port())]).await;
    let client = TcpStream::connect(pod.inbound()).await.unwrap();
    let (status, body) = get(client, "/a?b=1", "app.example", "X-Forwarded-For: 1.2.3.4\r\n").await;
    assert_eq!(status, 200);
    for told in ["app\nGET /a?b=1 ", "host: app.example", "x-forwarded-for: 127.0.0.1\r\n", "x-request-id: "] {
        assert!(body.to_ascii_lowercase().contains(&told.to_ascii_lowercase()), "{told}: {body}");
    }
    pod.metric_becomes("floodway_requests_total", &["listener=\"inbound\"", "code=\"200\""], 1.0).await;
    let upstream = format!("upstream=\"upstream shop/inbound:{}\"", app.port());
    pod.metric_becomes("floodway_requests_total", &[&upstream], 1.0).await;
}

#[tokio::test]
async fn streams_and_sockets_pass_as_they_do_in_the_gateway() {
    let app = Backend::start("app").await;
    let pod = Pod::start("", &[&format!("--app-port={}", app.port())]).await;
    let mut client = TcpStream::connect(pod.inbound()).await.unwrap();
    client.write_all(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut seen = String::new();
    while seen.matches("data: 1").count() < 3 {
        let mut buffer = [0; 512];
        let count = client.read(&mut buffer).await.unwrap();
        assert!(count > 0, "{seen}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    let stream = TcpStream::connect(pod.inbound()).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async("ws://a/socket", stream).await.unwrap();
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello"));
    pod.metric_becomes("floodway_active_streams", &["kind=\"sse\"", "inbound"], 1.0).await;
    assert!(pod.metric("floodway_websocket_frames_total", &["listener=\"inbound\""]).await >= 1.0);
}

#[tokio::test]
async fn requests_to_a_service_are_spread_one_by_one() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let upstream = "  loadBalancing: {algorithm: RoundRobin}\n";
    let pod = Pod::start(&service("llm", &[&one, &two], upstream), &[]).await;
    // All on one connection of the app.
    let mut client = TcpStream::connect(pod.outbound()).await.unwrap();
    let mut request = "GET / HTTP/1.1\r\nHost: llm\r\n\r\n".repeat(7);
    request.push_str("GET / HTTP/1.1\r\nHost: llm\r\nConnection: close\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answers = String::new();
    client.read_to_string(&mut answers).await.unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 8, "{answers}");
    assert_eq!((answers.matches("one\n").count(), answers.matches("two\n").count()), (4, 4));
    pod.metric_becomes("floodway_requests_total", &["listener=\"outbound\"", "upstream=\"shop/llm:80\""], 8.0).await;
}

#[tokio::test]
async fn every_name_of_a_service_finds_it_and_no_other_does() {
    let one = Backend::start("one").await;
    let pod = Pod::start(&service("llm", &[&one], ""), &[]).await;
    let ask = async |host: &str| get(TcpStream::connect(pod.outbound()).await.unwrap(), "/", host, "").await.0;
    for host in
        ["llm", "LLM:80", "llm.shop", "llm.shop.svc", "llm.shop.svc.cluster.local.", "10.96.0.1", "10.96.0.1:80"]
    {
        assert_eq!(ask(host).await, 200, "{host}");
    }
    for host in ["llm:81", "llm.other", "cart", "80.llm", "10.96.0.2", "inbound", "8080"] {
        assert_eq!(ask(host).await, 404, "{host}");
    }
    // As the app of an http_proxy says it.
    let absolute = "GET http://llm.shop/x HTTP/1.1\r\nHost: llm.shop\r\nConnection: close\r\n\r\n";
    let answer = said(TcpStream::connect(pod.outbound()).await.unwrap(), absolute).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("GET /x "), "{answer}");
    let unknown = "GET / HTTP/1.1\r\nHost: nobody\r\nAccept: application/json\r\nConnection: close\r\n\r\n";
    let answer = said(TcpStream::connect(pod.outbound()).await.unwrap(), unknown).await;
    assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("\"no_route\""), "{answer}");
}

#[tokio::test]
async fn a_dead_endpoint_is_passed_over_and_new_ones_are_found() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let (both, left) = (service("llm", &[&one, &two], ""), service("llm", &[&two], ""));
    let pod = Pod::start(&both, &[]).await;
    one.stop().await;
    for _ in 0..6 {
        let client = TcpStream::connect(pod.outbound()).await.unwrap();
        let (status, body) = get(client, "/", "llm", "").await;
        assert!(status == 200 && body.starts_with("two\n"), "{status} {body}");
    }
    pod.write(&left);
    eventually("a table without it", async || {
        let (_, upstreams) = pod.admin("/upstreams").await;
        upstreams.contains(&two.address.to_string()) && upstreams.matches("\"address\"").count() == 1
    })
    .await;
    let (_, dump) = pod.admin("/config_dump").await;
    let dump: serde_json::Value = serde_json::from_str(&dump).unwrap();
    assert!(dump["outbound"]["router"]["80.10.96.0.1"].is_array(), "{dump}");
    assert!(dump["inbound"]["router"].is_object(), "{dump}");
}

#[tokio::test]
async fn what_the_app_says_of_its_own_clients_goes_on() {
    let one = Backend::start("one").await;
    let pod = Pod::start(&service("llm", &[&one], ""), &[]).await;
    let fields = "X-Forwarded-For: 192.0.2.7\r\nX-Request-Id: mine\r\n";
    let (_, body) = get(TcpStream::connect(pod.outbound()).await.unwrap(), "/", "llm", fields).await;
    let body = body.to_ascii_lowercase();
    assert!(body.contains("x-forwarded-for: 192.0.2.7, 127.0.0.1") && body.contains("x-request-id: mine"), "{body}");
}
