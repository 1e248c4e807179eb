//! TLS that is passed on by the host that a client names: both sides speak with each other and nobody else, byte for byte, and
//! whoever cannot be passed on is told so.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use floodway::snapshot::{Action, HostPattern, HostTls, Protocol, ProxyProtocol, Route, Snapshot, Transport};
use rustls::pki_types::ServerName;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ClientConnection, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::clients::{ask, content};
use super::policies::responding;
use super::support::*;
use super::tls_clients::*;

pub const HOST: &str = "pod.test";

/// Has a snapshot pass TLS of a host on as a route says.
pub fn passed(mut snapshot: Snapshot, host: &str, route: &Arc<Route>) -> Snapshot {
    let terms = HostTls { passed: Some(Arc::clone(route)), ..HostTls::default() };
    snapshot.tls.insert(HostPattern::parse(host).unwrap(), Arc::new(terms));
    snapshot
}

/// A route that has TLS passed on, as what it is to requests.
pub fn passing(cluster: &str) -> Route {
    Route { transport: Some(Arc::new(Transport { passed: true, ..Transport::default() })), ..forward("", cluster) }
}

/// TLS of [`HOST`] is passed on to these endpoints, by a route of the test's choosing.
pub fn passed_to(endpoints: &[SocketAddr], change: impl FnOnce(&mut Route)) -> Snapshot {
    let mut route = passing("backend");
    change(&mut route);
    let table = snapshot(vec![], vec![cluster("backend", Protocol::Http1, endpoints)]);
    passed(table, HOST, &Arc::new(route))
}

#[derive(Debug)]
struct Only(Arc<CertifiedKey>);

impl ResolvesServerCert for Only {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// An endpoint that ends TLS itself, and gives everything back, up to a goodbye if there is one.
pub async fn pod(authority: &Authority) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = Arc::clone(&authority.certificate(&[HOST]).key);
    let acceptor = TlsAcceptor::from(Arc::new(builder.with_no_client_auth().with_cert_resolver(Arc::new(Only(key)))));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut buffer = vec![0; 64 * 1024];
                while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                    let said = &buffer[..read];
                    if stream.write_all(said).await.is_err() || said.ends_with(b"bye\n") {
                        break;
                    }
                }
                let _ = stream.shutdown().await;
            });
        }
    });
    address
}

/// The first words of a client that names a host, or none.
pub fn hello(config: &ClientConfig, host: &str) -> Vec<u8> {
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let mut bytes = Vec::new();
    ClientConnection::new(Arc::new(config.clone()), name).unwrap().write_tls(&mut bytes).unwrap();
    bytes
}

/// The same handshake message in records of no more than so many bytes (RFC 8446 5.1).
pub fn in_records(hello: &[u8], length: usize) -> Vec<u8> {
    let records = hello[5..].chunks(length);
    records.flat_map(|part| [&[22, 3, 1, (part.len() >> 8) as u8, part.len() as u8], part].concat()).collect()
}

/// Reads exactly these bytes.
pub async fn arrives(endpoint: &mut Raw, bytes: &[u8]) {
    let mut got = vec![0; bytes.len()];
    within(endpoint.0.read_exact(&mut got)).await.unwrap();
    assert!(got == bytes, "altered");
}

/// A tunnel whose sides the test plays: client and endpoint.
pub async fn tunnel(plane: &Plane, arrivals: &mut Arrivals) -> (Raw, Raw) {
    let hello = hello(&Authority::new().trusted(&[]), HOST);
    let mut client = Raw(TcpStream::connect(plane.secure).await.unwrap());
    client.send(&hello).await;
    let mut endpoint = arrivals.next().await;
    arrives(&mut endpoint, &hello).await;
    (client, endpoint)
}

