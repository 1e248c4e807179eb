//! Connections that are passed on as bytes: nothing of them is lost or changed, whoever speaks first, whoever ends first, and however
//! it ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ring::digest::{Context, SHA256, digest};
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use crate::guarded::{issued, trusting};
use crate::support::{Backend, Pod, at_cluster_ip, get, service};

/// A server whose side of each connection the test plays.
async fn played() -> (SocketAddr, mpsc::Receiver<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, (arrived, arrivals)) = (listener.local_addr().unwrap(), mpsc::channel(16));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if arrived.send(stream).await.is_err() {
                return;
            }
        }
    });
    (address, arrivals)
}

async fn says(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
}

async fn hears(stream: &mut TcpStream, bytes: &[u8]) {
    let mut heard = vec![0; bytes.len()];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard, bytes);
}

#[tokio::test]
async fn a_server_may_greet_its_client() {
    let (server, mut arrivals) = played().await;
    let pod = Pod::start("", &["--mode=transparent"]).await;
    // RFC 5321 4.3.1; and the first packet of MySQL, whose length and number are in its first four bytes.
    let mail: [&[u8]; 4] = [b"220 mail.example ESMTP\r\n", b"EHLO a\r\n", b"250 mail.example\r\n", b"QUIT\r\n"];
    let data: [&[u8]; 4] =
        [b"\x0a\0\0\0\x0a8.0.36\0\x01\0", b"\x04\0\0\x01user", b"\x03\0\0\x02\0\0\0", b"\x01\0\0\0\x01"];
    for talk in [mail, data] {
        let mut client = pod.redirected(pod.outbound(), server).await;
        let mut server = arrivals.recv().await.unwrap();
        for (place, words) in talk.into_iter().enumerate() {
            let (from, to) = if place % 2 == 0 { (&mut server, &mut client) } else { (&mut client, &mut server) };
            says(from, words).await;
            hears(to, words).await;
        }
    }
    // The same for the app: where nothing is known of a port.
    let meant = SocketAddr::from(([10, 0, 0, 7], server.port()));
    let mut client = pod.redirected(pod.inbound(), meant).await;
    let mut app = arrivals.recv().await.unwrap();
    says(&mut app, mail[0]).await;
    hears(&mut client, mail[0]).await;
}

#[tokio::test]
async fn each_side_may_end_before_the_other_and_a_break_is_one_for_both() {
    let (address, mut arrivals) = played().await;
    let pod = Pod::start("", &["--mode=transparent"]).await;
    let mut talk = async || {
        let mut client = pod.redirected(pod.outbound(), address).await;
        let mut server = arrivals.recv().await.unwrap();
        says(&mut client, b"hello").await;
        hears(&mut server, b"hello").await;
        (client, server)
    };
    for client_first in [true, false] {
        let (client, server) = talk().await;
        let (mut first, mut second) = if client_first { (client, server) } else { (server, client) };
        says(&mut first, b"last words").await;
        first.shutdown().await.unwrap();
        let mut heard = Vec::new();
        second.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"last words");
        // It goes on the other way, for as long as it likes, and however much it is.
        let much = vec![9; 3_000_000];
        for _ in 0..2 {
            let (said, heard) = tokio::join!(second.write_all(&much), async {
                let mut heard = vec![0; much.len()];
                first.read_exact(&mut heard).await.map(|_| heard)
            });
            said.unwrap();
            assert!(heard.unwrap() == much);
        }
        drop(second);
        let mut rest = Vec::new();
        first.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"", "an end, not a break");
    }
    for client_first in [true, false] {
        let (client, server) = talk().await;
        let (first, mut second) = if client_first { (client, server) } else { (server, client) };
        socket2::SockRef::from(&first).set_linger(Some(Duration::ZERO)).unwrap();
        drop(first);
        assert_eq!(second.read_u8().await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    }
    let labels = |outcome| ["outbound", outcome];
    pod.metric_becomes("floodway_passthrough_connections_total", &labels("complete"), 2.0).await;
    pod.metric_becomes("floodway_passthrough_connections_total", &labels("broken"), 2.0).await;
    pod.metric_becomes("floodway_passthrough_connections_open", &[], 0.0).await;
}

