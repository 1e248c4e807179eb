//! TLS Secrets from files as programs for certificates write them: `NAME.crt` and `NAME.key` in PEM, and, if there is one,
//! `NAME.ocsp`, the response of the OCSP responder in DER. And ConfigMaps with those who sign certificates of others: `NAME.ca` in PEM,
//! and `NAME.crl`, lists of those that they have revoked, in PEM or DER. Looked at is whether a file is whole; whether certificate and
//! key belong together is for whoever uses them to say.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::load::Kept;
use super::objects::{DEFAULT_NAMESPACE, Object};
use super::union::Held;
use super::{folder, read_bounded};
use crate::snapshot::SecretBytes;
use crate::translate::{
    AUTHORITIES, ConfigMapData, Key, MAX_DATA_BYTES, REVOKED, SecretData, TLS_CERTIFICATE, TLS_KEY, TLS_STAPLE,
};

/// Which part of an object a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Certificate,
    Key,
    Staple,
    Authorities,
    Revoked,
}

/// Which objects files of one name make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Family {
    /// A Secret: a certificate and its key.
    Pair,
    /// A ConfigMap: who signs, and what they have revoked.
    Authority,
}

/// The parts of both, in the order of [`Part`].
type Parts<'a> = [Option<&'a SecretBytes>; 5];

impl Part {
    const ALL: [Part; 5] = [Part::Certificate, Part::Key, Part::Staple, Part::Authorities, Part::Revoked];

    fn family(self) -> Family {
        match self {
            Part::Certificate | Part::Key | Part::Staple => Family::Pair,
            Part::Authorities | Part::Revoked => Family::Authority,
        }
    }

    /// By the name of the file.
    pub(super) fn of(path: &Path) -> Option<Part> {
        let extension = path.extension()?;
        Part::ALL.into_iter().find(|part| extension == part.extension())
    }

    pub(super) fn extension(self) -> &'static str {
        match self {
            Part::Certificate => "crt",
            Part::Key => "key",
            Part::Staple => "ocsp",
            Part::Authorities => "ca",
            Part::Revoked => "crl",
        }
    }

    /// The entry of its object that it becomes.
    fn entry(self) -> &'static str {
        match self {
            Part::Certificate => TLS_CERTIFICATE,
            Part::Key => TLS_KEY,
            Part::Staple => TLS_STAPLE,
            Part::Authorities => AUTHORITIES,
            Part::Revoked => REVOKED,
        }
    }

    /// What a file holds, if it is whole. The error says nothing of the content.
    pub(super) fn read(self, bytes: Vec<u8>) -> Result<SecretBytes, &'static str> {
        let bytes = SecretBytes::from(bytes);
        let text = bytes.expose();
        match self {
            _ if text.len() > MAX_DATA_BYTES => Err("larger than 1 MiB, which no Secret may be"),
            Part::Certificate | Part::Authorities if !is_whole_pem(text, "-----BEGIN CERTIFICATE-----") => {
                Err("no whole certificate in PEM, from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----")
            }
            Part::Key if !is_whole_pem(text, " PRIVATE KEY-----") => {
                Err("no whole private key in PEM, from -----BEGIN PRIVATE KEY----- to -----END PRIVATE KEY-----")
            }
            Part::Staple if !is_whole_der(text) => Err("no whole response of an OCSP responder in DER"),
            Part::Revoked if !is_whole_pem(text, "-----BEGIN X509 CRL-----") && !is_whole_der(text) => Err(
                "no whole revocation list in PEM, from -----BEGIN X509 CRL----- to -----END X509 CRL-----, or in DER",
            ),
            _ => Ok(bytes),
        }
    }
}

/// Whether every block has an end, the last one at the end of the text, and one has such a line.
fn is_whole_pem(text: &[u8], line: &str) -> bool {
    let count = |what: &str| memchr::memmem::find_iter(text, what).count();
    let ends = text.trim_ascii_end().rsplit(|byte| *byte == b'\n').next();
    count(line) > 0
        && count("-----BEGIN ") == count("-----END ")
        && ends.is_some_and(|line| line.starts_with(b"-----END ") && line.ends_with(b"-----"))
}

/// "SEQUENCE, length, content": whether the content is as long as its length says (X.690, 8.1.3).
fn is_whole_der(bytes: &[u8]) -> bool {
    let [0x30, first, rest @ ..] = bytes else { return false };
    if *first < 0x80 {
        return rest.len() == usize::from(*first);
    }
    let octets = usize::from(first & 0x7f);
    if !(1..=4).contains(&octets) || rest.len() < octets {
        return false;
    }
    let (length, content) = rest.split_at(octets);
    length.iter().fold(0, |length, octet| length << 8 | usize::from(*octet)) == content.len()
}

