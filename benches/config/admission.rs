//! Admitting a request to an upstream with limits: taking its place and giving it back, alone and with other threads doing the
//! same.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use floodway::resilience::{Admission, ClusterState, Limited, Moment, Registry};
use floodway::snapshot::{Cluster, ClusterName, Connections, Endpoint, Limits, Protocol, Resilience};

use crate::measure::{Report, contended, shown, time};

#[allow(clippy::needless_update, reason = "a cluster has other settings, too")]
fn cluster() -> Arc<ClusterState> {
    let limits = Limits { requests: Some(1000), ..Limits::NONE };
    let cluster = Cluster {
        name: ClusterName::new("shop/llm:80"),
        protocol: Protocol::Http1,
        connections: Connections {
            connect_timeout: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(1),
            max_idle_per_endpoint: 1,
            max_requests: None,
            tcp_keep_alive: None,
            upkeep: Default::default(),
            proxy_protocol: None,
            tls: None,
        }
        .into(),
        endpoints: [Endpoint::new(SocketAddr::from(([10, 0, 0, 1], 8080)))].into(),
        move_after: None,
        resilience: Arc::new(Resilience { limits: Some(limits), ..Resilience::default() }),
    };
    let registry = Registry::default();
    registry.of(&cluster, Moment::default());
    registry.cluster(&cluster.name)
}

pub(crate) fn run(report: &mut Report) {
    let others = std::thread::available_parallelism().map_or(1, usize::from) - 1;
    report.table(
        "Admission of a request to an upstream with limits, and its end",
        &["Threads that do the same", "Processor time"],
    );
    let cluster = cluster();
    let admit = || drop(Admission::try_new(&cluster, Limited::Requests));
    report.row(&["none", &shown(time(admit))]);
    report.row(&[&others.to_string(), &shown(contended(others + 1, || admit))]);
}
