//! Checks of servers that are well, that are not, and that mean harm; on real sockets.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::*;
use crate::health::tests::check;
use crate::snapshot::{HttpProbe, ProbeMethod, Statuses};

/// A server that does the same with every connection.
async fn server<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// A server that reads a head, says this, and closes. The heads come out at the other end.
async fn says(answer: impl Into<Vec<u8>>) -> (SocketAddr, mpsc::Receiver<String>) {
    let answer: Arc<[u8]> = answer.into().into();
    let (sender, heads) = mpsc::channel(16);
    let serve = move |mut stream: TcpStream| {
        let (answer, sender) = (Arc::clone(&answer), sender.clone());
        async move {
            let head = head(&mut stream).await;
            let _ = sender.try_send(head);
            let _ = stream.write_all(&answer).await;
        }
    };
    (server(serve).await, heads)
}

async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// A server that says this over and over, without reading.
async fn floods(piece: &'static [u8], first: &'static [u8]) -> SocketAddr {
    server(move |mut stream| async move {
        let _ = stream.write_all(first).await;
        while stream.write_all(piece).await.is_ok() {}
    })
    .await
}

async fn ask_with(address: SocketAddr, probe: Probe, protocol: Protocol) -> Result<(), Failure> {
    let settings = Settings {
        check: crate::snapshot::HealthCheck { probe, ..check() },
        protocol,
        proxy_protocol: None,
        tls: None,
    };
    tokio::time::timeout(Duration::from_secs(20), Sockets.ask(address, &settings)).await.expect("an end")
}

async fn ask(address: SocketAddr, probe: impl Into<Probe>) -> Result<(), Failure> {
    ask_with(address, probe.into(), Protocol::Http1).await
}

impl From<HttpProbe> for Probe {
    fn from(probe: HttpProbe) -> Probe {
        Probe::Http(probe)
    }
}

fn get() -> HttpProbe {
    HttpProbe {
        protocol: None,
        method: ProbeMethod::Get,
        path: "/healthz?full=1".to_owned(),
        host: None,
        headers: ProbeHeaders::default(),
        statuses: vec![Statuses(200..=200), Statuses(300..=399)],
        body: None,
    }
}

fn expecting(text: &str) -> HttpProbe {
    HttpProbe { body: Some(text.to_owned()), ..get() }
}

fn fields() -> ProbeHeaders {
    let field = |name: &'static str, value| (name.parse().unwrap(), HeaderValue::from_static(value));
    ProbeHeaders(Arc::new([field("x-check", "1"), field("user-agent", "mine")]))
}

#[tokio::test]
async fn an_http_check_asks_what_it_is_told_and_looks_at_the_status() {
    for (status, result) in [
        ("200 OK", Ok(())),
        ("302 Found\r\nLocation: /elsewhere", Ok(())),
        ("204 No Content", Err(Failure::Status(204))),
        ("503 Service Unavailable", Err(Failure::Status(503))),
        ("103 Early Hints\r\n\r\nHTTP/1.1 200 OK", Ok(())),
    ] {
        let (address, mut heads) = says(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")).await;
        assert_eq!(ask(address, get()).await, result, "{status}");
        let head = heads.recv().await.unwrap().to_lowercase();
        assert!(head.starts_with("get /healthz?full=1 http/1.1\r\n"), "{head}");
        assert!(head.contains(&format!("host: {address}\r\n")) && head.contains("connection: close\r\n"), "{head}");
        assert!(head.contains("user-agent: floodway-health/"), "{head}");
        assert!(heads.try_recv().is_err(), "redirects are not followed");
    }
    let (address, mut heads) = says("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n").await;
    let probe = HttpProbe { method: ProbeMethod::Head, host: Some("a.b".to_owned()), headers: fields(), ..get() };
    assert_eq!(ask(address, probe).await, Ok(()), "an answer to HEAD has no content");
    let head = heads.recv().await.unwrap().to_lowercase();
    for part in ["head /healthz?full=1 ", "host: a.b\r\n", "x-check: 1\r\n", "user-agent: mine\r\n"] {
        assert!(head.contains(part), "{part}: {head}");
    }
}

#[tokio::test]
async fn an_http_check_looks_at_the_beginning_of_the_content() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nall i\r\n6\r\ns well\r\n0\r\n\r\n";
    let until_closed = "HTTP/1.1 200 OK\r\n\r\nall is well";
    for answer in [chunked, until_closed] {
        let (address, _) = says(answer).await;
        assert_eq!(ask(address, expecting("is well")).await, Ok(()), "{answer}");
        assert_eq!(ask(address, expecting("is sick")).await, Err(Failure::Content), "{answer}");
    }
    let (address, _) = says("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nall is").await;
    assert_eq!(ask(address, expecting("is well")).await, Err(Failure::Broken("the connection broke")));
}

