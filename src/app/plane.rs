//! Stands in for the data plane until it is there: holds the ports.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use crate::drain::DrainWatcher;
use crate::settings::Settings;
use crate::snapshot::Reader;
use crate::telemetry::Telemetry;

pub(super) struct Config {
    pub(super) settings: Arc<Settings>,
    #[allow(dead_code)]
    pub(super) workers: usize,
}

pub(super) struct Proxy(Vec<TcpListener>, Vec<SocketAddr>, DrainWatcher);

#[derive(Debug, thiserror::Error)]
#[error("{0}: {1}")]
pub(super) struct StartError(SocketAddr, std::io::Error);

pub(super) fn start(config: Config, _: Reader, _: &Telemetry, drain: DrainWatcher) -> Result<Proxy, StartError> {
    let mut proxy = Proxy(Vec::new(), Vec::new(), drain);
    for address in &config.settings.listeners.http {
        let listener = TcpListener::bind(address).map_err(|error| StartError(*address, error))?;
        proxy.1.push(listener.local_addr().map_err(|error| StartError(*address, error))?);
        proxy.0.push(listener);
    }
    Ok(proxy)
}

impl Proxy {
    pub(super) fn addresses(&self) -> &[SocketAddr] {
        &self.1
    }

    pub(super) async fn ended(mut self) {
        self.2.begun().await;
    }
}
