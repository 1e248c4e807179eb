//! The PROXY protocol: connections that a load balancer makes for its clients, and those to endpoints that say for whom they are.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use floodway::proxy_protocol;
use floodway::settings::{Others, Settings};
use floodway::snapshot::{
    Cluster, HealthCheck, IpAccess, Networks, Policy, Probe, Protocol, ProxyProtocol, Resilience, Snapshot,
};
use tokio::io::AsyncReadExt as _;

use super::clients::{ask, get, http2, http2_backend};
use super::support::*;

const VERSIONS: [ProxyProtocol; 2] = [ProxyProtocol::V1, ProxyProtocol::V2];
const GET: &str = "GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn believes(settings: &mut Settings) {
    settings.listeners.proxy_protocol.from = vec!["127.0.0.0/8".parse().unwrap()];
}

fn header(version: ProxyProtocol, client: &str) -> Vec<u8> {
    proxy_protocol::write(version, client.parse().ok(), "198.51.100.7:443".parse().unwrap())
}

/// What a plane says to this, until it closes.
async fn said(plane: &Plane, parts: &[&[u8]]) -> String {
    let mut client = plane.connect().await;
    for part in parts {
        // Who is refused may be cut off before the last part.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut client.0, part).await;
        tokio::task::yield_now().await;
    }
    client.to_end().await
}

#[tokio::test]
async fn the_client_is_who_the_header_says() {
    let plane = Plane::with(to(mirror().await), believes);
    for (at, version) in VERSIONS.into_iter().enumerate() {
        let path = format!("/{at}");
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        for client in ["192.0.2.1:5000", "[2001:db8::1]:5000", "[::ffff:192.0.2.1]:5000"] {
            let header = header(version, client);
            let address = client.parse::<SocketAddr>().unwrap().ip().to_canonical().to_string();
            let together = [&header[..], request.as_bytes()].concat();
            // In one piece, in two, and byte by byte.
            let bytes: Vec<&[u8]> = together.chunks(1).collect();
            for parts in [&[&together[..]][..], &[&header, request.as_bytes()], &bytes] {
                let answer = said(&plane, parts).await;
                assert!(answer.contains(&format!("x-forwarded-for: {address}\r\n")), "{answer}");
            }
        }
        let lines = plane.logged_times(&path, 9).await;
        assert!(lines.iter().all(|line| line["client"] == "192.0.2.1" || line["client"] == "2001:db8::1"));
    }
}

#[tokio::test]
async fn the_client_stays_who_it_is_on_a_connection_that_rests() {
    let plane = Plane::with(to(mirror().await), believes);
    let mut client = plane.connect().await;
    client.send(header(ProxyProtocol::V2, "192.0.2.1:5000")).await;
    for path in ["/one", "/two"] {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        client.head().await;
        assert!(client.head().await.contains("x-forwarded-for: 192.0.2.1\r\n"));
        tokio::time::sleep(Duration::from_millis(1_200)).await;
    }
}

#[tokio::test]
async fn a_header_without_a_client_leaves_the_peer() {
    let plane = Plane::with(to(mirror().await), believes);
    for version in VERSIONS {
        let answer = said(&plane, &[&header(version, ""), GET.as_bytes()]).await;
        assert!(answer.contains("x-forwarded-for: 127.0.0.1\r\n"), "{answer}");
    }
}

#[tokio::test]
async fn policies_and_trusted_proxies_ask_about_the_client() {
    let deny = Networks::new(["192.0.2.0/24".parse().unwrap()]);
    let access = IpAccess { allow: None, deny };
    let policy = Arc::new(Policy { ip_access: Some(Arc::new(access)), ..Policy::default() });
    let mut route = forward("", "backend");
    if let floodway::snapshot::Action::Forward(forward) = &mut route.action {
        forward.backends[0].policy = Some(policy);
    }
    let clusters = vec![cluster("backend", Protocol::Http1, &[mirror().await])];
    let plane = Plane::with(snapshot(vec![route], clusters), |settings| {
        believes(settings);
        settings.forwarding.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
    });
    let asking = |forwarded: &str| {
        format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {forwarded}\r\nConnection: close\r\n\r\n")
    };
    for (client, forwarded, status) in [
        ("192.0.2.1:1", "203.0.113.1", "403"),
        ("203.0.113.9:1", "192.0.2.1", "200"),
        ("10.0.0.1:1", "192.0.2.1", "403"),
        ("10.0.0.1:1", "203.0.113.1", "200"),
    ] {
        let answer = said(&plane, &[&header(ProxyProtocol::V1, client), asking(forwarded).as_bytes()]).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{client} {forwarded}: {answer}");
    }
}

