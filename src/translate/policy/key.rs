//! Keys of programs: the entries of a Secret.

use http::HeaderName;

use super::Material;
use super::place::{header_name, places};
use crate::api;
use crate::snapshot::{ApiKey, Keyring, SecretBytes, TokenPlace};
use crate::translate::conditions::Problem;

/// Shorter keys can be guessed, longer ones are none.
const BYTES: std::ops::RangeInclusive<usize> = 16..=512;

/// The keys of a section. `None` if it cannot be applied, which was told.
pub(super) fn api_key(
    given: &api::ApiKey,
    path: &str,
    material: &mut Material<'_>,
    problems: &mut Vec<Problem>,
) -> Option<ApiKey> {
    let api::ApiKey { secret_name, from, forward_name } = given;
    let mut from = places(from, &format!("{path}.from"), problems);
    if from.is_empty() {
        from.push(TokenPlace::Header(HeaderName::from_static("x-api-key"), "".into()));
    }
    let forward_name =
        forward_name.as_deref().and_then(|name| header_name(name, &format!("{path}.forwardName"), problems));
    let path = format!("{path}.secretName");
    let secret = material.secret(secret_name, &path)?;
    let mut keys = Keyring::default();
    for (name, bytes) in &secret.data {
        if let Err(why) = add(&mut keys, name, bytes) {
            material.unusable(&path, format!("Secret {secret_name}, entry {name}: {why}"));
            return None;
        }
    }
    if keys.is_empty() {
        material
            .unusable(&path, format!("Secret {secret_name} has no key; give it an entry with the name of a client"));
        return None;
    }
    Some(ApiKey { keys, from: from.into(), forward_name })
}

/// Adds the key of an entry.
///
/// # Errors
/// Why it is none, without what it holds.
fn add(keys: &mut Keyring, name: &str, bytes: &SecretBytes) -> Result<(), String> {
    // Editors put a line feed at the end.
    let key = bytes.expose().trim_ascii();
    if !BYTES.contains(&key.len()) {
        return Err(format!(
            "a key of {} bytes; use {} to {}, for example of `openssl rand -hex 32`",
            key.len(),
            BYTES.start(),
            BYTES.end()
        ));
    }
    if !key.iter().all(u8::is_ascii_graphic) {
        return Err("a key is made of letters, digits and signs of ASCII, so that a header can have it".to_owned());
    }
    keys.add(name, key).map_err(|other| format!("{other} has the same key"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn keys_that_can_be_guessed_or_sent_by_nobody_are_refused_without_their_content() {
        let mut keys = Keyring::default();
        let mut given = |name, key: &[u8]| add(&mut keys, name, &key.to_vec().into());
        given("ci", b"hush-hush-hush-hush\n").unwrap();
        for (key, told) in [
            (&b"hush"[..], "a key of 4 bytes; use 16 to 512"),
            (&[b'x'; 513], "a key of 513 bytes"),
            (b"", "a key of 0 bytes"),
            (b"hush hush hush hush", "a key is made of letters"),
            (b"hush\0hush\0hush\0hush", "a key is made of letters"),
            (b"hush-hush-hush-hush", "ci has the same key"),
        ] {
            let why = given("other", key).unwrap_err();
            assert!(why.starts_with(told) && !why.contains("hush"), "{why}");
        }
        assert_eq!((keys.name(b"hush-hush-hush-hush").is_some(), keys.name(b"hush")), (true, None));
        assert!(!format!("{keys:?}").contains("hush"));
    }
}
