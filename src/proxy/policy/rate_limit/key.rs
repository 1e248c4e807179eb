//! What the keys of rate limits are made of.

use std::hash::{DefaultHasher, Hash as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ring::digest;

use crate::proxy::affinity::cookie;
use crate::proxy::error::Error;
use crate::proxy::policy::{Asked, Sender, Verified};
use crate::snapshot::{FieldLines as _, MissingKey, RateKey, RateLimit, RouteName, parameter};

/// What takes the parts of a key one after the other, so that no two parts run into each other.
pub(super) trait Parts {
    /// The next part, or that there is none.
    fn part(&mut self, part: Option<&[u8]>);
}

impl Parts for DefaultHasher {
    fn part(&mut self, part: Option<&[u8]>) {
        // A slice is hashed with its length.
        part.hash(self);
    }
}

/// A hash that is the same wherever it is made, and for which nobody finds two keys that meet.
pub(super) struct Digest(digest::Context);

impl Digest {
    /// Of a limit, by all that its counts depend on.
    pub(super) fn of(limit: &RateLimit) -> Self {
        let mut digest = Digest(digest::Context::new(&digest::SHA256));
        digest.part(Some(limit.identity.as_bytes()));
        digest
    }

    /// As much of it as does for that.
    pub(super) fn finish(self) -> [u8; 16] {
        let mut short = [0; 16];
        short.copy_from_slice(&self.0.finish().as_ref()[..16]);
        short
    }
}

impl Parts for Digest {
    fn part(&mut self, part: Option<&[u8]>) {
        self.0.update(&[u8::from(part.is_some())]);
        if let Some(part) = part {
            self.0.update(&(part.len() as u64).to_be_bytes());
            self.0.update(part);
        }
    }
}

/// The key of a request, made of `fresh` parts; `None` if the limit is not for it.
pub(super) fn key<P: Parts>(limit: &RateLimit, asked: &Asked<'_>, fresh: impl Fn() -> P) -> Result<Option<P>, Error> {
    let mut parts = fresh();
    if limit.keys.iter().all(|key| add(key, asked, &mut parts)) {
        return Ok(Some(parts));
    }
    match limit.missing {
        // No key is as short as none.
        MissingKey::Share => Ok(Some(fresh())),
        MissingKey::Skip => Ok(None),
        MissingKey::Refuse => Err(Error::NoRateKey),
    }
}

/// Adds a part of a key, if the request has it; an empty one is none.
fn add(key: &RateKey, asked: &Asked<'_>, parts: &mut impl Parts) -> bool {
    let mut value = |value: Option<&[u8]>| {
        let value = value.filter(|value| !value.is_empty());
        parts.part(value);
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
            if let Some(RouteName { object, rule }) = asked.exchange.route_name() {
                value(Some(object.as_bytes()));
                value(Some(rule.as_bytes()));
            }
            true
        }
        RateKey::Claim(name) => {
            let token = asked.token.as_deref();
            value(token.and_then(Verified::issuer).map(str::as_bytes));
            value(token.and_then(|token| token.claim(name)).as_deref().map(str::as_bytes))
        }
        RateKey::User => {
            let (section, name) = match &asked.sender {
                None => return value(None),
                Some(Sender::User(name)) => (&b"user"[..], name),
                Some(Sender::KeyOf(name)) => (&b"key"[..], name),
            };
            value(Some(section));
            value(Some(name.as_bytes()))
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
