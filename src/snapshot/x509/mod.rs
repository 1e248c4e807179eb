//! The few fields of a certificate that people are shown and names are compared with, out of its DER (RFC 5280). Nothing is verified
//! here: our own certificates are for clients to verify, those of clients are verified by rustls before they come here, and that
//! key and certificate belong together, rustls says, too. A crate that reads all of X.509 would bring ten others for it.

mod identity;
mod name;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::HostPattern;
pub use identity::Identity;

/// The tags that are looked for (X.690 8.1.2; RFC 5280 4.1 and 4.2.1.6).
mod tag {
    pub(super) const OCTETS: u8 = 0x04;
    pub(super) const OID: u8 = 0x06;
    pub(super) const UTC_TIME: u8 = 0x17;
    pub(super) const GENERALIZED_TIME: u8 = 0x18;
    pub(super) const SEQUENCE: u8 = 0x30;
    pub(super) const SET: u8 = 0x31;
    pub(super) const ENUMERATED: u8 = 0x0a;
    pub(super) const INTEGER: u8 = 0x02;
    pub(super) const VERSION: u8 = 0xa0;
    pub(super) const EXTENSIONS: u8 = 0xa3;
    pub(super) const DNS_NAME: u8 = 0x82;
    pub(super) const MAIL_NAME: u8 = 0x81;
    pub(super) const URI_NAME: u8 = 0x86;
}

/// `subjectAltName` (RFC 5280 4.2.1.6).
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
/// The attributes of a name that people read (RFC 4519).
const ATTRIBUTES: [(&[u8], &str); 4] =
    [(&[0x55, 4, 3], "CN"), (&[0x55, 4, 11], "OU"), (&[0x55, 4, 10], "O"), (&[0x55, 4, 6], "C")];
/// Characters of an attribute that are shown.
const SHOWN: usize = 64;

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The DNS names of `subjectAltName`. (Clients name no addresses.)
    pub(crate) names: Vec<HostPattern>,
    /// Who issued it: `CN=R11, O=Let's Encrypt`.
    pub(crate) issuer: String,
    /// When it expires, in seconds since 1970.
    pub(crate) not_after: i64,
}

/// Elements one after the other.
#[derive(Clone, Copy)]
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next element: its tag and its content.
    fn element(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[tag, first], mut rest) = self.0.split_first_chunk::<2>()?;
        let mut length = usize::from(first);
        if first >= 0x80 {
            // "Definite form, long": the number of octets, then the length in them. Nothing here is 16 MiB long.
            let octets = usize::from(first & 0x7f);
            if !(1..=3).contains(&octets) {
                return None;
            }
            let (bytes, behind) = rest.split_at_checked(octets)?;
            length = bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
            rest = behind;
        }
        let (content, behind) = rest.split_at_checked(length)?;
        self.0 = behind;
        Some((tag, content))
    }

    /// The content of the next element, if it has this tag.
    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, content)| content)
    }

    /// The elements in the next one, if it has this tag.
    fn open(&mut self, tag: u8) -> Option<Der<'a>> {
        self.expect(tag).map(Der)
    }
}

impl<'a> Iterator for Der<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.element()
    }
}

/// The parts of a certificate that are looked at.
struct Parts<'a> {
    issuer: Der<'a>,
    not_after: i64,
    subject: Der<'a>,
    /// In an order of their own; none in the first versions.
    extensions: Option<Der<'a>>,
}

fn parts(der: &[u8]) -> Option<Parts<'_>> {
    // Certificate ::= SEQUENCE { tbsCertificate, … }; TBSCertificate ::= SEQUENCE { version [0], serialNumber, signature, issuer,
    // validity, subject, subjectPublicKeyInfo, …, extensions [3] }
    let mut fields = Der(der).open(tag::SEQUENCE)?.open(tag::SEQUENCE)?;
    match fields.next()? {
        (tag::VERSION, _) => drop(fields.expect(tag::INTEGER)?),
        // The first version has no number, and no names that clients would look at.
        (tag::INTEGER, _) => {}
        _ => return None,
    }
    fields.expect(tag::SEQUENCE)?;
    let issuer = fields.open(tag::SEQUENCE)?;
    let mut validity = fields.open(tag::SEQUENCE)?;
    validity.next()?;
    let not_after = time(validity.next()?)?;
    let subject = fields.open(tag::SEQUENCE)?;
    fields.expect(tag::SEQUENCE)?;
    let extensions = match fields.find(|(tag, _)| *tag == tag::EXTENSIONS) {
        Some((_, extensions)) => Some(Der(extensions).open(tag::SEQUENCE)?),
        None => None,
    };
    Some(Parts { issuer, not_after, subject, extensions })
}

