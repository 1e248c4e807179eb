//! Who gets the next request.

use std::sync::Arc;

use http::HeaderName;

use crate::api;
use crate::snapshot::{Algorithm, Balancing, CookieKey, HashKey, Hashing, Locality, PANIC_PERCENT, SlowStart, Subset};
use crate::translate::conditions::Problem;
use crate::translate::matches::not_a_header;
use crate::translate::streaming::time_within;

/// Endpoints that are compared when nobody says otherwise.
const CHOICES: u32 = 2;
/// Points of an endpoint on a ring when nobody says otherwise: about 1.5 KB, and shares that differ by a tenth or so.
const RING_POINTS: u32 = 100;
/// Slots of a Maglev table when nobody says otherwise: even for a hundred endpoints and more, and small for ten.
const TABLE_SIZE: u32 = 16_381;
/// What an endpoint that is eased in begins with, and how it grows: Envoy's defaults.
const SLOW_START: (u8, u32) = (10, 100);
/// How much of the own zone must be available when nobody says otherwise: as much as Envoy's overprovisioning of 1.4 has.
const ZONE_AVAILABLE: u8 = 70;

/// What a ProxyUpstream says; `own` is whether its endpoints are its own, with labels.
pub(super) fn balancing(given: &api::LoadBalancing, own: bool, at: &str) -> Result<Balancing, Problem> {
    let api::LoadBalancing {
        algorithm,
        choices,
        hash,
        bounded_load_percent,
        ring_points,
        table_size,
        panic_threshold_percent,
        slow_start,
        slow_start_min_percent,
        slow_start_aggression_percent,
        locality,
        subset,
    } = given;
    use api::Algorithm as Asked;
    let hashes = matches!(algorithm, Asked::RingHash | Asked::Maglev);
    let wrong = |wrong: bool, message: &str| if wrong { Err(Problem::invalid(at, message)) } else { Ok(()) };
    wrong(
        choices.is_some() && *algorithm != Asked::LeastRequest,
        "choices is how many endpoints LeastRequest compares: it needs algorithm LeastRequest",
    )?;
    wrong(
        hash.is_empty() == hashes,
        "hash says what of a request the algorithms RingHash and Maglev hash: they need it, and others do not take it",
    )?;
    wrong(
        bounded_load_percent.is_some() && !hashes,
        "boundedLoadPercent bounds what hashing gives to one endpoint: it needs algorithm RingHash or Maglev",
    )?;
    wrong(
        ring_points.is_some() && *algorithm != Asked::RingHash,
        "ringPoints are the points of an endpoint on a ring: they need algorithm RingHash",
    )?;
    wrong(
        table_size.is_some() && *algorithm != Asked::Maglev,
        "tableSize is the size of a Maglev table: it needs algorithm Maglev",
    )?;
    wrong(
        slow_start.is_some() && hashes,
        "RingHash and Maglev send a key to its endpoint from the first moment on: they take no slowStart",
    )?;
    wrong(
        slow_start.is_none() && (slow_start_min_percent.is_some() || slow_start_aggression_percent.is_some()),
        "slowStartMinPercent and slowStartAggressionPercent say how slowStart goes: they need it",
    )?;
    let number = |given: Option<u32>, default: u32, (least, most): (u32, u32), field: &str| match given {
        None => Ok(default),
        Some(given) if (least..=most).contains(&given) => Ok(given),
        Some(given) => {
            let message = format_args!("{given} is not a number from {least} to {most}");
            Err(Problem::invalid(format!("{at}.{field}"), message))
        }
    };
    let percent = |given, default: u8, bounds, field| {
        number(given, u32::from(default), bounds, field).map(|percent| u8::try_from(percent).unwrap_or(default))
    };
    let hashing = || {
        let bounded = bounded_load_percent.map(|given| number(Some(given), given, (101, 10_000), "boundedLoadPercent"));
        Ok(Hashing { keys: keys(hash, &format!("{at}.hash"))?, bounded_percent: bounded.transpose()? })
    };
    let algorithm = match algorithm {
        Asked::LeastRequest => Algorithm::LeastRequest { choices: number(*choices, CHOICES, (2, 16), "choices")? },
        Asked::RoundRobin => Algorithm::RoundRobin,
        Asked::WeightedRoundRobin => Algorithm::WeightedRoundRobin,
        Asked::Random => Algorithm::Random,
        Asked::PeakEwma => Algorithm::PeakEwma,
        Asked::RingHash => Algorithm::RingHash {
            hashing: hashing()?,
            points: number(*ring_points, RING_POINTS, (1, 1000), "ringPoints")?,
        },
        Asked::Maglev => {
            let table_size = table_size.unwrap_or(TABLE_SIZE);
            if !api::TABLE_SIZES.contains(&table_size) {
                let sizes = api::TABLE_SIZES.map(|size| size.to_string()).join(", ");
                let message = format_args!("{table_size} is not one of {sizes}");
                return Err(Problem::invalid(format!("{at}.tableSize"), message));
            }
            Algorithm::Maglev { hashing: hashing()?, table_size }
        }
    };
    let (min_percent, aggression) = SLOW_START;
    let window = time_within(slow_start, api::SLOW_START, || format!("{at}.slowStart"))?;
    let min_percent = percent(*slow_start_min_percent, min_percent, (1, 100), "slowStartMinPercent")?;
    let aggression_percent =
        number(*slow_start_aggression_percent, aggression, (10, 1000), "slowStartAggressionPercent")?;
    let locality = locality.as_ref().map(|api::Locality { min_available_percent, min_endpoints }| {
        let least = percent(*min_available_percent, ZONE_AVAILABLE, (0, 100), "locality.minAvailablePercent")?;
        let min_endpoints = number(*min_endpoints, 1, (1, 10_000), "locality.minEndpoints")?;
        Ok(Locality { min_available_percent: least, min_endpoints })
    });
    Ok(Balancing {
        algorithm,
        panic_percent: percent(*panic_threshold_percent, PANIC_PERCENT, (0, 100), "panicThresholdPercent")?,
        slow_start: window.map(|window| SlowStart { window, min_percent, aggression_percent }),
        locality: locality.transpose()?,
        subset: subset.as_ref().map(|given| self::subset(given, own, &format!("{at}.subset"))).transpose()?,
    })
}