#[tokio::test]
async fn a_client_shakes_hands_with_the_endpoint() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let table = passed_to(&[pod(&theirs).await], |_| {});
    let plane = secure(ended(table, "*", &[&ours.certificate(&[HOST, "other.test"])]));
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = Arc::new(theirs.trusted_with(&["anything"], &[version]));
        let mut client = shake(plane.secure, HOST, &config).await.unwrap();
        let sent: Vec<u8> = (0..3_000_000_u32).map(|index| (index % 251) as u8).collect();
        let (mut reader, mut writer) = tokio::io::split(&mut client);
        let mut got = Vec::new();
        let write = async {
            writer.write_all(&sent).await.unwrap();
            // What was said was all: close_notify, then the end of the connection that way.
            writer.shutdown().await.unwrap();
        };
        let (_, read) = within(async { tokio::join!(write, reader.read_to_end(&mut got)) }).await;
        read.unwrap();
        assert!(got == sent);
    }
    for line in plane.logged_times("", 2).await {
        assert_eq!(
            (&line["kind"], &line["end"], &line["protocol"]),
            (&"tunnel".into(), &"complete".into(), &"TLS".into())
        );
        assert_eq!((&line["host"], &line["upstream"], &line["status"]), (&HOST.into(), &"backend".into(), &200.into()));
        let (received, sent) = (line["bytes_received"].as_u64().unwrap(), line["bytes_sent"].as_u64().unwrap());
        assert!((3_000_000..3_300_000).contains(&received) && (3_000_000..3_300_000).contains(&sent), "{line}");
    }
    plane.metric_becomes("floodway_active_streams", "kind=\"tunnel\"", 0.0).await;
    assert_eq!(plane.metric("floodway_tls_handshakes_total", ""), 0.0, "nobody shook hands with us");
    // Whoever names another host, or none, meets us.
    assert!(shake(plane.secure, "other.test", &Arc::new(ours.trusted(&[]))).await.is_ok());
    let mut nameless = ours.trusted(&[]);
    nameless.enable_sni = false;
    assert!(shake(plane.secure, HOST, &Arc::new(nameless)).await.is_ok());
}

/// However the first words are cut into records and packets, the endpoint gets them as they were, with what comes behind them.
#[tokio::test]
async fn the_first_words_arrive_as_they_were_said() {
    let (address, mut arrivals) = played().await;
    let plane = secure(passed_to(&[address], |_| {}));
    let plain = hello(&Authority::new().trusted(&["h2", "http/1.1"]), HOST);
    // A session ticket, or the key of a method to come: more than one packet.
    let long = hello(&Authority::new().trusted(&["x".repeat(255).as_str(); 60]), HOST);
    assert!(long.len() > 15_000);
    for (hello, records, packets) in [
        (&plain, usize::MAX, usize::MAX),
        (&plain, 1, usize::MAX),
        (&plain, 7, 1),
        (&plain, usize::MAX, 1),
        (&long, usize::MAX, 1400),
        (&long, 1000, 1400),
    ] {
        // Data ahead of the endpoint's answer, as with 0-RTT.
        let behind = [&[23, 3, 3, 0, 4][..], b"0rtt"].concat();
        let all = [in_records(hello, records), behind].concat();
        let mut client = Raw(TcpStream::connect(plane.secure).await.unwrap());
        client.0.set_nodelay(true).unwrap();
        for packet in all.chunks(packets) {
            client.send(packet).await;
            tokio::task::yield_now().await;
        }
        let mut endpoint = arrivals.next().await;
        arrives(&mut endpoint, &all).await;
        endpoint.send("anything").await;
        client.until("anything").await;
        client.send("whatever").await;
        endpoint.until("whatever").await;
    }
}

