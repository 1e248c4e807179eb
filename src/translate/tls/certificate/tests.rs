#![allow(clippy::unwrap_used)]

use rcgen::{CertificateParams, KeyPair};
use rustls::SignatureAlgorithm;

use super::*;

const RSA: (&str, &str) =
    (include_str!("../../../../tests/certificates/rsa.crt"), include_str!("../../../../tests/certificates/rsa.key"));
const SEC1: (&str, &str) = (
    include_str!("../../../../tests/certificates/ecdsa.crt"),
    include_str!("../../../../tests/certificates/ecdsa.key"),
);

fn key() -> Key {
    Key::new("shop", "www")
}

fn made(algorithm: &'static rcgen::SignatureAlgorithm) -> (String, String) {
    let pair = KeyPair::generate_for(algorithm).unwrap();
    let params = CertificateParams::new(["www.example.com".to_owned()]).unwrap();
    (params.self_signed(&pair).unwrap().pem(), pair.serialize_pem())
}

fn secret(certificate: &str, key: &str, staple: Option<&[u8]>) -> SecretData {
    let bytes = |bytes: &[u8]| bytes.to_vec().into();
    SecretData::tls(bytes(certificate.as_bytes()), bytes(key.as_bytes()), staple.map(bytes)).unwrap()
}

#[test]
fn every_kind_of_key_and_notation_is_read() {
    let p256 = made(&rcgen::PKCS_ECDSA_P256_SHA256);
    let p384 = made(&rcgen::PKCS_ECDSA_P384_SHA384);
    let ed25519 = made(&rcgen::PKCS_ED25519);
    let text = |(one, other): &(String, String)| (one.clone(), other.clone());
    let owned = |(one, other): (&str, &str)| (one.to_owned(), other.to_owned());
    for ((certificate, private), algorithm) in [
        (text(&p256), SignatureAlgorithm::ECDSA),
        (text(&p384), SignatureAlgorithm::ECDSA),
        (text(&ed25519), SignatureAlgorithm::ED25519),
        (owned(RSA), SignatureAlgorithm::RSA),
        (owned(SEC1), SignatureAlgorithm::ECDSA),
    ] {
        let Read { certificate, staple } = read(&key(), &secret(&certificate, &private, None)).unwrap();
        assert_eq!((certificate.key.key.algorithm(), staple), (algorithm, None));
        assert!(certificate.covers("www.example.com") && certificate.key.ocsp.is_none());
        assert_eq!((&*certificate.source, certificate.fingerprint.len()), ("Secret shop/www", 64));
    }
    // Windows' line ends, a chain, and words between the blocks.
    let chain = format!("leaf\n{}issuer\n{}", p256.0, p384.0).replace('\n', "\r\n");
    let read = read(&key(), &secret(&chain, &p256.1, Some(&[0x30, 7, 0x0a, 1, 0, 0xa0, 2, 0x30, 0]))).unwrap();
    assert_eq!(read.certificate.key.cert.len(), 2);
    assert_eq!(read.certificate.key.ocsp.as_deref().map(<[u8]>::len), Some(9));
}

#[test]
fn what_cannot_be_served_is_told_with_its_entry_and_a_remedy_and_nothing_of_the_key() {
    let (certificate, private) = made(&rcgen::PKCS_ECDSA_P256_SHA256);
    let (_, other) = made(&rcgen::PKCS_ECDSA_P256_SHA256);
    let encrypted = private.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let cut = |text: &str| text[..text.len() / 2].to_owned();
    let block = |what: &str, content: &str| format!("-----BEGIN {what}-----\n{content}\n-----END {what}-----\n");
    for (certificate, private, entry, told) in [
        (String::new(), private.clone(), TLS_CERTIFICATE, "is missing or empty"),
        (certificate.clone(), String::new(), TLS_KEY, "is missing or empty"),
        ("hush".to_owned(), private.clone(), TLS_CERTIFICATE, "has no certificate in PEM"),
        (private.clone(), private.clone(), TLS_CERTIFICATE, "has no certificate in PEM"),
        (cut(&certificate), private.clone(), TLS_CERTIFICATE, "is not whole PEM"),
        (block("CERTIFICATE", "hush!"), private.clone(), TLS_CERTIFICATE, "is not whole PEM"),
        (block("CERTIFICATE", "aHVzaA=="), private.clone(), TLS_CERTIFICATE, "not one of X.509"),
        (certificate.repeat(17), private.clone(), TLS_CERTIFICATE, "has more than 16 certificates"),
        (certificate.clone(), "hush".to_owned(), TLS_KEY, "has no private key in PEM"),
        (certificate.clone(), certificate.clone(), TLS_KEY, "has no private key in PEM"),
        (certificate.clone(), cut(&private), TLS_KEY, "has no private key in PEM"),
        (certificate.clone(), encrypted, TLS_KEY, "not encrypted"),
        (certificate.clone(), block("PRIVATE KEY", "aHVzaA=="), TLS_KEY, "holds a key that cannot be used"),
        (certificate.clone(), other, TLS_KEY, "is not the key of the first certificate"),
        (RSA.0.to_owned(), private.clone(), TLS_KEY, "is not the key of the first certificate"),
    ] {
        let wrong = check_certificate(&key(), &secret(&certificate, &private, None)).unwrap_err();
        assert_eq!(wrong.entry, entry, "{wrong}");
        assert!(wrong.why.contains(told) && !wrong.why.contains("hush"), "{wrong}, not {told}");
    }
}

#[test]
fn a_wrong_staple_is_left_out() {
    let (certificate, private) = made(&rcgen::PKCS_ECDSA_P256_SHA256);
    let secret = secret(&certificate, &private, Some(b"hush"));
    let read = read(&key(), &secret).unwrap();
    assert_eq!(read.certificate.key.ocsp, None);
    let wrong = check_certificate(&key(), &secret).unwrap_err();
    assert_eq!((Some(&wrong), wrong.entry), (read.staple.as_ref(), TLS_STAPLE));
    assert!(!wrong.why.contains("hush"));
}
