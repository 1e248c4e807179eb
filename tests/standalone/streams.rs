//! What objects ask for streams, from the folder to the bytes: one event stream for each of its fields that ends it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use crate::server::Server;

/// An endpoint that begins an event stream on every connection, sends one event, and then keeps still.
fn endpoint() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for mut stream in listener.incoming().map_while(Result::ok) {
            // The end of the head, as far as a GET without content has one.
            BufReader::new(&stream).lines().map_while(Result::ok).find(String::is_empty);
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            write!(stream, "{head}9\r\ndata: x\n\n\r\n").unwrap();
            open.push(stream);
        }
    });
    address
}

fn write_route(dir: &Path, streaming: &str) {
    let route = "apiVersion: floodway.dev/v1alpha1\nkind: ProxyRoute\nmetadata: {name: live}\nspec:\n  rules:\n    - name: events\n      \
                 backends: [{service: {name: live, port: 80}}]\n      streaming: ";
    fs::write(dir.join("route.yaml"), format!("{route}{streaming}\n")).unwrap();
}

/// One slice with these endpoints, as they stand in YAML.
fn write_slice(dir: &Path, port: u16, endpoints: &str) {
    let slice = format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: live-1, labels: {{kubernetes.io/service-name: live}}}}\naddressType: IPv4\n\
         ports: [{{port: {port}}}]\nendpoints: [{endpoints}]\n"
    );
    fs::write(dir.join("slice.yaml"), slice).unwrap();
}

fn served(streaming: &str) -> (tempfile::TempDir, Server, u16) {
    let dir = tempfile::tempdir().unwrap();
    let port = endpoint().port();
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: live}\nspec: {ports: [{port: 80}]}\n---\n\
                   apiVersion: floodway.dev/v1alpha1\nkind: ProxyUpstream\nmetadata: {name: live}\n\
                   spec: {targetRefs: [{kind: Service, name: live}], endpointDrain: {mode: Move, grace: 500ms}}\n";
    fs::write(dir.path().join("service.yaml"), service).unwrap();
    write_slice(dir.path(), port, "{addresses: [127.0.0.1]}");
    write_route(dir.path(), streaming);
    let server = Server::start(dir.path(), &["--log", "info"]);
    (dir, server, port)
}

/// An open stream whose event has come.
fn open(server: &Server) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(server.http).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(stream, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    while line != "data: x\n" {
        line.clear();
        assert!(lines.read_line(&mut line).unwrap() > 0, "no event");
    }
    lines
}

/// What comes up to the last chunk.
fn to_last_chunk(mut stream: BufReader<TcpStream>) -> String {
    let mut all = Vec::new();
    while !all.ends_with(b"\r\n0\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        all.extend(byte);
    }
    String::from_utf8(all).unwrap()
}

#[test]
fn a_stream_is_kept_alive_and_ends_at_its_greatest_age() {
    let (_dir, server, _) = served("{maxAge: 4s, sse: {heartbeat: 1s, retry: 2500ms}}");
    let rest = to_last_chunk(open(&server));
    assert!(rest.contains("\r\n:\n") && rest.contains("\r\nretry: 2500\n\n\r\n0\r\n"), "{rest:?}");
}

#[test]
fn streams_of_an_endpoint_that_terminates_are_moved() {
    let (dir, server, port) = served("{sse: {retry: 1s}}");
    let stream = open(&server);
    write_slice(
        dir.path(),
        port,
        "{addresses: [127.0.0.1], conditions: {ready: false, serving: true, terminating: true}}, {addresses: [127.0.0.2]}",
    );
    assert!(to_last_chunk(stream).contains("retry: 1000\n"));
}

#[test]
fn streams_outlive_their_rule_by_its_grace() {
    let (dir, server, _) = served("{removalGrace: 500ms, sse: {retry: 1s}}");
    let stream = open(&server);
    fs::remove_file(dir.path().join("route.yaml")).unwrap();
    assert!(to_last_chunk(stream).contains("retry: 1000\n"));
}
