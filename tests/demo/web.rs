//! A client: whole answers by hyper, events line by line from a plain socket, WebSockets by tungstenite.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use crate::{Outcome, expect};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Looks again and again until there is something; how long it took.
#[expect(clippy::disallowed_methods, reason = "a test's own thread, waiting for a condition of another process")]
pub(crate) fn wait<T>(what: &str, most: Duration, mut look: impl FnMut() -> Option<T>) -> Result<Duration, String> {
    let began = Instant::now();
    while look().is_none() {
        if began.elapsed() > most {
            return Err(format!("waited {} s for {what}", most.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(began.elapsed())
}

/// Where requests go.
pub(crate) struct Web {
    address: SocketAddr,
    runtime: Runtime,
}

/// A whole answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
    headers: http::HeaderMap,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Result<Value, String> {
        serde_json::from_slice(&self.body).map_err(|error| format!("{error}: {}", self.told()))
    }

    pub(crate) fn field(&self, name: &str) -> String {
        self.headers.get(name).map_or(String::new(), |value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    }

    /// For an error message.
    pub(crate) fn told(&self) -> String {
        let start = self.text().chars().take(300).collect::<String>();
        format!("status {}, {:?}, {} bytes: {start}", self.status, self.headers, self.body.len())
    }
}

impl Web {
    pub(crate) fn to(address: SocketAddr) -> Web {
        Web { address, runtime: Builder::new_current_thread().enable_all().build().unwrap() }
    }

    pub(crate) fn authority(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn get(&self, path: &str) -> Result<Answer, String> {
        self.ask("GET", path, &[], Vec::new())
    }

    /// One request on a connection of its own.
    pub(crate) fn ask(
        &self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Answer, String> {
        let mut request = http::Request::builder().method(method).uri(path).header("host", self.authority());
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let exchange = async {
            let stream = tokio::net::TcpStream::connect(self.address).await?;
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            let (head, body) = sender.send_request(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok::<_, Box<dyn std::error::Error>>(Answer { status: head.status.as_u16(), headers: head.headers, body })
        };
        self.runtime.block_on(async {
            match tokio::time::timeout(PATIENCE, exchange).await {
                Ok(answer) => answer.map_err(|error| format!("{method} {path}: {error}")),
                Err(_) => Err(format!("{method} {path}: no answer in {PATIENCE:?}")),
            }
        })
    }

    pub(crate) fn websocket(&self) -> Outcome {
        let url = format!("ws://{}/ws", self.address);
        let talk = async {
            let stream = tokio::net::TcpStream::connect(self.address).await.map_err(|error| error.to_string())?;
            let (mut socket, _) =
                tokio_tungstenite::client_async(&url, stream).await.map_err(|error| error.to_string())?;
            for message in
                [Message::text("hello"), Message::text("x".repeat(100_000)), Message::binary(vec![0, 255, 7])]
            {
                socket.send(message.clone()).await.map_err(|error| error.to_string())?;
                let back = socket.next().await.ok_or("closed")?.map_err(|error| error.to_string())?;
                expect(back == message, || format!("sent {} bytes, got {} back", message.len(), back.len()))?;
            }
            socket.close(None).await.map_err(|error| error.to_string())?;
            while let Some(Ok(message)) = socket.next().await {
                expect(message.is_close(), || format!("after the close came {message:?}"))?;
            }
            Ok(String::new())
        };
        self.runtime.block_on(async {
            tokio::time::timeout(PATIENCE, talk).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
        })
    }
}

/// An open event stream.
pub(crate) struct Events {
    lines: BufReader<TcpStream>,
    last: u64,
}

impl Events {
    pub(crate) fn open(address: SocketAddr, last: Option<u64>) -> Events {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let resume = last.map_or(String::new(), |id| format!("Last-Event-ID: {id}\r\n"));
        write!(stream, "GET /clock HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\n{resume}\r\n").unwrap();
        Events { lines: BufReader::new(stream), last: 0 }
    }

    /// Of another path.
    pub(crate) fn of(address: SocketAddr, path: &str) -> Events {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\n\r\n").unwrap();
        Events { lines: BufReader::new(stream), last: 0 }
    }

    /// Everything until the last chunk: the connection itself may be kept.
    pub(crate) fn rest(&mut self) -> Result<String, String> {
        let mut rest = String::new();
        while !rest.ends_with("\r\n0\r\n\r\n") {
            let mut line = String::new();
            match self.lines.read_line(&mut line) {
                Ok(0) => break,
                Ok(_) => rest.push_str(&line),
                Err(error) => return Err(format!("the stream broke: {error}")),
            }
        }
        Ok(rest)
    }

    pub(crate) fn last_id(&self) -> u64 {
        self.last
    }

    /// The id of the next event, as soon as its line is there.
    pub(crate) fn next_id(&mut self) -> Result<u64, String> {
        loop {
            let mut line = String::new();
            match self.lines.read_line(&mut line) {
                Ok(0) => return Err("the stream ended".to_owned()),
                Err(error) => return Err(format!("the stream broke: {error}")),
                Ok(_) => {}
            }
            if let Some(id) = line.strip_prefix("id: ") {
                self.last = id.trim().parse().map_err(|error| format!("{line:?}: {error}"))?;
                return Ok(self.last);
            }
        }
    }

    /// The first event comes at once, in the middle of a second; from the next on they are a second apart.
    pub(crate) fn one_by_one(&mut self, count: usize) -> Outcome {
        self.next_id()?;
        let mut times = Vec::new();
        for _ in 0..count {
            let expected = self.last + 1;
            let id = self.next_id()?;
            expect(id == expected, || format!("after {} came {id}", expected - 1))?;
            times.push(Instant::now());
        }
        let gaps = times.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()).collect::<Vec<_>>();
        // Held back and sent together, they would come within microseconds.
        expect(gaps.iter().all(|gap| (300..3_000).contains(gap)), || format!("gaps of {gaps:?} ms"))?;
        Ok(format!("gaps of {gaps:?} ms"))
    }

    /// Reads to the end: after the last event, when to come back, and the last chunk.
    pub(crate) fn ended(&mut self) -> Outcome {
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).map_err(|error| format!("{error}, after {rest:?}"))?;
        expect(rest.ends_with("retry: 2000\n\n\r\n0\r\n\r\n"), || format!("the end was {rest:?}"))?;
        Ok(String::new())
    }
}
