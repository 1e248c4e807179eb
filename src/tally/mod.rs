//! Rate limits that all replicas count together, in a Redis or Valkey that the settings name. Here are questions and answers, and what is
//! counted of them; `script` is what is asked, `connection` keeps a connection, `trouble` says why there is none. What becomes of a request
//! while nobody answers is its limit's to say.
//!
//! One connection for the process, on a thread of its own. While there is none, questions fail at once: nobody waits for a Redis that is
//! away. Whoever asks waits for `timeout` at the most, and not too many do at a time.

mod connection;
mod script;
mod trouble;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;

use arc_swap::ArcSwapOption;
use redis::aio::MultiplexedConnection;
use tokio::runtime::Builder;
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;

use self::script::Script;
use crate::resilience::rate::{Left, Rate};
use crate::settings::Redis;

/// Questions that may be under way at a time; more are not asked.
const MOST_AT_ONCE: usize = 1024;
/// Questions in a row without an answer after which a connection is given up.
const MOST_FAILURES: u32 = 3;

/// A token is wanted of a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The bucket, of bounded length, with what is in braces in it the same for all that are asked at a time.
    pub key: Box<str>,
    /// How fast its tokens come, and how many fit.
    pub rate: Rate,
}

/// What becomes of a question, or of several that were asked together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A token was taken of each; so much is left of each.
    Passed(Vec<Left>),
    /// None was taken of any.
    Refused {
        /// Which is the first that has none.
        at: usize,
        /// How long it takes until there is one.
        wait: std::time::Duration,
    },
}

/// Nobody answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unanswered;

/// How a question went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Answered,
    TimedOut,
    Failed,
    Away,
    TooMany,
}

impl Outcome {
    const ALL: [Outcome; 5] = [Outcome::Answered, Outcome::TimedOut, Outcome::Failed, Outcome::Away, Outcome::TooMany];

    /// As metrics have it.
    const fn as_str(self) -> &'static str {
        match self {
            Outcome::Answered => "answered",
            Outcome::TimedOut => "timeout",
            Outcome::Failed => "failed",
            Outcome::Away => "away",
            Outcome::TooMany => "too_many",
        }
    }
}

/// Whom to ask. Cheap to clone: all clones are one. The connection is closed with the last.
#[derive(Clone, Debug)]
pub struct Tally(Arc<Closing>);

#[derive(Debug)]
struct Closing(Arc<Shared>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.closing.notify_one();
    }
}

/// What whoever asks shares with whoever keeps the connection.
#[derive(Debug)]
struct Shared {
    redis: Redis,
    script: Script,
    live: ArcSwapOption<Live>,
    turns: Semaphore,
    counts: [AtomicU64; Outcome::ALL.len()],
    closing: Notify,
}

/// A connection that answers.
struct Live {
    connection: MultiplexedConnection,
    /// Questions in a row without an answer.
    failures: AtomicU32,
    /// It is not worth keeping.
    given_up: Notify,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").field("failures", &self.failures).finish_non_exhaustive()
    }
}

impl Live {
    fn is_given_up(&self) -> bool {
        self.failures.load(Ordering::Relaxed) >= MOST_FAILURES
    }

    fn answered(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    fn failed(&self) {
        if self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= MOST_FAILURES {
            self.given_up.notify_one();
        }
    }
}

impl Tally {
    /// Begins to connect, on a thread of its own.
    ///
    /// # Errors
    /// There is no thread, or no runtime for it.
    pub fn start(redis: &Redis) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::new(redis));
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let kept = Arc::clone(&shared);
        thread::Builder::new()
            .name("rate-limits".to_owned())
            .spawn(move || runtime.block_on(connection::keep(&kept)))?;
        Ok(Tally(Arc::new(Closing(shared))))
    }

    /// Asks in one round trip.
    ///
    /// # Errors
    /// Nobody answered, in time.
    pub async fn ask(&self, questions: &[Question]) -> Result<Answer, Unanswered> {
        let shared = &*self.0.0;
        let Some(live) = shared.live.load_full().filter(|live| !live.is_given_up()) else {
            return Err(shared.count(Outcome::Away));
        };
        let Ok(_turn) = shared.turns.try_acquire() else { return Err(shared.count(Outcome::TooMany)) };
        let asked = shared.script.ask(&live.connection, &shared.redis.prefix, questions);
        match timeout(shared.redis.timeout, asked).await {
            Ok(Ok(answer)) => {
                live.answered();
                shared.count(Outcome::Answered);
                Ok(answer)
            }
            Ok(Err(failed)) => {
                tracing::debug!(why = %trouble::Trouble::of(&failed), "a rate limit was not counted in Redis");
                live.failed();
                Err(shared.count(Outcome::Failed))
            }
            Err(_) => {
                live.failed();
                Err(shared.count(Outcome::TimedOut))
            }
        }
    }

    /// Something that tells whether there is a connection, and how questions went; it does not keep the connection open.
    pub fn watch(&self) -> impl Fn() -> (bool, Vec<(&'static str, u64)>) + Send + Sync + 'static {
        let shared = Arc::clone(&self.0.0);
        move || {
            let count = |outcome: Outcome| (outcome.as_str(), shared.counts[outcome as usize].load(Ordering::Relaxed));
            (shared.live.load().is_some(), Outcome::ALL.map(count).to_vec())
        }
    }
}

/// Makes a connection, has it count once, and lets go of it.
///
/// # Errors
/// Why that is not possible, in words.
pub async fn try_once(redis: &Redis) -> Result<(), String> {
    connection::try_once(&Shared::new(redis)).await.map_err(|trouble| trouble.to_string())
}

impl Shared {
    fn new(redis: &Redis) -> Self {
        Shared {
            redis: redis.clone(),
            script: Script::new(),
            live: ArcSwapOption::empty(),
            turns: Semaphore::new(MOST_AT_ONCE),
            counts: Default::default(),
            closing: Notify::new(),
        }
    }

    fn count(&self, outcome: Outcome) -> Unanswered {
        self.counts[outcome as usize].fetch_add(1, Ordering::Relaxed);
        Unanswered
    }
}
