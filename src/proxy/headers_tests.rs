//! Which fields go on, and who is believed.
#![allow(clippy::unwrap_used)]

use super::*;

fn map(fields: &[(&str, &str)]) -> Fields {
    Fields::of(fields)
}

fn assert_fields(fields: &Fields, expected: &[(&str, &str)]) {
    let mut found = fields.to_lines();
    let mut expected = Fields::of(expected).to_lines();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

fn nets(nets: &[&str]) -> Vec<IpNet> {
    nets.iter().map(|net| net.parse().unwrap()).collect()
}

#[test]
fn hop_by_hop_fields_end_here() {
    let mut headers = map(&[
        ("connection", "close, X-Mine"),
        ("connection", "host"),
        ("x-mine", "1"),
        ("host", "a"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("te", "gzip, trailers"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAMAAABkAARAAAAAAAIAAAAA"),
        ("proxy-authorization", "Basic eDp5"),
        ("accept", "*/*"),
    ]);
    clean_request(&mut headers);
    assert_fields(&headers, &[("host", "a"), ("te", "trailers"), ("accept", "*/*")]);

    let mut headers =
        map(&[("via", "1.1 inner"), ("connection", "x-a"), ("x-a", "1"), ("proxy-authenticate", "Basic")]);
    clean_response(&mut headers);
    assert_fields(&headers, &[]);
}

#[test]
fn the_client_is_found_through_trusted_proxies_only() {
    let trusted = nets(&["10.0.0.0/8", "fd00::/8"]);
    for (peer, chain, address, believed) in [
        ("192.0.2.1", "203.0.113.9", "192.0.2.1", false),
        ("10.0.0.1", "203.0.113.9", "203.0.113.9", true),
        ("10.0.0.1", "198.51.100.7, 203.0.113.9, 10.1.1.1", "203.0.113.9", true),
        ("10.0.0.1", "203.0.113.9, garbage", "10.0.0.1", true),
        ("10.0.0.1", "", "10.0.0.1", true),
        ("fd00::1", "[2001:db8::1]:443", "2001:db8::1", true),
        ("10.0.0.1", "10.0.0.2, 10.0.0.3", "10.0.0.2", true),
    ] {
        let headers = map(&[("x-forwarded-for", chain)]);
        let found = client(&headers, peer.parse().unwrap(), &trusted);
        assert_eq!(found, Client { address: address.parse().unwrap(), trusted: believed }, "{peer} {chain}");
    }
}

#[test]
fn forwarding_fields_of_strangers_are_replaced() {
    let spoofed = [
        ("x-forwarded-for", "1.1.1.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "evil"),
        ("x-forwarded-port", "443"),
        ("x-forwarded-prefix", "/admin"),
        ("forwarded", "for=1.1.1.1"),
        ("x-real-ip", "1.1.1.1"),
        ("x_forwarded_for", "1.1.1.1"),
        ("x_request_id", "1"),
    ];
    let address: IpAddr = "192.0.2.1".parse().unwrap();
    let peer = Peer::new((address, 1).into(), None, crate::proxy::capture::Way::Host);
    let mut headers = map(&spoofed);
    set_forwarded(&mut headers, &peer, Client { address, trusted: false }, "a.example:81");
    let expected =
        [("x-forwarded-for", "192.0.2.1"), ("x-forwarded-proto", "http"), ("x-forwarded-host", "a.example:81")];
    assert_fields(&headers, &expected);

    let mut headers = map(&spoofed[..3]);
    set_forwarded(&mut headers, &peer, Client { address: "1.1.1.1".parse().unwrap(), trusted: true }, "a");
    let expected =
        [("x-forwarded-for", "1.1.1.1, 192.0.2.1"), ("x-forwarded-proto", "https"), ("x-forwarded-host", "evil")];
    assert_fields(&headers, &expected);
}

#[test]
fn request_ids_are_ours_unless_a_trusted_proxy_sent_a_sane_one() {
    let sane = map(&[("x-request-id", "abc-123")]);
    assert_eq!(&*request_id(&sane, true), "abc-123");
    assert_eq!(request_id(&sane, false).len(), 32);
    for hostile in ["", "a b", "<script>", "a\"b", &"x".repeat(129)] {
        assert_eq!(request_id(&map(&[("x-request-id", hostile)]), true).len(), 32, "{hostile}");
    }
}
