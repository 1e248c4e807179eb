//! Readiness: named reasons not to be ready, each held by a guard that lifts it when dropped.