#[tokio::test]
async fn who_has_to_introduce_clients_and_does_not_is_closed() {
    let plane = Plane::with(to(mirror().await), |settings| {
        believes(settings);
        settings.limits.header_timeout = Duration::from_millis(300);
    });
    let signature = &header(ProxyProtocol::V2, "")[..12];
    let hostile: [&[u8]; 7] = [
        GET.as_bytes(),
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"PROXY TCP4 192.0.2.1\r\nGET / HTTP/1.1\r\n\r\n",
        &[b"PROXY UNKNOWN ", &[b'x'; 200][..]].concat(),
        &[signature, &[0x21, 0x11, 0xff, 0xff]].concat(),
        &[signature, &[0x21, 0x11, 0, 4, 1, 2, 3, 4]].concat(),
        &[signature, &[0x22, 0, 0, 0]].concat(),
    ];
    for bytes in hostile {
        assert_eq!(said(&plane, &[bytes]).await, "", "{bytes:?}");
    }
    let refused = "floodway_connections_refused_total";
    plane.metric_becomes(refused, "proxy_protocol_malformed", 7.0).await;
    for part in ["", "PROXY TCP4 192.0.2.1 "] {
        assert_eq!(said(&plane, &[part.as_bytes()]).await, "");
    }
    plane.metric_becomes(refused, "proxy_protocol_timeout", 2.0).await;
    // Who only looks whether somebody listens.
    drop(plane.connect().await);
    let answer = said(&plane, &[&header(ProxyProtocol::V1, "192.0.2.1:5"), GET.as_bytes()]).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(plane.metric(refused, ""), 9.0);
}

#[tokio::test]
async fn nobody_else_is_believed() {
    let header = header(ProxyProtocol::V1, "192.0.2.1:5000");
    for (others, plain, counted) in [(Others::Serve, true, 0.0), (Others::Refuse, false, 2.0)] {
        let plane = Plane::with(to(mirror().await), |settings| {
            settings.listeners.proxy_protocol.from = vec!["10.0.0.0/8".parse().unwrap()];
            settings.listeners.proxy_protocol.others = others;
        });
        let answer = said(&plane, &[GET.as_bytes()]).await;
        assert_eq!(answer.contains("x-forwarded-for: 127.0.0.1\r\n"), plain, "{answer}");
        let answer = said(&plane, &[&header, GET.as_bytes()]).await;
        assert_eq!(answer.starts_with("HTTP/1.1 400 "), plain, "{answer}");
        plane.metric_becomes("floodway_connections_refused_total", "proxy_protocol_untrusted", counted).await;
    }
}

#[tokio::test]
async fn http2_follows_a_header() {
    let plane = Plane::with(to(mirror().await), believes);
    let mut stream = tokio::net::TcpStream::connect(plane.address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, &header(ProxyProtocol::V2, "192.0.2.1:5000")).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut answer = ask(&client, get("/")).await;
    let (content, _) = super::clients::content(answer.body_mut()).await.unwrap();
    assert!(String::from_utf8_lossy(&content).contains("x-forwarded-for: 192.0.2.1\r\n"));
}

fn introducing(version: ProxyProtocol, mut cluster: Cluster) -> Snapshot {
    cluster.connections.proxy_protocol = Some(version);
    snapshot(vec![forward("", "backend")], vec![cluster])
}

