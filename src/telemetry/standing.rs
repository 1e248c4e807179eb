//! How the endpoints of each upstream are, asked of whoever knows when metrics are asked for.

use std::fmt;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use super::collect::{counter, family, gauge};
use super::metrics::{Declared, UPSTREAM_CHANGES, UPSTREAM_ENDPOINTS};

/// How the endpoints of an upstream are.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The name of the upstream.
    pub upstream: String,
    /// How many are in a state, each of a closed set.
    pub endpoints: Vec<(&'static str, usize)>,
    /// What something became, for which reason, and how often.
    pub changes: Vec<(&'static str, &'static str, u64)>,
}

/// Asks how they are.
pub(super) struct Standings {
    ask: Box<dyn Fn() -> Vec<Standing> + Send + Sync>,
    descs: Vec<Desc>,
}

impl fmt::Debug for Standings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Standings").finish_non_exhaustive()
    }
}

impl Standings {
    pub(super) fn new(ask: impl Fn() -> Vec<Standing> + Send + Sync + 'static) -> Self {
        let descs = [UPSTREAM_ENDPOINTS, UPSTREAM_CHANGES].iter().map(Declared::desc).collect();
        Standings { ask: Box::new(ask), descs }
    }
}

impl Collector for Standings {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut standings = (self.ask)();
        standings.sort_unstable_by(|a, b| a.upstream.cmp(&b.upstream));
        let (mut endpoints, mut changes) = (Vec::new(), Vec::new());
        for Standing { upstream, endpoints: counts, changes: counted } in &standings {
            let labels = |state| [("upstream", upstream.as_str()), ("state", state)];
            endpoints.extend(counts.iter().map(|(state, count)| gauge(&labels(state), *count as f64)));
            let labels = |to, reason| [("upstream", upstream.as_str()), ("to", to), ("reason", reason)];
            changes.extend(counted.iter().map(|(to, why, count)| counter(&labels(to, why), *count as f64)));
        }
        vec![family(&UPSTREAM_ENDPOINTS, endpoints), family(&UPSTREAM_CHANGES, changes)]
    }
}
