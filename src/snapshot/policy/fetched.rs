//! Keys that are fetched: from where, and those that were fetched last. Tables hold the place where the newest ones are, so that
//! other keys need no other table. Who fetches them is `jwks`.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwapOption, Guard};
use serde::{Serialize, Serializer};
use tokio::sync::{Notify, Semaphore};

use super::{Algorithm, Key, KeyHosts, KeyUrl, Keys};
use crate::snapshot::UpstreamTls;

/// From where keys are fetched. Whoever says the same gets the same ones, fetched once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySource {
    /// Where the set is, or the document of an issuer that tells where.
    pub url: KeyUrl,
    /// The issuer whose document it is (OpenID Connect Discovery 1.0); `None` if it is the set itself.
    pub issuer: Option<Box<str>>,
    /// Whether keys may come without TLS.
    pub insecure: bool,
    /// How TLS is spoken; `None` if it is not.
    pub tls: Option<UpstreamTls>,
    /// From whom keys may come at all.
    pub hosts: KeyHosts,
}

/// How many requests may wait for newer keys of a source.
const MOST_WAITING: usize = 1024;

/// The keys of a source, for as long as somebody wants them.
pub struct FetchedKeys {
    current: ArcSwapOption<Fetched>,
    /// Somebody showed a token of a key that is not among them.
    missed: AtomicBool,
    /// Is rung then.
    bell: Arc<Notify>,
    /// Tells those who wait for newer ones that there are some, or none for now.
    settled: Notify,
    /// Places for those.
    places: Semaphore,
}

/// Keys as they were fetched last.
#[derive(Debug)]
pub struct Fetched {
    /// The keys.
    pub keys: Keys,
    /// Counts how often they were others than before: from 1.
    pub version: u64,
    /// When they were fetched, in seconds since 1970.
    pub at: u64,
}

impl FetchedKeys {
    /// None yet; `bell` is rung when somebody misses one.
    pub fn new(bell: Arc<Notify>) -> Arc<Self> {
        Arc::new(FetchedKeys {
            current: ArcSwapOption::empty(),
            missed: AtomicBool::new(false),
            bell,
            settled: Notify::new(),
            places: Semaphore::new(MOST_WAITING),
        })
    }

    /// These were fetched now, in seconds since 1970. One writes at a time. Returns whether they are others than before.
    pub fn put(&self, keys: Keys, at: u64) -> bool {
        let before = self.current.load();
        let same = before.as_ref().filter(|before| before.keys == keys);
        let version = same.or(before.as_ref()).map_or(0, |before| before.version) + u64::from(same.is_none());
        let differs = same.is_none();
        self.current.store(Some(Arc::new(Fetched { keys, version, at })));
        differs
    }

    /// The keys that were fetched last.
    pub fn load(&self) -> Guard<Option<Arc<Fetched>>> {
        self.current.load()
    }

    /// Somebody showed a token of a key that is not among them: there may be newer ones.
    pub fn miss(&self) {
        // Loaded first, so that a flood of such tokens writes nothing.
        if !self.missed.load(Ordering::Relaxed) && !self.missed.swap(true, Ordering::Relaxed) {
            self.bell.notify_one();
        }
    }

    /// Waits until whoever fetches has looked for newer keys, or has said that nobody looks now. Returns at once, with `false`, if too
    /// many wait already.
    pub async fn renewed(&self) -> bool {
        let Ok(_place) = self.places.try_acquire() else { return false };
        let mut settled = pin!(self.settled.notified());
        // Before it is asked for, so that the answer cannot come earlier.
        settled.as_mut().enable();
        self.miss();
        settled.await;
        true
    }

    /// Whoever waits for newer keys need not wait any longer.
    pub fn settle(&self) {
        self.settled.notify_waiters();
    }

    /// Whether somebody did since this was asked last.
    pub fn was_missed(&self) -> bool {
        self.missed.swap(false, Ordering::Relaxed)
    }
}

impl fmt::Debug for FetchedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FetchedKeys").field(&*self.load()).finish()
    }
}

/// The keys of an issuer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum IssuerKeys {
    /// Those of the policy, or of its Secret.
    Given(Keys),
    /// Those that are fetched.
    Fetched(RemoteKeys),
}

/// Keys that are fetched, as a policy wants them.
#[derive(Clone, Debug, Serialize)]
pub struct RemoteKeys {
    /// The name of their source.
    pub fetched: Arc<str>,
    /// How long they count that cannot be fetched anew.
    #[serde(serialize_with = "duration")]
    pub max_stale: Duration,
    /// For which algorithms they are used; for whichever they are for if empty.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub algorithms: Box<[Algorithm]>,
    /// Where they are; `None` before anybody began to fetch them.
    #[serde(skip)]
    pub keys: Option<Arc<FetchedKeys>>,
}

fn duration<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&crate::snapshot::duration::format(*time))
}

impl PartialEq for RemoteKeys {
    fn eq(&self, other: &Self) -> bool {
        let place = |keys: &Self| keys.keys.as_ref().map(Arc::as_ptr);
        let said = |keys: &Self| (Arc::clone(&keys.fetched), keys.max_stale, keys.algorithms.clone());
        said(self) == said(other) && place(self) == place(other)
    }
}

impl Eq for RemoteKeys {}

