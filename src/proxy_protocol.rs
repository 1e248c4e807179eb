//! The header of the PROXY protocol: who a connection is for, said before its first byte by whoever carries it
//! (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>). From bytes to what they say, and back; whom to believe, and
//! sockets, are `proxy`'s and `health`'s.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use crate::snapshot::ProxyProtocol;

/// Bytes of the longest header that is read.
pub const MOST: usize = FIXED + MOST_BEHIND;

/// Section 2.1: "a 108-byte buffer is always enough to store all the line and a trailing zero".
const MOST_V1: usize = 107;
const SIGNATURE_V1: &[u8] = b"PROXY ";
const SIGNATURE_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of the second version before addresses.
const FIXED: usize = 16;
/// The most bytes of addresses and what may follow them in the second version, which could tell of 65,535. Certificates of clients
/// and the names that clouds add fit.
const MOST_BEHIND: usize = 4096;
/// Addresses and ports in the second version.
const IPV4: usize = 12;
const IPV6: usize = 36;

/// A whole header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its bytes.
    pub length: usize,
    /// Whom the connection is for. `None`: for whoever has made it, as a health check, or somebody without an address.
    pub client: Option<SocketAddr>,
}

/// What is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a header of the PROXY protocol")]
pub struct Malformed;

/// Reads the header that `bytes` begin with; `None` if they are only a part of it, all of them.
///
/// # Errors
/// If no header begins with them.
pub fn read(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    if may_begin(bytes, SIGNATURE_V2) {
        read_v2(bytes)
    } else if may_begin(bytes, SIGNATURE_V1) {
        read_v1(bytes)
    } else {
        Err(Malformed)
    }
}

/// Whether they have the signature, as far as it goes.
fn may_begin(bytes: &[u8], signature: &[u8]) -> bool {
    bytes.iter().zip(signature).all(|(byte, expected)| byte == expected)
}

/// One line, for people: `PROXY TCP4 192.0.2.1 198.51.100.7 56324 443`.
fn read_v1(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let first = &bytes[..bytes.len().min(MOST_V1)];
    let Some(end) = memchr::memchr(b'\n', first) else {
        return if bytes.len() < MOST_V1 { Ok(None) } else { Err(Malformed) };
    };
    let line = first[..end].strip_suffix(b"\r").and_then(|line| line.strip_prefix(SIGNATURE_V1)).ok_or(Malformed)?;
    // "the receiver must ignore anything presented before the CRLF is found" behind UNKNOWN.
    let client = if line == b"UNKNOWN" || line.starts_with(b"UNKNOWN ") {
        None
    } else {
        Some(client_v1(std::str::from_utf8(line).map_err(|_| Malformed)?).ok_or(Malformed)?)
    };
    Ok(Some(Header { length: end + 1, client }))
}

fn client_v1(line: &str) -> Option<SocketAddr> {
    let mut words = line.split(' ');
    let mut word = || words.next();
    let (family, source, target, port, target_port) = (word()?, word()?, word()?, word()?, word()?);
    let nothing = words.next().is_none();
    let address = |text: &str| match family {
        "TCP4" => text.parse().ok().map(IpAddr::V4),
        "TCP6" => text.parse().ok().map(IpAddr::V6),
        _ => None,
    };
    let (source, _) = (address(source)?, address(target)?);
    let (port, _) = (port_v1(port)?, port_v1(target_port)?);
    nothing.then_some(SocketAddr::new(source, port))
}

/// "a decimal integer in the range [0..65535] inclusive", written in one way.
fn port_v1(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    u16::from_str(text).ok().filter(|_| plain)
}

