//! Users with passwords: what `htpasswd` writes, and what of it is safe enough.

use http::HeaderValue;

use super::Material;
use super::place::header_name;
use crate::api;
use crate::snapshot::{BasicAuth, Map, SecretBytes};
use crate::translate::conditions::Problem;

/// The entry of the Secret when the section names none.
const ENTRY: &str = "htpasswd";
const REALM: &str = "Floodway";
/// The dearest hashes that are computed, as their cost: a few tenths of a second.
const MOST_COST: u32 = 13;
const MOST_USER_BYTES: usize = 255;

/// The users of a section. `None` if it cannot be applied, which was told.
pub(super) fn basic_auth(
    given: &api::BasicAuth,
    path: &str,
    material: &mut Material<'_>,
    problems: &mut Vec<Problem>,
) -> Option<BasicAuth> {
    let api::BasicAuth { secret_name, entry, realm, forward_user, forward } = given;
    let realm = realm.as_deref().unwrap_or(REALM);
    let challenge = HeaderValue::try_from(format!("Basic realm=\"{realm}\", charset=\"UTF-8\""))
        .ok()
        .filter(|_| !realm.contains(['"', '\\']));
    if challenge.is_none() {
        problems
            .push(Problem::invalid(format!("{path}.realm"), "write signs of ASCII, without quotes and backslashes"));
    }
    let forward_user =
        forward_user.as_deref().and_then(|name| header_name(name, &format!("{path}.forwardUser"), problems));
    let entry = entry.as_deref().unwrap_or(ENTRY);
    let secret = material.secret(secret_name, &format!("{path}.secretName"))?;
    let Some(lines) = secret.entry(entry) else {
        material.unusable(&format!("{path}.entry"), format!("Secret {secret_name} has no entry {entry}"));
        return None;
    };
    match users(lines) {
        Ok((users, decoy)) => Some(BasicAuth { users, decoy, challenge: challenge?, forward_user, forward: *forward }),
        Err(why) => {
            material.unusable(&format!("{path}.secretName"), format!("Secret {secret_name}, entry {entry}: {why}"));
            None
        }
    }
}

/// The users of the lines that `htpasswd` writes, and the dearest of their hashes.
///
/// # Errors
/// The first line that is wrong, without what it holds.
fn users(lines: &SecretBytes) -> Result<(Map<Box<str>, SecretBytes>, SecretBytes), String> {
    let lines = lines.expose_text().map_err(|_| "it has to be text in UTF-8".to_owned())?;
    let mut users = Map::default();
    let mut dearest: Option<(u32, SecretBytes)> = None;
    for (at, line) in lines.lines().enumerate().map(|(at, line)| (at + 1, line.trim())) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (user, hash) =
            line.split_once(':').ok_or(format!("line {at} is not user:hash, as htpasswd -B writes it"))?;
        if user.is_empty() || user.len() > MOST_USER_BYTES || user.chars().any(char::is_control) {
            return Err(format!("line {at} has a name that no user can have"));
        }
        let cost = cost(hash).map_err(|why| format!("line {at}: {why}"))?;
        let hash = SecretBytes::from(hash.as_bytes().to_vec());
        if dearest.as_ref().is_none_or(|(most, _)| cost > *most) {
            dearest = Some((cost, hash.clone()));
        }
        if users.insert(user.into(), hash).is_some() {
            return Err(format!("line {at} has a user whom a line before it has"));
        }
    }
    let (_, decoy) = dearest.ok_or("it has no user; make one with htpasswd -nB NAME")?;
    Ok((users, decoy))
}

/// The cost of a hash of bcrypt.
///
/// # Errors
/// Why another one is not taken.
fn cost(hash: &str) -> Result<u32, String> {
    let weak = |name: &str| {
        format!(
            "the password is hashed with {name}, which is guessed too fast; make the line anew with htpasswd -nB NAME"
        )
    };
    let bcrypt = ["$2y$", "$2b$", "$2a$"].iter().any(|prefix| hash.starts_with(prefix));
    match hash {
        _ if hash.starts_with("{SHA}") => Err(weak("SHA-1")),
        _ if hash.starts_with("$apr1$") || hash.starts_with("$1$") => Err(weak("MD5")),
        _ if !bcrypt => {
            Err("the password is not hashed with bcrypt; make the line anew with htpasswd -nB NAME".to_owned())
        }
        _ => match hash.parse::<bcrypt::HashParts>() {
            Ok(parts) if hash.len() == 60 && (4..=MOST_COST).contains(&parts.get_cost()) => Ok(parts.get_cost()),
            Ok(parts) if parts.get_cost() > MOST_COST => Err(format!(
                "a cost of {} is more than {MOST_COST}, and keeps processors busy for seconds; use htpasswd -nB -C 10 NAME",
                parts.get_cost()
            )),
            _ => Err("the hash is broken; make the line anew with htpasswd -nB NAME".to_owned()),
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ADA: &str = "$2y$05$bvIG6Nmid91Mu9RcmmWZfO5HJIMCT8riNW0hEp8f6/FuA2/mHZFpe";

    fn read(text: &str) -> Result<Vec<Box<str>>, String> {
        let (users, _) = users(&SecretBytes::from(text.as_bytes().to_vec()))?;
        let mut names: Vec<_> = users.into_keys().collect();
        names.sort();
        Ok(names)
    }

    #[test]
    fn lines_of_htpasswd_are_users() {
        let text = format!("# people\nada:{ADA}\n\r\n  grace hopper:{ADA}\r\n\u{e9}va:{}", ADA.replace("$2y$", "$2b$"));
        assert_eq!(read(&text).unwrap(), ["ada".into(), "grace hopper".into(), Box::from("\u{e9}va")]);
    }

    #[test]
    fn weak_broken_and_doubtful_lines_are_refused_without_their_content() {
        let dear = ADA.replace("$05$", "$14$");
        let short = &ADA[..59];
        for (text, told) in [
            ("ada:{SHA}hushhush", "line 1: the password is hashed with SHA-1"),
            ("\nada:$apr1$hushhush", "line 2: the password is hashed with MD5"),
            ("ada:hushhush", "line 1: the password is not hashed with bcrypt"),
            ("ada:$6$hushhush", "line 1: the password is not hashed with bcrypt"),
            ("hushhush", "line 1 is not user:hash"),
            (":hushhush", "line 1 has a name that no user can have"),
            ("a\u{7}:hushhush", "line 1 has a name that no user can have"),
            ("ada:$2y$05$hushhush", "line 1: the hash is broken"),
            (&format!("ada:{short}"), "line 1: the hash is broken"),
            (&format!("ada:{dear}"), "line 1: a cost of 14 is more than 13"),
            (&format!("ada:{ADA}\nada:{ADA}"), "line 2 has a user whom a line before it has"),
            ("# nobody\n", "it has no user"),
            ("", "it has no user"),
        ] {
            let why = read(text).unwrap_err();
            assert!(why.starts_with(told) && !why.contains("hush"), "{text}: {why}");
        }
        assert!(users(&SecretBytes::from(vec![0xff])).unwrap_err().contains("UTF-8"));
    }
}
