//! Listening sockets: every worker has its own on each address, and the kernel spreads connections over them
//! (SO_REUSEPORT).

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use super::StartError;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;

/// Binds every address once per worker. Port 0 takes a free port, the same for all workers.
pub(super) fn bind(
    addresses: &[SocketAddr],
    workers: usize,
) -> Result<(Vec<SocketAddr>, Vec<Vec<TcpListener>>), StartError> {
    let mut bound = Vec::new();
    let mut listeners: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
    for &address in addresses {
        let failed = |source| StartError::Bind { address, source };
        // SO_REUSEPORT would share an address with another process of the same user without a word. So the first socket asks
        // for the address alone, and makes room for the others only once it has it.
        taken(address).map_err(failed)?;
        let mut actual = address;
        for listeners in &mut listeners {
            let socket = open(actual).map_err(failed)?;
            actual = socket.local_addr().map_err(failed)?;
            listeners.push(socket);
        }
        bound.push(actual);
    }
    Ok((bound, listeners))
}

/// Fails if someone listens there already.
fn taken(address: SocketAddr) -> io::Result<()> {
    if address.port() == 0 {
        return Ok(());
    }
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(1)
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
