//! A server inside another program: its own control thread, ended when it is dropped.

use std::net::SocketAddr;
use std::sync::mpsc as blocking;
use std::thread::JoinHandle;

use anyhow::anyhow;
use tokio::sync::mpsc;

use super::control::{self, Addresses};
use super::failure::Failure;
use super::{Plan, sidecar};

/// What runs.
pub(super) enum What {
    Server(Box<Plan>),
    Sidecar(Box<sidecar::Plan>),
}

/// A server that runs in this process. Dropping it cuts what still runs and waits for its end.
#[derive(Debug)]
pub struct Running {
    addresses: Addresses,
    signals: mpsc::Sender<()>,
    thread: Option<JoinHandle<Result<(), Failure>>>,
}

impl Running {
    pub(super) fn start(what: What) -> Result<Running, Failure> {
        let (signals, receiver) = mpsc::channel(2);
        let (serving, served) = blocking::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("floodway-control".to_owned())
            .spawn(move || {
                let serving = move |addresses: &Addresses| drop(serving.send(addresses.clone()));
                control::runtime()?.block_on(async {
                    match what {
                        What::Server(plan) => control::run(*plan, receiver, serving).await,
                        What::Sidecar(plan) => sidecar::run(*plan, None, receiver, serving).await,
                    }
                })
            })
            .map_err(anyhow::Error::new)?;
        match served.recv() {
            Ok(addresses) => Ok(Running { addresses, signals, thread: Some(thread) }),
            // It ended before it served.
            Err(_) => Err(join(thread).err().unwrap_or_else(|| anyhow!("ended before it served").into())),
        }
    }

    /// The addresses that serve HTTP, with the ports the system chose.
    pub fn http(&self) -> &[SocketAddr] {
        &self.addresses.http
    }

    /// Where a sidecar takes what comes for its app.
    pub fn inbound(&self) -> &[SocketAddr] {
        &self.addresses.inbound
    }

    /// Where a sidecar takes what its app asks for.
    pub fn outbound(&self) -> &[SocketAddr] {
        &self.addresses.outbound
    }

    /// The address of the admin port.
    pub fn admin(&self) -> SocketAddr {
        self.addresses.admin
    }

    /// What SIGTERM does: the first call begins the drain, the second cuts what is left.
    pub fn signal(&self) {
        // Full or closed: two are on their way, or it has ended.
        let _ = self.signals.try_send(());
    }

    /// Begins the drain and waits for the end; blocks.
    ///
    /// # Errors
    /// What the program would have ended with.
    pub fn shutdown(mut self) -> Result<(), Failure> {
        self.signal();
        self.thread.take().map_or(Ok(()), join)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.signal();
            self.signal();
            let _ = join(thread);
        }
    }
}

fn join(thread: JoinHandle<Result<(), Failure>>) -> Result<(), Failure> {
    thread.join().unwrap_or_else(|_| Err(anyhow!("the control thread panicked").into()))
}
