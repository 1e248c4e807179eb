//! Choosing an endpoint, by every algorithm: alone, and with all processors counting what is in flight at the same endpoints.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use floodway::resilience::balance::{Balancer, Member, Table};
use floodway::resilience::{EndpointState, Moment, Outcome, Registry};
use floodway::snapshot::{
    Algorithm, Balancing, Cluster, ClusterName, Connections, Endpoint, HashKey, Hashing, Protocol, Resilience,
};

use crate::measure::{Report, contended, shown, time};

fn algorithms() -> [(&'static str, Algorithm); 8] {
    let hashing = |bounded_percent| Hashing { keys: [HashKey::ClientAddress].into(), bounded_percent };
    [
        ("LeastRequest", Algorithm::LeastRequest { choices: 2 }),
        ("RoundRobin", Algorithm::RoundRobin),
        ("WeightedRoundRobin", Algorithm::WeightedRoundRobin),
        ("Random", Algorithm::Random),
        ("PeakEwma", Algorithm::PeakEwma),
        ("RingHash", Algorithm::RingHash { hashing: hashing(None), points: 100 }),
        ("RingHash, bounded load", Algorithm::RingHash { hashing: hashing(Some(150)), points: 100 }),
        ("Maglev", Algorithm::Maglev { hashing: hashing(None), table_size: 16_381 }),
    ]
}

/// A cluster whose endpoints weigh 1 to 8.
#[allow(clippy::needless_update, reason = "a cluster has other settings, too")]
fn cluster(algorithm: Algorithm, count: u32) -> Cluster {
    let endpoint = |at: u32| Endpoint {
        weight: at % 8 + 1,
        ..Endpoint::new(SocketAddr::from(([10, 0, (at >> 8) as u8, at as u8], 8080)))
    };
    let balancing = Balancing { algorithm, ..Balancing::default() };
    Cluster {
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
        endpoints: (0..count).map(endpoint).collect(),
        move_after: None,
        resilience: Arc::new(Resilience { balancing, ..Resilience::default() }),
    }
}

/// What one worker has of a cluster.
fn worker(registry: &Registry, cluster: &Cluster, seed: u64) -> (Balancer, Vec<Arc<EndpointState>>) {
    let states = registry.of(cluster, now());
    let member = |(state, endpoint): (&Arc<EndpointState>, &Endpoint)| Member {
        state: Arc::clone(state),
        weight: endpoint.weight,
        local: false,
    };
    let members = states.iter().zip(&*cluster.endpoints).map(member).collect();
    let shared = registry.cluster(&cluster.name);
    let table = shared.tables(cluster).and_then(|tables| tables.all());
    (Balancer::new(shared, Arc::clone(&cluster.resilience), members, table, seed), states)
}

fn now() -> Moment {
    Instant::now().into()
}

/// One request: who gets it, and that it is in flight for a moment.
fn pass(balancer: &Balancer, states: &[Arc<EndpointState>], random: &mut fastrand::Rng) {
    let chosen = &states[balancer.pick(&[], Some(random.u64(..)), now).unwrap()];
    chosen.enter();
    chosen.leave();
}

pub(crate) fn run(report: &mut Report) {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let at_once = format!("Chosen and counted, {processors} processors at once");
    report.table(
        "Choosing an endpoint, of weights from 1 to 8",
        &["Algorithm", "Endpoints", "Chosen", "Chosen and counted", &at_once, "Shared table, per endpoint"],
    );
    for (name, algorithm) in algorithms() {
        for count in [10, 1_000] {
            let cluster = cluster(algorithm.clone(), count);
            let registry = Registry::default();
            let (balancer, states) = worker(&registry, &cluster, 1);
            for (at, state) in states.iter().enumerate() {
                let first_byte = Duration::from_micros(500 + at as u64 % 100);
                state.report(Outcome::Answered { status: 200, first_byte }, now());
            }
            let mut random = fastrand::Rng::with_seed(1);
            let chosen = time(|| balancer.pick(&[], Some(random.u64(..)), now));
            let counted = time(|| pass(&balancer, &states, &mut random));
            let seeds = AtomicU64::new(2);
            let all = contended(processors, || {
                let seed = seeds.fetch_add(1, Ordering::Relaxed);
                let (balancer, states) = worker(&registry, &cluster, seed);
                let mut random = fastrand::Rng::with_seed(seed);
                move || pass(&balancer, &states, &mut random)
            });
            let table = Table::build(&algorithm, cluster.endpoints.iter()).map_or(0, |table| table.bytes());
            let table = if table == 0 { "—".to_owned() } else { format!("{} B", table / count as usize) };
            report.row(&[name, &count.to_string(), &shown(chosen), &shown(counted), &shown(all), &table]);
        }
    }
}