/// The keys of an issuer that count now.
#[derive(Debug)]
pub enum CurrentKeys<'a> {
    /// Those that were given.
    Given(&'a Keys),
    /// Those that were fetched.
    Fetched(Arc<Fetched>, &'a [Algorithm]),
}

impl IssuerKeys {
    /// Those that count now, in seconds since 1970. `None` if none were fetched yet, or too long ago.
    pub fn current(&self, now: u64) -> Option<CurrentKeys<'_>> {
        match self {
            IssuerKeys::Given(keys) => Some(CurrentKeys::Given(keys)),
            IssuerKeys::Fetched(remote) => {
                let fetched = Guard::into_inner(remote.keys.as_ref()?.load())?;
                remote.counts(&fetched, now).then_some(CurrentKeys::Fetched(fetched, &remote.algorithms))
            }
        }
    }

    /// Which version counts now, as [`CurrentKeys::version`] says.
    pub fn version(&self, now: u64) -> Option<u64> {
        match self {
            IssuerKeys::Given(_) => Some(0),
            IssuerKeys::Fetched(remote) => {
                let loaded = remote.keys.as_ref()?.load();
                loaded.as_ref().filter(|fetched| remote.counts(fetched, now)).map(|fetched| fetched.version)
            }
        }
    }

    /// Where they are, if they are fetched: there may be newer ones.
    pub fn fetched(&self) -> Option<&Arc<FetchedKeys>> {
        match self {
            IssuerKeys::Given(_) => None,
            IssuerKeys::Fetched(remote) => remote.keys.as_ref(),
        }
    }
}

impl RemoteKeys {
    fn counts(&self, fetched: &Fetched, now: u64) -> bool {
        now.saturating_sub(fetched.at) <= self.max_stale.as_secs()
    }
}

impl CurrentKeys<'_> {
    /// The keys, for the algorithms that are wanted.
    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        let (keys, wanted) = match self {
            CurrentKeys::Given(keys) => (*keys, None),
            CurrentKeys::Fetched(fetched, wanted) => (&fetched.keys, Some(*wanted)),
        };
        keys.iter().filter(move |key| match wanted {
            None => true,
            Some([]) => key.usual,
            Some(wanted) => wanted.contains(&key.algorithm),
        })
    }

    /// Tells them from others that counted before. Keys that were given are those of their section.
    pub fn version(&self) -> u64 {
        match self {
            CurrentKeys::Given(_) => 0,
            CurrentKeys::Fetched(fetched, _) => fetched.version,
        }
    }
}

impl From<Keys> for IssuerKeys {
    fn from(keys: Keys) -> Self {
        IssuerKeys::Given(keys)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn keys(kid: &str) -> Keys {
        let one =
            format!(r#"{{"keys": [{{"kty": "RSA", "kid": "{kid}", "e": "AQAB", "n": "{}"}}]}}"#, "_".repeat(341) + "w");
        Keys::fetched(one.as_bytes()).unwrap()
    }

    fn remote(algorithms: &[Algorithm], fetched: &Arc<FetchedKeys>) -> IssuerKeys {
        IssuerKeys::Fetched(RemoteKeys {
            fetched: "https://id.test/keys".into(),
            max_stale: Duration::from_secs(60),
            algorithms: algorithms.into(),
            keys: Some(Arc::clone(fetched)),
        })
    }

    #[test]
    fn keys_count_until_they_are_too_old_and_others_are_told_apart() {
        let fetched = FetchedKeys::new(Arc::default());
        let remote = remote(&[], &fetched);
        assert_eq!((remote.version(0), remote.current(0).is_some()), (None, false));
        assert!(fetched.put(keys("a"), 100));
        assert_eq!([remote.version(99), remote.version(160), remote.version(161)], [Some(1), Some(1), None]);
        assert!(!fetched.put(keys("a"), 200), "the same again");
        assert_eq!(remote.version(260), Some(1));
        assert!(fetched.put(keys("b"), 300));
        assert_eq!((remote.version(300), remote.current(361).is_some()), (Some(2), false));
    }

    #[test]
    fn a_key_that_says_nothing_is_for_what_the_policy_wants() {
        use Algorithm::*;
        let fetched = FetchedKeys::new(Arc::default());
        fetched.put(keys("a"), 0);
        for (wanted, used) in
            [(&[][..], &[RS256][..]), (&[PS256, ES256], &[PS256]), (&[RS384, RS256], &[RS256, RS384]), (&[ES256], &[])]
        {
            let current = remote(wanted, &fetched);
            let current = current.current(0).unwrap();
            assert_eq!(current.iter().map(|key| key.algorithm).collect::<Vec<_>>(), used, "{wanted:?}");
        }
    }

    #[tokio::test]
    async fn so_many_wait_for_newer_keys_and_no_more() {
        let keys = FetchedKeys::new(Arc::default());
        let mut waiting: Vec<_> = (0..MOST_WAITING).map(|_| Box::pin(keys.renewed())).collect();
        for one in &mut waiting {
            assert!(futures_util::poll!(one).is_pending());
        }
        assert!(keys.was_missed() && !keys.renewed().await, "one too many");
        keys.settle();
        for one in waiting {
            assert!(one.await);
        }
        assert!(futures_util::poll!(Box::pin(keys.renewed())).is_pending(), "there are places again");
    }

    #[test]
    fn a_flood_of_unknown_keys_rings_once() {
        let bell = Arc::new(Notify::new());
        let fetched = FetchedKeys::new(Arc::clone(&bell));
        (0..3).for_each(|_| fetched.miss());
        assert_eq!((fetched.was_missed(), fetched.was_missed()), (true, false));
    }
}
