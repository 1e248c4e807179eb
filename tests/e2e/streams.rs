//! Clients of event streams and WebSockets that come back whenever theirs ends, on a thread of their own. They tell polite ends from cuts,
//! and find out whether an event was missed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

use crate::clients::{self, Clients, PATIENCE, Shared, Target};
use crate::cluster::eventually;

/// Between two messages of a WebSocket.
const PACE: Duration = Duration::from_millis(100);

/// The running clients.
pub(crate) type Streams = Clients<StreamTally>;

/// What became of streams.
#[derive(Debug, Default)]
pub(crate) struct StreamTally {
    pub(crate) opened: u64,
    /// Polite ends by kind, with the code of the close frame for WebSockets.
    pub(crate) ended: BTreeMap<String, u64>,
    /// Seconds since the beginning, and how a stream broke off.
    pub(crate) cut: Vec<(f64, String)>,
    /// Answers that were no stream.
    pub(crate) failures: Vec<(f64, String)>,
    /// Connections that could not be made at once.
    pub(crate) refused: u64,
    /// Events that a client never got.
    pub(crate) missed: u64,
    pub(crate) events: u64,
    pub(crate) echoes: u64,
    /// The longest that a client was without its stream.
    pub(crate) away: Duration,
}

struct Client {
    shared: Arc<Shared>,
    tally: StreamTally,
    /// Since when it is without its stream.
    gone: Option<Instant>,
}

/// How a stream ended.
enum End {
    Polite(String),
    Cut(String),
    /// There was none.
    Failed(String),
    /// By us.
    Stopped,
}

impl Streams {
    /// As many event streams and WebSockets.
    pub(crate) fn start(target: &Target, events: usize, sockets: usize) -> Streams {
        Clients::run(target, move |shared| {
            let new = || Client { shared: Arc::clone(&shared), tally: StreamTally::default(), gone: None };
            let events = (0..events).map(|_| new().events().boxed_local());
            events.chain((0..sockets).map(|_| new().sockets().boxed_local())).collect()
        })
    }

    /// Waits until so many are open.
    pub(crate) async fn open(&self, wanted: u64) {
        eventually("streams to be open", async || (self.count() >= wanted).then_some(())).await;
    }
}

impl clients::Tally for StreamTally {
    fn with(mut self, other: StreamTally) -> StreamTally {
        self.opened += other.opened;
        self.refused += other.refused;
        self.missed += other.missed;
        self.events += other.events;
        self.echoes += other.echoes;
        self.away = self.away.max(other.away);
        self.cut.extend(other.cut);
        self.failures.extend(other.failures);
        for (how, count) in other.ended {
            *self.ended.entry(how).or_default() += count;
        }
        self
    }
}

impl StreamTally {
    /// Fails unless every stream ended politely, and no event was missed.
    pub(crate) fn all_polite(&self) {
        assert!(self.cut.is_empty(), "{} streams were cut: {:?}", self.cut.len(), self.cut);
        assert!(self.failures.is_empty(), "{:?}", self.failures);
        assert_eq!(self.missed, 0, "events were missed: {self:?}");
    }

    /// Polite ends of all kinds.
    pub(crate) fn polite(&self) -> u64 {
        self.ended.values().sum()
    }

    /// The ends, for a table.
    pub(crate) fn ends(&self) -> String {
        let ends: Vec<_> = self.ended.iter().map(|(how, count)| format!("{count} {how}")).collect();
        if ends.is_empty() { "none".to_owned() } else { ends.join(", ") }
    }
}

impl Client {
    async fn events(mut self) -> StreamTally {
        let mut last: Option<u64> = None;
        while !self.shared.stopped() {
            let end = self.event_stream(&mut last).await;
            self.ended(end).await;
        }
        self.tally
    }

    async fn sockets(mut self) -> StreamTally {
        while !self.shared.stopped() {
            let end = self.socket().await;
            self.ended(end).await;
        }
        self.tally
    }

    async fn ended(&mut self, end: End) {
        let at = self.shared.at();
        self.gone.get_or_insert_with(Instant::now);
        match end {
            End::Polite(how) => *self.tally.ended.entry(how).or_default() += 1,
            End::Cut(how) => self.tally.cut.push((at, how)),
            End::Failed(how) => {
                self.tally.failures.push((at, how));
                sleep(Duration::from_millis(100)).await;
            }
            End::Stopped => {}
        }
    }

