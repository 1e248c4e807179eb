//! Where in a request a token is, and how it is taken out: header fields, cookies, the query.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::token::Refusal;
use crate::proxy::fields::{Fields, Known};
use crate::proxy::message::{PathAndQuery, RequestHead};
use crate::snapshot::JwtPlace;

/// The token in the first place that has one.
///
/// # Errors
/// A place has several: nobody could say which one counts.
pub(super) fn find<'a>(
    places: &[JwtPlace],
    fields: &'a Fields,
    target: &'a PathAndQuery,
) -> Result<Option<&'a [u8]>, Refusal> {
    for place in places {
        let found = match place {
            JwtPlace::Header(name, prefix) => only(
                fields
                    .iter()
                    .filter(|(line, _)| *line == name.as_str().as_bytes())
                    .filter_map(|(_, value)| behind(prefix, value)),
            ),
            JwtPlace::Cookie(name) => only(
                fields
                    .all(Known::Cookie)
                    .flat_map(|value| value.split(|&byte| byte == b';'))
                    .filter_map(|pair| cookie(pair, name)),
            ),
            JwtPlace::Query(name) => only(
                target
                    .query()
                    .unwrap_or_default()
                    .split('&')
                    .filter_map(|pair| parameter(pair, name))
                    .map(str::as_bytes),
            ),
        }?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn only<'a>(found: impl Iterator<Item = &'a [u8]>) -> Result<Option<&'a [u8]>, Refusal> {
    let mut found = found.filter(|token| !token.is_empty());
    let first = found.next();
    if found.next().is_some() { Err(Refusal::Invalid("there are several")) } else { Ok(first) }
}

/// What is behind a word: RFC 9110 11.4 has its case not count, and one space or more behind it.
fn behind<'a>(prefix: &str, value: &'a [u8]) -> Option<&'a [u8]> {
    if prefix.is_empty() {
        return Some(value.trim_ascii());
    }
    let (word, rest) = value.trim_ascii().split_at_checked(prefix.len())?;
    (word.eq_ignore_ascii_case(prefix.as_bytes()) && rest.first() == Some(&b' ')).then(|| rest.trim_ascii())
}

/// The value of a cookie of this name.
fn cookie<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

/// The value of a parameter of this name. Tokens have no characters that need encoding.
fn parameter<'a>(pair: &'a str, name: &str) -> Option<&'a str> {
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    (key == name || key.contains('%') && Cow::from(percent_decode_str(key)) == name.as_bytes()).then_some(value)
}

/// Takes out what is in any of the places, whether it counted or not.
pub(super) fn strip(places: &[JwtPlace], head: &mut RequestHead) {
    for place in places {
        match place {
            JwtPlace::Header(name, prefix) => {
                let name = name.as_str().as_bytes();
                head.fields.retain(|_, line, value| line != name || behind(prefix, value).is_none());
            }
            JwtPlace::Cookie(name) => strip_cookie(&mut head.fields, name),
            JwtPlace::Query(name) => {
                if let Some(stripped) = strip_query(&head.path_and_query, name) {
                    head.path_and_query = stripped;
                }
            }
        }
    }
}

fn strip_cookie(fields: &mut Fields, name: &str) {
    let pairs = |value| <[u8]>::split(value, |&byte: &u8| byte == b';').map(<[u8]>::trim_ascii);
    if !fields.all(Known::Cookie).flat_map(pairs).any(|pair| cookie(pair, name).is_some()) {
        return;
    }
    let kept: Vec<&[u8]> = fields
        .all(Known::Cookie)
        .flat_map(pairs)
        .filter(|pair| !pair.is_empty() && cookie(pair, name).is_none())
        .collect();
    let kept = kept.join(&b"; "[..]);
    fields.remove(Known::Cookie);
    if !kept.is_empty() {
        fields.add("cookie", &kept);
    }
}

fn strip_query(target: &PathAndQuery, name: &str) -> Option<PathAndQuery> {
    let query = target.query()?;
    let is = |pair: &&str| parameter(pair, name).is_some();
    if !query.split('&').any(|pair| is(&pair)) {
        return None;
    }
    let kept = query.split('&').filter(|pair| !is(pair)).collect::<Vec<_>>().join("&");
    let path = target.path();
    Some(PathAndQuery::new(if kept.is_empty() { path.to_owned() } else { format!("{path}?{kept}") }))
}

#[cfg(test)]
#[path = "place_tests.rs"]
mod tests;
