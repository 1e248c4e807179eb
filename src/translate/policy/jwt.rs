//! Whose tokens may pass, where they are, and what they have to say.

use std::time::Duration;

use super::place::{header_name, places};
use super::{Material, jwks};
use crate::api;
use crate::snapshot::{ClaimHeader, ClaimRule, Issuer, IssuerKeys, Jwt, JwtAlgorithm, Keys, TokenPlace};
use crate::translate::conditions::Problem;
use crate::translate::streaming::time_within;

/// What an entry of a Secret is called that has keys.
const ENTRY: &str = "jwks.json";
/// By how much clocks may differ when nobody says otherwise.
const CLOCK_SKEW: Duration = Duration::from_secs(60);
/// The status of HTTP for the same, in the range of RFC 6455 7.4.2 for private use.
const CLOSE_CODE: u16 = 4401;
const REALM: &str = "floodway";

/// The tokens of a section.
pub(super) fn jwt(given: &api::Jwt, path: &str, material: &mut Material<'_>, problems: &mut Vec<Problem>) -> Jwt {
    let api::Jwt {
        issuers,
        from,
        clock_skew,
        required_claims,
        claims_to_headers,
        forward,
        on_expiry,
        close_code,
        realm,
    } = given;
    if issuers.is_empty() {
        problems.push(Problem::invalid(format!("{path}.issuers"), "jwt needs an issuer whose tokens may pass"));
    }
    let mut read = Vec::with_capacity(issuers.len());
    for (at, given) in issuers.iter().enumerate() {
        if issuers[..at].iter().any(|before| before.issuer == given.issuer) {
            problems.push(Problem::invalid(format!("{path}.issuers[{at}].issuer"), "this issuer is there twice"));
        }
        read.push(issuer(given, &format!("{path}.issuers[{at}]"), material, problems));
    }
    let skew = time_within(clock_skew, api::CLOCK_SKEW, || format!("{path}.clockSkew"));
    let skew = skew.unwrap_or_else(|problem| {
        problems.push(problem);
        None
    });
    let mut places = places(from, &format!("{path}.from"), problems);
    if from.is_empty() {
        places.push(TokenPlace::Header(http::header::AUTHORIZATION, "Bearer".into()));
    }
    if close_code.is_some_and(|code| !(3000..=4999).contains(&code)) {
        problems.push(Problem::invalid(format!("{path}.closeCode"), "a status of one's own is from 3000 to 4999"));
    }
    if realm
        .as_ref()
        .is_some_and(|realm| realm.bytes().any(|byte| !matches!(byte, b' '..=b'~') || b"\"\\".contains(&byte)))
    {
        problems.push(Problem::invalid(format!("{path}.realm"), "write a realm without quotes and backslashes"));
    }
    let headers = claims_to_headers.iter().enumerate().filter_map(|(at, api::ClaimToHeader { claim, header })| {
        let header = header_name(header, &format!("{path}.claimsToHeaders[{at}].header"), problems)?;
        Some(ClaimHeader { claim: claim.as_str().into(), header })
    });
    Jwt {
        issuers: read.into(),
        headers: headers.collect(),
        from: places.into(),
        skew: skew.unwrap_or(CLOCK_SKEW),
        required: required_claims
            .iter()
            .map(|api::RequiredClaim { claim, values }| ClaimRule {
                claim: claim.as_str().into(),
                values: values.iter().map(|value| value.as_str().into()).collect(),
            })
            .collect(),
        forward: *forward,
        close_code: match on_expiry {
            None | Some(api::OnExpiry::CloseStream) => Some(close_code.unwrap_or(CLOSE_CODE)),
            Some(api::OnExpiry::Ignore) => None,
        },
        realm: realm.as_deref().unwrap_or(REALM).into(),
    }
}

fn issuer(given: &api::Issuer, path: &str, material: &mut Material<'_>, problems: &mut Vec<Problem>) -> Issuer {
    let api::Issuer { issuer, audiences, algorithms, jwks } = given;
    let algorithms: Vec<_> = algorithms.iter().map(|&one| algorithm(one)).collect();
    let path = format!("{path}.jwks");
    let api::Jwks { inline, secret_name, url, discover, .. } = jwks;
    let places = [inline.is_some(), secret_name.is_some(), url.is_some(), *discover];
    let keys = if places.iter().filter(|there| **there).count() != 1 {
        let problem = "jwks needs exactly one of inline, secretName, url and discover, for example \
                       {url: 'https://id.example.com/keys'}";
        problems.push(Problem::invalid(path, problem));
        None
    } else if url.is_some() || *discover {
        jwks::remote(issuer, jwks, &algorithms, &path, material, problems).map(IssuerKeys::Fetched)
    } else {
        given_keys(jwks, &algorithms, &path, material, problems).map(IssuerKeys::Given)
    };
    Issuer {
        issuer: issuer.as_str().into(),
        audiences: audiences.iter().map(|audience| audience.as_str().into()).collect(),
        // Without keys nobody passes, and the policy cannot be applied anyway.
        keys: keys.unwrap_or(IssuerKeys::Given(Keys::default())),
    }
}

/// Keys that are in the policy or in a Secret.
fn given_keys(
    given: &api::Jwks,
    wanted: &[JwtAlgorithm],
    path: &str,
    material: &mut Material<'_>,
    problems: &mut Vec<Problem>,
) -> Option<Keys> {
    let api::Jwks { inline, secret_name, secret_entry, .. } = given;
    let (read, path) = if let Some(name) = secret_name {
        let secret = material.secret(name, &format!("{path}.secretName"))?;
        let entry = secret_entry.as_deref().unwrap_or(ENTRY);
        let Some(text) = secret.entry(entry) else {
            let problem = format!("Secret {name} has no entry {entry}; name another one with secretEntry");
            material.missing(&format!("{path}.secretName"), problem);
            return None;
        };
        (Keys::read(text.expose(), wanted, true), format!("{path}.secretName"))
    } else {
        let text = inline.as_deref().unwrap_or_default();
        (Keys::read(text.as_bytes(), wanted, false), format!("{path}.inline"))
    };
    read.map_err(|why| problems.push(Problem::invalid(path, why))).ok()
}

fn algorithm(given: api::JwtAlgorithm) -> JwtAlgorithm {
    use api::JwtAlgorithm as Given;
    match given {
        Given::HS256 => JwtAlgorithm::HS256,
        Given::HS384 => JwtAlgorithm::HS384,
        Given::HS512 => JwtAlgorithm::HS512,
        Given::RS256 => JwtAlgorithm::RS256,
        Given::RS384 => JwtAlgorithm::RS384,
        Given::RS512 => JwtAlgorithm::RS512,
        Given::PS256 => JwtAlgorithm::PS256,
        Given::PS384 => JwtAlgorithm::PS384,
        Given::PS512 => JwtAlgorithm::PS512,
        Given::ES256 => JwtAlgorithm::ES256,
        Given::ES384 => JwtAlgorithm::ES384,
        Given::ES512 => JwtAlgorithm::ES512,
        Given::EdDSA => JwtAlgorithm::EdDSA,
    }
}
