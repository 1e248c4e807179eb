//! Connections that were redirected: to what they were meant for, as bytes if nothing else is known of them.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Backend, Pod, at_cluster_ip, echo, eventually, get, said, service};

fn cluster_ip() -> SocketAddr {
    "10.96.0.1:80".parse().unwrap()
}

#[tokio::test]
async fn what_was_meant_for_a_service_is_balanced_whatever_host_it_names() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let upstream = "  loadBalancing: {algorithm: RoundRobin}\n";
    let pod = Pod::start(&service("llm", &[&one, &two], upstream), &["--mode=transparent"]).await;
    let mut client = pod.redirected(pod.outbound(), cluster_ip()).await;
    let mut request = "GET / HTTP/1.1\r\nHost: whatever.example\r\n\r\n".repeat(3);
    request.push_str("GET / HTTP/1.1\r\nHost: whatever.example\r\nConnection: close\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answers = String::new();
    client.read_to_string(&mut answers).await.unwrap();
    assert_eq!((answers.matches("one\n").count(), answers.matches("two\n").count()), (2, 2), "{answers}");
    assert_eq!(
        answers.to_lowercase().matches("\nhost: whatever.example").count(),
        4,
        "it goes on as it came: {answers}"
    );
}

#[tokio::test]
async fn a_request_is_understood_however_slowly_it_comes() {
    let one = Backend::start("one").await;
    let pod = Pod::start(&service("llm", &[&one], ""), &["--mode=transparent"]).await;
    let mut client = pod.redirected(pod.outbound(), cluster_ip()).await;
    client.set_nodelay(true).unwrap();
    for byte in b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" {
        client.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn all_else_passes_untouched() {
    let server = echo("").await;
    let pod = Pod::start("", &["--mode=transparent"]).await;
    let all =
        [&b"GET / HTTP/1.1\r\nbroken\x00\r\n\r\n"[..], b"\x16\x03\x01\x00\x02\x01\x00", b"\0\0\0\x08\x04\xd2\x16\x2f"];
    for bytes in all {
        let mut client = pod.redirected(pod.outbound(), server).await;
        client.write_all(bytes).await.unwrap();
        // A half-close goes on, and the answer comes back after it.
        client.shutdown().await.unwrap();
        let mut back = Vec::new();
        client.read_to_end(&mut back).await.unwrap();
        assert_eq!(back, bytes);
    }
    pod.metric_becomes("floodway_passthrough_connections_total", &["why=\"unknown\"", "outcome=\"complete\""], 3.0)
        .await;
    pod.metric_becomes(
        "floodway_passthrough_bytes_total",
        &["direction=\"sent\"", "outbound"],
        all.concat().len() as f64,
    )
    .await;
    pod.metric_becomes("floodway_passthrough_connections_open", &[], 0.0).await;
}

#[tokio::test]
async fn megabytes_pass_both_ways_at_once() {
    let server = echo("").await;
    let pod = Pod::start("", &["--mode=transparent"]).await;
    let (mut reader, mut writer) = pod.redirected(pod.outbound(), server).await.into_split();
    let sent: Vec<u8> = (0..8_000_000_u32).map(|index| (index % 251) as u8).collect();
    let expected = sent.clone();
    let writing = tokio::spawn(async move {
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
    });
    let mut back = Vec::new();
    reader.read_to_end(&mut back).await.unwrap();
    writing.await.unwrap();
    assert!(back == expected, "{} bytes of {}", back.len(), expected.len());
}

#[tokio::test]
async fn what_is_no_http_goes_to_a_named_service_as_it_is() {
    // The cluster IP is an address of this machine here, so that who is passed on there arrives.
    let server = echo("").await;
    let one = Backend::start("one").await;
    let objects = at_cluster_ip(&service("llm", &[&one], ""), server);
    let pod = Pod::start(&objects, &["--mode=transparent"]).await;
    let exchange = async |bytes: &'static [u8]| {
        let mut client = pod.redirected(pod.outbound(), server).await;
        client.write_all(bytes).await.unwrap();
        client.shutdown().await.unwrap();
        let mut back = Vec::new();
        client.read_to_end(&mut back).await.unwrap();
        back
    };
    for (bytes, why) in [
        (&b"\x16\x03\x01\x00\x02\x01\x00"[..], "why=\"tls\""),
        (b"*1\r\n$4\r\nPING\r\n", "why=\"not_http\""),
        // Nobody said that its endpoints speak HTTP/2.
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", "why=\"http2\""),
        (b"", "why=\"silent\""),
    ] {
        assert_eq!(exchange(bytes).await, bytes, "{why}");
        pod.metric_becomes("floodway_passthrough_connections_total", &[why, "complete"], 1.0).await;
    }
    let (status, body) = get(pod.redirected(pod.outbound(), server).await, "/", "llm", "").await;
    assert!(status == 200 && body.starts_with("one\n"), "{status} {body}");
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard() {
    let (server, one) = (echo("220 hello\r\n").await, Backend::start("one").await);
    let objects = at_cluster_ip(&service("llm", &[&one], ""), server);
    let pod = Pod::start(&objects, &["--mode=transparent"]).await;
    let mut client = pod.redirected(pod.outbound(), server).await;
    let mut greeting = [0; 11];
    client.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"220 hello\r\n");
}

