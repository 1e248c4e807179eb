//! Who clients are that showed a certificate: on which connections that counts, and what endpoints are told of it. That it is good, the
//! handshake has made sure of; who may pass by it, policies say.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;

use super::error::Error;
use super::exchange::Exchange;
use super::fields::{Fields, Known};
use super::headers::Client;
use super::transport::Agreed;
use super::worker::Peer;
use crate::snapshot::{ClientAsked, ClientHeaders, HostTls, Identity, Snapshot, Transport};

/// A client whose certificate was verified.
#[derive(Debug)]
pub(super) struct Certified {
    /// Who that is.
    pub identity: Identity,
    /// What endpoints are told, ready to be sent.
    told: Box<[(&'static str, Box<str>)]>,
}

impl Certified {
    /// The owner of the first certificate of a chain; `None` if it cannot be read.
    pub(super) fn new(chain: &[CertificateDer<'_>], headers: ClientHeaders) -> Option<Box<Self>> {
        let (own, others) = chain.split_first()?;
        let identity = Identity::read(own)?;
        let told = told(&identity, own, others, headers).into();
        Some(Box::new(Certified { identity, told }))
    }
}

fn told(
    identity: &Identity,
    own: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
    headers: ClientHeaders,
) -> Vec<(&'static str, Box<str>)> {
    let ClientHeaders { certificate, chain, xfcc, ssl_client } = headers;
    let mut told: Vec<(&'static str, Box<str>)> = Vec::new();
    if certificate {
        // RFC 9440 2.1 and 2.2: a Byte Sequence (RFC 8941 3.3.5), which is base64 of the DER between colons.
        told.push(("client-cert", format!(":{}:", STANDARD.encode(own)).into()));
    }
    if chain && !others.is_empty() {
        // RFC 9440 2.3: a List of the same, without the client's own, in the order of the handshake.
        let all: Vec<String> = others.iter().map(|one| format!(":{}:", STANDARD.encode(one))).collect();
        told.push(("client-cert-chain", all.join(", ").into()));
    }
    if xfcc {
        told.push(("x-forwarded-client-cert", self::xfcc(identity).into()));
    }
    if ssl_client {
        told.push(("ssl-client-verify", "SUCCESS".into()));
        for (name, value) in [("ssl-client-subject-dn", &identity.subject), ("ssl-client-issuer-dn", &identity.issuer)]
        {
            if let Some(value) = value {
                told.push((name, value.clone()));
            }
        }
        told.push(("ssl-client-fingerprint", identity.fingerprint.clone()));
        let names = names(identity).map(|(kind, name)| format!("{kind}:{name}")).collect::<Vec<_>>().join(", ");
        if !names.is_empty() {
            told.push(("ssl-client-san", names.into()));
        }
    }
    told
}

/// The names of an identity, as OpenSSL calls their kinds.
fn names(identity: &Identity) -> impl Iterator<Item = (&'static str, &str)> {
    let all = [("DNS", &identity.dns), ("URI", &identity.uris), ("email", &identity.mails)];
    all.into_iter().flat_map(|(kind, names)| names.iter().map(move |name| (kind, &**name)))
}

/// As Envoy has it: keys and values, with semicolons between. A value with a comma, a semicolon or an equals sign is in quotes, and a
/// subject always; quotes in a value would have to be escaped, but none of ours has any.
fn xfcc(identity: &Identity) -> String {
    let mut text = format!("Hash={}", identity.fingerprint);
    if let Some(subject) = &identity.subject {
        let _ = write!(text, ";Subject=\"{subject}\"");
    }
    for (kind, name) in names(identity).filter(|(kind, _)| *kind != "email") {
        let quote = if name.contains('=') { "\"" } else { "" };
        let _ = write!(text, ";{kind}={quote}{name}{quote}");
    }
    text
}

/// Whether requests for `host` may come on a connection as far as its client is concerned. Who was let in to one host is not let in to
/// another that asks for more, or for something else: neither by a connection that is shared between hosts, nor by naming one in
/// the handshake and another in the request. The host that was named goes on being served when its authorities change, as it does
/// when its certificate changes, but for clients who have never shown anything and now have to.
pub(super) fn serves(agreed: &Agreed, host: &str, snapshot: &Snapshot) -> bool {
    let own = agreed.terms.clients.as_ref();
    if own.is_none() && !snapshot.tls.verifies() {
        return true;
    }
    let asked = snapshot.clients(host);
    let is_own_host = match &agreed.server_name {
        Some(name) => **name == *host,
        None => snapshot.terms(host).is_none(),
    };
    match (own, asked) {
        (None, None) => true,
        (Some(own), Some(asked)) if own.digest == asked.digest => true,
        _ if is_own_host => agreed.client.is_some() || asked.is_none_or(|asked| !asked.requires()),
        _ => false,
    }
}

/// Lets a request of a route pass that came with such a certificate as its host, and the route itself, ask for.
///
/// # Errors
/// It came without, or with one that was judged by what another route asks for.
pub(super) fn admit(snapshot: &Snapshot, peer: &Peer, host: &str, transport: Option<&Transport>) -> Result<(), Error> {
    let asked = transport.and_then(|transport| transport.clients.as_ref());
    match (&peer.tls, asked) {
        (_, Some(ClientAsked::Invalid(_))) => Err(Error::InvalidPolicy),
        // Cleartext is no way around it.
        (None, Some(ClientAsked::Terms(terms))) if terms.required => Err(Error::CertificateMissing),
        (None, _) if snapshot.tls.verifies() && snapshot.clients(host).is_some_and(|asked| asked.requires()) => {
            Err(Error::CertificateMissing)
        }
        (Some(agreed), Some(ClientAsked::Terms(terms))) if terms.required => {
            let same = counts(&agreed.terms, asked) && agreed.client.is_some();
            if same { Ok(()) } else { Err(Error::Misdirected) }
        }
        _ => Ok(()),
    }
}

/// Whether those who were verified by the terms of a connection are somebody to a route: who says itself by whom its clients are to
/// be certified believes no other.
fn counts(terms: &HostTls, asked: Option<&ClientAsked>) -> bool {
    match asked {
        None => true,
        Some(ClientAsked::Invalid(_)) => false,
        Some(ClientAsked::Terms(asked)) => {
            terms.clients.as_ref().is_some_and(|auth| auth.terms.authority == asked.authority)
        }
    }
}

/// Tells an endpoint who the client is, and takes out what the client says of that itself. A trusted proxy's word goes on if the settings
/// say so. RFC 9440 2.4: "Requests to the TTRP made over a TLS connection where the use of client certificate authentication was not
/// negotiated MUST be sanitized by removing any and all occurrences of the Client-Cert and Client-Cert-Chain header fields prior to
/// dispatching the request to the backend application."
pub(super) fn tell(fields: &mut Fields, client: Client, exchange: &Exchange) {
    if !(client.trusted && exchange.believes_certificates()) {
        fields.remove(Known::ClientCertificate);
    }
    let Some(headers) = exchange.client_headers() else { return };
    fields.remove(Known::ClientCertificate);
    match exchange.certified() {
        Some(certified) => certified.told.iter().for_each(|(name, value)| fields.add(name, value.as_bytes())),
        None if headers.ssl_client => fields.add("ssl-client-verify", b"NONE"),
        None => {}
    }
}

impl Exchange {
    /// The client, if it showed a certificate that was verified by somebody whom its route believes.
    pub(super) fn certified(&self) -> Option<&Certified> {
        let agreed = self.agreed()?;
        let certified = agreed.client.as_deref()?;
        let transport = self.route().and_then(|route| route.transport.as_deref());
        counts(&agreed.terms, transport.and_then(|transport| transport.clients.as_ref())).then_some(certified)
    }

    /// In which fields endpoints are told who a client is; `None` if in none.
    fn client_headers(&self) -> Option<ClientHeaders> {
        let headers = self.agreed()?.terms.clients.as_ref()?.terms.forward;
        (headers != ClientHeaders::default()).then_some(headers)
    }
}

#[cfg(test)]
#[path = "certified_tests.rs"]
mod tests;
