//! How much may come of each key of a request. All limits of a policy are asked, each by a key of its own; whoever is refused by one costs the
//! others nothing. What a key is made of is in `key`; limits that all replicas count together are asked in `shared`.

mod key;
mod shared;

use std::hash::Hasher as _;
use std::sync::Arc;
use std::time::Duration;

use self::key::key;
use super::Asked;
use crate::clock;
use crate::proxy::error::Error;
use crate::proxy::fields::Known;
use crate::resilience::Moment;
use crate::resilience::rate::{Full, Limiter};
use crate::snapshot::{RateLimit, RequestRate, Tell};

/// Whether [`admit`] may have to wait.
pub(super) fn may_wait(limits: &[RateLimit]) -> bool {
    limits.iter().any(|limit| limit.shared.is_some())
}

/// Takes a token of each limit, and enters where that is limited, too.
///
/// # Errors
/// Some limit has none left, or does not know whom it is for. Nothing is taken then.
pub(super) async fn admit(limits: &[RateLimit], asked: &Asked<'_>) -> Result<(), Error> {
    let now = clock::moment(asked.exchange.clocks.started);
    if may_wait(limits) { shared::admit(limits, asked, now).await } else { pass(limits, asked, now) }
}

fn pass(limits: &[RateLimit], asked: &Asked<'_>, now: Moment) -> Result<(), Error> {
    let Some((limit, others)) = limits.split_first() else { return Ok(()) };
    asked.exchange.limiters().with(limit, |limiter| {
        let Some(key) = key(limit, asked, || limiter.hasher())? else { return pass(others, asked, now) };
        let key = key.finish();
        pace(limit, limiter, asked);
        let left = limiter.take(key, now).map_err(|wait| refuse(limit, asked, wait))?;
        let passed = match limiter.enter(key) {
            Err(Full) => Err(Error::TooManyStreams(limit.status)),
            Ok(inside) => pass(others, asked, now).map(|()| inside),
        };
        match passed {
            Ok(inside) => {
                if let Some(inside) = inside {
                    asked.exchange.keep(inside);
                }
                if let (Tell::Always, Some(rate), Some(left)) = (limit.tell, limit.rate, left) {
                    tell(limit, rate, asked, left.tokens, left.full_in);
                }
                Ok(())
            }
            Err(error) => {
                limiter.give_back(key);
                Err(error)
            }
        }
    })
}

/// Notes how fast a WebSocket may be, if that is what the request asks for.
fn pace(limit: &RateLimit, limiter: &Arc<Limiter>, asked: &Asked<'_>) {
    if let Some(rate) = &limit.web_socket
        && asked.head.fields.contains(Known::Upgrade)
    {
        asked.exchange.pace((Arc::clone(rate), Arc::clone(limiter)));
    }
}

/// There is no token for so long.
fn refuse(limit: &RateLimit, asked: &Asked<'_>, wait: Duration) -> Error {
    if let (Tell::Refused | Tell::Always, Some(rate)) = (limit.tell, limit.rate) {
        tell(limit, rate, asked, 0, wait);
    }
    Error::RateLimited(limit.status, u32::try_from(seconds(wait)).unwrap_or(u32::MAX).max(1))
}

/// Whole seconds, so that nobody comes too early.
fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// The fields of draft-ietf-httpapi-ratelimit-headers-10: of the policy the quota and its window, of what is left the tokens and
/// when there are more. On a refusal that is the time of Retry-After, as the draft asks.
fn tell(limit: &RateLimit, rate: RequestRate, asked: &Asked<'_>, tokens: u64, more_in: Duration) {
    let RequestRate { requests, per, .. } = rate;
    let (name, per, more_in) = (&limit.name, seconds(per), seconds(more_in));
    asked.exchange.adorn("ratelimit-policy", format!("\"{name}\";q={requests};w={per}").as_bytes());
    asked.exchange.adorn("ratelimit", format!("\"{name}\";r={tokens};t={more_in}").as_bytes());
}