#[tokio::test]
async fn a_port_where_nobody_listens_looks_like_one() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let pod = Pod::start("", &["--mode=transparent"]).await;
    let mut client = pod.redirected(pod.outbound(), address).await;
    let error = client.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    pod.metric_becomes("floodway_passthrough_connections_total", &["outcome=\"connect_failed\""], 1.0).await;
}

#[tokio::test]
async fn who_is_led_in_a_circle_is_refused() {
    let pod = Pod::start("", &["--mode=transparent", "--outbound=127.0.0.1:15991"]).await;
    let out = pod.running.outbound()[1];
    assert_eq!(said(pod.redirected(out, out).await, "GET / HTTP/1.1\r\n\r\n").await, "");
    pod.metric_becomes("floodway_connections_refused_total", &["reason=\"circle\"", "outbound"], 1.0).await;
}

#[tokio::test]
async fn captured_ports_lead_to_the_app_and_other_ports_are_passed_on() {
    let (app, second, other) = (Backend::start("app").await, Backend::start("second").await, echo("").await);
    let flags = [
        "--mode=transparent".to_owned(),
        format!("--app-port={}", app.port()),
        format!("--inbound-port={}", second.port()),
    ];
    let pod = Pod::start("", &flags.each_ref().map(String::as_str)).await;
    let meant = |port| SocketAddr::from(([10, 0, 0, 7], port));
    for (port, name) in [(app.port(), "app\n"), (second.port(), "second\n")] {
        let (status, body) = get(pod.redirected(pod.inbound(), meant(port)).await, "/", "a", "").await;
        assert!(status == 200 && body.starts_with(name), "{status} {body}");
    }
    // Whoever connects straight to the sidecar means the app.
    let (_, body) = get(TcpStream::connect(pod.inbound()).await.unwrap(), "/", "a", "").await;
    assert!(body.starts_with("app\n"), "{body}");
    // Nothing is known of that port, and nothing is demanded.
    let mut client = pod.redirected(pod.inbound(), meant(other.port())).await;
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    client.shutdown().await.unwrap();
    let mut back = String::new();
    client.read_to_string(&mut back).await.unwrap();
    assert_eq!(back, "GET / HTTP/1.1\r\n\r\n");
}

#[tokio::test]
async fn a_service_that_is_no_longer_named_is_left_alone() {
    let (server, one) = (echo("").await, Backend::start("one").await);
    let objects = at_cluster_ip(&service("llm", &[&one], ""), server);
    let pod = Pod::start(&objects, &["--mode=transparent"]).await;
    let ask = async || {
        let client = pod.redirected(pod.outbound(), server).await;
        let (mut client, mut back) = (client, vec![0; 4]);
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
        client.read_exact(&mut back).await.unwrap();
        String::from_utf8(back).unwrap()
    };
    assert_eq!(ask().await, "HTTP");
    pod.write("");
    eventually("it is passed on", async || ask().await == "GET ").await;
}
