//! HTTP/2 on either side: a client with prior knowledge, and endpoints.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::{RecvStream, client, server};
use http::{HeaderMap, Request, Response};
use tokio::net::{TcpListener, TcpStream};

use super::support::within;

/// An HTTP/2 connection, and what came of it in the end.
pub async fn http2(address: SocketAddr) -> client::SendRequest<Bytes> {
    // A busy machine must not let the client give its connection up for having read too little of many small frames.
    http2_with(address, client::Builder::new().data_frame_budget(1 << 26)).await
}

/// The same with settings of the test's choosing.
pub async fn http2_with(address: SocketAddr, settings: &client::Builder) -> client::SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (client, connection) = settings.handshake(stream).await.unwrap();
    tokio::spawn(connection);
    client
}

/// A request without content.
pub fn get(path: &str) -> Request<()> {
    Request::get(format!("http://example.com{path}")).body(()).unwrap()
}

/// A request with content to come.
pub fn post(path: &str) -> Request<()> {
    Request::post(format!("http://example.com{path}")).body(()).unwrap()
}

/// Sends a request without content and waits for its answer.
pub async fn ask(client: &client::SendRequest<Bytes>, request: Request<()>) -> Response<RecvStream> {
    let mut client = within(client.clone().ready()).await.unwrap();
    let (answer, _) = client.send_request(request, true).unwrap();
    within(answer).await.unwrap()
}

/// The next piece of content, or `None` at the end; gives its room back.
pub async fn piece(body: &mut RecvStream) -> Option<Result<Bytes, h2::Error>> {
    loop {
        let piece = within(body.data()).await?;
        if let Ok(piece) = &piece {
            body.flow_control().release_capacity(piece.len()).unwrap();
            if piece.is_empty() {
                continue;
            }
        }
        return Some(piece);
    }
}

/// All content and the trailers.
pub async fn content(body: &mut RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut all = Vec::new();
    while let Some(piece) = piece(body).await {
        all.extend_from_slice(&piece?);
    }
    Ok((all, within(body.trailers()).await?))
}

/// Sends content as far as the other side's window allows, and waits for more room as needed.
pub async fn send(stream: &mut h2::SendStream<Bytes>, mut bytes: Bytes, end: bool) -> Result<(), h2::Error> {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        let room = room.unwrap_or(Err(h2::Reason::CANCEL.into()))?;
        let part = bytes.split_to(room.min(bytes.len()));
        stream.send_data(part, false)?;
    }
    if end { stream.send_data(Bytes::new(), true) } else { Ok(()) }
}

/// An endpoint that speaks HTTP/2 with prior knowledge and runs `serve` for every request.
pub async fn http2_backend<F>(
    serve: impl Fn(Request<RecvStream>, server::SendResponse<Bytes>) -> F + Clone + Send + 'static,
) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    http2_backend_with(server::Builder::new(), serve).await
}

/// The same with settings of the test's choosing.
pub async fn http2_backend_with<F>(
    settings: server::Builder,
    serve: impl Fn(Request<RecvStream>, server::SendResponse<Bytes>) -> F + Clone + Send + 'static,
) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (serve, settings) = (serve.clone(), settings.clone());
            tokio::spawn(async move {
                let Ok(mut connection) = settings.handshake(stream).await else { return };
                while let Some(Ok((request, answer))) = connection.accept().await {
                    tokio::spawn(serve(request, answer));
                }
            });
        }
    });
    address
}

/// An endpoint that sends back the content that it gets, and its trailers, in either version.
pub async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            let mut start = [0; 3];
            let preface = stream.peek(&mut start).await.unwrap_or(0) == 3 && &start == b"PRI";
            let io = hyper_util::rt::TokioIo::new(stream);
            let echo = hyper::service::service_fn(|request: Request<hyper::body::Incoming>| async {
                Ok::<_, std::convert::Infallible>(Response::new(request.into_body()))
            });
            tokio::spawn(async move {
                let _ = if preface {
                    let executor = hyper_util::rt::TokioExecutor::new();
                    hyper::server::conn::http2::Builder::new(executor).serve_connection(io, echo).await
                } else {
                    hyper::server::conn::http1::Builder::new().serve_connection(io, echo).await
                };
            });
        }
    });
    address
}