#[tokio::test]
async fn tls_to_a_service_is_between_its_two_ends() {
    let (address, mut arrivals) = played().await;
    let one = Backend::start("one").await;
    let objects = at_cluster_ip(&service("llm", &[&one], ""), address);
    let pod = Pod::start(&objects, &["--mode=transparent"]).await;
    let server = issued("llm.example");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = PrivatePkcs8KeyDer::from(server.secret.clone()).into();
    let config = config.with_no_client_auth().with_single_cert(server.chain.clone(), key).unwrap();
    let serving = tokio::spawn(async move {
        let mut stream = TlsAcceptor::from(Arc::new(config)).accept(arrivals.recv().await.unwrap()).await.unwrap();
        let mut request = [0; 4];
        stream.read_exact(&mut request).await.unwrap();
        stream.write_all(&request).await.unwrap();
        stream.shutdown().await.unwrap();
        // The client's own close_notify comes, too.
        stream.read_to_end(&mut Vec::new()).await.unwrap()
    });
    let name = ServerName::try_from("llm.example").unwrap();
    let stream = pod.redirected(pod.outbound(), address).await;
    // Nobody but the server has a certificate that the client trusts.
    let mut client = trusting(&server, None).connect(name, stream).await.unwrap();
    client.write_all(b"ping").await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "ping");
    client.shutdown().await.unwrap();
    assert_eq!(serving.await.unwrap(), 0);
    pod.metric_becomes("floodway_passthrough_connections_total", &["why=\"tls\"", "complete"], 1.0).await;
    // Plain requests of the same Service are served.
    let (status, body) = get(pod.redirected(pod.outbound(), address).await, "/", "llm", "").await;
    assert!(status == 200 && body.starts_with("one\n"), "{status} {body}");
}

/// Bytes of which no two pieces are alike.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_ne_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// More connections at once than a worker has pipes: each way, of different lengths, to readers that are fast and slow.
#[tokio::test]
async fn much_passes_on_many_connections_at_once() {
    let (address, mut arrivals) = played().await;
    let pod = Pod::start("", &["--mode=transparent"]).await;
    let mut all = tokio::task::JoinSet::new();
    for number in 0..12_usize {
        let client = pod.redirected(pod.outbound(), address).await;
        let server = arrivals.recv().await.unwrap();
        let bytes = Arc::new(noise(2_000_003 + 700_001 * number, number as u64 + 1));
        let (client_reads, client_writes) = client.into_split();
        let (server_reads, server_writes) = server.into_split();
        for (mut reads, mut writes) in [(server_reads, client_writes), (client_reads, server_writes)] {
            let (sent, expected) = (Arc::clone(&bytes), Arc::clone(&bytes));
            all.spawn(async move {
                // Pieces of many sizes.
                let mut rest = &sent[..];
                let mut size = 1;
                while !rest.is_empty() {
                    let (piece, others) = rest.split_at(size.min(rest.len()));
                    writes.write_all(piece).await.unwrap();
                    (rest, size) = (others, size * 3 % 700_001 + 1);
                }
                writes.shutdown().await.unwrap();
            });
            all.spawn(async move {
                let (mut heard, mut count) = (Context::new(&SHA256), 0);
                let mut buffer = vec![0; if number % 3 == 0 { 1500 } else { 300_000 }];
                loop {
                    let read = reads.read(&mut buffer).await.unwrap();
                    if read == 0 {
                        break;
                    }
                    heard.update(&buffer[..read]);
                    count += read;
                    if number % 4 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
                assert_eq!(count, expected.len());
                assert!(
                    heard.finish().as_ref() == digest(&SHA256, &expected).as_ref(),
                    "other bytes on connection {number}"
                );
            });
        }
    }
    while let Some(done) = all.join_next().await {
        done.unwrap();
    }
    pod.metric_becomes("floodway_passthrough_connections_total", &["complete"], 12.0).await;
}
