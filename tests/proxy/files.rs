//! Large content and what is left of it: the program as people start it, in its own process, whose memory and files
//! can be counted.
#![allow(clippy::disallowed_methods)] // The program under test has the clock of the world.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;

use super::clients;
use super::server::{Server, eventually};
use super::support::{Raw, backend, within};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
/// The bound of growth that is promised, in bytes.
const GROWTH: u64 = 10 * MIB;
/// Length of the pattern that content repeats: a prime, so that a lost or repeated block of any even size shows.
const PERIOD: usize = 65_521;

/// Starts the program with everything sent to `endpoint`.
fn serve(endpoint: SocketAddr, upstream: &str) -> (Server, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let objects = format!(
        "apiVersion: floodway.dev/v1alpha1\nkind: ProxyRoute\nmetadata: {{name: all}}\n\
         spec: {{rules: [{{backends: [{{upstream: {{name: all}}}}]}}]}}\n---\n\
         apiVersion: floodway.dev/v1alpha1\nkind: ProxyUpstream\nmetadata: {{name: all}}\n\
         spec: {{protocol: {upstream}, endpoints: [{{address: \"{endpoint}\"}}]}}\n"
    );
    std::fs::write(folder.path().join("all.yaml"), objects).unwrap();
    (Server::start(folder.path(), &["--access-log", "off"]), folder)
}

/// Resident memory now, or at its highest, in bytes.
fn memory(server: &Server, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

fn open_files(server: &Server) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count()
}

/// Content, and the judge of it.
struct Pattern {
    twice: Vec<u8>,
    at: usize,
    total: u64,
}

impl Pattern {
    fn new() -> Pattern {
        let mut state = 1_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let once: Vec<u8> = (0..PERIOD).map(|_| next()).collect();
        Pattern { twice: once.repeat(2), at: 0, total: 0 }
    }

    /// The next bytes, at most so many.
    fn take(&mut self, most: u64) -> &[u8] {
        let length = usize::try_from(most).unwrap().min(PERIOD);
        let from = self.at;
        self.at = (self.at + length) % PERIOD;
        self.total += length as u64;
        &self.twice[from..from + length]
    }

    /// Fails unless `bytes` come next.
    fn check(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(PERIOD) {
            let at = self.total;
            assert!(self.take(part.len() as u64) == part, "other content at {at}");
        }
    }
}

fn write_all(to: &mut impl Write, total: u64, chunked: bool) -> std::io::Result<()> {
    let mut pattern = Pattern::new();
    while pattern.total < total {
        let part = pattern.take(total - pattern.total);
        if chunked {
            write!(to, "{:x}\r\n", part.len())?;
            to.write_all(part)?;
            to.write_all(b"\r\n")?;
        } else {
            to.write_all(part)?;
        }
    }
    if chunked { to.write_all(b"0\r\n\r\n") } else { Ok(()) }
}

/// Reads and checks content of `total` bytes.
fn read_all(from: &mut impl Read, total: u64) {
    let mut pattern = Pattern::new();
    let mut buffer = vec![0; 256 * 1024];
    while pattern.total < total {
        let room = buffer.len().min(usize::try_from(total - pattern.total).unwrap());
        let read = from.read(&mut buffer[..room]).unwrap();
        assert!(read > 0, "ended after {}", pattern.total);
        pattern.check(&buffer[..read]);
    }
}

/// Reads and checks chunks to the last one; the length of the content.
fn read_chunks(from: &mut impl std::io::BufRead) -> u64 {
    let mut pattern = Pattern::new();
    let mut chunk = Vec::new();
    loop {
        let mut line = String::new();
        from.read_line(&mut line).unwrap();
        let length = usize::from_str_radix(line.trim_end(), 16).unwrap();
        chunk.resize(length + 2, 0);
        from.read_exact(&mut chunk).unwrap();
        if length == 0 {
            return pattern.total;
        }
        pattern.check(&chunk[..length]);
    }
}

fn head(from: &mut impl std::io::BufRead) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(from.read_line(&mut head).unwrap() > 0, "ended in {head:?}");
    }
    head
}

