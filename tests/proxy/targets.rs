//! Methods and targets: which are served, and what of them an endpoint sees.

use super::endpoints::{Message, Then, Witness, nothing_is_left, saying};
use super::support::*;

/// What an endpoint sees of a request with this first line and these fields: its first line and its Host.
async fn seen(plane: &Plane, witness: &Witness, line: &str, fields: &str) -> (String, String) {
    let answer = plane.exchange(format!("{line}\r\n{fields}Connection: close\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{line} {fields}: {answer}");
    let seen = witness.take();
    let [Message::Whole(seen)] = &seen[..] else { panic!("{line}: the endpoint saw {seen:?}") };
    let host = seen.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    (seen.lines().next().unwrap().to_owned(), host.to_owned())
}

#[tokio::test]
async fn targets_reach_the_endpoint_in_origin_form() {
    let witness = Witness::start().await;
    let plane = Plane::start(to(witness.address));
    for (line, field, target, host) in [
        ("GET / HTTP/1.1", "a", "/", "a"),
        ("GET /a/b?c=d HTTP/1.1", "A.Example:81", "/a/b?c=d", "A.Example:81"),
        ("GET http://a.example HTTP/1.1", "a.example", "/", "a.example"),
        ("GET http://a.example/x?y HTTP/1.1", "a.example", "/x?y", "a.example"),
        ("GET http://a.example?y HTTP/1.1", "a.example", "/?y", "a.example"),
        ("GET http://A.example:81/x HTTP/1.1", "a.EXAMPLE:81", "/x", "A.example:81"),
        ("GET https://a.example/x HTTP/1.1", "a.example", "/x", "a.example"),
        ("OPTIONS * HTTP/1.1", "a", "*", "a"),
        ("OPTIONS /x HTTP/1.1", "a", "/x", "a"),
        ("GET / HTTP/1.1", "127.0.0.1:8080", "/", "127.0.0.1:8080"),
        ("GET / HTTP/1.1", "[::1]", "/", "[::1]"),
        ("GET / HTTP/1.1", "[2001:db8::1]:8080", "/", "[2001:db8::1]:8080"),
        ("GET http://[::1]:81/x HTTP/1.1", "[::1]:81", "/x", "[::1]:81"),
        // Paths: one normal form (RFC 3986 6.2.2); what is not known to mean the same stays.
        ("GET /a/../b HTTP/1.1", "a", "/b", "a"),
        ("GET /a/./b/. HTTP/1.1", "a", "/a/b/", "a"),
        ("GET /a/%2e%2E/b HTTP/1.1", "a", "/b", "a"),
        ("GET /%2e/ HTTP/1.1", "a", "/", "a"),
        ("GET /%61%7e HTTP/1.1", "a", "/a~", "a"),
        ("GET /a%2Fb%2f HTTP/1.1", "a", "/a%2Fb%2f", "a"),
        ("GET /a//b/ HTTP/1.1", "a", "/a//b/", "a"),
        ("GET //evil.example/ HTTP/1.1", "a", "//evil.example/", "a"),
        ("GET /a%20b%c3%a9 HTTP/1.1", "a", "/a%20b%c3%a9", "a"),
        ("GET /a;b=c,d@e:f!$&'()*+= HTTP/1.1", "a", "/a;b=c,d@e:f!$&'()*+=", "a"),
        // Queries: untouched.
        ("GET /? HTTP/1.1", "a", "/?", "a"),
        ("GET /?a=%2e%2E/../&b=%00&&?%zz+ HTTP/1.1", "a", "/?a=%2e%2E/../&b=%00&&?%zz+", "a"),
        ("GET /a/../b?c=/d/../e HTTP/1.1", "a", "/b?c=/d/../e", "a"),
    ] {
        let method = line.split(' ').next().unwrap();
        let expected = (format!("{method} {target} HTTP/1.1"), host.to_owned());
        assert_eq!(seen(&plane, &witness, line, &format!("Host: {field}\r\n")).await, expected, "{line}");
    }
    // HTTP/1.0 knows no Host; the next server, which is spoken to in HTTP/1.1, must get one, be it empty.
    assert_eq!(seen(&plane, &witness, "GET /x HTTP/1.0", "").await, ("GET /x HTTP/1.1".to_owned(), String::new()));
    let absolute = seen(&plane, &witness, "GET http://a.example/x HTTP/1.0", "").await;
    assert_eq!(absolute, ("GET /x HTTP/1.1".to_owned(), "a.example".to_owned()));
    nothing_is_left(&plane).await;
}

#[tokio::test]
async fn every_method_but_connect_passes() {
    let witness = Witness::start().await;
    let plane = Plane::start(to(witness.address));
    for method in
        ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get", "M-SEARCH", "X!#$%&'*+.^_`|~1"]
    {
        let (line, _) = seen(&plane, &witness, &format!("{method} /x HTTP/1.1"), "Host: a\r\n").await;
        assert_eq!(line, format!("{method} /x HTTP/1.1"));
    }
    let answer = plane.exchange("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n\x16\x03\x01GET / HTTP/1.1\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"), "{answer}");
    assert!(answer.contains("\r\nallow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE\r\n"), "{answer}");
    assert!(answer.contains("\r\nx-floodway-reason: method\r\n"), "{answer}");
    witness.saw_nothing_else(&plane, "CONNECT").await;
    nothing_is_left(&plane).await;
}