/// The objects that such files make, by their path without extension.
#[derive(Default)]
pub(super) struct Pairs(BTreeMap<(PathBuf, Family), Kept>);

impl Pairs {
    /// Makes objects of parts, of which each has its last good version, if there was one; returns what is wrong with some.
    /// Half a pair, of which the other half was there, leaves the Secret that it made.
    pub(super) fn follow<'a>(
        &mut self,
        root: &Path,
        parts: impl Iterator<Item = (&'a Path, Part, Option<&'a SecretBytes>)>,
    ) -> BTreeSet<String> {
        let (mut told, mut broken) = (BTreeSet::new(), BTreeSet::new());
        let mut found = BTreeMap::<(PathBuf, Family), Parts>::new();
        for (path, part, bytes) in parts {
            let stem = (path.with_extension(""), part.family());
            if bytes.is_none() {
                broken.insert(stem.clone());
            }
            found.entry(stem).or_default()[part as usize] = bytes;
        }
        let mut before = std::mem::take(&mut self.0);
        for (stem, parts) in found {
            match made(&stem.0, stem.1, parts) {
                Ok((key, object)) => drop(self.0.insert(stem, Kept { key, object, document: 1, place: None })),
                Err((part, why)) => {
                    // Of a part that cannot be read has been told.
                    if !broken.contains(&stem) {
                        told.insert(format!("{}.{}: {why}", root.join(&stem.0).display(), part.extension()));
                    }
                    self.0.extend(before.remove_entry(&stem));
                }
            }
        }
        told
    }

    /// Puts the objects beside what is held, which goes first.
    pub(super) fn join<'a>(&'a self, root: &Path, held: &mut Held<'a>, told: &mut BTreeSet<String>) {
        for ((stem, family), kept) in &self.0 {
            if let Some((first, _)) = held.get(&kept.named()) {
                let (own, first) = (root.join(stem), root.join(first));
                let (kind, key) = kept.named();
                let why = format!("{kind} {key} is already in {}; remove one of them", first.display());
                let extension = if *family == Family::Pair { Part::Certificate } else { Part::Authorities }.extension();
                told.insert(format!("{}.{extension}: {why}", own.display()));
            } else {
                held.insert(kept.named(), (stem, kept));
            }
        }
    }
}

/// The object that files of a path without extension make. An error names the file that it is about and says what is wrong.
fn made(stem: &Path, family: Family, parts: Parts<'_>) -> Result<(Key, Object), (Part, String)> {
    let [certificate, key, staple, authorities, revoked] = parts;
    if family == Family::Pair {
        return secret(stem, [certificate, key, staple]);
    }
    let part = if authorities.is_some() { Part::Authorities } else { Part::Revoked };
    let name = name(stem, "a ConfigMap").map_err(|why| (part, why))?;
    let data = ConfigMapData::authorities(authorities.cloned(), revoked.cloned());
    let data = data.map_err(|malformed| (part, malformed.to_string()))?;
    Ok((Key::new(DEFAULT_NAMESPACE, name), Object::ConfigMap(Arc::new(data))))
}

/// The Secret of a pair.
fn secret(stem: &Path, parts: [Option<&SecretBytes>; 3]) -> Result<(Key, Object), (Part, String)> {
    let [certificate, key, staple] = parts;
    let named = |part: Part| format!("{}.{}", stem.display(), part.extension());
    let missing = |there, lacks: Part| {
        let file = named(lacks);
        (there, format!("there is no {file}; a certificate is read together with its key"))
    };
    let (certificate, key) = match (certificate, key) {
        (Some(certificate), Some(key)) => (certificate, key),
        (Some(_), None) => return Err(missing(Part::Certificate, Part::Key)),
        (None, Some(_)) => return Err(missing(Part::Key, Part::Certificate)),
        (None, None) => return Err(missing(Part::Staple, Part::Certificate)),
    };
    let name = name(stem, "a Secret").map_err(|why| (Part::Certificate, why))?;
    let data = SecretData::tls(certificate.clone(), key.clone(), staple.cloned());
    let data = data.map_err(|malformed| (Part::Certificate, malformed.to_string()))?;
    Ok((Key::new(DEFAULT_NAMESPACE, name), Object::Secret(Arc::new(data))))
}

