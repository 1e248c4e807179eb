//! Telling the owners of objects: conditions written back by server-side apply, and events on transitions. Only the
//! leader writes. What the conditions say is `translate`'s to decide.

mod events;
mod lease;
mod ledger;
mod notices;
mod observed;
mod writer;

use kube::Client;
use tokio::sync::{mpsc, watch};

pub use lease::NAME as LEASE;
pub use notices::{Notice, Object};
pub use observed::Observed;

use crate::telemetry::Metrics;
use crate::translate::Statuses;

/// Owns the fields that are written.
const FIELD_MANAGER: &str = "floodway";
/// Of the objects whose status is written.
const API_VERSION: &str = "floodway.dev/v1alpha1";

/// Who this process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// The namespace of the pod, where the Lease is.
    pub namespace: String,
    /// The name of the pod, unique among all replicas.
    pub name: String,
}

/// Takes part in the election of the leader and, while leading, keeps the statuses in the API server equal to the last
/// value of `statuses`, and publishes `notices` as events. `observed` must be fed by the watches. Ends when `until` does, after giving up leadership.
pub async fn run(
    client: Client,
    pod: Pod,
    statuses: watch::Receiver<Statuses>,
    observed: Observed,
    notices: mpsc::Receiver<Notice>,
    metrics: Metrics,
    until: impl Future<Output = ()>,
) {
    let (sender, leads) = watch::channel(false);
    let tell = notices::run(client.clone(), &pod.name, observed.clone(), notices, leads.clone());
    let tell = async {
        tell.await;
        std::future::pending::<()>().await;
    };
    let writer = writer::StatusWriter::new(client.clone(), &pod.name, observed, metrics.clone());
    let mut shown = leads.clone();
    let show = async {
        loop {
            metrics.leader(*shown.borrow_and_update());
            if shown.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let write = async {
        writer.run(statuses, leads).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = lease::run(client, &pod.namespace, &pod.name, sender, until) => {}
        () = write => {}
        () = show => {}
        () = tell => {}
    }
    metrics.leader(false);
}
