//! How much may come of each key.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, StatusCode};

use crate::api;
use crate::snapshot::{
    FramesFrom, MessageRate, MissingKey, OnFailure, RateKey, RateLimit, RequestRate, Tell, duration,
};
use crate::translate::conditions::Problem;
use crate::translate::matches::not_a_header;
use crate::translate::streaming::time_within;

/// Keys whose buckets are kept when nobody says otherwise: 2 MB at the most.
const MAX_KEYS: u32 = 65_536;
/// Bits of an address: what a client has, who gets at least a /64 of IPv6 addresses (RFC 6177 2).
const PREFIXES: (u8, u8) = (32, 64);
/// The time that messages are counted by when nobody says otherwise.
const MESSAGE_PERIOD: Duration = Duration::from_secs(1);
/// The longest that an empty bucket may take to fill.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// The limits of a section of `policy`.
pub(super) fn rate_limit(
    given: &[api::RateLimit],
    policy: &Arc<str>,
    path: &str,
    shared_limits: bool,
    problems: &mut Vec<Problem>,
) -> Arc<[RateLimit]> {
    let mut names = BTreeSet::new();
    let limits = given.iter().enumerate().filter_map(|(at, given)| {
        let path = format!("{path}[{at}]");
        if !names.insert(&given.name) {
            problems.push(Problem::invalid(format!("{path}.name"), format_args!("{:?} is there twice", given.name)));
        }
        limit(given, policy, &path, shared_limits).map_err(|problem| problems.push(problem)).ok()
    });
    limits.collect()
}

fn limit(given: &api::RateLimit, policy: &Arc<str>, path: &str, shared_limits: bool) -> Result<RateLimit, Problem> {
    let api::RateLimit {
        name,
        key,
        on_missing_key,
        requests,
        per,
        burst,
        scope,
        on_failure,
        streams,
        web_socket,
        max_keys,
        status,
        tell,
    } = given;
    let wrong = |wrong: bool, message: &str| if wrong { Err(Problem::invalid(path, message)) } else { Ok(()) };
    wrong(
        requests.is_none() && streams.is_none() && web_socket.is_none(),
        "a limit needs requests and per, or streams, or webSocket, for example {requests: 100, per: 1m} or {streams: {concurrent: 10}}",
    )?;
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    wrong(
        name.is_empty() || !name.bytes().all(word),
        "the name of a limit is made of lower-case letters, digits and '-', for example 'per-user'",
    )?;
    let per = time_within(per, api::RATE_PERIOD, || format!("{path}.per"))?;
    let rate = match (requests, per) {
        (Some(requests @ 1..), Some(per)) => {
            Some(RequestRate { requests: *requests, per, burst: burst.unwrap_or(*requests).max(1) })
        }
        (None, None) if burst.is_none() => None,
        _ => {
            let message =
                "requests and per belong together, and burst needs both, for example {requests: 100, per: 1m}";
            return Err(Problem::invalid(path, message));
        }
    };
    rate.map_or(Ok(()), |rate| fills(rate, || format!("{path}.burst"), "requests"))?;
    let web_socket =
        web_socket.as_ref().map(|given| self::web_socket(given, &format!("{path}.webSocket"))).transpose()?;
    let shared = shared(*scope, *on_failure, rate.is_some(), path, shared_limits)?;
    let at_once = streams.as_ref().map(|streams| streams.concurrent.max(1));
    let keys = key.iter().enumerate().map(|(at, key)| self::key(key, &format!("{path}.key[{at}]")));
    let keys = keys.collect::<Result<Box<[_]>, _>>()?;
    let max_keys = max_keys.unwrap_or(MAX_KEYS);
    let status = match status {
        None => StatusCode::TOO_MANY_REQUESTS,
        Some(status) => {
            StatusCode::from_u16(*status).ok().filter(|it| it.is_client_error() || it.is_server_error()).ok_or_else(
                || Problem::invalid(format!("{path}.status"), format_args!("{status} is not a status from 400 to 599")),
            )?
        }
    };
    Ok(RateLimit {
        identity: identity(policy, name, &keys, rate, at_once, max_keys),
        policy: Arc::clone(policy),
        name: name.as_str().into(),
        keys,
        missing: match on_missing_key {
            None | Some(api::OnMissingKey::Share) => MissingKey::Share,
            Some(api::OnMissingKey::Skip) => MissingKey::Skip,
            Some(api::OnMissingKey::Refuse) => MissingKey::Refuse,
        },
        rate,
        shared,
        at_once,
        web_socket: web_socket.map(Arc::new),
        max_keys,
        status,
        tell: match tell {
            None | Some(api::Tell::Refused) => Tell::Refused,
            Some(api::Tell::Always) => Tell::Always,
            Some(api::Tell::Never) => Tell::Never,
        },
    })
}

/// Whether all replicas count together.
fn shared(
    scope: Option<api::Scope>,
    on_failure: Option<api::OnFailure>,
    has_rate: bool,
    path: &str,
    shared_limits: bool,
) -> Result<Option<OnFailure>, Problem> {
    match (scope, on_failure) {
        (None | Some(api::Scope::Local), None) => Ok(None),
        (None | Some(api::Scope::Local), Some(_)) => {
            let message = "onFailure says what becomes of requests while Redis is away: it needs scope Global";
            Err(Problem::invalid(path, message))
        }
        (Some(api::Scope::Global), _) if !has_rate => {
            let message = "scope Global is of requests and per; streams and messages are counted by each process";
            Err(Problem::invalid(path, message))
        }
        (Some(api::Scope::Global), _) if !shared_limits => {
            let message = "the settings have no rateLimits.redis, which counts for all replicas: name one there, or count with scope Local";
            Err(Problem::invalid(format!("{path}.scope"), message))
        }
        (Some(api::Scope::Global), on_failure) => Ok(Some(match on_failure {
            None | Some(api::OnFailure::Local) => OnFailure::Local,
            Some(api::OnFailure::Allow) => OnFailure::Allow,
            Some(api::OnFailure::Refuse) => OnFailure::Refuse,
        })),
    }
}