/// An endpoint that serves one exchange per connection: GET /down, /down-chunked, or an upload in either framing.
fn endpoint() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut reader = BufReader::with_capacity(256 * 1024, stream.try_clone().unwrap());
                let mut writer = stream;
                let head = head(&mut reader);
                let ok = "HTTP/1.1 200 OK\r\nConnection: close\r\n";
                if head.starts_with("GET /down-chunked") {
                    write!(writer, "{ok}Transfer-Encoding: chunked\r\n\r\n").unwrap();
                    let _ = write_all(&mut writer, GIB / 8, true);
                } else if head.starts_with("GET ") {
                    write!(writer, "{ok}Content-Length: {GIB}\r\n\r\n").unwrap();
                    let _ = write_all(&mut writer, GIB, false);
                } else if head.contains("\r\ntransfer-encoding: chunked\r\n") {
                    let total = read_chunks(&mut reader).to_string();
                    write!(writer, "{ok}Content-Length: {}\r\n\r\n{total}", total.len()).unwrap();
                } else {
                    assert!(head.contains(&format!("\r\ncontent-length: {GIB}\r\n")), "{head}");
                    read_all(&mut reader, GIB);
                    write!(writer, "{ok}Content-Length: 4\r\n\r\nread").unwrap();
                }
            });
        }
    });
    address
}

fn connect(server: &Server) -> (BufReader<TcpStream>, TcpStream) {
    let stream = TcpStream::connect(server.http).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    (BufReader::with_capacity(256 * 1024, stream.try_clone().unwrap()), stream)
}

