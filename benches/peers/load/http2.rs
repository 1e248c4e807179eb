//! HTTP/2 clients that ask again as soon as they are answered, on several streams of each connection.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::{Counts, Load};
use crate::backend::http2::message;
use crate::frames::{
    DATA, END_HEADERS, END_STREAM, Framed, GOAWAY, HEADERS, PREFACE, RST_STREAM, remembered, remembered_anew,
};

pub(super) const CONNECTIONS: usize = 8;
/// On each connection, at once.
const STREAMS: usize = 8;

/// What is asked, and what must come back.
#[derive(Clone)]
pub(crate) struct Call {
    /// Fields of the first request, and of those after it, which refer to what the peer remembers.
    first: Vec<u8>,
    later: Vec<u8>,
    body: Vec<u8>,
    /// Bytes of the answer's body.
    answer: usize,
}

/// A GET whose answer has so many bytes.
pub(crate) fn get(path: &str, answer: usize) -> Call {
    // By the static table: GET, http.
    let mut call = Call { first: vec![0x82, 0x86], later: vec![0x82, 0x86], body: Vec::new(), answer };
    call.fields(path, &[("accept", "*/*"), ("accept-encoding", "gzip, br")]);
    call
}

/// A gRPC call of one message each way.
pub(crate) fn unary() -> Call {
    // By the static table: POST, http.
    let (body, answer) = (message(), message().len());
    let mut call = Call { first: vec![0x83, 0x86], later: vec![0x83, 0x86], body, answer };
    call.fields("/bench.Echo/Unary", &[("content-type", "application/grpc"), ("te", "trailers")]);
    call
}

impl Call {
    /// The same over TLS: https, by the static table.
    pub(super) fn over_tls(&self) -> Call {
        let mut call = self.clone();
        (call.first[1], call.later[1]) = (0x87, 0x87);
        call
    }

    fn fields(&mut self, path: &str, more: &[(&str, &str)]) {
        // Of the static table: 1 is :authority, 4 :path, 58 user-agent.
        remembered(&mut self.first, 1, "bench.example.com");
        remembered(&mut self.first, 4, path);
        remembered(&mut self.first, 58, "bench/1.0");
        more.iter().for_each(|(name, value)| remembered_anew(&mut self.first, name, value));
        // RFC 7541, section 2.3.3: the dynamic table follows the static one, the newest field first.
        let remembered = 3 + more.len() as u8;
        self.later.extend((0..remembered).map(|at| 0x80 | (62 + remembered - 1 - at)));
    }
}

pub(crate) fn closed_loop(address: SocketAddr, call: &Call) -> Load {
    let counts = Arc::new(Counts::default());
    let mut clients = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (call, counts) = (call.clone(), counts.clone());
        clients.spawn(async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            client(stream, call, counts).await
        });
    }
    Load { counts, clients }
}

/// A client on a connection.
pub(super) async fn client<S>(stream: S, call: Call, counts: Arc<Counts>) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut framed = Framed::new(stream);
    framed.out.splice(0..0, PREFACE.iter().copied());
    let (mut next, mut open, mut received) = (1, 0, 0);
    while open > 0 || counts.on() {
        while open < STREAMS && counts.on() {
            let fields = if next == 1 { &call.first } else { &call.later };
            let last = if call.body.is_empty() { END_STREAM } else { 0 };
            framed.frame(HEADERS, END_HEADERS | last, next, fields);
            if !call.body.is_empty() {
                framed.frame(DATA, END_STREAM, next, &call.body);
            }
            (next, open) = (next + 2, open + 1);
        }
        framed.more().await?.context("the proxy closed the connection")?;
        while let Some(frame) = framed.next()? {
            match frame.kind {
                DATA => received += frame.payload.len(),
                HEADERS if frame.flags & END_STREAM == 0 && status(&frame.payload) != Some(200) => {
                    bail!("another status than 200");
                }
                RST_STREAM => bail!("a stream was reset"),
                GOAWAY => bail!("GOAWAY"),
                _ => {}
            }
            if frame.flags & END_STREAM != 0 {
                open -= 1;
                counts.one_done();
            }
        }
    }
    let expected = (next as usize - 1) / 2 * call.answer;
    if received != expected {
        bail!("{received} bytes of answers instead of {expected}");
    }
    Ok(())
}

/// The status at the beginning of a block, if it is 200. A change of the table's size may precede it.
fn status(block: &[u8]) -> Option<u16> {
    let first = block.iter().find(|byte| **byte & 0xe0 != 0x20)?;
    (*first == 0x88).then_some(200)
}
