//! Tokens that a worker has verified lately, so that it need not do so for every request that shows one again. What stands for
//! a token is its hash under a key that nobody knows, so that no token lies around here, and nobody can find two with the same.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use ring::hmac;

use super::token::{LONGEST, Refusal, Verified};
use crate::snapshot::{Jwt, Map};

/// How many tokens each of two generations has at most, and how many bytes about.
const MOST: (usize, usize) = (4096, 4 * 1024 * 1024);

/// Verified tokens. The older half is forgotten when there are too many, but for those that were shown again meanwhile.
pub struct Tokens {
    key: hmac::Key,
    young: RefCell<Generation>,
    old: RefCell<Generation>,
}

#[derive(Default)]
struct Generation {
    tokens: Map<Name, Known>,
    bytes: usize,
}

/// The hash of a token, and for which section it was verified: another one asks for other things.
type Name = ([u8; 32], usize);

/// The section is kept with it, so that no other one can come to lie at its address.
type Known = (Arc<Jwt>, Rc<Verified>);

impl fmt::Debug for Tokens {
    /// How many there are, and nothing of them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("count", &self.len()).finish_non_exhaustive()
    }
}

impl Default for Tokens {
    fn default() -> Self {
        // Without randomness of the system nothing else works either: TLS, masks of frames.
        let mut secret = [0; 32];
        if ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut secret).is_err() {
            fastrand::fill(&mut secret);
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        zeroize::Zeroize::zeroize(&mut secret);
        Tokens { key, young: RefCell::default(), old: RefCell::default() }
    }
}

impl Tokens {
    /// What is known of a token that is good now, in seconds since 1970; it is verified if nothing is.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn verify(&self, jwt: &Arc<Jwt>, token: &[u8], now: u64) -> Result<Rc<Verified>, Refusal> {
        if token.len() > LONGEST {
            return Err(Refusal::Invalid("it is longer than 16 KiB"));
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(hmac::sign(&self.key, token).as_ref());
        let name = (hash, Arc::as_ptr(jwt) as usize);
        let known = |tokens: &RefCell<Generation>| tokens.borrow().tokens.get(&name).map(|(_, known)| Rc::clone(known));
        // What was verified by keys that do not count any more is verified again.
        if let Some(known) = known(&self.young)
            && known.stands(jwt, now)?
        {
            return known.at(now).map(|()| known);
        }
        let verified = match known(&self.old) {
            Some(known) if known.stands(jwt, now)? => known,
            _ => Rc::new(Verified::read(jwt, token, now)?),
        };
        // What has expired is not worth a place.
        verified.at(now)?;
        self.keep(name, (Arc::clone(jwt), Rc::clone(&verified)));
        Ok(verified)
    }

    pub(super) fn len(&self) -> usize {
        self.young.borrow().tokens.len() + self.old.borrow().tokens.len()
    }

    fn keep(&self, name: Name, known: Known) {
        let mut young = self.young.borrow_mut();
        let size = known.1.size();
        if young.tokens.len() >= MOST.0 || young.bytes + size > MOST.1 {
            self.old.replace(std::mem::take(&mut *young));
        }
        young.bytes += size;
        young.tokens.insert(name, known);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::super::vectors::{A2_KEYS, A3, A3_KEYS};
    use super::*;
    use crate::snapshot::{FetchedKeys, Issuer, IssuerKeys, Keys, RemoteKeys};

    #[test]
    fn a_known_token_does_not_outlive_its_key() {
        let fetched = FetchedKeys::new(Arc::default());
        let remote = RemoteKeys {
            fetched: "https://id.test/keys".into(),
            max_stale: Duration::from_secs(60),
            algorithms: [].into(),
            keys: Some(Arc::clone(&fetched)),
        };
        let jwt = Arc::new(Jwt {
            issuers: [Issuer { issuer: "joe".into(), audiences: [].into(), keys: IssuerKeys::Fetched(remote) }].into(),
            from: [].into(),
            skew: Duration::ZERO,
            required: [].into(),
            headers: [].into(),
            forward: false,
            close_code: None,
            realm: "r".into(),
        });
        let tokens = Tokens::default();
        let verify = |now| tokens.verify(&jwt, A3.as_bytes(), now);
        let put = |keys: &str, now| fetched.put(Keys::fetched(keys.as_bytes()).unwrap(), now);
        assert_eq!(verify(1).err(), Some(Refusal::NoKeys), "none were fetched yet");
        put(A3_KEYS, 1);
        let known = verify(1).unwrap();
        put(A3_KEYS, 30);
        assert!(Rc::ptr_eq(&known, &verify(30).unwrap()), "the same keys again");
        assert_eq!(verify(91).err(), Some(Refusal::NoKeys), "nobody knows whether they still count");
        put(A2_KEYS, 100);
        assert!(matches!(verify(100), Err(Refusal::Invalid(_))), "the key is gone");
        put(A3_KEYS, 110);
        assert!(verify(110).is_ok());
    }
}
