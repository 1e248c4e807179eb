//! Whether a request comes from somebody who is signed in: where its token is (`policy::place` finds it), whether it can be believed
//! (`token`), and what is remembered of that (`known`).

mod json;
mod known;
mod token;
#[cfg(test)]
mod vectors;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

pub use self::known::Tokens;
pub use self::token::{Refusal, Verified};
use super::{Asked, place};
use crate::proxy::error::Error;
use crate::snapshot::Jwt;

/// Lets a request pass that shows a token of somebody who may; what goes on has what the token says, and not what the client says of
/// itself.
///
/// # Errors
/// It shows none, or not such a one. The answer gets a challenge (RFC 6750 3).
pub(super) fn admit(jwt: &Arc<Jwt>, asked: &mut Asked<'_>) -> Result<(), Error> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let found = place::find(&jwt.from, asked.head).map_err(|place::Several| Refusal::Invalid("there are several"));
    let found = found.and_then(|token| match token {
        Some(token) => asked.exchange.tokens().verify(jwt, token.as_written(), now).map(Some),
        None => Ok(None),
    });
    let verified = match found {
        Ok(Some(verified)) if verified.suffices() => verified,
        Ok(Some(_)) => {
            return Err(challenged(
                jwt,
                asked,
                Error::ClaimsRefused,
                "insufficient_scope",
                "the claims do not suffice",
            ));
        }
        // RFC 6750 3.1: a request without authentication "SHOULD NOT" be told an error code.
        Ok(None) => return Err(challenged(jwt, asked, Error::TokenMissing, "", "")),
        Err(Refusal::Expired) => {
            return Err(challenged(jwt, asked, Error::TokenExpired, "invalid_token", "the token has expired"));
        }
        // Nothing that the client could do better.
        Err(Refusal::NoKeys) => return Err(Error::KeysUnavailable),
        Err(Refusal::Invalid(why)) => {
            tracing::debug!(request_id = asked.exchange.request_id(), why, "a token was refused");
            return Err(challenged(jwt, asked, Error::TokenInvalid, "invalid_token", "the token is not valid"));
        }
    };
    if !jwt.forward {
        place::strip(&jwt.from, asked.head);
    }
    for (header, value) in jwt.headers.iter().zip(verified.told()) {
        asked.vouch(&header.header, value.map(str::as_bytes));
    }
    if let Some(code) = jwt.close_code {
        asked.exchange.expires(verified.ends().saturating_sub(now), code);
    }
    asked.token = Some(verified);
    Ok(())
}

/// The error, once the client was told how to do better.
fn challenged(jwt: &Jwt, asked: &Asked<'_>, error: Error, code: &str, description: &str) -> Error {
    let realm = &jwt.realm;
    let challenge = match code {
        "" => format!("Bearer realm=\"{realm}\""),
        code => format!("Bearer realm=\"{realm}\", error=\"{code}\", error_description=\"{description}\""),
    };
    asked.exchange.adorn("www-authenticate", challenge.as_bytes());
    error
}
