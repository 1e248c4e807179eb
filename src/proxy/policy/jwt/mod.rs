//! Whether a request comes from somebody who is signed in: where its token is (`policy::place` finds it), whether it can be believed
//! (`token`), and what is remembered of that (`known`).

mod json;
mod known;
mod token;
#[cfg(test)]
mod vectors;

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::timeout;

pub use self::known::Tokens;
pub use self::token::{Refusal, Verified};
use super::{Asked, place};
use crate::proxy::error::Error;
use crate::snapshot::Jwt;

/// How long a request waits for keys that its issuer may have published, at most: as long as a fetch may take.
const HOLD: Duration = Duration::from_secs(10);

/// Whether [`admit`] may have to wait: until keys are fetched again.
pub(super) fn may_wait(jwt: &Jwt) -> bool {
    jwt.issuers.iter().any(|issuer| issuer.keys.fetched().is_some())
}

/// Lets a request pass that shows a token of somebody who may; what goes on has what the token says, and not what the client says of
/// itself. One whose token names a key that is not there waits for newer keys; until then nothing was changed.
///
/// # Errors
/// It shows none, or not such a one. The answer gets a challenge (RFC 6750 3).
pub(super) async fn admit(jwt: &Arc<Jwt>, asked: &mut Asked<'_>) -> Result<(), Error> {
    let mut now = seconds();
    let mut found = verified(jwt, asked, now);
    if let Err(Refusal::NewKey(place)) = found
        && let Some(keys) = jwt.issuers.get(place).and_then(|issuer| issuer.keys.fetched())
        // In a box, so that others have no room for it.
        && let Ok(true) = Box::pin(timeout(HOLD, keys.renewed())).await
    {
        now = seconds();
        found = verified(jwt, asked, now);
    }
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
        Err(refusal @ (Refusal::Invalid(_) | Refusal::NewKey(_))) => {
            let why = if let Refusal::Invalid(why) = refusal { why } else { token::NO_KEY };
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

/// What is known of the token of a request now; nothing if there is none.
fn verified(jwt: &Arc<Jwt>, asked: &Asked<'_>, now: u64) -> Result<Option<Rc<Verified>>, Refusal> {
    let found = place::find(&jwt.from, asked.head).map_err(|place::Several| Refusal::Invalid("there are several"))?;
    found.map(|token| asked.exchange.tokens().verify(jwt, token.as_written(), now)).transpose()
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
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
