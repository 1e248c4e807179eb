//! Connections that somebody else made for a client, and says so in a header of the PROXY protocol. Who may, and has to, is a
//! setting; how the header is written, `proxy_protocol`'s to know.

use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::worker::Worker;
use crate::proxy_protocol::{self, Header, MOST, Malformed};
use crate::settings::{Others, ProxyProtocol};

/// What is expected of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// It is its peer's own.
    Own,
    /// It begins with a header.
    Header,
    /// Only such are served that begin with a header, and its peer is not believed any.
    Nothing,
}

/// A connection, and its client.
pub(super) type Introduced = (TcpStream, SocketAddr);

/// What is expected of a connection from an address.
pub(super) fn expected(settings: &ProxyProtocol, peer: IpAddr) -> Expected {
    let ProxyProtocol { from, others } = settings;
    if from.is_empty() {
        return Expected::Own;
    }
    match others {
        _ if from.iter().any(|network| network.contains(&peer)) => Expected::Header,
        Others::Serve => Expected::Own,
        Others::Refuse => Expected::Nothing,
    }
}

/// Reads the header of a connection, and nothing behind it. Returns the connection with its client, which is whoever made it if
/// the header says so; nothing if it is to be closed, which is counted.
pub(super) async fn heard(mut stream: TcpStream, peer: SocketAddr, worker: &Worker) -> Option<Introduced> {
    let limit = worker.settings.limits.header_timeout;
    let refused = |reason| {
        tracing::debug!(%peer, reason, "a connection that a proxy made is refused");
        worker.recorder.connection_refused(reason);
    };
    match tokio::time::timeout(limit, read(&mut stream)).await {
        Ok(Ok(Ok(client))) => return Some((stream, client.unwrap_or(peer))),
        Ok(Ok(Err(Malformed))) => refused("proxy_protocol_malformed"),
        // Whoever tries whether the port is open says nothing; that is no refusal.
        Ok(Err(_gone)) => {}
        Err(_) => refused("proxy_protocol_timeout"),
    }
    None
}

async fn read(stream: &mut TcpStream) -> io::Result<Result<Option<SocketAddr>, Malformed>> {
    let mut bytes = vec![0; MOST];
    let mut taken = 0;
    loop {
        // Looked at before it is taken: what is behind the header is another's to read.
        let seen = stream.peek(&mut bytes[taken..]).await?;
        if seen == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let seen = taken + seen;
        match proxy_protocol::read(&bytes[..seen]) {
            Ok(Some(Header { length, client })) => {
                stream.read_exact(&mut bytes[taken..length]).await?;
                return Ok(Ok(client));
            }
            Ok(None) => {
                stream.read_exact(&mut bytes[taken..seen]).await?;
                taken = seen;
            }
            Err(malformed) => return Ok(Err(malformed)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn only_those_who_are_named_speak_for_others() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut settings = ProxyProtocol::default();
        assert_eq!(expected(&settings, address("10.0.0.1")), Expected::Own);
        settings.from = vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        for (others, stranger) in [(Others::Serve, Expected::Own), (Others::Refuse, Expected::Nothing)] {
            settings.others = others;
            assert_eq!(expected(&settings, address("10.0.0.1")), Expected::Header);
            assert_eq!(expected(&settings, address("2001:db8::1")), Expected::Header);
            assert_eq!(expected(&settings, address("192.0.2.1")), stranger);
        }
    }
}
