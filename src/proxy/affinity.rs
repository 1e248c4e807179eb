//! What a request says of the endpoint that it goes to: the place that it hashes to, and the subset that it asks for. Read from the
//! request as it came, before anything of it is changed.

use std::borrow::Cow;
use std::net::IpAddr;

use super::fields::{Fields, Known};
use super::upstream::{Wanted, Wish};
use crate::resilience::balance::hash;
use crate::snapshot::{Cluster, CookieKey, FieldLines, HashKey, Hashing, parameter};

/// What a request says of its endpoint. `path` is the normal form of its path.
pub(super) fn wish(cluster: &Cluster, fields: &Fields, path: &str, query: Option<&str>, client: IpAddr) -> Wish {
    let balancing = &cluster.resilience.balancing;
    let (hashing, subset) = (balancing.algorithm.hashing(), &balancing.subset);
    if hashing.is_none() && subset.is_none() {
        return Wish::default();
    }
    let mut wanted = match hashing {
        Some(hashing) => placed(hashing, fields, path, query, client),
        None => Wanted::default(),
    };
    let value = subset.as_ref().and_then(|subset| fields.value(&subset.header));
    wanted.subset = value.and_then(|value| std::str::from_utf8(&value).ok().map(Box::from));
    Wish::new(wanted)
}

/// Hashes the first key that the request has; an empty one is none. A client that lacks a cookie which Floodway gives out
/// has it from now on.
fn placed(hashing: &Hashing, fields: &Fields, path: &str, query: Option<&str>, client: IpAddr) -> Wanted {
    for key in &hashing.keys {
        let value = match key {
            HashKey::Header(name) => fields.value(name),
            HashKey::Cookie(CookieKey { name, issued }) => match (cookie(fields, name), issued) {
                (None, Some(attributes)) => return issue(name, attributes),
                (value, _) => value.map(Cow::Borrowed),
            },
            HashKey::ClientAddress => {
                return Wanted { place: Some(hash_of(client)), ..Wanted::default() };
            }
            HashKey::QueryParameter(name) => parameter(query, name),
            HashKey::PathSegment(number) => {
                // The first part is what comes before the first slash: nothing.
                path.split('/').nth(*number as usize).map(|segment| Cow::Borrowed(segment.as_bytes()))
            }
        };
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            return Wanted { place: Some(hash(&value)), ..Wanted::default() };
        }
    }
    Wanted::default()
}

fn hash_of(client: IpAddr) -> u64 {
    match client {
        IpAddr::V4(address) => hash(&address.octets()),
        IpAddr::V6(address) => hash(&address.octets()),
    }
}

/// The value of a cookie (RFC 6265 4.2.1); of several with one name the first, which is the most specific. HTTP/2 may spread
/// cookies over several fields (RFC 9113 8.2.3).
pub(super) fn cookie<'a>(fields: &'a Fields, name: &str) -> Option<&'a [u8]> {
    let pairs = fields.all(Known::Cookie).flat_map(|line| line.split(|byte| *byte == b';'));
    let mut values = pairs.filter_map(|pair| {
        let pair = pair.trim_ascii();
        let rest = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        Some(rest.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(rest))
    });
    values.find(|value| !value.is_empty())
}

/// A cookie of its own for a client.
fn issue(name: &str, attributes: &str) -> Wanted {
    let value = format!("{:016x}", fastrand::u64(..));
    let place = hash(value.as_bytes());
    let line = match attributes {
        "" => format!("{name}={value}"),
        attributes => format!("{name}={value}; {attributes}"),
    };
    Wanted { place: Some(place), issued: Some(line.into()), subset: None }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use http::HeaderName;

    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

    fn place_of(keys: &[HashKey], fields: &Fields) -> Option<u64> {
        let hashing = Hashing { keys: keys.into(), bounded_percent: None };
        placed(&hashing, fields, "/v1/users/42", Some("user=a%20b&x=1"), CLIENT).place
    }

    fn sid(issued: Option<&str>) -> HashKey {
        HashKey::Cookie(CookieKey { name: "sid".into(), issued: issued.map(Into::into) })
    }

    #[test]
    fn the_first_key_that_is_there_counts() {
        let user = HashKey::Header(HeaderName::from_static("x-user"));
        let empty = Fields::of(&[("x-user", "")]);
        let fields = Fields::of(&[("x-user", "ann"), ("cookie", "a=1; sid=s1"), ("cookie", "b=2")]);
        for (keys, fields, expected) in [
            (&[user.clone()][..], &fields, Some(hash(b"ann"))),
            (&[user.clone(), sid(None)], &fields, Some(hash(b"ann"))),
            (&[sid(None), user.clone()], &fields, Some(hash(b"s1"))),
            (&[user.clone(), HashKey::ClientAddress], &empty, Some(hash(&[192, 0, 2, 7]))),
            (&[HashKey::QueryParameter("user".into())], &empty, Some(hash(b"a b"))),
            (&[HashKey::PathSegment(1)], &empty, Some(hash(b"v1"))),
            (&[HashKey::PathSegment(3)], &empty, Some(hash(b"42"))),
            (&[HashKey::PathSegment(4), user.clone(), sid(None)], &empty, None),
        ] {
            assert_eq!(place_of(keys, fields), expected, "{keys:?}");
        }
    }

    #[test]
    fn cookies_are_found_wherever_they_are() {
        for (lines, value) in [
            (&["sid=1"][..], Some("1")),
            (&["a=2;sid=\"1\"; b"], Some("1")),
            (&["asid=3", "a=1; sid=1"], Some("1")),
            (&["sid=", "sid=1; sid=2"], Some("1")),
            (&["sid2=1; SID=2; sid"], None),
        ] {
            let fields = Fields::of(&lines.iter().map(|line| ("cookie", *line)).collect::<Vec<_>>());
            assert_eq!(cookie(&fields, "sid"), value.map(str::as_bytes), "{lines:?}");
        }
    }

    #[test]
    fn a_client_without_cookie_gets_one_that_leads_back() {
        let hashing = Hashing { keys: [sid(Some("Path=/; HttpOnly"))].into(), bounded_percent: None };
        let Wanted { place, issued, .. } = placed(&hashing, &Fields::new(), "/", None, CLIENT);
        let issued = issued.unwrap();
        let pair = issued.strip_suffix("; Path=/; HttpOnly").unwrap();
        let again = placed(&hashing, &Fields::of(&[("cookie", pair)]), "/", None, CLIENT);
        assert_eq!(again, Wanted { place, ..Wanted::default() });
    }
}