fn subset(api::Subset { header, label: _, fallback }: &api::Subset, own: bool, at: &str) -> Result<Subset, Problem> {
    if !own {
        let message =
            "subsets are made by labels of endpoints, which EndpointSlices and DNS do not have: subset needs endpoints";
        return Err(Problem::invalid("spec", message));
    }
    let header = header_name(header, || format!("{at}.header"))?;
    Ok(Subset { header, or_any: *fallback == api::SubsetFallback::Any })
}

fn header_name(name: &str, at: impl Fn() -> String) -> Result<HeaderName, Problem> {
    name.parse().map_err(|_| Problem::invalid(at(), not_a_header(name)))
}

fn keys(given: &[api::HashKey], at: &str) -> Result<Box<[HashKey]>, Problem> {
    let last = given.len().saturating_sub(1);
    let key = |(place, key): (usize, &api::HashKey)| {
        let at = format!("{at}[{place}]");
        let api::HashKey { header, cookie, client_address, query_parameter, path_segment } = key;
        match (header, cookie, client_address, query_parameter, path_segment) {
            (Some(name), None, None, None, None) => Ok(HashKey::Header(header_name(name, || format!("{at}.header"))?)),
            (None, Some(cookie), None, None, None) => {
                if cookie.issue.is_some() && place < last {
                    let message = "whoever lacks a cookie that is issued gets one, so that no key behind it is ever used: \
                                   it has to be the last";
                    return Err(Problem::invalid(at, message));
                }
                self::cookie(cookie, &format!("{at}.cookie")).map(HashKey::Cookie)
            }
            (None, None, Some(true), None, None) => Ok(HashKey::ClientAddress),
            (None, None, None, Some(name), None) => Ok(HashKey::QueryParameter(name.as_str().into())),
            (None, None, None, None, Some(number @ 1..)) => Ok(HashKey::PathSegment(*number)),
            _ => {
                let message = "a key is exactly one of header, cookie, clientAddress, queryParameter and pathSegment";
                Err(Problem::invalid(at, message))
            }
        }
    };
    given.iter().enumerate().map(key).collect()
}

fn cookie(api::CookieKey { name, issue }: &api::CookieKey, at: &str) -> Result<CookieKey, Problem> {
    // The name of a cookie is a token, and so is that of a header (RFC 6265 4.1.1).
    if name.parse::<HeaderName>().is_err() {
        return Err(Problem::invalid(format!("{at}.name"), format_args!("{name:?} is not the name of a cookie")));
    }
    let issued = issue.as_ref().map(|issue| attributes(issue, &format!("{at}.issue"))).transpose()?;
    Ok(CookieKey { name: name.as_str().into(), issued })
}

/// The attributes of a cookie (RFC 6265 4.1.1), as they follow its value.
fn attributes(issue: &api::IssuedCookie, at: &str) -> Result<Arc<str>, Problem> {
    let api::IssuedCookie { path, ttl, http_only, secure, same_site } = issue;
    let path = path.as_deref().unwrap_or("/");
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b';';
    if !path.starts_with('/') || !path.bytes().all(plain) {
        let message = format_args!("{path:?} is not a path that begins with '/', without ';' or spaces");
        return Err(Problem::invalid(format!("{at}.path"), message));
    }
    let mut text = format!("Path={path}");
    if let Some(ttl) = time_within(ttl, api::COOKIE_TTL, || format!("{at}.ttl"))? {
        // It counts whole seconds.
        text.push_str(&format!("; Max-Age={}", ttl.as_secs_f64().ceil()));
    }
    if http_only.unwrap_or(true) {
        text.push_str("; HttpOnly");
    }
    if *secure == Some(true) {
        text.push_str("; Secure");
    }
    match same_site {
        Some(api::SameSite::None) if *secure != Some(true) => {
            return Err(Problem::invalid(at, "browsers take a cookie with sameSite None only if it is secure"));
        }
        Some(same_site) => text.push_str(&format!("; SameSite={same_site:?}")),
        None => {}
    }
    Ok(text.into())
}
