//! From where the keys of an issuer are fetched, and what is known of them. Who fetches them is `jwks`, the room.

use std::time::Duration;

use super::Material;
use crate::api;
use crate::snapshot::{JwtAlgorithm, KeySource, KeyUrl, Protocol, RemoteKeys, duration};
use crate::translate::KeySet;
use crate::translate::conditions::{Problem, reason};
use crate::translate::streaming::time_within;
use crate::translate::upstream_tls::upstream_tls;

/// How long keys count that cannot be fetched anew when nobody says otherwise: a night in which nobody looks.
const MAX_STALE: Duration = Duration::from_secs(24 * 60 * 60);
/// OpenID Connect Discovery 1.0, 4.
const WELL_KNOWN: &str = "/.well-known/openid-configuration";

/// Keys of `issuer` that are fetched. `None` if something is wrong, which is told.
pub(super) fn remote(
    issuer: &str,
    given: &api::Jwks,
    wanted: &[JwtAlgorithm],
    path: &str,
    material: &mut Material<'_>,
    problems: &mut Vec<Problem>,
) -> Option<RemoteKeys> {
    let api::Jwks {
        inline: _,
        secret_name: _,
        secret_entry: _,
        url,
        discover: _,
        max_stale,
        ca_secret_name,
        ca_config_map_name,
        insecure_http,
    } = given;
    let max_stale = time_within(max_stale, api::MAX_STALE, || format!("{path}.maxStale"));
    let max_stale = max_stale.map_err(|problem| problems.push(problem)).ok()?.unwrap_or(MAX_STALE);
    let (field, read) = match url {
        Some(url) => ("url", KeyUrl::parse(url).map_err(|why| why.to_string())),
        // 4.1: "any terminating / MUST be removed before appending".
        None => ("discover", {
            let read = KeyUrl::parse(&format!("{}{WELL_KNOWN}", issuer.strip_suffix('/').unwrap_or(issuer)));
            let why = "discover needs an issuer that is a URL without query, for example 'https://id.example.com'";
            read.ok().filter(|url| !url.path.contains('?')).ok_or_else(|| why.to_owned())
        }),
    };
    let field = format!("{path}.{field}");
    let sound = read.and_then(|url| match () {
        () if !url.secure && !insecure_http => {
            Err("whoever is on the way can replace keys that come without TLS, and let in everybody: write https, or insecureHttp: true".to_owned())
        }
        () if !material.context.key_hosts.allow(&url) => {
            Err(format!("keys may not be fetched from {}; the settings have the hosts that are asked in jwks.allowHosts", url.host))
        }
        () => Ok(url),
    });
    let url = sound.map_err(|why| problems.push(Problem::invalid(&field, why))).ok()?;
    let authorities = api::UpstreamTls {
        ca_secret_name: ca_secret_name.clone(),
        ca_config_map_name: ca_config_map_name.clone(),
        ..api::UpstreamTls::default()
    };
    let tls = match url.secure {
        true => {
            let context = material.context;
            Some(
                upstream_tls(&authorities, path, material, &context.roots, problems)?.of_cluster(Protocol::Http1, None),
            )
        }
        false => None,
    };

    // All that tells it from others. What the authority holds does not: it may change, and the keys count meanwhile.
    let mut name = url.to_string();
    if given.url.is_none() {
        name.push_str(" (discovery)");
    }
    for (kind, object) in [("Secret", ca_secret_name), ("ConfigMap", ca_config_map_name)] {
        if let Some(object) = object {
            name.push_str(&format!(" trusting {kind} {}/{object}", material.namespace));
        }
    }
    if *insecure_http {
        name.push_str(" insecure");
    }
    let known = material.resources.key_sets.get(&name);
    if let Some(problem) = waiting(&url, known, max_stale, field) {
        material.lacking.push(problem);
    }
    let issuer = given.url.is_none().then(|| issuer.into());
    let hosts = material.context.key_hosts.clone();
    let source = KeySource { url, issuer, insecure: *insecure_http, tls, hosts };
    let fetched: std::sync::Arc<str> = name.into();
    material.key_sources.insert(fetched.clone(), source.into());
    let keys = known.map(|known| known.keys.clone());
    Some(RemoteKeys { fetched, max_stale, algorithms: wanted.into(), keys })
}

/// What the owner is to know of keys that are not as they should be.
fn waiting(url: &KeyUrl, known: Option<&KeySet>, max_stale: Duration, path: String) -> Option<Problem> {
    let none = "requests with tokens of this issuer get 503";
    let problem = |reason, message| Some(Problem { reason, path, message });
    match known {
        None | Some(KeySet { fetched: false, trouble: None, .. }) => {
            problem(reason::PENDING, format!("the keys at {url} are not there yet; {none}"))
        }
        Some(KeySet { fetched: false, trouble: Some(why), .. }) => {
            problem(reason::KEYS_UNAVAILABLE, format!("the keys at {url} cannot be fetched: {why}; {none}"))
        }
        Some(KeySet { fetched: true, trouble: Some(why), .. }) => {
            let message = format!(
                "the keys at {url} cannot be fetched anew: {why}; the last ones count until {} after they were fetched",
                duration::format(max_stale)
            );
            problem(reason::KEYS_UNAVAILABLE, message)
        }
        Some(KeySet { fetched: true, trouble: None, .. }) => None,
    }
}