/// What is not the beginning of TLS, or no end of it, reaches no endpoint.
#[tokio::test]
async fn who_names_no_host_in_proper_form_reaches_nobody() {
    let authority = Authority::new();
    let (address, _arrivals) = played().await;
    let table = ended(passed_to(&[address], |_| {}), "own.test", &[&authority.certificate(&["own.test"])]);
    let plane = secure_with(table, |settings| settings.listeners.tls.handshake_timeout = Duration::from_secs(2));
    let plain = hello(&authority.trusted(&[]), HOST);
    // Longer than anybody may take to say whom he wants, in small records.
    let mut giant = plain[5..].to_vec();
    giant[1..4].copy_from_slice(&[0, 0xf0, 0]);
    giant.resize(0xf000 + 4, 0);
    let giant = in_records(&[&[0; 5][..], &giant].concat(), 4096);
    // The name is there already, but the message is not whole.
    let half = plain[..plain.len() - 1].to_vec();
    let mut wrong = plain.clone();
    *wrong.get_mut(9).unwrap() = 9;
    wrong[43] = 0xff;
    for (bytes, reason) in [(giant, "tls_malformed"), (half, "tls_timeout"), (wrong, "tls_malformed")] {
        let before = plane.metric("floodway_connections_refused_total", reason);
        let mut client = Raw(TcpStream::connect(plane.secure).await.unwrap());
        let _ = client.0.write_all(&bytes).await;
        client.rest().await;
        plane.metric_becomes("floodway_connections_refused_total", reason, before + 1.0).await;
    }
    // Nor does an end in the middle.
    let mut client = Raw(TcpStream::connect(plane.secure).await.unwrap());
    client.send(&plain[..50]).await;
    client.0.shutdown().await.unwrap();
    client.rest().await;
    plane.metric_becomes("floodway_connections_refused_total", "tls_closed", 1.0).await;
    assert_eq!(plane.metric("floodway_upstream_connects_total", ""), 0.0);
}

/// The share of each backend is its weight's, as with requests.
#[tokio::test]
async fn weights_choose_the_backend() {
    let (first, mut first_arrivals) = played().await;
    let (second, mut second_arrivals) = played().await;
    let (none, mut none_arrivals) = played().await;
    let clusters = [("a", first), ("b", second), ("c", none)];
    let clusters = clusters.map(|(name, address)| cluster(name, Protocol::Http1, &[address]));
    let mut route = passing("a");
    let Action::Forward(action) = &mut route.action else { unreachable!() };
    for (name, weight) in [("b", 3), ("c", 0)] {
        let mut backend = action.backends[0].clone();
        (backend.cluster, backend.weight) = (Ok(floodway::snapshot::ClusterName::new(name)), weight);
        action.backends.push(backend);
    }
    let plane = secure(passed(snapshot(vec![], clusters.into()), HOST, &Arc::new(route)));
    let hello = hello(&Authority::new().trusted(&[]), HOST);
    let (mut a, mut b) = (0, 0);
    for _ in 0..100 {
        let mut client = Raw(TcpStream::connect(plane.secure).await.unwrap());
        client.send(&hello).await;
        tokio::select! {
            _ = first_arrivals.next() => a += 1,
            _ = second_arrivals.next() => b += 1,
            _ = none_arrivals.next() => panic!("a backend without weight"),
        }
    }
    assert!(b > a && a > 0, "{a} and {b}");
}

#[tokio::test]
async fn the_endpoint_is_told_for_whom_it_is() {
    let (address, mut arrivals) = played().await;
    let hello = hello(&Authority::new().trusted(&[]), HOST);
    for version in [ProxyProtocol::V1, ProxyProtocol::V2] {
        let mut backend = cluster("backend", Protocol::Http1, &[address]);
        backend.connections.proxy_protocol = Some(version);
        let plane = secure(passed(snapshot(vec![], vec![backend]), HOST, &Arc::new(passing("backend"))));
        let mut client = Raw(TcpStream::connect(plane.secure).await.unwrap());
        client.send(&hello).await;
        let header = floodway::proxy_protocol::write(version, client.0.local_addr().ok(), address);
        let mut endpoint = arrivals.next().await;
        arrives(&mut endpoint, &[&header[..], &hello].concat()).await;
    }
}

