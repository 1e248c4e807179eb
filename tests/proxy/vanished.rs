//! Peers that are gone without a word: power, or the network between. Nothing comes from them any more, not even a refusal,
//! so that only clocks can tell. They live in a network namespace of their own, behind a link that is taken down.

use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use floodway::snapshot::{Action, Ping, PingTarget, Protocol, Streaming, WebSocket};
use tokio::io::AsyncWriteExt as _;

use super::clients::*;
use super::network::{must_be_inside, run_in_namespace};
use super::support::*;
use super::websocket::{SWITCHED, UPGRADE};
use super::websocket_bytes::{BINARY, CLOSE, END, PONG, frame, next};

const HERE: [u8; 4] = [10, 77, 0, 1];
const THERE: [u8; 4] = [10, 77, 0, 20];
/// Shorter than anything else that would end a stream.
const PROBES: Duration = Duration::from_secs(1);
const STALL: Duration = Duration::from_secs(3);

#[test]
fn clients_that_vanish_are_found() {
    run_in_namespace("vanished::inside_clients");
}

#[test]
fn endpoints_that_vanish_are_found() {
    run_in_namespace("vanished::inside_endpoints");
}

/// A network on the other side of a link.
struct Elsewhere(Child);

impl Elsewhere {
    fn reach() -> Elsewhere {
        // Ends with its standard input.
        let mut sleeping = Command::new("unshare");
        sleeping.args(["--net", "sh", "-c", "echo; read end"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut sleeper = sleeping.spawn().unwrap();
        std::io::Read::read_exact(sleeper.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        let there = Elsewhere(sleeper);
        run("ip", &["link", "set", "floodway1", "netns", &there.0.id().to_string()]);
        there.ip(&["addr", "add", "10.77.0.20/24", "dev", "floodway1"]);
        there.ip(&["link", "set", "floodway1", "up"]);
        there
    }

    fn ip(&self, args: &[&str]) {
        let process = self.0.id().to_string();
        run("nsenter", &[&["-t", &process, "-n", "ip"], args].concat());
    }

    /// What is made there, of sockets.
    fn make<T: Send + 'static>(&self, make: impl FnOnce() -> T + Send + 'static) -> T {
        let network = std::fs::File::open(format!("/proc/{}/ns/net", self.0.id())).unwrap();
        let made = std::thread::spawn(move || {
            rustix::thread::move_into_link_name_space(network.as_fd(), None).unwrap();
            make()
        });
        made.join().unwrap()
    }

    /// A connection from there.
    fn connect(&self, address: SocketAddr) -> Raw {
        let stream = self.make(move || std::net::TcpStream::connect(address).unwrap());
        stream.set_nonblocking(true).unwrap();
        Raw(tokio::net::TcpStream::from_std(stream).unwrap())
    }

    /// No packet passes any more, either way.
    fn vanish(&self) {
        self.ip(&["link", "set", "floodway1", "down"]);
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Routes by path to one endpoint; WebSockets of `/pinged` get pings.
fn plane(endpoint: SocketAddr) -> Plane {
    let mut routes = vec![forward("/pinged", "backend"), forward("", "backend")];
    for route in &mut routes {
        let Action::Forward(action) = &mut route.action else { unreachable!() };
        action.timeouts.stall = STALL;
    }
    if let Action::Forward(action) = &mut routes[0].action {
        let ping = Some(Ping { interval: PROBES, timeout: PROBES, target: PingTarget::Both });
        let web_socket = WebSocket { ping, ..WebSocket::default() };
        action.streaming = Some(Streaming { web_socket, ..Streaming::default() }.into());
    }
    let mut cluster = cluster("backend", Protocol::Http1, &[endpoint]);
    cluster.connections.tcp_keep_alive = Some(PROBES);
    Plane::with(snapshot(routes, vec![cluster]), |settings| {
        settings.listeners.http = vec![SocketAddr::from(([0, 0, 0, 0], 0))];
        settings.listeners.tcp_keep_alive = PROBES;
        settings.listeners.tcp_user_timeout = 2 * PROBES;
        // So that HTTP/2's own pings are not what finds them.
        settings.limits.keep_alive_idle = Duration::from_secs(600);
    })
}

/// Does what the path asks for: an event and then silence, events without end, content without end, or a WebSocket.
async fn served(mut endpoint: Raw) {
    let head = endpoint.head().await;
    match head.split(' ').nth(1).unwrap() {
        "/silent" | "/silent2" => endpoint.send(format!("{EVENTS}9\r\ndata: x\n\n\r\n")).await,
        "/talking" => {
            endpoint.send(EVENTS).await;
            while endpoint.0.write_all(b"9\r\ndata: x\n\n\r\n").await.is_ok() {
                tokio::time::sleep(PROBES / 10).await;
            }
        }
        "/download" => {
            endpoint.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n").await;
            while endpoint.0.write_all(&[b'x'; 65536]).await.is_ok() {}
        }
        "/upload" => {}
        _ => {
            endpoint.send(format!("{SWITCHED}\r\n")).await;
            while endpoint.0.readable().await.is_ok() {
                if endpoint.0.try_read(&mut [0; 1024]).is_ok_and(|read| read == 0) {
                    return;
                }
            }
        }
    }
    // Held until the test is over.
    std::future::pending::<()>().await;
}

/// Waits until `path` is logged; fails unless it ended so.
async fn ends(plane: &Plane, path: &str, reason: &str) {
    let line = plane.logged(path).await;
    assert_eq!(line["reason"], reason, "{line}");
}

#[tokio::test]
#[ignore = "runs within the test that makes its network namespace"]
async fn inside_clients() {
    must_be_inside();
    let there = Elsewhere::reach();
    let plane = plane(backend(served).await);
    let address = SocketAddr::from((HERE, plane.address.port()));
    let mut clients = Vec::new();
    for path in ["/silent", "/talking", "/download"] {
        let mut client = there.connect(address);
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        client.head().await;
        clients.push(client);
    }
    for path in ["/socket", "/pinged"] {
        let mut client = there.connect(address);
        client.send(format!("GET {path} HTTP/1.1\r\n{UPGRADE}\r\n")).await;
        client.head().await;
        clients.push(client);
    }
    let stream = there.connect(address).0;
    let (http2, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut silent = ask(&http2, get("/silent2")).await;
    piece(silent.body_mut()).await.unwrap().unwrap();

    there.vanish();
    tokio::join!(
        // Probes.
        ends(&plane, "/silent", "client_gone"),
        ends(&plane, "/silent2", "client_gone"),
        ends(&plane, "/socket", "client_gone"),
        // What nobody acknowledges.
        ends(&plane, "/talking", "client_gone"),
        ends(&plane, "/download", "client_stalled"),
        ends(&plane, "/pinged", "pong_timeout"),
    );
    plane.metric_becomes("floodway_connections_open", "", 0.0).await;
}

#[tokio::test]
#[ignore = "runs within the test that makes its network namespace"]
async fn inside_endpoints() {
    must_be_inside();
    let there = Elsewhere::reach();
    let listener = there.make(|| std::net::TcpListener::bind(SocketAddr::from((THERE, 0))).unwrap());
    listener.set_nonblocking(true).unwrap();
    let plane = plane(listener.local_addr().unwrap());
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(served(Raw(stream)));
        }
    });
    let address = SocketAddr::from(([127, 0, 0, 1], plane.address.port()));
    let connect = async || Raw(tokio::net::TcpStream::connect(address).await.unwrap());
    let mut silent = connect().await;
    silent.send("GET /silent HTTP/1.1\r\nHost: a\r\n\r\n").await;
    silent.until("\n\n\r\n").await;
    let mut upload = connect().await;
    upload.send("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000000\r\n\r\n").await;
    let mut sockets = Vec::new();
    for path in ["/socket", "/talked-to", "/pinged"] {
        let mut client = connect().await;
        client.send(format!("GET {path} HTTP/1.1\r\n{UPGRADE}\r\n")).await;
        client.head().await;
        sockets.push(client);
    }

    there.vanish();
    let writing = async {
        let piece = [b'x'; 65536];
        while upload.0.write_all(&piece).await.is_ok() {}
    };
    let mut pinged = sockets.pop().unwrap();
    let mut talking = sockets.pop().unwrap();
    let saying = async {
        while talking.0.write_all(&frame(END | BINARY, true, b"anyone?")).await.is_ok() {
            tokio::time::sleep(PROBES / 10).await;
        }
    };
    // A client that is there answers.
    let answering = async {
        loop {
            let came = next(&mut pinged).await;
            if came.first == END | CLOSE {
                break;
            }
            pinged.send(frame(END | PONG, true, &came.payload)).await;
        }
    };
    let found = async {
        tokio::join!(
            // Probes.
            ends(&plane, "/silent", "upstream_cut"),
            ends(&plane, "/socket", "upstream_cut"),
            // What nobody acknowledges.
            ends(&plane, "/talked-to", "upstream_cut"),
            ends(&plane, "/upload", "upstream_stalled"),
            ends(&plane, "/pinged", "pong_timeout"),
        )
    };
    tokio::select! {
        _ = async { tokio::join!(writing, saying, answering, std::future::pending::<()>()) } => {}
        _ = found => {}
    }
}
