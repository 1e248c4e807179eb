//! A plain client of HTTP/1.1: one connection, one request after the other.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// A request over a connection of its own.
pub(crate) async fn get(address: SocketAddr, host: &str, path: &str) -> anyhow::Result<(StatusCode, String)> {
    let exchange = async {
        let mut connection = Connection::open(address).await?;
        connection.get(host, path).await
    };
    tokio::time::timeout(Duration::from_secs(10), exchange).await?
}

/// A kept-alive client connection.
pub(crate) struct Connection(http1::SendRequest<Empty<Bytes>>);

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect(address).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Connection(sender))
    }

    pub(crate) async fn get(&mut self, host: &str, path: &str) -> anyhow::Result<(StatusCode, String)> {
        self.0.ready().await?;
        let request = Request::get(path).header("host", host).body(Empty::new())?;
        let response = self.0.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }
}
