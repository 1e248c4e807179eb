//! Who has a key that a policy knows.

use super::{Asked, Sender, place};
use crate::proxy::error::Error;
use crate::snapshot::ApiKey;

/// Lets a request pass that has a key, which is taken out of it.
///
/// # Errors
/// It has none, or one that nobody has.
pub(super) fn admit(keys: &ApiKey, asked: &mut Asked<'_>) -> Result<(), Error> {
    let name = find(keys, asked).inspect_err(|_| {
        // RFC 9110 15.5.2: "The server generating a 401 response MUST send a WWW-Authenticate header field".
        asked.exchange.adorn("www-authenticate", b"ApiKey realm=\"Floodway\"");
    })?;
    place::strip(&keys.from, asked.head);
    if let Some(field) = &keys.forward_name {
        asked.vouch(field, Some(name.as_bytes()));
    }
    // The nearer to a person, the better.
    if asked.sender.is_none() {
        asked.sender = Some(Sender::KeyOf(name.into()));
    }
    Ok(())
}

fn find<'a>(keys: &'a ApiKey, asked: &Asked<'_>) -> Result<&'a str, Error> {
    let key = place::find(&keys.from, asked.head).map_err(|place::Several| Error::ApiKeyInvalid)?;
    keys.keys.name(&key.ok_or(Error::ApiKeyMissing)?.decoded()).ok_or(Error::ApiKeyInvalid)
}