/// What a certificate says of itself; `None` if its DER is not that of a certificate.
pub(crate) fn facts(der: &[u8]) -> Option<Facts> {
    let Parts { issuer, not_after, extensions, .. } = parts(der)?;
    // Mail, addresses, URIs and the like are nobody's that a client names, and so are texts that are no host.
    let name = |(tag, content): (u8, &[u8])| {
        let text = std::str::from_utf8(content).ok().filter(|_| tag == tag::DNS_NAME)?;
        HostPattern::parse(text).ok()
    };
    let names = alternative_names(extensions)?.filter_map(name).collect();
    Some(Facts { names, issuer: shown(issuer), not_after })
}

/// When a certificate expires, in seconds since 1970.
pub(crate) fn not_after(der: &[u8]) -> Option<i64> {
    parts(der).map(|parts| parts.not_after)
}

/// When the list is due that follows a revocation list, in seconds since 1970; `None` if it does not say, or is none.
pub(crate) fn next_update(der: &[u8]) -> Option<i64> {
    // CertificateList ::= SEQUENCE { tbsCertList, … }; TBSCertList ::= SEQUENCE { version INTEGER OPTIONAL, signature, issuer,
    // thisUpdate, nextUpdate OPTIONAL, … }
    let mut fields = Der(der).open(tag::SEQUENCE)?.open(tag::SEQUENCE)?;
    if fields.0.first() == Some(&tag::INTEGER) {
        fields.next()?;
    }
    fields.expect(tag::SEQUENCE)?;
    fields.expect(tag::SEQUENCE)?;
    time(fields.next()?)?;
    time(fields.next()?)
}

/// The elements of `subjectAltName`, of which there may be none; `None` if the extensions are malformed.
/// Extension ::= SEQUENCE { extnID, critical BOOLEAN DEFAULT FALSE, extnValue OCTET STRING }
fn alternative_names(extensions: Option<Der<'_>>) -> Option<Der<'_>> {
    for (_, extension) in extensions.into_iter().flatten() {
        let mut fields = Der(extension);
        if fields.expect(tag::OID)? != SUBJECT_ALT_NAME {
            continue;
        }
        let (_, value) = fields.find(|(tag, _)| *tag == tag::OCTETS)?;
        return Der(value).open(tag::SEQUENCE);
    }
    Some(Der(&[]))
}

/// Name ::= SEQUENCE OF SET OF SEQUENCE { type OBJECT IDENTIFIER, value ANY }, as people are shown it: `CN=…, O=…`.
fn shown(sequence: Der<'_>) -> String {
    let sets = sequence.filter(|(tag, _)| *tag == tag::SET).flat_map(|(_, set)| Der(set));
    let attributes: Vec<(&[u8], &[u8])> = sets
        .filter_map(|(_, attribute)| {
            let mut fields = Der(attribute);
            Some((fields.expect(tag::OID)?, fields.next()?.1))
        })
        .collect();
    let shown = ATTRIBUTES.iter().flat_map(|(oid, short)| {
        let of_kind = attributes.iter().filter(move |(found, _)| found == oid);
        of_kind.map(move |(_, value)| {
            // Whoever writes a certificate must not write into a terminal.
            let text = String::from_utf8_lossy(value);
            let text: String = text.chars().filter(|letter| !letter.is_control()).take(SHOWN).collect();
            format!("{short}={text}")
        })
    });
    shown.take(8).collect::<Vec<_>>().join(", ")
}

/// RFC 5280 4.1.2.5: UTCTime as YYMMDDHHMMSSZ, where "YY greater than or equal to 50" is of 19YY, and GeneralizedTime as
/// YYYYMMDDHHMMSSZ.
fn time((tag, content): (u8, &[u8])) -> Option<i64> {
    let digits = content.strip_suffix(b"Z").filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
    let (year, rest) = match (tag, digits.len()) {
        (tag::UTC_TIME, 12) => {
            let year = number(&digits[..2]);
            (if year >= 50 { 1900 + year } else { 2000 + year }, &digits[2..])
        }
        (tag::GENERALIZED_TIME, 14) => (number(&digits[..4]), &digits[4..]),
        _ => return None,
    };
    let part = |at: usize| i8::try_from(number(&rest[at..at + 2])).ok();
    let date = DateTime::new(year, part(0)?, part(2)?, part(4)?, part(6)?, part(8)?, 0).ok()?;
    Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second())
}

