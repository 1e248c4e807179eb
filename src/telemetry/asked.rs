//! What Floodway itself asks of others, beside requests: names, health, keys. The metrics are declared in `metrics`.

use super::metrics::{Metrics, outcome};

impl Metrics {
    /// The name of an upstream was looked up.
    pub fn dns_lookup(&self, succeeded: bool) {
        self.dns.with_label_values(&[outcome(succeeded)]).inc();
    }

    /// Keys were fetched, or were to be; `at` is when they were, in seconds since 1970.
    pub fn keys_fetched(&self, source: &str, outcome: &'static str, at: Option<u64>) {
        self.jwks_fetches.with_label_values(&[source, outcome]).inc();
        if let Some(at) = at {
            self.jwks_last.with_label_values(&[source]).set(at as f64);
        }
    }

    /// Keys are not fetched any more: their series end.
    pub fn forget_keys(&self, source: &str, outcomes: &[&'static str]) {
        // There is none of outcomes that never happened.
        for outcome in outcomes {
            let _ = self.jwks_fetches.remove_label_values(&[source, outcome]);
        }
        let _ = self.jwks_last.remove_label_values(&[source]);
    }

    /// An endpoint of an upstream was checked, or was to be.
    pub fn health_check(&self, upstream: &str, outcome: &'static str) {
        self.health_checks.with_label_values(&[upstream, outcome]).inc();
    }

    /// An upstream is not checked any more: its series end.
    pub fn forget_health_checks(&self, upstream: &str, outcomes: &[&'static str]) {
        for outcome in outcomes {
            // There is none of outcomes that never happened.
            let _ = self.health_checks.remove_label_values(&[upstream, outcome]);
        }
    }
}
