//! A token: a JSON Web Signature in its compact form (RFC 7515 7.1) around claims (RFC 7519), and whether it can be believed.
//!
//! Read here and not by the `jsonwebtoken` crate, because what that leaves open has to be closed for tokens from anywhere: it takes
//! the last of several members, knows no `crit`, reads claims of any depth, and chooses one key before it reads whose token it is.
//! What is left are two hundred lines above the primitives of ring.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::json;
use crate::snapshot::{ClaimRule, Issuer, Jwt, JwtAlgorithm};

/// The longest token that is looked at.
pub(super) const LONGEST: usize = 16 * 1024;
/// Of how many keys at most it is asked whether the signature is theirs: a token may name none, and verifying is dear.
const MOST_TRIES: usize = 4;

/// What the log has of a token whose key nobody knows.
pub(super) const NO_KEY: &str = "its key is not known";

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It cannot be believed; the word is for the log.
    Invalid(&'static str),
    /// It could be believed until it expired.
    Expired,
    /// Nobody knows: the keys of its issuer could not be fetched.
    NoKeys,
    /// The issuer at this place may have begun to sign with a key that was not fetched yet.
    NewKey(usize),
}

/// What is known of a token that was verified: nothing here depends on the time.
pub struct Verified {
    signer: Signer,
    claims: Map<String, Value>,
    /// From when it is good, in seconds since 1970, the skew included.
    begins: u64,
    /// Until when.
    ends: u64,
    /// Whether the claims say what they have to.
    suffices: bool,
    /// What the endpoint is told, in the order of the section.
    told: Box<[Option<Box<str>>]>,
    /// How long the token is.
    length: usize,
}

/// Which of the issuers a token is of, and by which version of his keys it was verified.
#[derive(Clone, Copy)]
struct Signer {
    place: usize,
    version: u64,
}

impl fmt::Debug for Verified {
    /// Without the claims, which are somebody's own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verified").field("ends", &self.ends).finish_non_exhaustive()
    }
}

impl Verified {
    /// Verifies a token by the keys that count now, in seconds since 1970.
    pub(super) fn read(jwt: &Jwt, token: &[u8], now: u64) -> Result<Self, Refusal> {
        let (claims, signer) = believed(jwt, token, now)?;
        if !for_us(&jwt.issuers[signer.place], claims.get("aud")) {
            return Err(Refusal::Invalid("it is for somebody else"));
        }
        let skew = jwt.skew.as_secs();
        // What never expires could never be taken back.
        let ends = time(&claims, "exp")?.ok_or(Refusal::Invalid("it has no exp"))?.saturating_add(skew);
        let begins = time(&claims, "nbf")?.unwrap_or(0).saturating_sub(skew);
        Ok(Verified {
            signer,
            begins,
            ends,
            suffices: jwt.required.iter().all(|rule| says(&claims, rule)),
            told: jwt.headers.iter().map(|one| text(claim(&claims, &one.claim)?)).collect(),
            claims,
            length: token.len(),
        })
    }

    /// Whether the keys that it was verified by still count, in seconds since 1970: of a token whose key is gone, nothing is known.
    ///
    /// # Errors
    /// None count any more.
    pub(super) fn stands(&self, jwt: &Jwt, now: u64) -> Result<bool, Refusal> {
        let Signer { place, version } = self.signer;
        let current = jwt.issuers.get(place).and_then(|issuer| issuer.keys.version(now)).ok_or(Refusal::NoKeys)?;
        Ok(current == version)
    }

    /// Whether it is good now, in seconds since 1970.
    pub(super) fn at(&self, now: u64) -> Result<(), Refusal> {
        if now < self.begins {
            return Err(Refusal::Invalid("it is not good yet"));
        }
        // RFC 7519 4.1.4: exp is the time "on or after which the JWT MUST NOT be accepted for processing".
        if now >= self.ends { Err(Refusal::Expired) } else { Ok(()) }
    }

    /// Until when it is good, in seconds since 1970.
    pub(super) fn ends(&self) -> u64 {
        self.ends
    }

    /// Whether its claims say what they have to.
    pub(super) fn suffices(&self) -> bool {
        self.suffices
    }

    /// What the endpoint is told, in the order of the section.
    pub(super) fn told(&self) -> impl Iterator<Item = Option<&str>> {
        self.told.iter().map(Option::as_deref)
    }

    /// Who signed it.
    pub(in crate::proxy::policy) fn issuer(&self) -> Option<&str> {
        self.claims.get("iss")?.as_str()
    }

    /// The value of a claim, a text as it is and anything else as JSON has it; nothing is `None`.
    pub(in crate::proxy::policy) fn claim(&self, name: &str) -> Option<Cow<'_, str>> {
        match claim(&self.claims, name)? {
            Value::Null => None,
            Value::String(text) => Some(Cow::Borrowed(text)),
            other => Some(Cow::Owned(other.to_string())),
        }
    }

    /// About how much memory it takes.
    pub(super) fn size(&self) -> usize {
        // Claims take more as values than as text.
        512 + self.length * 4
    }
}