#[tokio::test]
async fn an_http_check_takes_a_bounded_part_of_what_comes() {
    let endless = floods(&[b'x'; 1000], b"HTTP/1.1 200 OK\r\n\r\n").await;
    assert_eq!(ask(endless, expecting("well")).await, Err(Failure::Content));
    assert_eq!(ask(endless, get()).await, Ok(()), "content that does not matter is not waited for");
    let head = floods(b"x-more: and more\r\n", b"HTTP/1.1 200 OK\r\n").await;
    assert!(matches!(ask(head, get()).await, Err(Failure::Broken(_))));
    let line = floods(&[b'x'; 1000], b"HTTP/1.1 200 ").await;
    assert!(matches!(ask(line, get()).await, Err(Failure::Broken(_))));
    let interim = floods(b"HTTP/1.1 103 Early Hints\r\n\r\n", b"").await;
    assert!(matches!(ask(interim, get()).await, Err(Failure::Broken(_))));
    let chunks = floods(b"1;x=1\r\nx\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    assert!(matches!(ask(chunks, expecting("well")).await, Err(Failure::Content | Failure::Broken(_))));
}

#[tokio::test]
async fn what_is_not_http_is_told_from_it() {
    for nonsense in [
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "\0\u{1}\u{2}\u{3}",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
    ] {
        let (address, _) = says(nonsense).await;
        assert!(matches!(ask(address, get()).await, Err(Failure::Broken(_))), "{nonsense:?}");
        let probe = Probe::Grpc { service: String::new(), host: None };
        assert!(matches!(ask(address, probe).await, Err(Failure::Broken(_))), "{nonsense:?}");
        assert!(matches!(ask(address, websocket()).await, Err(Failure::Broken(_))), "{nonsense:?}");
    }
    let closes = server(|stream| async { drop(stream) }).await;
    assert!(matches!(ask(closes, get()).await, Err(Failure::Broken(_))));
}

#[tokio::test]
async fn a_tcp_check_wants_a_connection_and_a_port_of_its_own_is_asked() {
    let well = server(|stream| async { drop(stream) }).await;
    assert_eq!(ask(well, Probe::Tcp).await, Ok(()));
    // Bound, so that it is nobody else's, and not listened on.
    let bound = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    bound.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let refusing = bound.local_addr().unwrap().as_socket().unwrap();
    let refused = Err(Failure::Connect(std::io::ErrorKind::ConnectionRefused));
    assert_eq!(ask(refusing, Probe::Tcp).await, refused);
    assert_eq!(ask(refusing, get()).await, refused);
    let elsewhere = crate::snapshot::HealthCheck { probe: Probe::Tcp, port: Some(well.port()), ..check() };
    let settings = Settings { check: elsewhere, protocol: Protocol::Http1, proxy_protocol: None, tls: None };
    assert_eq!(Sockets.ask(refusing, &settings).await, Ok(()));
}

/// A server over HTTP/2 that gives each request this answer, and what was asked of it.
async fn http2_server(
    head: Response<()>,
    pieces: Vec<Bytes>,
    trailers: HeaderMap,
) -> (SocketAddr, mpsc::Receiver<(Request<()>, Vec<u8>)>) {
    let (sender, requests) = mpsc::channel(16);
    let serve = move |stream| {
        let (head, pieces, trailers, sender) = (head.clone(), pieces.clone(), trailers.clone(), sender.clone());
        async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let (head, pieces, trailers, sender) = (head.clone(), pieces.clone(), trailers.clone(), sender.clone());
                tokio::spawn(async move {
                    let (parts, mut content) = request.into_parts();
                    let mut asked = Vec::new();
                    while let Some(Ok(data)) = content.data().await {
                        asked.extend_from_slice(&data);
                    }
                    let _ = sender.try_send((Request::from_parts(parts, ()), asked));
                    let mut stream = respond.send_response(head, pieces.is_empty() && trailers.is_empty())?;
                    for piece in pieces {
                        stream.send_data(piece, false)?;
                    }
                    if trailers.is_empty() {
                        stream.send_data(Bytes::new(), true)
                    } else {
                        stream.send_trailers(trailers)
                    }
                });
            }
        }
    };
    (server(serve).await, requests)
}

#[tokio::test]
async fn an_http_check_speaks_what_the_upstream_does() {
    let (address, mut requests) =
        http2_server(Response::new(()), vec!["all is".into(), " well".into()], HeaderMap::new()).await;
    assert_eq!(ask_with(address, expecting("is well").into(), Protocol::Http2).await, Ok(()));
    let (request, _) = requests.recv().await.unwrap();
    assert_eq!(request.uri().to_string(), format!("http://{address}/healthz?full=1"));
    assert_eq!(ask_with(address, expecting("is sick").into(), Protocol::Http2).await, Err(Failure::Content));
    let told = HttpProbe { protocol: Some(Protocol::Http2), ..get() };
    assert_eq!(ask(address, told).await, Ok(()), "or what it is told");

    let mut sick = Response::new(());
    *sick.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    let (address, _) = http2_server(sick, Vec::new(), HeaderMap::new()).await;
    assert_eq!(ask_with(address, get().into(), Protocol::Http2).await, Err(Failure::Status(500)));

    let much = vec![Bytes::from(vec![b'x'; 16 * 1024]); 64];
    let (address, _) = http2_server(Response::new(()), much, HeaderMap::new()).await;
    assert_eq!(ask_with(address, expecting("well").into(), Protocol::Http2).await, Err(Failure::Content));
}

