//! How many retries a cluster bears.

use serde::Serialize;

/// A bound for the retries that are under way at the same time, relative to what else is. Envoy's retry budget, and its defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RetryBudget {
    /// Of requests in flight, in percent.
    pub percent: u32,
    /// So many are allowed in any case.
    pub min_concurrent: u32,
}

impl Default for RetryBudget {
    fn default() -> Self {
        RetryBudget { percent: 20, min_concurrent: 3 }
    }
}
