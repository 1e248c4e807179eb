//! Listening sockets: every worker has its own on each address, and the kernel spreads connections over them
//! (SO_REUSEPORT). What is set here, accepted connections inherit, so that accepting one costs no further call.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use super::StartError;
use crate::settings::Settings;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;

/// As many probes as Linux lets go unanswered (TCP_KEEPCNT).
const MAX_PROBES: u64 = 127;

/// A socket that listens.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) socket: TcpListener,
    /// Whether TLS is spoken on it.
    pub(super) secure: bool,
}

/// Where to listen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) address: SocketAddr,
    pub(super) secure: bool,
    /// Whether it may stay closed if the system has no such address; it then takes no connections of another family either.
    pub(super) beside: bool,
}

impl Place {
    /// What the settings say.
    pub(super) fn of(settings: &Settings) -> Vec<Place> {
        let place = |secure| move |address: &SocketAddr| Place { address: *address, secure, beside: false };
        let (http, https) = (&settings.listeners.http, &settings.listeners.https);
        http.iter().map(place(false)).chain(https.iter().map(place(true))).collect()
    }
}

/// The addresses that are listened on.
#[derive(Debug, Default)]
pub(super) struct Bound {
    pub(super) http: Vec<SocketAddr>,
    pub(super) https: Vec<SocketAddr>,
}

/// Binds every address once per worker. Port 0 takes a free port, the same for all workers.
pub(super) fn bind(
    places: &[Place],
    settings: &Settings,
    workers: usize,
) -> Result<(Bound, Vec<Vec<Listener>>), StartError> {
    let mut bound = Bound::default();
    let mut listeners: Vec<Vec<Listener>> = (0..workers).map(|_| Vec::new()).collect();
    for &Place { address, secure, beside } in places {
        if beside && let Err(error) = taken(address, true) {
            tracing::debug!(%address, %error, "nothing is listened for at a further address");
            continue;
        }
        let failed = |source| StartError::Bind { address, source };
        // SO_REUSEPORT would share an address with another process of the same user without a word. So the first socket asks
        // for the address alone, and makes room for the others only once it has it.
        taken(address, beside).map_err(failed)?;
        let mut actual = address;
        for listeners in &mut listeners {
            let socket = open(actual, beside, settings).map_err(failed)?;
            actual = socket.local_addr().map_err(failed)?;
            listeners.push(Listener { socket, secure });
        }
        if secure { &mut bound.https } else { &mut bound.http }.push(actual);
    }
    Ok((bound, listeners))
}

/// Fails if someone listens there already.
fn taken(address: SocketAddr, only_v6: bool) -> io::Result<()> {
    if address.port() == 0 {
        return Ok(());
    }
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if only_v6 && address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(1)
}

fn open(address: SocketAddr, only_v6: bool, settings: &Settings) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if only_v6 && address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    // Without this a small event waits for the acknowledgement of the one before (Nagle).
    socket.set_tcp_nodelay(true)?;
    bound_unsent(&socket, settings.limits.stream_buffer_bytes)?;
    let listeners = &settings.listeners;
    if !listeners.tcp_keep_alive.is_zero() {
        let interval = listeners.tcp_keep_alive;
        let mut probes = TcpKeepalive::new().with_time(interval).with_interval(interval);
        if !listeners.tcp_user_timeout.is_zero() {
            // Slow clients have no other: `Io::wrote`.
            let retries = listeners.tcp_user_timeout.as_secs().div_ceil(interval.as_secs().max(1));
            probes = probes.with_retries(retries.clamp(1, MAX_PROBES) as u32);
        }
        socket.set_tcp_keepalive(&probes)?;
    }
    if !listeners.tcp_user_timeout.is_zero() {
        socket.set_tcp_user_timeout(Some(listeners.tcp_user_timeout))?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Lets the kernel take no more than about twice `room` bytes that it cannot send yet. Without it, a slow reader would make
/// it hold megabytes for each connection, which whoever sends would take for having arrived. Twice, because the kernel asks
/// for more at half of it: what is left then goes out while more is fetched.
pub(super) fn bound_unsent<'a>(socket: impl Into<SockRef<'a>>, room: usize) -> io::Result<()> {
    socket.into().set_tcp_notsent_lowat(u32::try_from(room * 2).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;

    #[test]
    fn accepted_connections_inherit_what_is_set() {
        let mut settings = Settings::default();
        settings.listeners.http = vec![SocketAddr::from(([127, 0, 0, 1], 0)), "[::1]:0".parse().unwrap()];
        settings.listeners.tcp_keep_alive = Duration::from_secs(17);
        settings.listeners.tcp_user_timeout = Duration::from_secs(23);
        settings.limits.stream_buffer_bytes = 48 * 1024;
        let (addresses, listeners) = bind(&Place::of(&settings), &settings, 1).unwrap();
        for (address, Listener { socket: listener, .. }) in addresses.http.iter().zip(&listeners[0]) {
            listener.set_nonblocking(false).unwrap();
            let _client = std::net::TcpStream::connect(address).unwrap();
            let (accepted, _) = listener.accept().unwrap();
            let accepted = SockRef::from(&accepted);
            assert!(accepted.tcp_nodelay().unwrap() && accepted.keepalive().unwrap());
            assert_eq!(accepted.tcp_keepalive_time().unwrap(), Duration::from_secs(17));
            assert_eq!(accepted.tcp_keepalive_interval().unwrap(), Duration::from_secs(17));
            assert_eq!(accepted.tcp_user_timeout().unwrap(), Some(Duration::from_secs(23)));
            assert_eq!(accepted.tcp_keepalive_retries().unwrap(), 2);
            assert_eq!(accepted.tcp_notsent_lowat().unwrap(), 96 * 1024);
        }
    }
}