/// The header that a connection begins with.
async fn introduction(connection: &mut Raw) -> proxy_protocol::Header {
    let mut bytes = Vec::new();
    loop {
        if let Some(header) = proxy_protocol::read(&bytes).unwrap() {
            return header;
        }
        bytes.push(within(connection.0.read_u8()).await.unwrap());
    }
}

#[tokio::test]
async fn endpoints_learn_the_client_and_each_connection_is_one_requests() {
    for version in VERSIONS {
        let (address, mut arrivals) = played().await;
        let plane = Plane::start(introducing(version, cluster("backend", Protocol::Http1, &[address])));
        let mut client = plane.connect().await;
        let own = client.0.local_addr().unwrap();
        for path in ["/one", "/two"] {
            client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
            let mut endpoint = arrivals.next().await;
            assert_eq!(introduction(&mut endpoint).await.client, Some(own));
            assert!(endpoint.head().await.starts_with(&format!("GET {path} ")));
            endpoint.send(OK).await;
            client.until("ok").await;
            assert!(!endpoint.closed().await, "closed behind its answer");
        }
    }
}

#[tokio::test]
async fn what_is_heard_is_told_on_and_a_websocket_passes() {
    let (address, mut arrivals) = played().await;
    let snapshot = introducing(ProxyProtocol::V2, cluster("backend", Protocol::Http1, &[address]));
    let plane = Plane::with(snapshot, believes);
    let mut client = plane.connect().await;
    client.send(header(ProxyProtocol::V1, "192.0.2.1:5000")).await;
    let key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    client.send(format!("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n{key}\r\n")).await;
    let mut endpoint = arrivals.next().await;
    assert_eq!(introduction(&mut endpoint).await.client, "192.0.2.1:5000".parse().ok());
    endpoint.head().await;
    let accept = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
    let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n";
    endpoint.send(format!("{switch}{accept}\r\n")).await;
    client.head().await;
    endpoint.send(b"\x81\x02hi").await;
    assert!(client.until("hi").await.ends_with("hi"));
}

#[tokio::test]
async fn clients_do_not_share_a_connection_of_http2() {
    let (told, mut heard) = tokio::sync::mpsc::channel(8);
    let inner = http2_backend(|_, mut answer| async move {
        answer.send_response(http::Response::new(()), true).unwrap();
    })
    .await;
    // Takes the header off, and passes on what follows.
    let address = backend(move |mut connection| {
        let told = told.clone();
        async move {
            told.send(introduction(&mut connection).await.client).await.unwrap();
            let mut inner = tokio::net::TcpStream::connect(inner).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut connection.0, &mut inner).await;
        }
    })
    .await;
    let plane = Plane::with_workers(
        1,
        introducing(ProxyProtocol::V2, cluster("backend", Protocol::Http2, &[address])),
        believes_nobody,
    );
    for _ in 0..2 {
        let client = http2(plane.address).await;
        for _ in 0..2 {
            assert_eq!(ask(&client, get("/")).await.status(), 200);
        }
    }
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(within(heard.recv()).await.unwrap().unwrap());
    }
    assert!(clients[0] == clients[1] && clients[2] == clients[3] && clients[0] != clients[2], "{clients:?}");
}

fn believes_nobody(_: &mut Settings) {}

#[tokio::test]
async fn health_checks_are_floodways_own() {
    for version in VERSIONS {
        let (address, mut arrivals) = played().await;
        let mut cluster = cluster("backend", Protocol::Http1, &[address]);
        let check = HealthCheck {
            probe: Probe::Tcp,
            port: None,
            interval: Duration::from_millis(100),
            unhealthy_interval: Duration::from_millis(100),
            timeout: Duration::from_secs(1),
            healthy_threshold: 1,
            unhealthy_threshold: 1,
            only_with_traffic: false,
            before_use: false,
        };
        cluster.resilience = Arc::new(Resilience { health: Some(check), ..Resilience::default() });
        let _plane = Plane::start(introducing(version, cluster));
        assert_eq!(introduction(&mut arrivals.next().await).await.client, None);
    }
}
