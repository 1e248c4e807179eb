//! Who a certificate says that its owner is, as far as policies ask for it and endpoints are told.

use std::fmt::Write as _;

use ring::digest::{SHA256, digest};

use super::{Parts, alternative_names, name, parts, tag};
use crate::snapshot::HostPattern;

/// Who a client is, by a certificate that was verified. Names that are not what they should be are left out: they are nobody's. All
/// texts are of visible ASCII, and none of a name has a quote, a backslash, a comma or a semicolon, so that lists of them are what they
/// look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The subject as RFC 4514 writes it: `CN=cart,O=Shop`. `None` if it is empty, or longer than 1 KiB.
    pub subject: Option<Box<str>>,
    /// Who issued it, in the same form.
    pub issuer: Option<Box<str>>,
    /// Host names, in lower case. Wildcards are nobody's own, and not among them.
    pub dns: Box<[Box<str>]>,
    /// URIs, to the letter.
    pub uris: Box<[Box<str>]>,
    /// Mail addresses, the domain in lower case.
    pub mails: Box<[Box<str>]>,
    /// The SHA-256 of the certificate, in hexadecimal digits.
    pub fingerprint: Box<str>,
}

impl Identity {
    /// Reads the certificate of a client; `None` if that is none.
    pub fn read(der: &[u8]) -> Option<Self> {
        let Parts { issuer, subject, extensions, .. } = parts(der)?;
        let (mut dns, mut uris, mut mails) = (Vec::new(), Vec::new(), Vec::new());
        for (tag, content) in alternative_names(extensions)? {
            let Ok(text) = std::str::from_utf8(content) else { continue };
            match tag {
                tag::DNS_NAME => dns.extend(host(text)),
                tag::URI_NAME if is_uri(text) => uris.push(text.into()),
                tag::MAIL_NAME => mails.extend(mail(text)),
                _ => {}
            }
        }
        Some(Identity {
            subject: name::rfc4514(subject),
            issuer: name::rfc4514(issuer),
            dns: dns.into(),
            uris: uris.into(),
            mails: mails.into(),
            fingerprint: fingerprint(der),
        })
    }
}

/// The SHA-256 of a certificate, in hexadecimal digits.
fn fingerprint(der: &[u8]) -> Box<str> {
    let digest = digest(&SHA256, der);
    let mut text = String::with_capacity(64);
    for byte in digest.as_ref() {
        let _ = write!(text, "{byte:02x}");
    }
    text.into()
}

fn host(text: &str) -> Option<Box<str>> {
    match HostPattern::parse(text) {
        Ok(HostPattern::Exact(name)) => Some((*name).into()),
        _ => None,
    }
}

/// RFC 3986 2, without the quote, the comma and the semicolon.
fn is_uri(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&()*+=%".contains(&byte);
    text.contains(':') && text.bytes().all(fits)
}

/// A mailbox of RFC 5321 4.1.2 whose local part needs no quotes.
fn mail(text: &str) -> Option<Box<str>> {
    let (local, domain) = text.split_once('@')?;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~.".contains(&byte);
    let sound = !local.is_empty() && local.bytes().all(fits);
    host(domain).filter(|_| sound).map(|domain| format!("{local}@{domain}").into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    #[test]
    fn a_certificate_tells_who_its_owner_is() {
        let mut params = CertificateParams::default();
        let text = |text: &str| text.try_into().unwrap();
        params.subject_alt_names = [
            SanType::DnsName(text("Cart.shop.example")),
            SanType::DnsName(text("*.shop.example")),
            SanType::DnsName(text("a,b")),
            SanType::URI(text("spiffe://shop.example/ns/shop/sa/cart")),
            SanType::URI(text("urn:a;Subject=\"CN=root\"")),
            SanType::URI(text("urn:a\r\nx: y")),
            SanType::Rfc822Name(text("Ops@Shop.example")),
            SanType::Rfc822Name(text("\"a b\"@shop.example")),
            SanType::Rfc822Name(text("a@b@shop.example")),
            SanType::IpAddress([192, 0, 2, 7].into()),
        ]
        .into();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Shop, Ltd");
        params.distinguished_name.push(DnType::CommonName, "cart");
        let der = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let identity = Identity::read(der.der()).unwrap();
        let texts = |texts: &[Box<str>]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(identity.subject.as_deref(), Some("CN=cart,O=Shop\\, Ltd"));
        assert_eq!(identity.issuer, identity.subject);
        assert_eq!(texts(&identity.dns), ["cart.shop.example"]);
        assert_eq!(texts(&identity.uris), ["spiffe://shop.example/ns/shop/sa/cart"]);
        assert_eq!(texts(&identity.mails), ["Ops@shop.example"]);
        assert_eq!(identity.fingerprint.len(), 64);
        assert_eq!(Identity::read(&der.der()[..40]), None);
    }
}