#[tokio::test]
async fn range_requests_pass_untouched() {
    let said = "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 2-3/9\r\nAccept-Ranges: bytes\r\n\
                Content-Length: 2\r\nContent-Encoding: gzip\r\n\r\nhi";
    let plane = Plane::start(to(saying(said, Then::Stays).await));
    let request = "GET /x HTTP/1.1\r\nHost: a\r\nRange: bytes=2-3\r\nIf-Range: \"x\"\r\nConnection: close\r\n\r\n";
    let answer = plane.exchange(request).await;
    assert!(answer.starts_with("HTTP/1.1 206 Partial Content\r\n") && answer.ends_with("\r\n\r\nhi"), "{answer}");
    for field in ["content-range: bytes 2-3/9", "accept-ranges: bytes", "content-length: 2", "content-encoding: gzip"] {
        assert!(answer.contains(&format!("\r\n{field}\r\n")), "{field} in {answer}");
    }
    let plane = Plane::start(to(mirror().await));
    let seen = plane.exchange(request).await;
    assert!(seen.contains("\r\nrange: bytes=2-3\r\n") && seen.contains("\r\nif-range: \"x\"\r\n"), "{seen}");
}

#[tokio::test]
async fn a_line_is_written_for_every_exchange() {
    let witness = Witness::start().await;
    let plane = Plane::start(to(witness.address));
    let request = "POST /x?secret=1 HTTP/1.1\r\nHost: A.example:81\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
    plane.exchange(request).await;
    let line = plane.logged("/x").await;
    for (name, value) in [
        ("client", "127.0.0.1"),
        ("protocol", "HTTP/1.1"),
        ("method", "POST"),
        ("host", "a.example"),
        ("route", "test/route"),
        ("upstream", "backend"),
        ("kind", "http"),
        ("end", "complete"),
        ("endpoint", &witness.address.to_string()),
    ] {
        assert_eq!(line[name], value, "{name} in {line}");
    }
    assert_eq!((&line["status"], &line["bytes_received"], &line["bytes_sent"]), (&200.into(), &2.into(), &0.into()));
    assert!(line.get("reason").is_none() && !line.to_string().contains("secret"), "{line}");

    // A refusal has one, too, although nothing of it is known.
    plane.exchange("GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n").await;
    let line = plane.logged("").await;
    assert_eq!((&line["status"], &line["reason"]), (&400.into(), &"bad_request".into()), "{line}");
    assert_eq!((&line["method"], &line["end"]), (&"-".into(), &"answered".into()), "{line}");
}
