//! What all proxies forward to: a server that does as little as possible, so that its core has time for the load.
//!
//! | target | answer |
//! |---|---|
//! | `/bytes/N` | N bytes of text |
//! | `/upload` | reads the body, answers with two bytes |
//! | `/events/idle` | an event stream that says one thing and then nothing |
//! | `/events/paced` | an event stream that gets an event whenever it is its turn, see [`paced`] |
//! | `/socket` | a WebSocket that sends back what it gets |

mod http1;
pub(crate) mod http2;
pub(crate) mod paced;
pub(crate) mod pods;
pub(crate) mod socket;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use anyhow::Result;
use bytes::Bytes;
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;

use crate::machine::{self, Cores};

pub(crate) struct Backend {
    /// Address of the HTTP/1.1 server.
    pub(crate) http1: SocketAddr,
    /// Address of the HTTP/2 server, which answers gRPC calls.
    pub(crate) http2: SocketAddr,
    pub(crate) shared: Arc<Shared>,
    /// Servers that can be made sick.
    pub(crate) pods: [pods::Pod; pods::PODS],
}

/// What the connections of the backend share.
#[derive(Default)]
pub(crate) struct Shared {
    /// Whole answers by the length of their body.
    answers: Mutex<HashMap<usize, Bytes>>,
    pub(crate) paced: paced::Streams,
}

impl Backend {
    /// On the thread of the load, if it shall have its core; else on a thread of its own.
    pub(crate) fn start(cores: Cores) -> Result<Self> {
        let (http1, http2) = (listener()?, listener()?);
        let shared = Arc::new(Shared::default());
        let pods = [pods::Pod::start()?, pods::Pod::start()?, pods::Pod::start()?, pods::Pod::start()?];
        let backend = Backend { http1: http1.local_addr()?, http2: http2.local_addr()?, shared: shared.clone(), pods };
        if cores.backend == cores.load {
            tokio::spawn(serve(http1, http2, shared));
        } else {
            std::thread::spawn(move || {
                machine::pin(cores.backend).unwrap();
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(serve(http1, http2, shared));
            });
        }
        Ok(backend)
    }
}

async fn serve(http1: std::net::TcpListener, http2: std::net::TcpListener, shared: Arc<Shared>) {
    let (http1, http2) = (TcpListener::from_std(http1).unwrap(), TcpListener::from_std(http2).unwrap());
    loop {
        tokio::select! {
            Ok((stream, _)) = http1.accept() => {
                let _ = stream.set_nodelay(true);
                // An error is a client that went away.
                let shared = shared.clone();
                tokio::spawn(async move { let _ = http1::serve(stream, &shared).await; });
            }
            Ok((stream, _)) = http2.accept() => {
                let _ = stream.set_nodelay(true);
                tokio::spawn(async move { let _ = http2::serve(stream).await; });
            }
        }
    }
}

/// With room for as many connections at once as a row opens.
fn listener() -> Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}
