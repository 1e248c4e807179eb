//! Which clients may pass, by the certificates that they showed.

use crate::api;
use crate::snapshot::{ClientCertificate, ClientName, HostPattern};
use crate::translate::conditions::Problem;

/// The names of a section.
pub(super) fn client_certificate(
    given: &api::ClientCertificate,
    path: &str,
    problems: &mut Vec<Problem>,
) -> ClientCertificate {
    let api::ClientCertificate { allow } = given;
    let read = allow.iter().enumerate().filter_map(|(at, given)| {
        name(given)
            .map_err(|(field, why)| problems.push(Problem::invalid(format!("{path}.allow[{at}]{field}"), why)))
            .ok()
    });
    let read: Vec<_> = read.collect();
    // A list of which nothing could be read lets nobody pass.
    ClientCertificate { allow: (!allow.is_empty()).then(|| read.into()) }
}

type Wrong = (&'static str, &'static str);

fn name(given: &api::ClientName) -> Result<ClientName, Wrong> {
    let api::ClientName { dns, uri, email, subject, fingerprint } = given;
    match (dns, uri, email, subject, fingerprint) {
        (Some(name), None, None, None, None) => match HostPattern::parse(name) {
            Ok(HostPattern::Exact(name)) => Ok(ClientName::Dns((*name).into())),
            Ok(HostPattern::Wildcard(parent)) => Ok(ClientName::DnsBelow((*parent).into())),
            _ => Err((".dns", "write a host, for example 'cart.example.com' or '*.example.com'")),
        },
        (None, Some(uri), None, None, None) => self::uri(uri),
        (None, None, Some(address), None, None) => mail(address),
        (None, None, None, Some(subject), None) => {
            let is_text = subject.bytes().all(|byte| matches!(byte, b' '..=b'~'));
            let subject = subject.split_once('=').filter(|(kind, _)| is_text && !kind.is_empty()).map(|_| subject);
            let why = "write a subject as the access log has it, for example 'CN=cart,O=Shop'";
            Ok(ClientName::Subject(subject.ok_or((".subject", why))?.as_str().into()))
        }
        (None, None, None, None, Some(fingerprint)) => {
            let digits = fingerprint.replace(':', "").to_ascii_lowercase();
            if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                let why = "write the SHA-256 of a certificate in 64 hexadecimal digits: openssl x509 -noout -fingerprint -sha256";
                return Err((".fingerprint", why));
            }
            Ok(ClientName::Fingerprint(digits.into()))
        }
        _ => Err((
            "",
            "write exactly one of dns, uri, email, subject and fingerprint, for example {dns: cart.example.com}",
        )),
    }
}

/// A URI, or the beginning of one with `*`: behind its host, because what is before that is not a matter of segments.
fn uri(text: &str) -> Result<ClientName, Wrong> {
    let wrong = (
        ".uri",
        "write a URI, for example 'spiffe://example.com/ns/shop/sa/cart', or its beginning, up to a slash behind the host, and '*'",
    );
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/?#@!$&()+=%".contains(&byte);
    let (scheme, rest) = text.split_once(':').ok_or(wrong)?;
    let prefix = text.strip_suffix('*').unwrap_or(text);
    if scheme.is_empty() || rest.is_empty() || !prefix.bytes().all(fits) {
        return Err(wrong);
    }
    if prefix.len() == text.len() {
        return Ok(ClientName::Uri(text.into()));
    }
    let host = rest.strip_prefix("//").and_then(|rest| rest.split_once('/')).map(|(host, _)| host);
    let plain = host.is_some_and(|host| !host.is_empty()) && !prefix.contains(['%', '?', '#']) && prefix.ends_with('/');
    if plain { Ok(ClientName::UriBelow(prefix.into())) } else { Err(wrong) }
}

fn mail(text: &str) -> Result<ClientName, Wrong> {
    let wrong = (
        ".email",
        "write a mail address whose domain is in lower case, for example 'ops@example.com' or '*@example.com'",
    );
    let (local, domain) = text.split_once('@').ok_or(wrong)?;
    let Ok(HostPattern::Exact(host)) = HostPattern::parse(domain) else { return Err(wrong) };
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'+-/=?^_`{|}~.".contains(&byte);
    match local {
        _ if *host != *domain => Err(wrong),
        "*" => Ok(ClientName::MailAt((*host).into())),
        "" => Err(wrong),
        local if local.bytes().all(fits) => Ok(ClientName::Mail(text.into())),
        _ => Err(wrong),
    }
}