fn status(status: &'static str) -> HeaderMap {
    HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static(status))])
}

async fn ask_grpc(content: Vec<Bytes>, trailers: HeaderMap) -> Result<(), Failure> {
    let (address, _) = http2_server(Response::new(()), content, trailers).await;
    ask(address, Probe::Grpc { service: "shop.Cart".to_owned(), host: None }).await
}

#[tokio::test]
async fn a_grpc_check_speaks_the_health_protocol() {
    let serving = Bytes::from_static(b"\0\0\0\0\x02\x08\x01");
    let (address, mut requests) = http2_server(Response::new(()), vec![serving.clone()], status("0")).await;
    let probe = |service: &str| Probe::Grpc { service: service.to_owned(), host: Some("cart.internal".to_owned()) };
    assert_eq!(ask(address, probe("shop.Cart")).await, Ok(()));
    let (request, asked) = requests.recv().await.unwrap();
    assert_eq!(request.uri(), "http://cart.internal/grpc.health.v1.Health/Check");
    assert_eq!(
        (&request.headers()["content-type"], &request.headers()["te"]),
        (&"application/grpc".parse().unwrap(), &"trailers".parse().unwrap())
    );
    assert_eq!(request.headers()["grpc-timeout"], "1000m");
    assert_eq!(asked, b"\0\0\0\0\x0b\x0a\x09shop.Cart");
    assert_eq!(ask(address, probe("")).await, Ok(()));
    assert_eq!(requests.recv().await.unwrap().1, b"\0\0\0\0\0");

    let split = vec![serving.slice(..3), serving.slice(3..)];
    assert_eq!(ask_grpc(split, status("0")).await, Ok(()));
    let not_serving = Bytes::from_static(b"\0\0\0\0\x02\x08\x02");
    assert_eq!(ask_grpc(vec![not_serving], status("0")).await, Err(Failure::NotServing("NOT_SERVING")));
    assert_eq!(ask_grpc(vec![serving], status("14")).await, Err(Failure::GrpcStatus(14)));
    assert_eq!(ask_grpc(Vec::new(), status("5")).await, Err(Failure::GrpcStatus(5)));
    let nonsense = Bytes::from_static(b"all is well");
    assert!(matches!(ask_grpc(vec![nonsense], status("0")).await, Err(Failure::Broken(_))));
    let much = vec![Bytes::from(vec![0; 16 * 1024]); 64];
    assert!(matches!(ask_grpc(much, status("0")).await, Err(Failure::Broken(_))));

    // Its status comes in the head, without a message ("Trailers-Only").
    let mut unknown = Response::new(());
    *unknown.headers_mut() = status("12");
    let (address, _) = http2_server(unknown, Vec::new(), HeaderMap::new()).await;
    assert_eq!(ask(address, probe("")).await, Err(Failure::GrpcStatus(12)));
}

fn websocket() -> Probe {
    Probe::WebSocket { path: "/ws".to_owned(), host: None, headers: ProbeHeaders::default() }
}

#[tokio::test]
async fn a_websocket_check_opens_one_and_closes_it() {
    let (sender, mut closed) = mpsc::channel(1);
    let serve = move |stream| {
        let sender = sender.clone();
        async move {
            let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
            let _ = sender.try_send(futures_util::StreamExt::next(&mut socket).await.unwrap().unwrap());
        }
    };
    assert_eq!(ask(server(serve).await, websocket()).await, Ok(()));
    let frame = closed.recv().await.unwrap();
    let tokio_tungstenite::tungstenite::Message::Close(Some(close)) = frame else { panic!("{frame:?}") };
    assert_eq!(u16::from(close.code), 1000);
}

#[tokio::test]
async fn a_websocket_check_wants_the_answer_to_its_key() {
    // Whatever the head asks for, this is the answer; `{accept}` is what proves that it was read.
    let answers = |text: &'static str| {
        server(move |mut stream: TcpStream| async move {
            let head = head(&mut stream).await;
            let key = head.to_lowercase().find("sec-websocket-key: ").map(|at| &head[at + 19..][..24]).unwrap();
            let answer = text.replace("{accept}", &derive_accept_key(key.as_bytes()));
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.read_u8().await;
        })
    };
    let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n";
    assert_eq!(ask(answers(switch).await, websocket()).await, Ok(()));
    let echo = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    assert!(
        matches!(ask(answers(echo).await, websocket()).await, Err(Failure::Broken(_))),
        "the key of another handshake"
    );
    let without = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert!(matches!(ask(answers(without).await, websocket()).await, Err(Failure::Broken(_))));
    let other = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nSec-WebSocket-Accept: {accept}\r\n\r\n";
    assert!(matches!(ask(answers(other).await, websocket()).await, Err(Failure::Broken(_))));
    let refused = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(ask(answers(refused).await, websocket()).await, Err(Failure::Status(403)));
}
