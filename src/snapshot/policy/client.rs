//! Which clients may pass, by the certificates that they were verified by.

use serde::Serialize;

use crate::snapshot::x509::Identity;

/// Which clients may pass, of those who showed a certificate that was verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClientCertificate {
    /// Those that are one of these; all of them if `None`.
    pub allow: Option<Box<[ClientName]>>,
}

/// Something that a certificate says of its owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum ClientName {
    /// A host name.
    Dns(Box<str>),
    /// A host name one label below this one.
    DnsBelow(Box<str>),
    /// A URI.
    Uri(Box<str>),
    /// A URI that begins with this, which ends with a slash, and goes on with segments of a path.
    UriBelow(Box<str>),
    /// A mail address.
    Mail(Box<str>),
    /// Any mail address at this domain.
    MailAt(Box<str>),
    /// The whole subject, as RFC 4514 writes it.
    Subject(Box<str>),
    /// The SHA-256 of the certificate, in hexadecimal digits.
    Fingerprint(Box<str>),
}

impl ClientCertificate {
    /// Whether somebody may pass.
    pub fn allows(&self, who: &Identity) -> bool {
        self.allow.as_ref().is_none_or(|allow| allow.iter().any(|one| one.is(who)))
    }
}

impl ClientName {
    fn is(&self, who: &Identity) -> bool {
        let below = |name: &str, parent: &str| name.split_once('.').is_some_and(|(_, rest)| rest == parent);
        match self {
            ClientName::Dns(name) => who.dns.contains(name),
            ClientName::DnsBelow(parent) => who.dns.iter().any(|name| below(name, parent)),
            ClientName::Uri(uri) => who.uris.contains(uri),
            ClientName::UriBelow(prefix) => {
                who.uris.iter().any(|uri| uri.strip_prefix(&**prefix).is_some_and(is_plain_path))
            }
            ClientName::Mail(address) => who.mails.contains(address),
            ClientName::MailAt(domain) => {
                who.mails.iter().any(|address| address.split_once('@').is_some_and(|(_, at)| *at == **domain))
            }
            ClientName::Subject(subject) => who.subject.as_ref() == Some(subject),
            ClientName::Fingerprint(fingerprint) => who.fingerprint == *fingerprint,
        }
    }
}

/// Segments that somebody who resolves or decodes them reads as they stand.
fn is_plain_path(path: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:@!$&()*+=".contains(&byte);
    path.split('/').all(|segment| !matches!(segment, "" | "." | "..") && segment.bytes().all(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_for_what_they_say_and_nothing_else() {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).into()).collect::<Box<[Box<str>]>>();
        let who = |dns: &[&str], uris: &[&str], mails: &[&str]| Identity {
            subject: Some("CN=cart,O=Shop".into()),
            issuer: None,
            dns: texts(dns),
            uris: texts(uris),
            mails: texts(mails),
            fingerprint: "ab".into(),
        };
        use ClientName::*;
        for (rule, dns, others) in [
            (
                Dns("a.b.example".into()),
                &["x.example", "a.b.example"][..],
                &["b.example", "x.a.b.example", "a.b.example.x"][..],
            ),
            (
                DnsBelow("b.example".into()),
                &["a.b.example"],
                &["b.example", "x.a.b.example", "ab.example", "a.b.example.x"],
            ),
        ] {
            assert!(rule.is(&who(dns, &[], &[])), "{rule:?}");
            assert!(!rule.is(&who(others, &["a.b.example"], &["a.b.example"])), "{rule:?}");
        }
        let below = UriBelow("spiffe://td/ns/shop/".into());
        for (uri, fits) in [
            ("spiffe://td/ns/shop/sa/cart", true),
            ("spiffe://td/ns/shop/x", true),
            ("spiffe://td/ns/shop/", false),
            ("spiffe://td/ns/shop", false),
            ("spiffe://td/ns/shops/x", false),
            ("spiffe://td/ns/shop/../root", false),
            ("spiffe://td/ns/shop/./x", false),
            ("spiffe://td/ns/shop//x", false),
            ("spiffe://td/ns/shop/%2e%2e/root", false),
            ("spiffe://td/ns/shop/x?y", false),
            ("spiffe://td/ns/shop/x#y", false),
            ("SPIFFE://td/ns/shop/x", false),
            ("https://td/ns/shop/x", false),
        ] {
            assert_eq!(below.is(&who(&[], &[uri], &[])), fits, "{uri}");
        }
        assert!(Uri("urn:a".into()).is(&who(&[], &["urn:a"], &[])));
        assert!(!Uri("urn:a".into()).is(&who(&["urn:a"], &["urn:ab", "urn:A"], &[])));
        let (one, any) = (Mail("Ops@a.example".into()), MailAt("a.example".into()));
        for (mail, is_one, is_any) in
            [("Ops@a.example", true, true), ("ops@a.example", false, true), ("ops@b.a.example", false, false)]
        {
            assert_eq!((one.is(&who(&[], &[], &[mail])), any.is(&who(&[], &[], &[mail]))), (is_one, is_any), "{mail}");
        }
        assert!(Subject("CN=cart,O=Shop".into()).is(&who(&[], &[], &[])));
        assert!(!Subject("CN=cart".into()).is(&who(&[], &[], &[])));
        assert!(Fingerprint("ab".into()).is(&who(&[], &[], &[])) && !Fingerprint("a".into()).is(&who(&[], &[], &[])));
        let nobody = ClientCertificate { allow: Some([Dns("a".into()), Dns("b".into())].into()) };
        assert!(nobody.allows(&who(&["b"], &[], &[])) && !nobody.allows(&who(&["c"], &[], &[])));
        assert!(ClientCertificate { allow: None }.allows(&who(&[], &[], &[])));
    }
}
