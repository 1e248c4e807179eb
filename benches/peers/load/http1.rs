//! HTTP/1.1 clients: a connection, and clients that ask again as soon as they are answered.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::{Counts, Load};

/// A connection with what was read and not used.
pub(crate) struct Connection<S = TcpStream> {
    pub(crate) stream: S,
    buffer: Vec<u8>,
    filled: usize,
    /// The proxy said that it will close.
    pub(crate) closing: bool,
}

/// The head of an answer.
pub(crate) struct Head {
    pub(crate) status: u16,
    /// By Content-Length.
    length: Option<usize>,
}

impl Connection {
    /// With a buffer for reading of so many bytes.
    pub(crate) async fn open(address: SocketAddr, buffer: usize) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Connection::over(stream, buffer))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// On what is open already.
    pub(crate) fn over(stream: S, buffer: usize) -> Self {
        Connection { stream, buffer: vec![0; buffer], filled: 0, closing: false }
    }

    /// Reads a head; what came behind it stays.
    pub(crate) async fn head(&mut self) -> Result<Head> {
        loop {
            let mut fields = [httparse::EMPTY_HEADER; 32];
            let mut response = httparse::Response::new(&mut fields);
            if let httparse::Status::Complete(end) = response.parse(&self.buffer[..self.filled])? {
                self.closing = response.headers.iter().any(|field| {
                    field.name.eq_ignore_ascii_case("connection") && field.value.eq_ignore_ascii_case(b"close")
                });
                let length = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
                let length = length.map(|field| std::str::from_utf8(field.value)).transpose()?;
                let head = Head { status: response.code.unwrap_or(0), length: length.map(str::parse).transpose()? };
                self.used(end);
                return Ok(head);
            }
            self.more().await.context("no whole head")?;
        }
    }

    /// Reads what has come behind what is there, which it returns.
    pub(crate) async fn more(&mut self) -> Result<&[u8]> {
        let read = self.stream.read(&mut self.buffer[self.filled..]).await?;
        if read == 0 {
            bail!("the connection was closed, or its buffer is full");
        }
        self.filled += read;
        Ok(&self.buffer[..self.filled])
    }

    pub(crate) fn unused(&self) -> &[u8] {
        &self.buffer[..self.filled]
    }

    /// Forgets bytes from the beginning.
    pub(crate) fn used(&mut self, bytes: usize) {
        self.buffer.copy_within(bytes..self.filled, 0);
        self.filled -= bytes;
    }

    /// Reads a whole answer with a length, and forgets it.
    pub(crate) async fn answer(&mut self) -> Result<u16> {
        let head = self.head().await?;
        // RFC 9110, section 15.3.5: "A 204 response is terminated by the end of the header section".
        let length = if head.status == 204 { Some(0) } else { head.length };
        let mut left = length.context("an answer without length")?;
        while left > self.filled {
            left -= self.filled;
            self.filled = 0;
            self.more().await.context("no whole body")?;
        }
        self.used(left);
        Ok(head.status)
    }

    pub(crate) async fn ask(&mut self, request: &[u8]) -> Result<()> {
        self.stream.write_all(request).await?;
        self.stream.flush().await?;
        match self.answer().await? {
            200 => Ok(()),
            other => bail!("status {other}"),
        }
    }
}

/// A request as a browser or a client library sends it.
pub(crate) fn get(host: &str, path: &str) -> Vec<u8> {
    get_with(host, path, "")
}

/// With further fields, as lines.
pub(crate) fn get_with(host: &str, path: &str, lines: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\nAccept-Encoding: gzip, br\r\n{lines}\r\n")
        .into_bytes()
}

/// One request on a connection of its own.
pub(crate) async fn once(address: SocketAddr, path: &str) -> Result<()> {
    let asked = async { Connection::open(address, 4096).await?.ask(&get("bench.example.com", path)).await };
    tokio::time::timeout(std::time::Duration::from_secs(5), asked).await.context("no answer in five seconds")?
}

/// So many clients, each with a connection, that send one of the requests after the other.
pub(crate) fn closed_loop(address: SocketAddr, clients: usize, requests: Vec<Vec<u8>>, buffer: usize) -> Load {
    let counts = Arc::new(Counts::default());
    let requests: Arc<[Vec<u8>]> = requests.into();
    let mut set = JoinSet::new();
    for client in 0..clients {
        let (counts, requests) = (counts.clone(), requests.clone());
        set.spawn(async move {
            let mut connection = Connection::open(address, buffer).await?;
            // Clients begin at different places, so that one host is not asked by all at once.
            let mut next = client * requests.len() / clients;
            while counts.on() {
                connection.ask(&requests[next % requests.len()]).await?;
                next += 1;
                counts.one_done();
            }
            Ok(())
        });
    }
    Load { counts, clients: set }
}
