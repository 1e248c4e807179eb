//! What became of the pods that the webhook was asked about. Only `floodway injector` counts them.

use prometheus::IntCounterVec;

use super::metrics::{INJECTIONS, Metrics};

/// What becomes of a pod.
const RESULTS: [&str; 4] = ["injected", "skipped", "refused", "failed"];

/// Counts pods. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Injections(IntCounterVec);

impl Injections {
    /// This became of one.
    pub fn count(&self, result: &'static str) {
        self.0.with_label_values(&[result]).inc();
    }
}

impl Metrics {
    /// From now on shows what became of pods.
    pub fn injections(&self) -> Injections {
        let counter = self.registered(INJECTIONS);
        for result in RESULTS {
            // So that the first one is an increase.
            counter.with_label_values(&[result]);
        }
        Injections(counter)
    }
}