    /// Counts a stream that has begun, as one that is open for as long as the answer lives.
    fn begins(&mut self) -> Open {
        self.tally.opened += 1;
        if let Some(since) = self.gone.take() {
            self.tally.away = self.tally.away.max(since.elapsed());
        }
        self.shared.count.fetch_add(1, Relaxed);
        Open(Arc::clone(&self.shared))
    }

    async fn event_stream(&mut self, last: &mut Option<u64>) -> End {
        let Some(stream) = self.shared.connect(&mut self.tally.refused).await else { return self.no_connection() };
        let mut sender = clients::http1(stream).await;
        let mut request = Request::get("/clock").header("host", &self.shared.target.host);
        if let Some(last) = last {
            request = request.header("last-event-id", last.to_string());
        }
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let mut response = match timeout(PATIENCE, sender.send_request(request)).await {
            Ok(Ok(response)) if response.status() == 200 => response,
            Ok(Ok(response)) => return End::Failed(format!("{}", response.status())),
            Ok(Err(error)) => return End::Failed(format!("no head: {error:?}")),
            Err(_) => return End::Failed("no head in ten seconds".to_owned()),
        };
        let _open = self.begins();
        let mut text = Vec::new();
        while !self.shared.stopped() {
            match timeout(PATIENCE, response.frame()).await {
                Ok(Some(Ok(frame))) => text.extend_from_slice(frame.data_ref().map_or(&[], |data| data.as_ref())),
                Ok(None) if text.is_empty() => return End::Polite("event streams between two events".to_owned()),
                Ok(None) => return End::Cut(format!("in {:?}", String::from_utf8_lossy(&text))),
                Ok(Some(Err(error))) => return End::Cut(format!("events: {error:?}")),
                Err(_) => return End::Cut("silent for ten seconds".to_owned()),
            }
            while let Some(end) = text.windows(2).position(|two| two == b"\n\n") {
                let event: Vec<u8> = text.drain(..end + 2).collect();
                let event = String::from_utf8_lossy(&event).into_owned();
                let id = event.lines().find_map(|line| line.strip_prefix("id: ")?.parse::<u64>().ok());
                let Some(id) = id else { continue };
                self.tally.events += 1;
                self.tally.missed += last.map_or(0, |last| id.saturating_sub(last + 1));
                *last = Some(id);
            }
            // What Floodway says at the end is a line of its own: when to come back.
            if text.starts_with(b"retry:") && text.ends_with(b"\n") {
                text.clear();
            }
        }
        End::Stopped
    }

    async fn socket(&mut self) -> End {
        let Some(stream) = self.shared.connect(&mut self.tally.refused).await else { return self.no_connection() };
        let url = format!("ws://{}/socket", self.shared.target.host);
        let mut socket = match timeout(PATIENCE, tokio_tungstenite::client_async(url, stream)).await {
            Ok(Ok((socket, _))) => socket,
            Ok(Err(error)) => return End::Failed(format!("no WebSocket: {error}")),
            Err(_) => return End::Failed("no WebSocket in ten seconds".to_owned()),
        };
        let _open = self.begins();
        let mut number = 0_u64;
        let mut waiting = false;
        while !self.shared.stopped() {
            if !waiting {
                number += 1;
                waiting = true;
                // An error here is told by the next read, too, which knows whether the other side said goodbye.
                let _ = socket.send(Message::text(number.to_string())).await;
            }
            match timeout(PATIENCE, socket.next()).await {
                Ok(Some(Ok(Message::Text(text)))) if text.as_str() == number.to_string() => {
                    self.tally.echoes += 1;
                    waiting = false;
                    sleep(PACE).await;
                }
                Ok(Some(Ok(Message::Close(frame)))) => {
                    // Reading on answers it.
                    while let Ok(Some(Ok(_))) = timeout(Duration::from_secs(5), socket.next()).await {}
                    let code = frame.map_or(1005, |frame| u16::from(frame.code));
                    return End::Polite(format!("WebSockets with {code}"));
                }
                Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => {}
                Ok(Some(Ok(other))) => return End::Cut(format!("WebSocket: {other:?} is not the echo of {number}")),
                Ok(Some(Err(error))) => return End::Cut(format!("WebSocket: {error}")),
                Ok(None) => return End::Cut("WebSocket: ended without a close frame".to_owned()),
                Err(_) => return End::Cut("WebSocket: no echo in ten seconds".to_owned()),
            }
        }
        End::Stopped
    }

    fn no_connection(&self) -> End {
        match self.shared.stopped() {
            true => End::Stopped,
            false => End::Failed("no connection for ten seconds".to_owned()),
        }
    }
}

/// Counts as open until dropped.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Relaxed);
    }
}
