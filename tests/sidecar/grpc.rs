//! gRPC: calls of one connection are spread over endpoints, with their messages as they are sent and their trailers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::support::{MODES, Pod, service_at};

/// A server that speaks HTTP/2 alone. `/shop.Cart/Get` answers with its name, `/shop.Cart/Watch` with its name, and again once it is told
/// to go on.
struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    calls: Arc<AtomicUsize>,
    /// Whether it processes nothing, and says so.
    refuses: Arc<AtomicBool>,
    goes_on: Arc<Notify>,
}

impl Server {
    async fn start(name: &'static str) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server {
            address: listener.local_addr().unwrap(),
            connections: Arc::default(),
            calls: Arc::default(),
            refuses: Arc::default(),
            goes_on: Arc::default(),
        };
        let (connections, calls) = (Arc::clone(&server.connections), Arc::clone(&server.calls));
        let (refuses, goes_on) = (Arc::clone(&server.refuses), Arc::clone(&server.goes_on));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::Relaxed);
                let (calls, refuses, goes_on) = (Arc::clone(&calls), Arc::clone(&refuses), Arc::clone(&goes_on));
                tokio::spawn(async move {
                    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                    while let Some(Ok((request, mut respond))) = connection.accept().await {
                        calls.fetch_add(1, Ordering::Relaxed);
                        if refuses.load(Ordering::Relaxed) {
                            respond.send_reset(h2::Reason::REFUSED_STREAM);
                            continue;
                        }
                        let goes_on = Arc::clone(&goes_on);
                        tokio::spawn(async move {
                            let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
                            let mut stream = respond.send_response(head, false).unwrap();
                            stream.send_data(message(name), false).unwrap();
                            if request.uri().path().ends_with("/Watch") {
                                goes_on.notified().await;
                                stream.send_data(message(name), false).unwrap();
                            }
                            let trailers = [("grpc-status", "0"), ("x-from", name)]
                                .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
                            stream.send_trailers(HeaderMap::from_iter(trailers)).unwrap();
                        });
                    }
                });
            }
        });
        server
    }
}

/// As gRPC frames a message.
fn message(text: &str) -> Bytes {
    let mut bytes = vec![0];
    bytes.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
    bytes.extend(text.as_bytes());
    bytes.into()
}

async fn connected(stream: TcpStream) -> SendRequest<Bytes> {
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn begun(client: &SendRequest<Bytes>, method: &str) -> h2::RecvStream {
    let request = Request::post(format!("http://llm/shop.Cart/{method}"));
    let request = request.header("content-type", "application/grpc").header("te", "trailers").body(()).unwrap();
    let (response, mut stream) = client.clone().ready().await.unwrap().send_request(request, false).unwrap();
    stream.send_data(message(""), true).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    response.into_body()
}

/// What is left of a call: its messages, its status, and who says so.
async fn ended(mut body: h2::RecvStream) -> (Vec<u8>, String, String) {
    let mut messages = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        messages.extend_from_slice(&data);
    }
    let trailers = body.trailers().await.unwrap().unwrap_or_default();
    let said = |name: &str| trailers.get(name).map_or(String::new(), |value| value.to_str().unwrap().to_owned());
    (messages, said("grpc-status"), said("x-from"))
}

async fn called(client: &SendRequest<Bytes>) -> (Vec<u8>, String, String) {
    ended(begun(client, "Get").await).await
}

fn answer(name: &str) -> (Vec<u8>, String, String) {
    (message(name).to_vec(), "0".to_owned(), name.to_owned())
}

fn spread(servers: &[&Server]) -> String {
    let ports: Vec<_> = servers.iter().map(|server| server.address.port()).collect();
    service_at("llm", &ports, "  protocol: Http2\n  loadBalancing: {algorithm: RoundRobin}\n")
}

#[tokio::test]
async fn calls_of_one_connection_are_spread_over_endpoints() {
    for mode in MODES {
        let (one, two) = (Server::start("one").await, Server::start("two").await);
        let pod = Pod::start(&spread(&[&one, &two]), &[mode]).await;
        let client = connected(pod.to_service(mode).await).await;
        let mut from_one = 0;
        for _ in 0..8 {
            let answered = called(&client).await;
            assert!(answered == answer("one") || answered == answer("two"), "{answered:?}");
            from_one += usize::from(answered == answer("one"));
        }
        assert_eq!(from_one, 4);
        // All of an endpoint's calls share a connection.
        for server in [&one, &two] {
            assert_eq!(server.calls.load(Ordering::Relaxed), 4);
            assert_eq!(server.connections.load(Ordering::Relaxed), 1);
        }
        let labels = ["protocol=\"HTTP/2\"", "listener=\"outbound\"", "upstream=\"shop/llm:80\""];
        pod.metric_becomes("floodway_requests_total", &labels, 8.0).await;
    }
}

#[tokio::test]
async fn messages_of_a_stream_come_as_they_are_sent() {
    for mode in MODES {
        let (one, two) = (Server::start("one").await, Server::start("two").await);
        let pod = Pod::start(&spread(&[&one, &two]), &[mode]).await;
        let client = connected(pod.to_service(mode).await).await;
        // Both at once, on the same connection of the app.
        let mut streams = Vec::new();
        for _ in 0..2 {
            let mut body = begun(&client, "Watch").await;
            let first = body.data().await.unwrap().unwrap();
            assert!(!body.is_end_stream(), "nobody has told the server to go on");
            streams.push((first, body));
        }
        assert_ne!(streams[0].0, streams[1].0, "each has an endpoint of its own");
        one.goes_on.notify_one();
        two.goes_on.notify_one();
        for (first, body) in streams {
            let name = String::from_utf8(first[5..].to_vec()).unwrap();
            assert_eq!(ended(body).await, answer(&name));
        }
    }
}

#[tokio::test]
async fn a_call_that_an_endpoint_did_not_process_goes_to_another() {
    for mode in MODES {
        let (one, two) = (Server::start("one").await, Server::start("two").await);
        let pod = Pod::start(&spread(&[&one, &two]), &[mode]).await;
        one.refuses.store(true, Ordering::Relaxed);
        let client = connected(pod.to_service(mode).await).await;
        for _ in 0..6 {
            assert_eq!(called(&client).await, answer("two"));
        }
        assert!(one.calls.load(Ordering::Relaxed) > 0, "it was asked");
    }
}

#[tokio::test]
async fn it_reaches_an_app_of_which_nobody_said_what_it_speaks() {
    let app = Server::start("app").await;
    let pod = Pod::start("", &[&format!("--app-port={}", app.address.port())]).await;
    let client = connected(TcpStream::connect(pod.inbound()).await.unwrap()).await;
    assert_eq!(called(&client).await, answer("app"));
    pod.metric_becomes("floodway_requests_total", &["protocol=\"HTTP/2\"", "inbound"], 1.0).await;
}
