//! Whether a request is one too many. All limits of a policy are asked, each by a key of its own; whoever is refused by one costs the
//! others nothing.

use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use super::{Asked, Verified};
use crate::clock;
use crate::proxy::affinity::cookie;
use crate::proxy::error::Error;
use crate::proxy::fields::Known;
use crate::resilience::Moment;
use crate::resilience::rate::{Full, Limiter};
use crate::snapshot::{FieldLines, MissingKey, RateKey, RateLimit, RequestRate, Tell, parameter};

/// Takes a token of each limit, and enters where that is limited, too.
///
/// # Errors
/// Some limit has none left, or does not know whom it is for. Nothing is taken then.
pub(super) fn admit(limits: &[RateLimit], asked: &Asked<'_>) -> Result<(), Error> {
    pass(limits, asked, clock::moment(asked.exchange.clocks.started))
}

fn pass(limits: &[RateLimit], asked: &Asked<'_>, now: Moment) -> Result<(), Error> {
    let Some((limit, others)) = limits.split_first() else { return Ok(()) };
    asked.exchange.limiters().with(limit, |limiter| {
        let Some(key) = key(limit, limiter, asked)? else { return pass(others, asked, now) };
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

/// The key of a request; `None` if the limit is not for it.
fn key(limit: &RateLimit, limiter: &Limiter, asked: &Asked<'_>) -> Result<Option<u64>, Error> {
    let mut hasher = limiter.hasher();
    if limit.keys.iter().all(|key| add(key, asked, &mut hasher)) {
        return Ok(Some(hasher.finish()));
    }
    match limit.missing {
        // No key is as short as none.
        MissingKey::Share => Ok(Some(limiter.hasher().finish())),
        MissingKey::Skip => Ok(None),
        MissingKey::Refuse => Err(Error::NoRateKey),
    }
}

/// Adds a part of a key, if the request has it; an empty one is none.
fn add(key: &RateKey, asked: &Asked<'_>, hasher: &mut impl Hasher) -> bool {
    // A slice is hashed with its length, so that two parts never run into each other.
    let mut value = |value: Option<&[u8]>| {
        let value = value.filter(|value| !value.is_empty());
        value.hash(hasher);
        value.is_some()
    };
    match key {
        RateKey::Address { prefix4, prefix6 } => match network(asked.client.address, *prefix4, *prefix6) {
            IpAddr::V4(address) => value(Some(&address.octets())),
            IpAddr::V6(address) => value(Some(&address.octets())),
        },
        RateKey::Header(name) => value(asked.head.fields.value(name).as_deref()),
        RateKey::Cookie(name) => value(cookie(&asked.head.fields, name)),
        RateKey::Query(name) => value(parameter(asked.head.path_and_query.query(), name).as_deref()),
        RateKey::Route => {
            asked.exchange.route_name().hash(hasher);
            true
        }
        RateKey::Claim(name) => {
            let token = asked.token.as_deref();
            value(token.and_then(Verified::issuer).map(str::as_bytes));
            value(token.and_then(|token| token.claim(name)).as_deref().map(str::as_bytes))
        }
        RateKey::User => {
            asked.sender.hash(hasher);
            asked.sender.is_some()
        }
    }
}

/// The network that an address is in.
fn network(address: IpAddr, prefix4: u8, prefix6: u8) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix4.min(32))).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix6.min(128))).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}
