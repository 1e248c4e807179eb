//! Policies with limits that all replicas count together. What is counted here is taken first, because it costs nobody a round trip; then
//! all the others are asked in one; and whoever is refused gets everything back.

use std::hash::Hasher as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::key::{Digest, key};
use super::{pace, refuse, tell};
use crate::proxy::error::Error;
use crate::proxy::policy::Asked;
use crate::resilience::Moment;
use crate::resilience::rate::{Full, Inside, Left, Limiter};
use crate::snapshot::{OnFailure, RateLimit, Tell};
use crate::tally::{Answer, Question, Unanswered};

/// What a request has of a limit.
struct Had<'a> {
    limit: &'a RateLimit,
    limiter: Arc<Limiter>,
    key: u64,
    left: Option<Left>,
    /// A token was taken here that has to be given back if the request does not pass.
    taken: bool,
    inside: Option<Inside>,
    /// What becomes of it if nobody answers, if it is asked elsewhere.
    asked: Option<OnFailure>,
}

impl Drop for Had<'_> {
    fn drop(&mut self) {
        if self.taken {
            self.limiter.give_back(self.key);
        }
    }
}

impl Had<'_> {
    /// Takes a token here.
    fn take(&mut self, asked: &Asked<'_>, now: Moment) -> Result<(), Error> {
        self.left = self.limiter.take(self.key, now).map_err(|wait| refuse(self.limit, asked, wait))?;
        self.taken = self.left.is_some();
        Ok(())
    }
}

/// Takes a token of each limit, and enters where that is limited, too.
///
/// # Errors
/// Some limit has none left, or does not know whom it is for, or cannot be asked. Nothing is taken then.
pub(super) async fn admit(limits: &[RateLimit], asked: &Asked<'_>, now: Moment) -> Result<(), Error> {
    let (mut had, mut questions) = (Vec::with_capacity(limits.len()), Vec::new());
    for limit in limits {
        let limiter = asked.exchange.limiters().with(limit, Arc::clone);
        let Some(place) = key(limit, asked, || limiter.hasher())? else { continue };
        pace(limit, &limiter, asked);
        let shared = limit.shared.zip(limiter.rate());
        let inside = None;
        let mut one =
            Had { limit, key: place.finish(), left: None, taken: false, inside, asked: limit.shared, limiter };
        match shared {
            None => {
                one.asked = None;
                one.take(asked, now)?;
            }
            Some((_, rate)) => {
                let Some(digest) = key(limit, asked, || Digest::of(limit))? else { continue };
                questions.push(Question { key: name(limit, digest), rate });
            }
        }
        one.inside = one.limiter.enter(one.key).map_err(|Full| Error::TooManyStreams(limit.status))?;
        had.push(one);
    }
    if !questions.is_empty() {
        let answer = match &asked.worker.tally {
            Some(tally) => tally.ask(&questions).await,
            None => Err(Unanswered),
        };
        let mut counted = had.iter_mut().filter(|one| one.asked.is_some());
        match answer {
            Ok(Answer::Passed(left)) => {
                for (one, left) in counted.zip(left) {
                    one.left = Some(left);
                    // So that it is known here, too, if nobody answers the next time.
                    one.limiter.note(one.key, now);
                }
            }
            Ok(Answer::Refused { at, wait }) => {
                let Some(one) = counted.nth(at) else { return Err(Error::LimitUnavailable) };
                one.limiter.refuse();
                return Err(refuse(one.limit, asked, wait));
            }
            Err(Unanswered) => {
                for one in counted {
                    match one.asked {
                        Some(OnFailure::Refuse) => {
                            one.limiter.refuse();
                            return Err(Error::LimitUnavailable);
                        }
                        Some(OnFailure::Local) => one.take(asked, now)?,
                        Some(OnFailure::Allow) | None => {}
                    }
                }
            }
        }
    }
    for mut one in had {
        one.taken = false;
        if let Some(inside) = one.inside.take() {
            asked.exchange.keep(inside);
        }
        if let (Tell::Always, Some(rate), Some(left)) = (one.limit.tell, one.limit.rate, one.left) {
            tell(one.limit, rate, asked, left.tokens, left.full_in);
        }
    }
    Ok(())
}

/// The bucket of a key. Of bounded length, whatever clients send, and without anything that they do. What is in braces decides where a cluster
/// keeps it: all limits of a policy are asked together.
fn name(limit: &RateLimit, digest: Digest) -> Box<str> {
    let hash = BASE64_URL_SAFE_NO_PAD.encode(digest.finish());
    format!("{{{}}}{}:{hash}", limit.policy, limit.name).into()
}
