//! Addresses of the names that translation asked for: resolved, and resolved again as their time to live ends. A name
//! that cannot be resolved keeps its last good addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::Store;

/// What a name means for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// All addresses of both families, in any order; none if the name is known to have none.
    pub addresses: Vec<IpAddr>,
    /// How long that holds.
    pub valid: Duration,
}

/// Something that knows names.
pub trait Resolve: Clone + Send + 'static {
    /// Looks a name up. The error is one line for people.
    fn resolve(&self, name: &str) -> impl Future<Output = Result<Answer, String>> + Send;
}

/// How often a name is asked for at most and at least, whatever its time to live says.
const VALID: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));
/// First and last wait after failures; doubled in between.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Time for one look-up with all the attempts of the resolver.
const PATIENCE: Duration = Duration::from_secs(15);

/// Keeps `Resources::resolved` true for the names in `wanted`. Ends when `wanted` is closed. `looked_up` hears of
/// every look-up whether it succeeded.
pub async fn run(
    store: Store,
    mut wanted: watch::Receiver<BTreeSet<String>>,
    resolver: impl Resolve,
    looked_up: impl Fn(bool),
) {
    let mut names: BTreeMap<String, Name> = BTreeMap::new();
    let mut lookups: JoinSet<(String, Result<Answer, String>)> = JoinSet::new();
    wanted.mark_changed();
    loop {
        let due = names.values().filter_map(|name| name.due).min();
        tokio::select! {
            changed = wanted.changed() => {
                if changed.is_err() {
                    return;
                }
                let wanted = wanted.borrow_and_update().clone();
                names.retain(|name, _| wanted.contains(name));
                forget(&store, &wanted);
                for name in wanted {
                    names.entry(name).or_insert_with(|| Name { due: Some(Instant::now()), failures: 0 });
                }
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                let now = Instant::now();
                for (text, name) in names.iter_mut().filter(|(_, name)| name.due.is_some_and(|due| due <= now)) {
                    name.due = None;
                    let (text, resolver) = (text.clone(), resolver.clone());
                    lookups.spawn(async move {
                        let answer = timeout(PATIENCE, resolver.resolve(&text)).await;
                        (text, answer.unwrap_or_else(|_| Err("no name server answered in time".to_owned())))
                    });
                }
            }
            Some(Ok((text, answer))) = lookups.join_next(), if !lookups.is_empty() => {
                // Nobody may want it any more, or somebody may want it anew and have asked again.
                let Some(name) = names.get_mut(&text) else { continue };
                looked_up(answer.is_ok());
                match answer {
                    Ok(Answer { addresses, valid }) => {
                        *name = Name { due: Some(Instant::now() + valid.clamp(VALID.0, VALID.1)), failures: 0 };
                        learn(&store, text, addresses);
                    }
                    Err(error) => {
                        let wait = RETRY.0.saturating_mul(1 << name.failures.min(6)).min(RETRY.1);
                        *name = Name { due: Some(Instant::now() + wait), failures: name.failures + 1 };
                        tracing::warn!(name = text, error, retry = ?wait, "cannot resolve; keeping the last good addresses");
                    }
                }
            }
        }
    }
}

/// What is to be done for a name.
struct Name {
    /// When to ask; `None` while asking.
    due: Option<Instant>,
    failures: u32,
}

fn learn(store: &Store, name: String, mut addresses: Vec<IpAddr>) {
    addresses.sort_unstable();
    addresses.dedup();
    store.update(|resources| match resources.resolved.get(&name) {
        Some(known) if **known == *addresses => false,
        // An answer without addresses is not better than the last one with some.
        Some(known) if addresses.is_empty() && !known.is_empty() => false,
        _ => {
            resources.resolved.insert(name, Arc::from(addresses));
            true
        }
    });
}

/// Drops the answers for names that nobody wants. That changes no translation, so it does not tick.
fn forget(store: &Store, wanted: &BTreeSet<String>) {
    store.update(|resources| {
        resources.resolved.retain(|name, _| wanted.contains(name));
        false
    });
}

/// The name servers and hosts file of the system.
#[derive(Clone, Debug)]
pub struct System(Result<Arc<TokioResolver>, String>);

impl System {
    /// Reads the configuration of the system. If that fails, every look-up will say so.
    pub fn new() -> Self {
        let build = || {
            let mut builder = TokioResolver::builder_tokio()?;
            // Every question is asked because an answer ran out; a cache would only repeat it.
            builder.options_mut().cache_size = 0;
            builder.build()
        };
        System(build().map(Arc::new).map_err(|error| format!("the system's DNS configuration cannot be used: {error}")))
    }
}

impl Default for System {
    fn default() -> Self {
        System::new()
    }
}

impl Resolve for System {
    async fn resolve(&self, name: &str) -> Result<Answer, String> {
        if let Ok(address) = name.trim_matches(['[', ']']).parse() {
            return Ok(Answer { addresses: vec![address], valid: VALID.1 });
        }
        match self.0.as_ref().map_err(Clone::clone)?.lookup_ip(name).await {
            Ok(found) => Ok(Answer {
                addresses: found.iter().collect(),
                valid: Instant::from_std(found.valid_until()).saturating_duration_since(Instant::now()),
            }),
            Err(error) if error.is_no_records_found() => Ok(Answer { addresses: Vec::new(), valid: RETRY.1 }),
            Err(error) => Err(error.to_string()),
        }
    }
}

#[cfg(test)]
#[path = "dns/tests.rs"]
mod tests;
