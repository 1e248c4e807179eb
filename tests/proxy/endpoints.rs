//! Endpoints for what is said in bytes: one that writes down what reaches it, and one that says what the test wants.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use floodway::snapshot::Snapshot;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::{PATIENCE, Plane, Raw, backend, eventually};

/// An endpoint that writes down every message that reaches it, byte for byte, and answers each with an empty 200.
pub struct Witness {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Message>>>,
}

/// What reached an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A message with its end.
    Whole(String),
    /// A message that was broken off.
    Cut(String),
}

impl Witness {
    pub async fn start() -> Witness {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let writing = Arc::clone(&seen);
        let address = backend(move |mut client| {
            let seen = Arc::clone(&writing);
            async move {
                while let Some(message) = message(&mut client).await {
                    let whole = matches!(message, Message::Whole(_));
                    seen.lock().unwrap().push(message);
                    if !whole || client.0.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.is_err() {
                        return;
                    }
                }
            }
        })
        .await;
        Witness { address, seen }
    }

    /// What has come since the last call.
    pub fn take(&self) -> Vec<Message> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }

    /// Sends a request that is beyond doubt and checks that it is all that has come since the last call.
    pub async fn saw_nothing_else(&self, plane: &Plane, case: &str) {
        let answer = plane.exchange("GET /sentinel HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{case}: {answer}");
        match &self.take()[..] {
            [Message::Whole(only)] if only.starts_with("GET /sentinel HTTP/1.1\r\n") => {}
            seen => panic!("{case}: the endpoint saw {seen:?}"),
        }
    }
}

/// The next message on a connection, as its framing fields say; `None` if there is none.
pub async fn message(client: &mut Raw) -> Option<Message> {
    let mut bytes = Vec::new();
    let whole = read_message(client, &mut bytes).await.is_some();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    match (whole, text.is_empty()) {
        (true, _) => Some(Message::Whole(text)),
        (false, true) => None,
        (false, false) => Some(Message::Cut(text)),
    }
}

async fn read_message(client: &mut Raw, bytes: &mut Vec<u8>) -> Option<()> {
    line(client, bytes).await?;
    let (mut length, mut chunked) = (0, false);
    loop {
        let field = line(client, bytes).await?.to_ascii_lowercase();
        match field.split_once(": ") {
            Some(("content-length", value)) => length = value.parse().unwrap(),
            Some(("transfer-encoding", value)) => chunked = value == "chunked",
            None if field.is_empty() => break,
            _ => {}
        }
    }
    if !chunked {
        return exactly(client, bytes, length).await;
    }
    loop {
        let size = usize::from_str_radix(&line(client, bytes).await?, 16).unwrap();
        if size == 0 {
            break;
        }
        exactly(client, bytes, size + 2).await?;
    }
    while !line(client, bytes).await?.is_empty() {}
    Some(())
}

async fn line(client: &mut Raw, bytes: &mut Vec<u8>) -> Option<String> {
    let start = bytes.len();
    while !bytes[start..].ends_with(b"\r\n") {
        bytes.push(client.0.read_u8().await.ok()?);
    }
    Some(String::from_utf8_lossy(&bytes[start..bytes.len() - 2]).into_owned())
}

async fn exactly(client: &mut Raw, bytes: &mut Vec<u8>, count: usize) -> Option<()> {
    for _ in 0..count {
        bytes.push(client.0.read_u8().await.ok()?);
    }
    Some(())
}

/// What an endpoint does once it has said its piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Takes the next request.
    Goes,
    /// Closes.
    Closes,
    /// Resets the connection, after a moment in which what it said can arrive.
    Resets,
    /// Says nothing more.
    Stays,
}

/// An endpoint that reads a request and then says `bytes`, whatever they are.
pub async fn saying(bytes: impl Into<Vec<u8>>, then: Then) -> SocketAddr {
    let bytes = Arc::new(bytes.into());
    backend(move |mut client| {
        let bytes = Arc::clone(&bytes);
        async move {
            while let Some(Message::Whole(_)) = message(&mut client).await {
                if client.0.write_all(&bytes).await.is_err() {
                    return;
                }
                match then {
                    Then::Goes => {}
                    Then::Closes => return,
                    Then::Resets => {
                        // A reset throws away what the other side has not read yet, so it must have been read.
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        return client.reset();
                    }
                    Then::Stays => {
                        let _ = client.0.read_u8().await;
                        return;
                    }
                }
            }
        }
    })
    .await
}

/// An address that answers no connection: its queue is full. Lasts as long as what comes with it.
pub async fn unreachable() -> (SocketAddr, impl Sized) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let mut waiting = Vec::new();
    for _ in 0..8 {
        let connecting = tokio::net::TcpStream::connect(address);
        if let Ok(connected) = tokio::time::timeout(Duration::from_millis(100), connecting).await {
            let connected = connected.unwrap();
            OWN.lock().unwrap().push(connected.local_addr().unwrap().port());
            waiting.push(connected);
        }
    }
    (address, (socket, waiting))
}

/// Waits until nothing of any exchange is left: no counter above zero, no socket of a client, and, once the table names no
/// endpoint, no socket to one. Whatever task the proxy has holds one of these, so that none of them is left either. What
/// the test itself holds open counts, too.
pub async fn nothing_is_left(plane: &Plane) {
    plane.metric_becomes("floodway_connections_open", "", 0.0).await;
    plane.metric_becomes("floodway_active_streams", "", 0.0).await;
    eventually("nothing in flight to endpoints", || plane.in_flight() == 0).await;

    let table = plane.publisher.current().unwrap_or_default();
    let endpoints = table.clusters.values().flat_map(|cluster| cluster.endpoints.iter());
    let endpoints: Vec<u16> = endpoints.map(|endpoint| endpoint.address.port()).collect();
    let left = || {
        let ours = |socket: &&Socket| socket.local == plane.address.port() || endpoints.contains(&socket.remote);
        sockets().iter().filter(ours).count()
    };
    if left() == 0 {
        return;
    }
    // What waits in pools may; a worker closes it when its next request finds a table without these endpoints.
    plane.publisher.publish(Snapshot::default());
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while left() > 0 {
        assert!(tokio::time::Instant::now() < deadline, "{} sockets are left", left());
        for _ in 0..4 {
            let Ok(stream) = TcpStream::connect(plane.address).await else { continue };
            let mut client = Raw(stream);
            let _ = client.0.write_all(b"GET /left HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
            client.to_end().await;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    plane.publisher.publish(Snapshot::clone(&table));
}

/// A TCP socket that somebody holds, by its ports.
struct Socket {
    local: u16,
    remote: u16,
}

/// Sockets to endpoints that are a test's own, by their ports.
static OWN: Mutex<Vec<u16>> = Mutex::new(Vec::new());

/// All TCP sockets that are established, being established, or closed by the other side alone.
fn sockets() -> Vec<Socket> {
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap_or_default();
    let own = OWN.lock().unwrap();
    let port = |address: &str| u16::from_str_radix(address.rsplit(':').next()?, 16).ok();
    let held = table.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
        let socket = Socket { local: port(local)?, remote: port(remote)? };
        (matches!(state, "01" | "02" | "03" | "08") && !own.contains(&socket.local)).then_some(socket)
    });
    held.collect()
}
