//! Translation without a data plane, for whoever only wants to know what would come of objects: names are not resolved and keys not
//! fetched, but taken as good.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crate::snapshot::FetchedKeys;
use crate::translate::{Context, KeySet, Resources, Translation, Translator};

/// What would come of these objects.
pub(super) fn translate(context: Context, mut resources: Resources) -> Translation {
    let mut translator = Translator::new(context);
    let Translation { hostnames, key_sources, .. } = translator.translate(&resources);
    let keys = || KeySet { keys: FetchedKeys::new(Arc::default()), fetched: true, trouble: None };
    resources.key_sets = key_sources.keys().map(|name| (name.to_string(), keys())).collect();
    // RFC 5737: an address for documentation, which nobody has.
    let somewhere: Arc<[IpAddr]> = Arc::from([IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))]);
    resources.resolved = hostnames.into_iter().map(|name| (name, Arc::clone(&somewhere))).collect();
    translator.translate(&resources)
}
