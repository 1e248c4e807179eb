//! The end of a pod: what is under way is served to its end, nothing more comes in, and the app may ask on until all is done.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::support::{Backend, PATIENCE, Pod, at_cluster_ip, echo, eventually, get, service};

#[tokio::test]
async fn it_ends_once_nothing_is_left_and_outlasts_the_last_request() {
    let (app, one) = (Backend::start("app").await, Backend::start("one").await);
    let pod = Pod::start(&service("llm", &[&one], ""), &[&format!("--app-port={}", app.port())]).await;
    let mut events = TcpStream::connect(pod.inbound()).await.unwrap();
    events.write_all(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    pod.metric_becomes("floodway_active_streams", &["sse", "inbound"], 1.0).await;
    pod.running.signal();
    eventually("it takes nothing more in", async || TcpStream::connect(pod.inbound()).await.is_err()).await;
    // The app may have last things to ask.
    let (status, _) = get(TcpStream::connect(pod.outbound()).await.unwrap(), "/", "llm", "").await;
    assert_eq!(status, 200);
    drop(events);
    eventually("it ends by itself", async || TcpStream::connect(pod.running.admin()).await.is_err()).await;
    let ended = tokio::task::spawn_blocking(move || pod.running.shutdown());
    ended.await.unwrap().unwrap();
    assert!(one.requests.load(Ordering::Relaxed) == 1);
}

/// An app whose answers the test gives: to each request that came, on its connection.
async fn asked_app() -> (SocketAddr, mpsc::Receiver<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, (asks, asked)) = (listener.local_addr().unwrap(), mpsc::channel(16));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let asks = asks.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.ok()?);
                }
                asks.send(stream).await.ok()
            });
        }
    });
    (address, asked)
}

#[tokio::test]
async fn what_is_under_way_is_served_while_the_app_asks_on() {
    let (app, mut asks) = asked_app().await;
    let (one, elsewhere) = (Backend::start("one").await, echo("").await);
    let objects = at_cluster_ip(&service("llm", &[&one], ""), one.address);
    let flags = ["--mode=transparent".to_owned(), format!("--app-port={}", app.port())];
    let pod = Pod::start(&objects, &flags.each_ref().map(String::as_str)).await;
    let speaks = async |stream: &mut TcpStream, bytes: &[u8]| {
        stream.write_all(bytes).await.unwrap();
        let mut back = vec![0; bytes.len()];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(back, bytes);
    };
    let mut before = pod.redirected(pod.outbound(), elsewhere).await;
    speaks(&mut before, b"before").await;
    let mut client = TcpStream::connect(pod.inbound()).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut asked = asks.recv().await.unwrap();

    pod.running.signal();
    eventually("it takes nothing more in", async || TcpStream::connect(pod.inbound()).await.is_err()).await;
    // To answer, the app asks others: a Service that is balanced, and somebody of whom nothing is known.
    let (status, body) = get(pod.redirected(pod.outbound(), one.address).await, "/", "llm", "").await;
    assert!(status == 200 && body.starts_with("one\n"), "{status} {body}");
    let mut after = pod.redirected(pod.outbound(), elsewhere).await;
    speaks(&mut after, b"after").await;
    speaks(&mut before, b"still").await;
    asked.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").await.unwrap();
    let mut answer = String::new();
    // Nothing more is asked on this connection, which ends.
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("done"), "{answer}");

    // The last thing that the app does.
    speaks(&mut before, b"last words").await;
    assert_eq!(pod.admin("/livez").await.0, 200);
    drop((before, after));
    eventually("it ends by itself", async || TcpStream::connect(pod.running.admin()).await.is_err()).await;
    let ended = tokio::task::spawn_blocking(move || pod.running.shutdown());
    ended.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_hangs_is_cut_off_after_the_grace() {
    let app = Backend::start("app").await;
    let pod = Pod::start("", &[&format!("--app-port={}", app.port()), "--grace=1s"]).await;
    let mut events = TcpStream::connect(pod.inbound()).await.unwrap();
    events.write_all(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    pod.metric_becomes("floodway_active_streams", &["sse", "inbound"], 1.0).await;
    let ended = tokio::task::spawn_blocking(move || pod.running.shutdown());
    let mut rest = String::new();
    let read = tokio::time::timeout(PATIENCE, events.read_to_string(&mut rest)).await;
    assert!(read.is_ok(), "the stream goes on");
    ended.await.unwrap().unwrap();
}
