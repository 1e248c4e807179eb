//! Comparing passwords with hashes that are slow on purpose: on threads of their own, few at a time, with a bounded line of those
//! that wait. What was found equal is remembered for a while, so that a user waits once. Shared by all workers.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use ring::hmac;
use ring::rand::SystemRandom;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::proxy::error::Error;
use crate::snapshot::SecretBytes;

/// How long a password that was right is known to be.
const KNOWN_FOR: Duration = Duration::from_secs(300);
/// Parts of the memory, each with a lock of its own, and how many passwords each remembers at most.
const PARTS: usize = 16;
const PART: usize = 1024;
/// How many may wait or be compared at a time: together, and from one address.
const MOST: usize = 1024;
const MOST_OF_ONE: usize = 32;

/// What is said of user, password and hash: a code under a key that this process alone has.
type Tag = [u8; 32];

/// The passwords that clients give.
#[derive(Debug)]
pub(in crate::proxy) struct Passwords {
    key: hmac::Key,
    known: [Mutex<HashMap<Tag, Instant>>; PARTS],
    turns: Arc<Semaphore>,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

impl Passwords {
    /// Nothing is known yet. A quarter of the processors at most compares.
    ///
    /// # Errors
    /// The system has no random bytes.
    pub(in crate::proxy) fn new() -> std::io::Result<Arc<Self>> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        let processors = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Arc::new(Passwords {
            key: key.map_err(|_| std::io::Error::other("the system has no random bytes"))?,
            known: Default::default(),
            turns: Arc::new(Semaphore::new((processors / 4).max(1))),
            waiting: Mutex::default(),
        }))
    }

    /// Whether the password of a user is the one with this hash, as somebody at `address` says.
    ///
    /// # Errors
    /// [`Error::AuthUnavailable`] if too many wait to know that.
    pub(in crate::proxy) async fn are_equal(
        self: &Arc<Self>,
        hash: &SecretBytes,
        (user, password): (&str, &[u8]),
        address: IpAddr,
    ) -> Result<bool, Error> {
        let tag = self.tag(hash, user, password);
        if self.knows(&tag, Instant::now()) {
            return Ok(true);
        }
        let place = Place::take(self, address).ok_or(Error::AuthUnavailable)?;
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| Error::AuthUnavailable)?;
        // Whoever comes with many requests at once needs to be compared once.
        if self.knows(&tag, Instant::now()) {
            return Ok(true);
        }
        let (hash, password) = (hash.clone(), Zeroizing::new(password.to_vec()));
        // Who leaves while it is compared keeps place and turn until it is.
        let compared = tokio::task::spawn_blocking(move || {
            let _held = (place, turn);
            hash.expose_text().is_ok_and(|hash| bcrypt::verify(&*password, hash).unwrap_or(false))
        });
        let equal = compared.await.map_err(|_| Error::AuthUnavailable)?;
        if equal {
            self.remember(tag, Instant::now());
        }
        Ok(equal)
    }

    /// A password under another hash is another one: nothing has to be forgotten when a user gets a new one.
    fn tag(&self, hash: &SecretBytes, user: &str, password: &[u8]) -> Tag {
        let mut code = hmac::Context::with_key(&self.key);
        for part in [hash.expose(), &[0], user.as_bytes(), &[0], password] {
            code.update(part);
        }
        let mut tag = Tag::default();
        tag.copy_from_slice(code.sign().as_ref());
        tag
    }

    fn part(&self, tag: &Tag) -> MutexGuard<'_, HashMap<Tag, Instant>> {
        locked(&self.known[usize::from(tag[0]) % PARTS])
    }

    fn knows(&self, tag: &Tag, now: Instant) -> bool {
        self.part(tag).get(tag).is_some_and(|&until| now < until)
    }

    fn remember(&self, tag: Tag, now: Instant) {
        let mut part = self.part(&tag);
        if part.len() >= PART {
            part.retain(|_, until| now < *until);
        }
        if part.len() >= PART
            && let Some(&any) = part.keys().next()
        {
            part.remove(&any);
        }
        part.insert(tag, now + KNOWN_FOR);
    }
}