/// There are no requests for such a host: without TLS nothing but a redirect, and over a connection that was made for another host,
/// whose certificate is for this one, too, the hint that it was the wrong one.
#[tokio::test]
async fn requests_for_its_host_are_not_served() {
    let authority = Authority::new();
    let (address, _arrivals) = played().await;
    let mut sent_away = passing("backend");
    let redirect = floodway::snapshot::Redirect {
        scheme: Some("https".into()),
        host: None,
        port: Some(8443),
        path: None,
        status: http::StatusCode::PERMANENT_REDIRECT,
    };
    sent_away.transport = Some(Arc::new(Transport { passed: true, redirect: Some(redirect), ..Transport::default() }));
    let hosts = [("a.test", passing("backend")), ("b.test", sent_away), ("c.test", responding(""))];
    let hosts = hosts.map(|(host, route)| {
        let host = HostPattern::parse(host).unwrap();
        (host, Arc::new(floodway::snapshot::VirtualHost::build(vec![Arc::new(route)])))
    });
    let mut table = snapshot(vec![], vec![cluster("backend", Protocol::Http1, &[address])]);
    table.router = floodway::snapshot::Router::build(hosts);
    for host in ["a.test", "b.test"] {
        let route = Arc::clone(&table.router.host(&HostPattern::parse(host).unwrap()).unwrap().routes()[0]);
        table = passed(table, host, &route);
    }
    let certificate = authority.certificate(&["a.test", "b.test", "c.test"]);
    let plane = secure_with(ended(table, "c.test", &[&certificate]), |settings| {
        settings.forwarding.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    });
    let plain = async |host: &str, more: &str| {
        plane.exchange(format!("GET /x HTTP/1.1\r\nHost: {host}\r\n{more}Connection: close\r\n\r\n")).await
    };
    let refused = plain("a.test", "").await;
    assert!(refused.starts_with("HTTP/1.1 404 ") && refused.contains("no_route"), "{refused}");
    let moved = plain("b.test", "").await;
    assert!(moved.starts_with("HTTP/1.1 308 ") && moved.contains("\r\nlocation: https://b.test:8443/x\r\n"), "{moved}");
    for host in ["a.test", "b.test"] {
        let refused = plain(host, "X-Forwarded-Proto: https\r\n").await;
        assert!(refused.starts_with("HTTP/1.1 421 "), "{refused}");
    }
    let stream = shake(plane.secure, "c.test", &Arc::new(authority.trusted(&["h2"]))).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    for (host, status) in [("c.test", 200), ("a.test", 421), ("b.test", 421)] {
        let request = http::Request::get(format!("https://{host}/")).body(()).unwrap();
        let mut answer = ask(&client, request).await;
        assert_eq!(answer.status(), status, "{host}");
        let _ = content(answer.body_mut()).await;
    }
    assert_eq!(plane.metric("floodway_upstream_connects_total", ""), 0.0);
}

/// A wildcard whose TLS is passed on leaves a host alone that has routes of its own.
#[tokio::test]
async fn a_more_specific_host_is_not_passed_on_with_those_above_it() {
    let authority = Authority::new();
    let (address, mut arrivals) = played().await;
    let route = Arc::new(passing("backend"));
    let mut table = snapshot(vec![], vec![cluster("backend", Protocol::Http1, &[address])]);
    let pattern = |host| HostPattern::parse(host).unwrap();
    let host = |route| Arc::new(floodway::snapshot::VirtualHost::build(vec![route]));
    table.router.set(&pattern("*.test"), Some(host(Arc::clone(&route))));
    table.router.set(&pattern("own.test"), Some(host(Arc::new(responding("")))));
    let table = passed(table, "*.test", &route);
    let plane = secure(ended(table, "*", &[&authority.certificate(&["own.test"])]));
    assert!(shake(plane.secure, "own.test", &Arc::new(authority.trusted(&[]))).await.is_ok());
    for host in ["pod.test", "a.b.test"] {
        let hello = hello(&authority.trusted(&[]), host);
        let mut client = Raw(TcpStream::connect(plane.secure).await.unwrap());
        client.send(&hello).await;
        arrives(&mut arrivals.next().await, &hello).await;
    }
}
