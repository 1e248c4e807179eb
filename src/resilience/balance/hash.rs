//! The hash that places endpoints and requests: xxHash64, as in Envoy, so that published rings and tables are ours, too.

use twox_hash::XxHash64;

/// The place of a key.
pub fn hash(key: &[u8]) -> u64 {
    XxHash64::oneshot(0, key)
}

/// Another place of the same key.
pub(super) fn hash_seeded(key: &[u8], seed: u64) -> u64 {
    XxHash64::oneshot(seed, key)
}