/// A place among those that wait or are compared, until dropped.
struct Place {
    passwords: Arc<Passwords>,
    address: IpAddr,
}

impl Place {
    fn take(passwords: &Arc<Passwords>, address: IpAddr) -> Option<Place> {
        let address = network(address);
        let mut waiting = locked(&passwords.waiting);
        let of_one = waiting.by_address.get(&address).copied().unwrap_or(0);
        if waiting.all >= MOST || of_one >= MOST_OF_ONE {
            return None;
        }
        waiting.all += 1;
        waiting.by_address.insert(address, of_one + 1);
        Some(Place { passwords: Arc::clone(passwords), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = locked(&self.passwords.waiting);
        waiting.all -= 1;
        if let Some(of_one) = waiting.by_address.get_mut(&self.address) {
            *of_one -= 1;
            if *of_one == 0 {
                waiting.by_address.remove(&self.address);
            }
        }
    }
}

/// Whom an address belongs to: with IPv6, everyone has 2^64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
        v4 => v4,
    }
}

/// What is behind a lock is whole between any two lines that hold it.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn hash(password: &str) -> SecretBytes {
        bcrypt::hash(password, 4).unwrap().into_bytes().into()
    }

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[tokio::test]
    async fn a_right_password_is_known_until_its_hash_changes_or_its_time_is_over() {
        let passwords = Passwords::new().unwrap();
        let (first, second) = (hash("sesame"), hash("sesame"));
        let knows =
            |hash, user, password: &str, now| passwords.knows(&passwords.tag(hash, user, password.as_bytes()), now);
        assert_eq!(passwords.are_equal(&first, ("ada", b"sesam"), HOME).await, Ok(false));
        assert_eq!(passwords.are_equal(&first, ("ada", b"sesame"), HOME).await, Ok(true));
        let now = Instant::now();
        assert!(knows(&first, "ada", "sesame", now));
        assert!(!knows(&first, "ada", "sesam", now), "what was wrong is not remembered");
        assert!(!knows(&first, "eve", "sesame", now) && !knows(&second, "ada", "sesame", now));
        assert!(!knows(&first, "ada", "sesame", now + KNOWN_FOR));
    }

    #[test]
    fn memory_is_bounded() {
        let passwords = Passwords::new().unwrap();
        let (hash, now) = (hash("x"), Instant::now());
        for user in 0..3 * PARTS * PART {
            passwords.remember(passwords.tag(&hash, &user.to_string(), b"x"), now);
        }
        assert!(passwords.known.iter().all(|part| locked(part).len() <= PART));
        let last = passwords.tag(&hash, &(3 * PARTS * PART - 1).to_string(), b"x");
        assert!(passwords.knows(&last, now), "the newest is known");
    }

    #[tokio::test]
    async fn only_so_many_wait_together_and_from_one_address() {
        let passwords = Passwords::new().unwrap();
        let place = |address: &str| Place::take(&passwords, address.parse().unwrap());
        let mut held: Vec<_> = (0..MOST_OF_ONE).map(|at| place(&format!("2001:db8::{at}")).unwrap()).collect();
        assert!(place("2001:db8::ffff").is_none(), "one network of IPv6 is one client");
        let refused = passwords.are_equal(&hash("x"), ("a", b"x"), "2001:db8::1".parse().unwrap()).await;
        assert_eq!(refused, Err(Error::AuthUnavailable));
        for at in MOST_OF_ONE..MOST {
            held.push(place(&format!("10.0.{}.{}", at / 256, at % 256)).unwrap());
        }
        assert!(place("192.0.2.1").is_none());
        held.clear();
        assert!(place("2001:db8::1").is_some());
        assert_eq!(locked(&passwords.waiting).by_address.len(), 0);
    }
}
