//! TLS with clients: what passes over it, which certificate is shown to whom, and how it ends.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::clients::{ask, content, get};
use super::support::*;
use super::tls_clients::*;

const HTTP1: &[&str] = &["http/1.1"];
const HTTP2: &[&str] = &["h2", "http/1.1"];

fn closing(host: &str, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
}

#[tokio::test]
async fn requests_pass_over_either_version_of_either_protocol() {
    let authority = Authority::new();
    let plane = secure(ended(to(mirror().await), "*", &[&authority.certificate(&["example.com"])]));
    for (version, name) in [(&rustls::version::TLS12, "1.2"), (&rustls::version::TLS13, "1.3")] {
        let path = format!("/{name}/1");
        let config = Arc::new(authority.trusted_with(HTTP1, &[version]));
        let mut client = shake(plane.secure, "example.com", &config).await.unwrap();
        client.write_all(closing("example.com", &path).as_bytes()).await.unwrap();
        let mut answer = String::new();
        // An end without close_notify would be an error.
        within(client.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.contains("\r\nx-forwarded-proto: https\r\n"), "{answer}");
        let line = plane.logged(&path).await;
        assert_eq!((&line["tls_version"], &line["tls_alpn"]), (&name.into(), &"http/1.1".into()), "{line}");
        assert_eq!(line["tls_server_name"], "example.com");
        assert!(line["tls_cipher"].as_str().unwrap().starts_with("TLS"), "{line}");

        let path = format!("/{name}/2");
        let config = Arc::new(authority.trusted_with(HTTP2, &[version]));
        let stream = shake(plane.secure, "example.com", &config).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let (all, _) = content(ask(&client, get(&path)).await.body_mut()).await.unwrap();
        assert!(String::from_utf8(all).unwrap().contains("\r\nx-forwarded-proto: https\r\n"));
        assert_eq!(plane.logged(&path).await["tls_alpn"], "h2");
        plane.metric_becomes("floodway_tls_handshakes_total", &format!("version=\"{name}\""), 2.0).await;
    }
}

/// More than the buffers of the system and of the proxy together ever are.
const LENGTH: usize = 64 << 20;

fn byte(index: usize) -> u8 {
    (index % 251) as u8
}

/// Reads `LENGTH` bytes, in pieces of all sizes and sometimes slowly.
async fn check(reader: &mut (impl tokio::io::AsyncRead + Unpin)) {
    let (mut got, mut buffer) = (0, vec![0; 256 * 1024]);
    while got < LENGTH {
        let room = (got % buffer.len()).max(1).min(LENGTH - got);
        let read = within(reader.read(&mut buffer[..room])).await.unwrap();
        assert!(read > 0, "ended after {got}");
        assert!(buffer[..read].iter().zip(got..).all(|(found, index)| *found == byte(index)), "altered near {got}");
        got += read;
        if got % 7 == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }
}

async fn give(writer: &mut (impl tokio::io::AsyncWrite + Unpin)) {
    let all: Vec<u8> = (0..LENGTH).map(byte).collect();
    within(writer.write_all(&all)).await.unwrap();
    writer.flush().await.unwrap();
}

#[tokio::test]
async fn long_content_passes_both_ways() {
    let authority = Authority::new();
    let (address, mut arrivals) = played().await;
    let plane = secure(ended(to(address), "*", &[&authority.certificate(&["example.com"])]));
    let config = Arc::new(authority.trusted(HTTP1));
    let mut client = shake(plane.secure, "example.com", &config).await.unwrap();
    let head = format!("POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: {LENGTH}\r\n\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
    let mut endpoint = arrivals.next().await;
    tokio::join!(give(&mut client), async {
        endpoint.head().await;
        check(&mut endpoint.0).await;
    });
    endpoint.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n")).await;
    let answer = async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(within(client.read_u8()).await.unwrap());
        }
        check(&mut client).await;
    };
    tokio::join!(give(&mut endpoint.0), answer);
}