/// Claims with the signature of one of the issuers.
fn believed(jwt: &Jwt, token: &[u8], now: u64) -> Result<(Map<String, Value>, Signer), Refusal> {
    use Refusal::Invalid;
    if token.len() > LONGEST {
        return Err(Invalid("it is longer than 16 KiB"));
    }
    // Header, claims and signature: what has another number of parts is encrypted (RFC 7516), in another form, or no token.
    let mut parts = token.split(|&byte| byte == b'.');
    let (Some(header), Some(payload), Some(signed), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Invalid("it is not in three parts"));
    };
    let message = &token[..header.len() + 1 + payload.len()];
    let header = object(header).ok_or(Invalid("its header cannot be read"))?;
    // "none" is no algorithm (RFC 8725 3.2), whatever its case.
    let algorithm = header.get("alg").and_then(Value::as_str).and_then(JwtAlgorithm::named);
    let algorithm = algorithm.ok_or(Invalid("its algorithm is not one that is known"))?;
    // RFC 7515 4.1.11: "If any of the listed extension Header Parameters are not understood and supported by the recipient, then
    // the JWS is invalid." None is, and none may be listed that is not an extension. RFC 7797 6 has b64 only together with it.
    if header.contains_key("crit") || header.contains_key("b64") {
        return Err(Invalid("it asks for extensions"));
    }
    let kid = match header.get("kid") {
        None => None,
        Some(Value::String(kid)) => Some(kid.as_str()),
        Some(_) => return Err(Invalid("its kid is no text")),
    };
    let claims = object(payload).ok_or(Invalid("its claims cannot be read"))?;
    let signed = decode(signed).filter(|signed| !signed.is_empty()).ok_or(Invalid("its signature cannot be read"))?;
    let issuer = claims.get("iss").and_then(Value::as_str).ok_or(Invalid("it names no issuer"))?;
    let place = jwt.issuers.iter().position(|known| *known.issuer == *issuer);
    let place = place.ok_or(Invalid("its issuer is not known"))?;
    let issuer = &jwt.issuers[place];
    let current = issuer.keys.current(now).ok_or(Refusal::NoKeys)?;
    // The algorithm is that of the key; the token may only say the same (RFC 8725 3.1).
    let fits = |key: &&crate::snapshot::Key| {
        key.algorithm == algorithm && (kid.is_none() || key.id.is_none() || key.id.as_deref() == kid)
    };
    let mut keys = current.iter().filter(fits).take(MOST_TRIES).peekable();
    if keys.peek().is_none() {
        let named = kid.is_some() && !current.iter().any(|key| key.id.as_deref() == kid);
        return Err(match issuer.keys.fetched().filter(|_| named) {
            Some(_) => Refusal::NewKey(place),
            None => Invalid(NO_KEY),
        });
    }
    if !keys.any(|key| key.verifies(message, &signed)) {
        return Err(Invalid("its signature is wrong"));
    }
    Ok((claims, Signer { place, version: current.version() }))
}

/// RFC 7515 2: base64url without padding, line breaks or other characters; and only the one way to write it.
fn decode(part: &[u8]) -> Option<Vec<u8>> {
    BASE64_URL_SAFE_NO_PAD.decode(part).ok()
}

fn object(part: &[u8]) -> Option<Map<String, Value>> {
    json::object(&decode(part)?)
}

/// RFC 7519 4.1.3: a recipient that is not among the audiences "MUST" reject the token.
fn for_us(issuer: &Issuer, audience: Option<&Value>) -> bool {
    let is = |value: &Value| value.as_str().is_some_and(|one| issuer.audiences.iter().any(|ours| **ours == *one));
    match audience {
        None => issuer.audiences.is_empty(),
        Some(Value::Array(several)) => several.iter().any(is),
        Some(one) => is(one),
    }
}

/// A NumericDate (RFC 7519 2), which may have a fraction. Before 1970 is 1970.
fn time(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, Refusal> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => Ok(number.as_u64().or_else(|| number.as_f64().map(|time| time as u64))),
        Some(_) => Err(Refusal::Invalid("it has a time that is no number")),
    }
}

/// A claim by its name. Names may have dots in them, so that the whole name goes before what it could mean.
fn claim<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    claims.get(name).or_else(|| {
        name.match_indices('.').find_map(|(dot, _)| match claims.get(&name[..dot]) {
            Some(Value::Object(inner)) => claim(inner, &name[dot + 1..]),
            _ => None,
        })
    })
}

/// Whether a claim says what it has to.
fn says(claims: &Map<String, Value>, rule: &ClaimRule) -> bool {
    let one = |value: &Value| {
        let is = |text: &str| rule.values.iter().any(|wanted| **wanted == *text);
        match value {
            Value::String(text) => is(text),
            Value::Bool(_) | Value::Number(_) => is(&value.to_string()),
            _ => false,
        }
    };
    match claim(claims, &rule.claim) {
        Some(Value::Array(several)) => several.iter().any(one),
        Some(value) => one(value),
        None => false,
    }
}

/// A claim as a field has it: visible ASCII and spaces between, the members of a list with commas. What is something else, or could
/// be read as something else, is not told at all: a member with a comma is not two of them.
fn text(value: &Value) -> Option<Box<str>> {
    let plain =
        |text: &str| !text.is_empty() && text.trim() == text && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    let one = |value: &Value| match value {
        Value::String(text) if plain(text) => Some(text.as_str().into()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string().into_boxed_str()),
        _ => None,
    };
    match value {
        Value::Array(several) => {
            let texts: Option<Vec<Box<str>>> = several.iter().map(one).collect();
            let texts = texts.filter(|texts| !texts.is_empty() && !texts.iter().any(|text| text.contains(',')))?;
            Some(texts.join(",").into())
        }
        value => one(value),
    }
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
