//! One listener of a sidecar, as far as the control thread is concerned: its objects, its table, and what is known of its endpoints.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::FutureExt as _;
use tokio::sync::mpsc;

use crate::app::table::Table;
use crate::app::{Failure, complaints, control, expiry, vigil};
use crate::proxy::{Capture, Side};
use crate::ready::Ready;
use crate::resilience::Registry;
use crate::settings::Settings;
use crate::snapshot::{self, Reader};
use crate::source::{Store, dns};
use crate::telemetry::Telemetry;
use crate::translate::Roots;
use crate::{admin, health, jwks};

/// One listener.
pub(super) struct Half {
    name: &'static str,
    pub(super) store: Store,
    table: Table,
    reader: Reader,
    registry: Registry,
    telemetry: Telemetry,
    settings: Arc<Settings>,
}

impl Half {
    pub(super) fn new(
        name: &'static str,
        settings: Settings,
        roots: Roots,
        telemetry: Telemetry,
    ) -> Result<Self, Failure> {
        let (store, registry) = (Store::default(), Registry::default());
        let (publisher, reader) = snapshot::channel();
        let table = Table::new(store.clone(), control::context(&settings, roots)?, publisher, telemetry.clone());
        Ok(Half { name, store, table, reader, registry, telemetry, settings: Arc::new(settings) })
    }

    /// What the admin port shows of it.
    pub(super) fn shown(&self) -> admin::Table {
        admin::Table { name: Some(self.name), snapshot: self.reader.clone(), registry: self.registry.clone() }
    }

    /// Translates for the first time, and starts what follows the table; returns the number of routes.
    pub(super) fn begin(&mut self, ready: &Ready) -> usize {
        let metrics = self.telemetry.metrics().clone();
        let looked_up = {
            let metrics = metrics.clone();
            move |succeeded| metrics.dns_lookup(succeeded)
        };
        let names = dns::System::new();
        tokio::spawn(dns::run(self.store.clone(), self.table.hostnames(), names.clone(), looked_up));
        // The tick of what is translated here; there may be none.
        let _ = self.store.changed().now_or_never();
        let routes = self.table.translate();
        let fetching = ready.block(format!("the keys of issuers ({})", self.name));
        tokio::spawn(jwks::run(self.store.clone(), self.table.key_sources(), names, metrics.clone(), fetching));
        // Nobody makes events of what a sidecar sees: its log has it.
        let (told, _) = mpsc::channel(1);
        tokio::spawn(expiry::run(self.reader.clone(), metrics.clone(), told.clone()));
        tokio::spawn(vigil::run(self.registry.clone(), metrics.clone(), told));
        tokio::spawn(health::run(self.reader.clone(), self.registry.clone(), metrics));
        tokio::spawn(complaints::log(self.table.statuses()));
        routes
    }

    /// What the data plane serves of it.
    pub(super) fn side(&self, addresses: Vec<SocketAddr>, beside: Vec<SocketAddr>, capture: Capture) -> Side {
        Side {
            settings: Arc::clone(&self.settings),
            addresses,
            beside,
            capture,
            registry: self.registry.clone(),
            reader: self.reader.clone(),
            telemetry: self.telemetry.clone(),
        }
    }

    /// Follows its objects, for ever.
    pub(super) async fn follow(&mut self) -> Infallible {
        self.table.follow().await
    }
}
