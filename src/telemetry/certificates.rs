//! When the certificates that are served expire, asked of whoever knows when metrics are asked for.

use std::fmt;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use super::collect::{family, gauge};
use super::metrics::CERTIFICATE_EXPIRY;

/// When a certificate expires.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expiry {
    /// `namespace/name` of the Secret that it is in.
    pub secret: String,
    /// In seconds since 1970.
    pub not_after: i64,
}

/// Asks when they do.
pub(super) struct Expiries {
    ask: Box<dyn Fn() -> Vec<Expiry> + Send + Sync>,
    desc: Desc,
}

impl fmt::Debug for Expiries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Expiries").finish_non_exhaustive()
    }
}

impl Expiries {
    pub(super) fn new(ask: impl Fn() -> Vec<Expiry> + Send + Sync + 'static) -> Self {
        Expiries { ask: Box::new(ask), desc: CERTIFICATE_EXPIRY.desc() }
    }
}

impl Collector for Expiries {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut all = (self.ask)();
        // Several hosts have one certificate.
        all.sort_unstable();
        all.dedup_by(|one, other| one.secret == other.secret);
        let series = all.iter().map(|Expiry { secret, not_after }| gauge(&[("secret", secret)], *not_after as f64));
        vec![family(&CERTIFICATE_EXPIRY, series.collect())]
    }
}
