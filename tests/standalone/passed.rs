//! TLS that is passed on, from a folder: what a client says reaches the endpoint as it was said, and stays connected to it when the
//! route goes; what is wrong with such a route, `floodway check` says.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::server::{Server, eventually, floodway};

/// The first words of a client of TLS that names a host.
fn hello(host: &str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let mut bytes = Vec::new();
    ClientConnection::new(Arc::new(config), name).unwrap().write_tls(&mut bytes).unwrap();
    bytes
}

fn read(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_folder_says_whose_tls_is_passed_on() {
    let endpoint = TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "
apiVersion: floodway.dev/v1alpha1
kind: ProxyRoute
metadata: {{name: pod}}
spec:
  hosts: [pod.example.com]
  tls: {{passthrough: true, redirect: true}}
  rules: [{{backends: [{{upstream: {{name: pod}}}}]}}]
---
apiVersion: floodway.dev/v1alpha1
kind: ProxyUpstream
metadata: {{name: pod}}
spec: {{endpoints: [{{address: \"{}\"}}]}}
",
        endpoint.local_addr().unwrap()
    );
    fs::write(dir.path().join("route.yaml"), text).unwrap();
    let server = Server::start(dir.path(), &["--https", "127.0.0.1:0"]);
    let said = server.said();
    let address = said.split("https on ").nth(1).unwrap().split(';').next().unwrap();
    let address: SocketAddr = address.parse().unwrap();

    let hello = hello("pod.example.com");
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(&hello).unwrap();
    let (mut pod, _) = endpoint.accept().unwrap();
    assert!(read(&mut pod, hello.len()) == hello, "altered");
    pod.write_all(b"down").unwrap();
    assert_eq!(read(&mut client, 4), b"down");
    let (_, dump) = server.admin("/config_dump");
    assert!(dump.contains("\"passed\""), "{dump}");

    fs::remove_file(dir.path().join("route.yaml")).unwrap();
    eventually("the route is gone", || {
        let mut other = TcpStream::connect(address).unwrap();
        other.write_all(&hello).unwrap();
        endpoint.set_nonblocking(true).unwrap();
        let mut said = Vec::new();
        let refused = loop {
            match endpoint.accept() {
                // The route was still there.
                Ok(_) => break false,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            other.set_read_timeout(Some(std::time::Duration::from_millis(20))).unwrap();
            match other.read_to_end(&mut said) {
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                _ => break true,
            }
        };
        refused && said.ends_with(&[2, 112])
    });
    client.write_all(b"up").unwrap();
    assert_eq!(read(&mut pod, 2), b"up");
}

#[test]
fn what_is_wrong_with_such_a_route_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let route = |spec: &str| {
        let text =
            format!("apiVersion: floodway.dev/v1alpha1\nkind: ProxyRoute\nmetadata: {{name: pod}}\nspec: {spec}\n");
        fs::write(dir.path().join("route.yaml"), text).unwrap();
        let output = floodway(&["check", dir.path().to_str().unwrap()]).output().unwrap();
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    for (spec, why) in [
        (
            "{hosts: [a.b], tls: {passthrough: true}, rules: [{matches: [{path: {value: /a}}], backends: [{upstream: {name: a}}]}]}",
            "nothing of HTTP in it",
        ),
        ("{tls: {passthrough: true}, rules: [{backends: [{upstream: {name: a}}]}]}", "tls.passthrough needs hosts"),
        (
            "{hosts: [a.b], tls: {passthrough: true, hsts: {maxAge: 1h}}, rules: [{backends: [{upstream: {name: a}}]}]}",
            "TLS that is passed through ends at the endpoints",
        ),
    ] {
        let (code, said) = route(spec);
        assert!(code == Some(2) && said.contains("route.yaml") && said.contains(why), "{said}");
    }
}