/// Bytes, for programs.
fn read_v2(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let Some((fixed, behind)) = bytes.split_first_chunk::<FIXED>() else { return Ok(None) };
    let [.., what, family, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let local = match what {
        0x20 => true,
        0x21 => false,
        _ => return Err(Malformed),
    };
    // "Other values are reserved"; of a LOCAL one the receiver must "discard the protocol block including the family".
    let known = family >> 4 <= 3 && family & 0xf <= 2;
    if length > MOST_BEHIND || !known && !local {
        return Err(Malformed);
    }
    let Some(behind) = behind.get(..length) else { return Ok(None) };
    let client = match family {
        _ if local => None,
        0x11 => {
            let [a, b, c, d, _, _, _, _, high, low, ..] = *behind.first_chunk::<IPV4>().ok_or(Malformed)?;
            Some(SocketAddr::from(([a, b, c, d], u16::from_be_bytes([high, low]))))
        }
        0x21 => {
            let both = behind.first_chunk::<IPV6>().ok_or(Malformed)?;
            let source = both.first_chunk::<16>().ok_or(Malformed)?;
            Some(SocketAddr::from((Ipv6Addr::from(*source), u16::from_be_bytes([both[32], both[33]]))))
        }
        // Sockets of a file system, datagrams, and what has no address: "the receiver should ignore address information".
        _ => None,
    };
    Ok(Some(Header { length: FIXED + length, client }))
}

/// The header of a connection to `target` for a client; without one, for whoever makes it.
pub fn write(version: ProxyProtocol, client: Option<SocketAddr>, target: SocketAddr) -> Vec<u8> {
    let ends = client.map(|client| alike(client, target));
    match (version, ends) {
        (ProxyProtocol::V1, None) => b"PROXY UNKNOWN\r\n".to_vec(),
        (ProxyProtocol::V1, Some((client, target))) => {
            let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from, to) = (client.ip(), target.ip());
            format!("PROXY {family} {from} {to} {} {}\r\n", client.port(), target.port()).into_bytes()
        }
        (ProxyProtocol::V2, None) => [SIGNATURE_V2, &[0x20, 0, 0, 0]].concat(),
        (ProxyProtocol::V2, Some((client, target))) => {
            let mut header = SIGNATURE_V2.to_vec();
            let family = if client.is_ipv4() { [0x11, 0, IPV4 as u8] } else { [0x21, 0, IPV6 as u8] };
            header.push(0x21);
            header.extend(family);
            for address in [client.ip(), target.ip()] {
                match address {
                    IpAddr::V4(address) => header.extend(address.octets()),
                    IpAddr::V6(address) => header.extend(address.octets()),
                }
            }
            header.extend([client.port(), target.port()].map(u16::to_be_bytes).as_flattened());
            header
        }
    }
}

