//! The server inside another program, as tests and tools start it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;

use floodway::app;
use floodway::settings::Settings;

/// For a test that asks a port after its end: at an address that no other process and, by its number, no other test uses, so
/// that nobody else has the port by then. Where 127.0.0.1 is the only one, that.
fn own_address(number: u8) -> SocketAddr {
    let [_, a, b, c] = std::process::id().to_be_bytes();
    let own = Ipv4Addr::new(127, (64 * number) | a, b, c);
    SocketAddr::from((if cfg!(target_os = "linux") { own } else { Ipv4Addr::LOCALHOST }, 0))
}

fn settings(address: SocketAddr) -> Settings {
    let mut settings = app::standalone_settings();
    settings.listeners.http = vec![address, "[::1]:0".parse().unwrap()];
    settings.listeners.admin = address;
    settings.log.access = "off".to_owned();
    settings.workers = Some(2);
    settings
}

fn status(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap_or_default().to_owned()
}

#[test]
fn it_serves_on_every_address_until_it_is_shut_down() {
    let dir = tempfile::tempdir().unwrap();
    let route = "apiVersion: floodway.dev/v1alpha1\nkind: ProxyRoute\nmetadata: {name: a}\n\
                 spec: {rules: [{respond: {status: 200}}]}\n";
    std::fs::write(dir.path().join("a.yaml"), route).unwrap();
    let running = app::standalone(dir.path(), settings(own_address(1))).unwrap();
    assert_eq!(running.http().len(), 2);
    for address in running.http() {
        assert_eq!(status(*address), "200", "{address}");
    }
    let (http, admin) = (running.http()[0], running.admin());
    running.shutdown().unwrap();
    assert!(TcpStream::connect(http).is_err());
    assert!(TcpStream::connect(admin).is_err());
}

#[test]
fn it_ends_when_it_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let running = app::standalone(dir.path(), settings(own_address(2))).unwrap();
    let http = running.http()[0];
    drop(running);
    assert!(TcpStream::connect(http).is_err());
}

#[test]
fn what_is_wrong_is_told_before_it_serves() {
    let error =
        app::standalone(Path::new("/nowhere"), settings("127.0.0.1:0".parse().unwrap())).unwrap_err().to_string();
    assert!(error.starts_with("/nowhere: cannot be read as a folder"), "{error}");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = settings(taken.local_addr().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let error = app::standalone(dir.path(), settings).unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot listen on {}", taken.local_addr().unwrap())), "{error}");
}