/// Whether a bucket is full in a time that can be counted.
fn fills(rate: RequestRate, path: impl FnOnce() -> String, of: &str) -> Result<(), Problem> {
    let RequestRate { requests, per, burst } = rate;
    if per.as_millis() * u128::from(burst) <= LONGEST.as_millis() * u128::from(requests) {
        return Ok(());
    }
    let message = "it would take more than a year until so many may come at once: lower burst, or raise";
    Err(Problem::invalid(path(), format_args!("{message} {of}")))
}

fn web_socket(given: &api::MessageLimit, path: &str) -> Result<MessageRate, Problem> {
    let api::MessageLimit { messages, bytes, per, burst, burst_bytes, on_excess, from } = given;
    let per = time_within(per, api::MESSAGE_PERIOD, || format!("{path}.per"))?.unwrap_or(MESSAGE_PERIOD);
    let rate = |of: &str, many: Option<u32>, burst_field: &str, burst: Option<u32>| match (many, burst) {
        (Some(many @ 1..), burst) => {
            let rate = RequestRate { requests: many, per, burst: burst.unwrap_or(many).max(1) };
            fills(rate, || format!("{path}.{burst_field}"), of).map(|()| Some(rate))
        }
        (None, None) => Ok(None),
        _ => Err(Problem::invalid(
            path,
            format_args!("{burst_field} needs {of}, at least 1, for example {{{of}: 1000}}"),
        )),
    };
    let messages = rate("messages", *messages, "burst", *burst)?;
    let bytes = rate("bytes", *bytes, "burstBytes", *burst_bytes)?;
    if messages.is_none() && bytes.is_none() {
        let message = "say how many messages or bytes may come, for example {messages: 20} or {bytes: 65536, per: 1s}";
        return Err(Problem::invalid(path, message));
    }
    Ok(MessageRate {
        messages,
        bytes,
        close: *on_excess == Some(api::OnExcess::Close),
        from: match from {
            None | Some(api::FramesFrom::Client) => FramesFrom::Client,
            Some(api::FramesFrom::Endpoint) => FramesFrom::Endpoint,
            Some(api::FramesFrom::Both) => FramesFrom::Both,
        },
    })
}

/// What counts depend on.
fn identity(
    policy: &str,
    name: &str,
    keys: &[RateKey],
    rate: Option<RequestRate>,
    at_once: Option<u32>,
    max_keys: u32,
) -> Arc<str> {
    let mut text = format!("{policy} {name}");
    if let Some(RequestRate { requests, per, burst }) = rate {
        let _ = write!(text, " {requests}/{} {burst}", duration::format(per));
    }
    if let Some(at_once) = at_once {
        let _ = write!(text, " @{at_once}");
    }
    if !keys.is_empty() {
        let _ = write!(text, " {max_keys} {keys:?}");
    }
    text.into()
}

fn key(given: &api::RateKey, path: &str) -> Result<RateKey, Problem> {
    let api::RateKey { address, header, cookie, query, route, claim, user } = given;
    match (address, header, cookie, query, route, claim, user) {
        (Some(api::AddressKey { prefix4, prefix6 }), None, None, None, None, None, None) => {
            let bits = |given: Option<u8>, default: u8, most: u8, field: &str| match given.unwrap_or(default) {
                bits if (1..=most).contains(&bits) => Ok(bits),
                bits => {
                    let message = format_args!("{bits} is not a number of bits from 1 to {most}");
                    Err(Problem::invalid(format!("{path}.address.{field}"), message))
                }
            };
            Ok(RateKey::Address {
                prefix4: bits(*prefix4, PREFIXES.0, 32, "prefix4")?,
                prefix6: bits(*prefix6, PREFIXES.1, 128, "prefix6")?,
            })
        }
        (None, Some(name), None, None, None, None, None) => {
            let name = name.parse().map_err(|_| Problem::invalid(format!("{path}.header"), not_a_header(name)))?;
            Ok(RateKey::Header(name))
        }
        // The name of a cookie is a token, and so is that of a header (RFC 6265 4.1.1).
        (None, None, Some(name), None, None, None, None) if name.parse::<HeaderName>().is_ok() => {
            Ok(RateKey::Cookie(name.as_str().into()))
        }
        (None, None, Some(name), None, None, None, None) => {
            Err(Problem::invalid(format!("{path}.cookie"), format_args!("{name:?} is not the name of a cookie")))
        }
        (None, None, None, Some(name), None, None, None) => Ok(RateKey::Query(name.as_str().into())),
        (None, None, None, None, Some(true), None, None) => Ok(RateKey::Route),
        (None, None, None, None, None, Some(name), None) => Ok(RateKey::Claim(name.as_str().into())),
        (None, None, None, None, None, None, Some(true)) => Ok(RateKey::User),
        _ => {
            let message = "each part of a key is exactly one of address, header, cookie, query, route, claim and user";
            Err(Problem::invalid(path, message))
        }
    }
}
