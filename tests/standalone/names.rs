//! An upstream by name: resolved while it serves, and asked for again when the object changes.

use std::io::{Read, Write};
use std::net::TcpListener;

use crate::server::Server;

/// Answers every request on a connection of its own with `body`.
fn backend(body: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 4096]);
            let length = body.len();
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
        }
    });
    port
}

fn objects(hostname: &str) -> String {
    format!(
        "apiVersion: floodway.dev/v1alpha1\nkind: ProxyUpstream\nmetadata: {{name: u}}\nspec: {{hostname: '{hostname}'}}\n\
         ---\napiVersion: floodway.dev/v1alpha1\nkind: ProxyRoute\nmetadata: {{name: r}}\n\
         spec: {{rules: [{{backends: [{{upstream: {{name: u}}}}]}}]}}\n"
    )
}

#[test]
fn a_name_is_resolved_and_a_changed_one_too() {
    let (one, two) = (backend("one"), backend("two"));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.yaml");
    std::fs::write(&file, objects(&format!("localhost:{one}"))).unwrap();
    let server = Server::start(dir.path(), &[]);
    server.waits_for("/", 200, "one");

    std::fs::write(&file, objects(&format!("name.invalid:{one}"))).unwrap();
    crate::server::eventually("there is no endpoint", || server.get("/").0 == 503);

    std::fs::write(&file, objects(&format!("localhost:{two}"))).unwrap();
    server.waits_for("/", 200, "two");
    assert!(
        server.admin("/metrics").1.contains("floodway_dns_lookups_total{result=\"success\"}"),
        "{}",
        server.admin("/metrics").1
    );
}