/// The name of the object that files of this path make.
fn name<'a>(stem: &'a Path, object: &str) -> Result<&'a str, String> {
    stem.file_name().and_then(|name| name.to_str()).filter(|name| is_name(name)).ok_or_else(|| {
        format!(
            "its name is not one of {object}; write lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit"
        )
    })
}

/// "a lowercase RFC 1123 subdomain", as Kubernetes names objects; somewhat laxer between the dots.
fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let sound = bytes.iter().all(|byte| plain(byte) || matches!(byte, b'-' | b'.'));
    sound && bytes.len() <= 253 && bytes.first().is_some_and(plain) && bytes.last().is_some_and(plain)
}

/// The extension of the file that becomes an entry of a TLS Secret.
pub fn extension(entry: &str) -> &'static str {
    Part::ALL.into_iter().find(|part| part.entry() == entry).unwrap_or(Part::Certificate).extension()
}

/// The object that a pair makes, or why it makes none.
pub type Pair = Result<(Key, Object), String>;

/// All pairs of a folder as they are now, by the path of the certificate, and authorities by theirs; for those that make no object,
/// the reason.
///
/// # Errors
/// If the folder cannot be read.
pub fn pairs(root: &Path) -> std::io::Result<Vec<(PathBuf, Pair)>> {
    let paths = folder::paths(root)?;
    // Lists may be without authorities, which are elsewhere.
    let first = |path: &PathBuf| match Part::of(path) {
        Some(Part::Certificate | Part::Authorities) => true,
        Some(Part::Revoked) => !path.with_extension(Part::Authorities.extension()).exists(),
        _ => false,
    };
    let read = |certificate: PathBuf| {
        let family = Part::of(&certificate).map_or(Family::Pair, Part::family);
        let mut parts = [const { None }; 5];
        for (part, held) in Part::ALL.into_iter().zip(&mut parts).filter(|(part, _)| part.family() == family) {
            let path = certificate.with_extension(part.extension());
            if path.exists() {
                let read = read_bounded(&path).and_then(|bytes| part.read(bytes).map_err(str::to_owned));
                match read {
                    Ok(bytes) => *held = Some(bytes),
                    Err(why) => return (path, Err(why)),
                }
            }
        }
        let object = made(&certificate.with_extension(""), family, parts.each_ref().map(Option::as_ref));
        (certificate, object.map_err(|(_, why)| why))
    };
    Ok(paths.into_iter().filter(first).map(read).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_file_is_no_part() {
        let pem = |what: &str| format!("-----BEGIN {what}-----\naGVsbG8=\n-----END {what}-----\n");
        let chain = pem("CERTIFICATE").repeat(2);
        for (part, whole) in [
            (Part::Certificate, chain.as_bytes()),
            (Part::Key, pem("PRIVATE KEY").as_bytes()),
            (Part::Key, pem("EC PRIVATE KEY").as_bytes()),
            (Part::Authorities, chain.as_bytes()),
            (Part::Revoked, pem("X509 CRL").as_bytes()),
            (Part::Staple, &[0x30, 3, 1, 2, 3]),
            (Part::Revoked, &[0x30, 3, 1, 2, 3]),
            (Part::Staple, &[&[0x30, 0x82, 1, 0][..], &[7; 256]].concat()),
        ] {
            assert!(part.read(whole.to_vec()).is_ok(), "{part:?} {whole:?}");
            let trimmed = whole.trim_ascii_end();
            // A chain that ends with its first certificate is whole.
            let cuts = (0..trimmed.len()).filter(|cut| trimmed.len() - cut < 30 || whole != chain.as_bytes());
            for cut in cuts {
                assert!(part.read(trimmed[..cut].to_vec()).is_err(), "{part:?} {cut}");
            }
        }
        assert!(Part::Key.read(chain.clone().into_bytes()).is_err(), "a certificate is no key");
        assert!(Part::Certificate.read(pem("PRIVATE KEY").into_bytes()).is_err());
        assert!(Part::Certificate.read(chain.repeat(20_000).into_bytes()).is_err(), "more than a Secret may hold");
        assert!(Part::Staple.read(vec![0x30, 0x85, 0, 0, 0, 0, 0]).is_err());
    }

    #[test]
    fn names_are_those_of_secrets() {
        for name in ["a", "web", "web-1.example.com"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "Web", "-a", "a.", "a_b", "é", &"a".repeat(254)] {
            assert!(!is_name(name), "{name}");
        }
    }
}
