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
        if let Some(known) = known(&self.young) {
            return known.at(now).map(|()| known);
        }
        let verified = match known(&self.old) {
            Some(known) => known,
            None => Rc::new(Verified::read(jwt, token)?),
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