/// Of at most four digits.
fn number(digits: &[u8]) -> i16 {
    digits.iter().fold(0, |number, digit| number * 10 + i16::from(digit - b'0'))
}

/// Whether an OCSP responder says that it could answer (RFC 6960 4.2.1): OCSPResponse ::= SEQUENCE { responseStatus ENUMERATED
/// { successful (0), … }, responseBytes [0] }.
pub(crate) fn is_good_staple(der: &[u8]) -> bool {
    let mut all = Der(der);
    let response = all.open(tag::SEQUENCE);
    response.is_some_and(|mut response| response.expect(tag::ENUMERATED) == Some(&[0]) && response.next().is_some())
        && all.0.is_empty()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};

    use super::*;

    fn made() -> Vec<u8> {
        let names = ["Shop.example.com", "*.shop.example.com", "192.0.2.7", "::1"].map(String::from);
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(2026, 1, 31);
        params.not_after = date_time_ymd(2051, 12, 1);
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Shop\n Ltd");
        params.distinguished_name.push(DnType::CommonName, "shop");
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn a_certificate_tells_names_times_and_issuer() {
        let facts = facts(&made()).unwrap();
        let names: Vec<String> = facts.names.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["shop.example.com", "*.shop.example.com"]);
        assert_eq!(facts.not_after, "2051-12-01T00:00:00Z".parse::<jiff::Timestamp>().unwrap().as_second());
        assert_eq!(facts.issuer, "CN=shop, O=Shop Ltd");
    }

    #[test]
    fn times_are_those_of_the_standard() {
        let utc = |text: &[u8]| time((tag::UTC_TIME, text));
        assert_eq!(utc(b"700101000000Z"), Some(0));
        assert_eq!(utc(b"491231235959Z"), Some(2_524_607_999));
        assert_eq!(time((tag::GENERALIZED_TIME, b"20500101000000Z")), Some(2_524_608_000));
        for wrong in
            [&b"700101000000"[..], b"7001010000Z", b"701301000000Z", b"7001010000xxZ", b"Z", b"", b"700101000000+0100"]
        {
            assert_eq!(utc(wrong), None, "{wrong:?}");
        }
        assert_eq!(time((tag::SEQUENCE, b"700101000000Z")), None);
    }

    #[test]
    fn a_staple_is_a_successful_response() {
        assert!(is_good_staple(&[0x30, 7, 0x0a, 1, 0, 0xa0, 2, 0x30, 0]));
        for wrong in [
            &[0x30, 7, 0x0a, 1, 6, 0xa0, 2, 0x30, 0][..],
            &[0x30, 3, 0x0a, 1, 0],
            &[0x30, 3, 1, 2, 3],
            &[],
            &[0x30, 9, 0x0a],
        ] {
            assert!(!is_good_staple(wrong), "{wrong:?}");
        }
        assert!(!is_good_staple(&[0x30, 7, 0x0a, 1, 0, 0xa0, 2, 0x30, 0, 0]), "something behind it");
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_odd(flips in proptest::collection::vec((0usize..2000, any::<u8>()), 0..8), cut in 0usize..2000) {
            let mut der = made();
            let length = der.len();
            flips.into_iter().for_each(|(at, byte)| der[at % length] = byte);
            let _ = facts(&der[..cut.min(length)]);
            let _ = facts(&der);
            let _ = is_good_staple(&der);
            let _ = next_update(&der);
            let _ = Identity::read(&der);
        }
    }
}
