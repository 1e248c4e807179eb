//! Four servers that can be made sick, each in a way that pods know: what they answer, and whether they can be reached at all.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How many there are.
pub(crate) const PODS: usize = 4;
/// Length of a whole answer's body, in bytes.
const BODY: usize = 130;

/// How a pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    Well,
    /// Nobody listens, and what was connected is reset: the process has died.
    Dead,
    /// Connections are neither accepted nor refused: the node is gone, or its queue is full.
    Unreachable,
    /// Reads requests and answers none.
    Silent,
    /// Answers 500.
    Broken,
    /// Answers after a while that clients still accept.
    Slow,
    /// Resets the connection in the middle of the body.
    Cutting,
    /// Closes the connection before as many bytes as its head announced.
    Lying,
}

/// A server of its own. Ends when dropped.
pub(crate) struct Pod {
    pub(crate) address: SocketAddr,
    health: watch::Sender<Health>,
}

impl Pod {
    pub(crate) fn start() -> Result<Pod> {
        let listener = listen((Ipv4Addr::LOCALHOST, 0).into(), 1024)?;
        let address = listener.local_addr()?;
        let (health, watched) = watch::channel(Health::Well);
        tokio::spawn(serve(listener, address, watched));
        Ok(Pod { address, health })
    }

    pub(crate) fn become_(&self, health: Health) {
        self.health.send_replace(health);
    }
}

fn listen(address: SocketAddr, backlog: i32) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    TcpListener::from_std(socket.into())
}

async fn serve(listener: TcpListener, address: SocketAddr, mut health: watch::Receiver<Health>) -> Result<()> {
    let mut listener = Some(listener);
    loop {
        let now = *health.borrow_and_update();
        match now {
            Health::Dead => {
                listener = None;
                health.changed().await?;
            }
            Health::Unreachable => {
                drop(listener.take());
                let full = listen(address, 0)?;
                // Fills the queue, so that the kernel drops whoever comes after. More than one, as the bound is not exact.
                let filling: Vec<_> = (0..4).filter_map(|_| connect_to(address).ok()).collect();
                health.changed().await?;
                drop((full, filling));
            }
            _ => {
                let listening = match &listener {
                    Some(listening) => listening,
                    None => listener.insert(listen(address, 1024)?),
                };
                tokio::select! {
                    Ok((stream, _)) = listening.accept() => {
                        let _ = stream.set_nodelay(true);
                        let health = health.clone();
                        tokio::spawn(async move { let _ = connection(stream, health).await; });
                    }
                    changed = health.changed() => changed?,
                }
            }
        }
    }
}

fn connect_to(address: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    let _ = socket.connect(&SockAddr::from(address));
    Ok(socket)
}

async fn connection(mut stream: TcpStream, mut health: watch::Receiver<Health>) -> Result<()> {
    let mut buffer = [0; 4096];
    let mut filled = 0;
    loop {
        while let Some(end) = memchr::memmem::find(&buffer[..filled], b"\r\n\r\n") {
            buffer.copy_within(end + 4..filled, 0);
            filled -= end + 4;
            answer(&mut stream, &mut health).await?;
        }
        tokio::select! {
            read = stream.read(&mut buffer[filled..]) => match read? {
                0 => return Ok(()),
                read => filled += read,
            },
            gone = health.wait_for(|health| matches!(health, Health::Dead | Health::Unreachable)) => {
                gone?;
                stream.set_zero_linger()?;
                return Ok(());
            }
        }
    }
}

async fn answer(stream: &mut TcpStream, health: &mut watch::Receiver<Health>) -> Result<()> {
    let now = *health.borrow_and_update();
    let (status, announced, sent) = match now {
        Health::Broken => ("500 Internal Server Error", BODY, BODY),
        Health::Cutting | Health::Lying => ("200 OK", BODY, BODY / 2),
        _ => ("200 OK", BODY, BODY),
    };
    match now {
        Health::Silent => {
            health.changed().await?;
            stream.set_zero_linger()?;
            anyhow::bail!("never answered");
        }
        Health::Slow => tokio::time::sleep(Duration::from_secs(1)).await,
        _ => {}
    }
    let mut answer = format!("HTTP/1.1 {status}\r\nContent-Length: {announced}\r\n\r\n").into_bytes();
    answer.resize(answer.len() + sent, b'x');
    stream.write_all(&answer).await?;
    match now {
        Health::Cutting => {
            // What was sent should arrive before the reset, as it does over a network.
            tokio::time::sleep(Duration::from_millis(5)).await;
            stream.set_zero_linger()?;
            anyhow::bail!("cut");
        }
        Health::Lying => anyhow::bail!("closed early"),
        _ => Ok(()),
    }
}
