//! How a cluster is balanced, checked and protected. What comes of it while traffic flows is `resilience`'s.

use serde::Serialize;

/// How a cluster is balanced, checked and protected. The default is that of a Service without a ProxyUpstream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Resilience {}
