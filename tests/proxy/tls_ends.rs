//! Whom TLS is ended for, with what, and how connections end on which it is.

use std::sync::Arc;
use std::time::Duration;

use floodway::snapshot::Snapshot;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::clients::{ask, content};
use super::support::*;
use super::tls_clients::*;

const HTTP1: &[&str] = &["http/1.1"];

/// The certificate that a client meets.
async fn met(plane: &Plane, host: &str, config: &Arc<rustls::ClientConfig>) -> Option<Vec<u8>> {
    let stream = shake(plane.secure, host, config).await.ok()?;
    let certificates = stream.get_ref().1.peer_certificates()?;
    Some(certificates[0].to_vec())
}

#[tokio::test]
async fn the_name_decides_the_certificate() {
    let authority = Authority::new();
    let names: &[&str] = &["own.test", "a.test", "*.a.test", "other.test"];
    let [own, above, default] = [(); 3].map(|()| authority.certificate(names));
    let snapshot = ended(to(mirror().await), "own.test", &[&own]);
    let snapshot = ended(ended(snapshot, "*.a.test", &[&above]), "*", &[&default]);
    let config = Arc::new(authority.trusted(HTTP1));
    let plane = secure(snapshot.clone());
    for (host, expected) in [("own.test", &own), ("x.a.test", &above), ("a.test", &default), ("other.test", &default)] {
        assert_eq!(met(&plane, host, &config).await.as_deref(), Some(&expected.key.cert[0][..]), "{host}");
    }
    let strict = secure_with(snapshot, |settings| settings.listeners.tls.strict_sni = true);
    assert!(met(&strict, "own.test", &config).await.is_some());
    let refused = shake(strict.secure, "other.test", &config).await.unwrap_err().to_string();
    assert!(refused.contains("UnrecognisedName"), "{refused}");
    strict.metric_becomes("floodway_connections_refused_total", "tls_unrecognized_name", 1.0).await;
}

#[tokio::test]
async fn hosts_that_the_certificate_is_not_for_are_misdirected() {
    let authority = Authority::new();
    let shared = authority.certificate(&["a.test", "b.test"]);
    let plane = secure(ended(to(mirror().await), "a.test", &[&shared]));
    let stream = shake(plane.secure, "a.test", &Arc::new(authority.trusted(&["h2"]))).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    for (host, status) in [("a.test", 200), ("b.test", 200), ("c.test", 421), ("a.test", 200)] {
        let request = http::Request::get(format!("https://{host}/")).body(()).unwrap();
        let mut answer = ask(&client, request).await;
        assert_eq!(answer.status(), status, "{host}");
        let _ = content(answer.body_mut()).await;
    }
}

/// Events that go on while certificates change, and the new one for whoever comes next.
#[tokio::test]
async fn certificates_change_under_open_streams() {
    let authority = Authority::new();
    let (address, mut arrivals) = played().await;
    let [old, new] = [(); 2].map(|()| authority.certificate(&["a.test"]));
    let table = |certificate| -> Snapshot { ended(to(address), "a.test", &[certificate]) };
    let plane = secure(table(&old));
    let config = Arc::new(authority.trusted(HTTP1));
    let mut client = shake(plane.secure, "a.test", &config).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
    let (mut endpoint, _) = arrivals.request().await;
    endpoint.send(EVENTS).await;
    assert!(plane.publisher.publish(table(&new)));
    assert_eq!(met(&plane, "a.test", &config).await.as_deref(), Some(&new.key.cert[0][..]));
    endpoint.send("9\r\ndata: 1\n\n\r\n0\r\n\r\n").await;
    let mut all = Vec::new();
    while !all.ends_with(b"0\r\n\r\n") {
        all.push(within(client.read_u8()).await.unwrap());
    }
    assert!(String::from_utf8(all).unwrap().contains("data: 1\n\n"));
}

#[tokio::test]
async fn any_worker_resumes_a_session() {
    let authority = Authority::new();
    let snapshot = ended(to(mirror().await), "*", &[&authority.certificate(&["a.test"])]);
    let plane = secure(snapshot);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = Arc::new(authority.trusted_with(HTTP1, &[version]));
        for number in 0..16 {
            let mut client = shake(plane.secure, "a.test", &config).await.unwrap();
            client.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").await.unwrap();
            // With the answer come the tickets.
            within(client.read_to_end(&mut Vec::new())).await.unwrap();
            let kind = client.get_ref().1.handshake_kind();
            assert_eq!(kind == Some(rustls::HandshakeKind::Resumed), number > 0, "{number}: {kind:?}");
        }
    }
    plane.metric_becomes("floodway_tls_handshakes_total", "resumed", 30.0).await;
}

#[tokio::test]
async fn who_does_not_shake_hands_is_closed_and_counted() {
    let authority = Authority::new();
    let snapshot = ended(to(mirror().await), "*", &[&authority.certificate(&["a.test"])]);
    let plane = secure_with(snapshot, |settings| {
        settings.listeners.tls.handshake_timeout = Duration::from_secs(3);
        settings.listeners.tls.handshakes_in_flight = 3;
    });
    let refused = "floodway_connections_refused_total";
    let giant = [&[22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff][..], &[0; 0x3ffc]].concat();
    for (bytes, reason) in [(&b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"[..], "tls_not_tls"), (&giant, "tls_malformed")]
    {
        let mut client = Raw(TcpStream::connect(plane.secure).await.unwrap());
        let _ = client.0.write_all(bytes).await;
        client.rest().await;
        plane.metric_becomes(refused, reason, 1.0).await;
    }
    // Three who say nothing take all the places, until their time is over.
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(Raw(TcpStream::connect(plane.secure).await.unwrap()));
    }
    plane.metric_becomes("floodway_connections_open", "", 3.0).await;
    let config = Arc::new(authority.trusted(HTTP1));
    assert!(shake(plane.secure, "a.test", &config).await.is_err());
    plane.metric_becomes(refused, "too_many_handshakes", 1.0).await;
    for mut client in silent {
        client.closed().await;
    }
    plane.metric_becomes(refused, "tls_timeout", 3.0).await;
    assert!(shake(plane.secure, "a.test", &config).await.is_ok());
}

/// RFC 9112 9.8: content that ends with its connection is whole only if TLS was closed properly.
#[tokio::test]
async fn a_cut_cannot_be_taken_for_an_end() {
    let authority = Authority::new();
    let (address, mut arrivals) = played().await;
    let plane = secure(ended(to(address), "*", &[&authority.certificate(&["a.test"])]));
    let config = Arc::new(authority.trusted(HTTP1));
    for cut in [false, true] {
        let mut client = shake(plane.secure, "a.test", &config).await.unwrap();
        client.write_all(b"GET / HTTP/1.0\r\nHost: a.test\r\n\r\n").await.unwrap();
        let (mut endpoint, _) = arrivals.request().await;
        endpoint.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
        let mut all = Vec::new();
        while !all.ends_with(b"abc") {
            all.push(within(client.read_u8()).await.unwrap());
        }
        if !cut {
            endpoint.send("0\r\n\r\n").await;
        }
        drop(endpoint);
        let rest = within(client.read_to_end(&mut Vec::new())).await;
        assert_eq!(rest.is_err(), cut, "{rest:?}");
    }
}