/// Both as addresses of one family, which is all that a header has room for.
fn alike(client: SocketAddr, target: SocketAddr) -> (SocketAddr, SocketAddr) {
    let wide = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => SocketAddr::from((ip.to_ipv6_mapped(), address.port())),
        IpAddr::V6(_) => address,
    };
    if client.is_ipv4() == target.is_ipv4() { (client, target) } else { (wide(client), wide(target)) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn client(bytes: &[u8]) -> Result<Option<&'static str>, Malformed> {
        let header = read(bytes)?.unwrap();
        assert_eq!(header.length, bytes.len());
        Ok(header.client.map(|client| &*client.to_string().leak()))
    }

    /// The examples of section 2.1, and the longest lines that it names.
    #[test]
    fn lines_of_the_first_version() {
        for (line, expected) in [
            ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", Some("255.255.255.255:65535")),
            (
                "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
                Some("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"),
            ),
            ("PROXY UNKNOWN\r\n", None),
            (
                "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
                None,
            ),
            ("PROXY UNKNOWN \0\r\t\u{e9}\r\n", None),
            ("PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n", Some("192.168.0.1:56324")),
            ("PROXY TCP6 2001:db8::1 ::1 0 443\r\n", Some("[2001:db8::1]:0")),
        ] {
            assert_eq!(client(line.as_bytes()), Ok(expected), "{line:?}");
        }
    }

    #[test]
    fn lines_that_are_none() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(92));
        assert_eq!(long.len(), MOST_V1 + 1);
        for line in [
            "GET / HTTP/1.1\r\n",
            "proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY  TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1  2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
            "PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.256 1 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n",
            "PROXY TCP4 2001:db8::1 ::1 1 2\r\n",
            "PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
            "PROXY TCP4\t192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY \r\n",
            "PROXY \u{e9}\r\n",
            &long,
            &long[..MOST_V1],
        ] {
            assert_eq!(read(line.as_bytes()), Err(Malformed), "{line:?}");
        }
    }

    fn v2(what: u8, family: u8, behind: &[u8]) -> Vec<u8> {
        [SIGNATURE_V2, &[what, family], &(behind.len() as u16).to_be_bytes(), behind].concat()
    }

    #[test]
    fn headers_of_the_second_version() {
        let v4 = [192, 0, 2, 1, 198, 51, 100, 7, 0xdc, 4, 1, 0xbb];
        let mut v6 = [0; IPV6];
        (v6[0], v6[15], v6[31], v6[33]) = (0x20, 1, 2, 80);
        // PP2_TYPE_ALPN with h2, and a type that nobody knows with a length that is wrong.
        let behind = [&v4[..], b"\x01\0\x02h2", b"\xee\xff\xff?"].concat();
        for (header, expected) in [
            (v2(0x21, 0x11, &v4), Some("192.0.2.1:56324")),
            (v2(0x21, 0x11, &behind), Some("192.0.2.1:56324")),
            (v2(0x21, 0x21, &v6), Some("[2000::1]:80")),
            (v2(0x21, 0x12, &v4), None),
            (v2(0x21, 0x31, &[b'/'; 216]), None),
            (v2(0x21, 0, b""), None),
            (v2(0x20, 0, b""), None),
            (v2(0x20, 0x11, &v4), None),
            (v2(0x20, 0xff, b"?"), None),
            (v2(0x20, 0, &[0; MOST_BEHIND]), None),
        ] {
            assert_eq!(client(&header), Ok(expected), "{header:?}");
        }
        for header in [
            v2(0x11, 0x11, &v4),
            v2(0x31, 0x11, &v4),
            v2(0x22, 0x11, &v4),
            v2(0x21, 0x41, &v4),
            v2(0x21, 0x13, &v4),
            v2(0x21, 0x11, &v4[..11]),
            v2(0x21, 0x21, &v6[..35]),
            v2(0x20, 0, &[0; MOST_BEHIND + 1]),
            SIGNATURE_V2.iter().copied().take(11).chain([0]).collect(),
        ] {
            assert_eq!(read(&header), Err(Malformed), "{header:?}");
        }
    }

    #[test]
    fn what_is_written() {
        let ends = |client: &str, target: &str| (client.parse().ok(), target.parse().unwrap());
        for ((client, target), line) in [
            (ends("192.0.2.1:5", "10.0.0.9:80"), "PROXY TCP4 192.0.2.1 10.0.0.9 5 80\r\n"),
            (ends("[2001:db8::1]:5", "[::1]:80"), "PROXY TCP6 2001:db8::1 ::1 5 80\r\n"),
            (ends("192.0.2.1:5", "[::1]:80"), "PROXY TCP6 ::ffff:192.0.2.1 ::1 5 80\r\n"),
            (ends("", "[::1]:80"), "PROXY UNKNOWN\r\n"),
        ] {
            assert_eq!(String::from_utf8(write(ProxyProtocol::V1, client, target)).unwrap(), line);
        }
        let (client, target) = ends("192.0.2.1:56324", "198.51.100.7:443");
        let v4 = [192, 0, 2, 1, 198, 51, 100, 7, 0xdc, 4, 1, 0xbb];
        assert_eq!(write(ProxyProtocol::V2, client, target), v2(0x21, 0x11, &v4));
        assert_eq!(write(ProxyProtocol::V2, None, target), v2(0x20, 0, b""));
    }

    fn any_address() -> impl Strategy<Value = SocketAddr> {
        (any::<IpAddr>(), any::<u16>()).prop_map(|(address, port)| SocketAddr::new(address, port))
    }

    proptest! {
        /// What is written is read, whatever follows it, and by no byte sooner.
        #[test]
        fn what_is_written_is_read(
            second in any::<bool>(),
            client in proptest::option::of(any_address()),
            target in any_address(),
            content in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let version = if second { ProxyProtocol::V2 } else { ProxyProtocol::V1 };
            let header = write(version, client, target);
            let read_back = read(&[&header[..], &content].concat()).unwrap().unwrap();
            prop_assert_eq!(read_back.length, header.len());
            let canonical = |it: SocketAddr| SocketAddr::new(it.ip().to_canonical(), it.port());
            prop_assert_eq!(read_back.client.map(canonical), client.map(canonical));
            for length in 0..header.len() {
                prop_assert_eq!(read(&header[..length]), Ok(None));
            }
        }

        /// A header is where it says, and no content is taken for a part of one.
        #[test]
        fn nothing_hostile_is_taken_for_more(
            begin in proptest::sample::select(vec![SIGNATURE_V1, b"PROXY TCP4 ", b"PROXY UNKNOWN", SIGNATURE_V2]),
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let bytes = [begin, &bytes].concat();
            match read(&bytes) {
                Ok(Some(Header { length, .. })) => {
                    prop_assert!(length <= bytes.len());
                    prop_assert_eq!(read(&bytes[..length]), read(&bytes));
                    prop_assert_eq!(read(&bytes[..length - 1]), Ok(None));
                }
                Ok(None) => prop_assert!(bytes.len() < MOST),
                Err(Malformed) => {}
            }
        }
    }
}