#[test]
fn a_gibibyte_each_way_takes_hardly_any_memory() {
    let (server, _folder) = serve(endpoint(), "Http1");
    let (mut reader, mut writer) = connect(&server);
    let before = memory(&server, "VmRSS");

    writer.write_all(b"GET /down HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert!(head(&mut reader).contains(&format!("\r\ncontent-length: {GIB}\r\n")));
    read_all(&mut reader, GIB);

    writer.write_all(b"GET /down-chunked HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert!(head(&mut reader).contains("\r\ntransfer-encoding: chunked\r\n"));
    assert_eq!(read_chunks(&mut reader), GIB / 8);

    write!(writer, "POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: {GIB}\r\n\r\n").unwrap();
    write_all(&mut writer, GIB, false).unwrap();
    assert!(head(&mut reader).starts_with("HTTP/1.1 200 "));
    reader.read_exact(&mut [0; 4]).unwrap();

    writer.write_all(b"POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
    write_all(&mut writer, GIB, true).unwrap();
    assert!(head(&mut reader).starts_with("HTTP/1.1 200 "));
    let mut total = [0; 10];
    reader.read_exact(&mut total).unwrap();
    assert_eq!(&total, GIB.to_string().as_bytes());

    let growth = memory(&server, "VmHWM").saturating_sub(before);
    assert!(growth < GROWTH, "{} KiB of growth", growth / 1024);
}

#[test]
fn clients_that_do_not_read_take_hardly_any_memory() {
    let (server, _folder) = serve(endpoint(), "Http1");
    let before = memory(&server, "VmRSS");
    let mut stalled = Vec::new();
    for _ in 0..20 {
        let (mut reader, mut writer) = connect(&server);
        writer.write_all(b"GET /down HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        head(&mut reader);
        stalled.push((reader, writer));
    }
    // Memory has stopped growing once the endpoints are held up.
    let mut last = 0;
    let mut still = 0;
    eventually("nothing moves", || {
        let now = memory(&server, "VmRSS");
        still = if now == last { still + 1 } else { 0 };
        last = now;
        still > 50
    });
    let growth = memory(&server, "VmHWM").saturating_sub(before);
    assert!(growth < 2 * GROWTH, "{} KiB for 20 stalled downloads", growth / 1024);
    // They go on where they stopped.
    let (mut reader, _writer) = stalled.pop().unwrap();
    read_all(&mut reader, 64 * MIB);
}

/// Runs `work` on a runtime of its own.
fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(work)
}

#[test]
fn big_http2_bodies_take_hardly_any_memory() {
    const SIZE: u64 = 40 * MIB;
    run(async {
        let address = clients::http2_backend(|request, mut answer| async move {
            let mut body = request.into_body();
            let mut received = Pattern::new();
            while let Some(Ok(piece)) = clients::piece(&mut body).await {
                received.check(&piece);
            }
            let response = http::Response::builder().header("x-received", received.total);
            let mut stream = answer.send_response(response.body(()).unwrap(), false).unwrap();
            let mut pattern = Pattern::new();
            while pattern.total < SIZE {
                let part = Bytes::copy_from_slice(pattern.take(SIZE - pattern.total));
                clients::send(&mut stream, part, pattern.total == SIZE).await.unwrap();
            }
        });
        let (server, _folder) = serve(address.await, "Http2");
        let before = memory(&server, "VmRSS");
        let client = clients::http2(server.http).await;
        let mut client = client.ready().await.unwrap();
        let (answer, mut stream) = client.send_request(clients::post("/"), false).unwrap();
        let mut pattern = Pattern::new();
        while pattern.total < SIZE {
            let part = Bytes::copy_from_slice(pattern.take(SIZE - pattern.total));
            within(clients::send(&mut stream, part, pattern.total == SIZE)).await.unwrap();
        }
        let answer = within(answer).await.unwrap();
        assert_eq!(answer.headers()["x-received"], SIZE.to_string());
        let mut body = answer.into_body();
        let mut received = Pattern::new();
        while let Some(piece) = clients::piece(&mut body).await {
            received.check(&piece.unwrap());
        }
        assert_eq!(received.total, SIZE);
        let growth = memory(&server, "VmHWM").saturating_sub(before);
        assert!(growth < GROWTH, "{} KiB of growth", growth / 1024);
    });
}

#[test]
fn nothing_is_left_open_after_the_load() {
    run(async {
        // Ends every connection after one exchange; what begins with /hang has no answer.
        let address = backend(|mut connection| async move {
            let Some(head) = connection.request().await else { return };
            if head.starts_with("GET /ws") {
                let _ = connection.0.readable().await;
            } else if head.starts_with("GET /events") {
                let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\ndata: 1\n\n";
                connection.send(head).await;
                connection.to_end().await;
            } else if head.contains(" /hang") {
                connection.to_end().await;
            } else {
                // Before it has read the content, if there is any.
                connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
                connection.to_end().await;
            }
        });
        let (server, _folder) = serve(address.await, "Http1");
        let mut warm = Raw(tokio::net::TcpStream::connect(server.http).await.unwrap());
        warm.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        warm.to_end().await;
        let gauge = |name: &str| {
            let (_, text) = server.admin("/metrics");
            let values = text.lines().filter(|line| line.starts_with(name)).map(|line| line.rsplit(' ').next());
            values.map(|value| value.unwrap().parse::<f64>().unwrap()).sum::<f64>()
        };
        eventually("rest", || gauge("floodway_connections_open") == 0.0);
        let before = open_files(&server);

        let upgrade = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        let mut open = Vec::new();
        for number in 0..40 {
            for request in [
                "GET /events HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET /hang HTTP/1.1\r\nHost: a\r\n\r\n",
                "POST /hang HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nsome",
                "POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nsome",
                "GET /idle HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET / HTTP/1.1\r\nHos",
                upgrade,
            ] {
                let mut client = Raw(tokio::net::TcpStream::connect(server.http).await.unwrap());
                client.send(request).await;
                open.push(client);
            }
            let client = clients::http2(server.http).await;
            let (answer, stream) = client.clone().send_request(clients::get("/events"), true).unwrap();
            tokio::spawn(async move {
                let _streams = (client, stream);
                let answer = answer.await;
                if number % 2 == 0 {
                    let _ = futures_util::stream::unfold(answer.unwrap().into_body(), |mut body| async move {
                        clients::piece(&mut body).await.map(|piece| (piece, body))
                    })
                    .take(1)
                    .collect::<Vec<_>>()
                    .await;
                }
            });
        }
        eventually("load", || open_files(&server) > before + 300);
        for (number, client) in open.into_iter().enumerate() {
            if number % 2 == 0 { client.reset() } else { drop(client) }
        }
        eventually("no open connections", || gauge("floodway_connections_open") == 0.0);
        eventually("no active streams", || gauge("floodway_active_streams") == 0.0);
        let mut left = 0;
        eventually("no open files", || {
            left = open_files(&server);
            left <= before
        });
    });
}
