//! Keys by which signatures are verified, read from JSON Web Key Sets (RFC 7517), each bound to the one algorithm that it is
//! for (RFC 8725 3.1): no token chooses how it is verified. The primitives are ring's, but
//! for the curve that it does not have.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use p521::ecdsa::signature::Verifier as _;
use p521::ecdsa::{Signature, VerifyingKey};
use ring::{hmac, signature};
use serde::{Deserialize, Serialize};
use zeroize::Zeroize as _;

use crate::snapshot::SecretBytes;

/// The most keys in a set that somebody wrote into a policy, and in one that is fetched.
const MOST_KEYS: usize = 32;
const MOST_FETCHED: usize = 128;

/// Where a set comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// Somewhere that many can read.
    Policy,
    Secret,
    /// From its issuer. RFC 7517 5: implementations "SHOULD ignore JWKs within a JWK Set" that are of kinds that they do not
    /// understand, "that are missing required members, or for which values are out of the supported ranges".
    Url,
}

/// An algorithm of JSON Web Signatures (RFC 7518 3.1, RFC 8037 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names of the algorithms")]
pub enum Algorithm {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    ES512,
    EdDSA,
}

/// Kinds of keys: what `kty` says, and `crv`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Symmetric,
    Rsa,
    P256,
    P384,
    P521,
    Ed25519,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Algorithm; 13] = {
        use Algorithm::*;
        [HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA]
    };

    /// As headers of tokens have it.
    pub const fn name(self) -> &'static str {
        use Algorithm::*;
        match self {
            HS256 => "HS256",
            HS384 => "HS384",
            HS512 => "HS512",
            RS256 => "RS256",
            RS384 => "RS384",
            RS512 => "RS512",
            PS256 => "PS256",
            PS384 => "PS384",
            PS512 => "PS512",
            ES256 => "ES256",
            ES384 => "ES384",
            ES512 => "ES512",
            EdDSA => "EdDSA",
        }
    }

    /// The algorithm of this name, to the letter.
    pub fn named(name: &str) -> Option<Self> {
        Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    fn kind(self) -> Kind {
        use Algorithm::*;
        match self {
            HS256 | HS384 | HS512 => Kind::Symmetric,
            RS256 | RS384 | RS512 | PS256 | PS384 | PS512 => Kind::Rsa,
            ES256 => Kind::P256,
            ES384 => Kind::P384,
            ES512 => Kind::P521,
            EdDSA => Kind::Ed25519,
        }
    }

    /// RFC 7518 3.2: "A key of the same size as the hash output […] or larger MUST be used".
    fn least_secret(self) -> usize {
        match self {
            Algorithm::HS384 => 48,
            Algorithm::HS512 => 64,
            _ => 32,
        }
    }
}

/// A key, and the one algorithm that it is for.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Key {
    /// Its name in the set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Box<str>>,
    /// What it is for.
    pub algorithm: Algorithm,
    /// Whether it is for that, too, if nobody says which algorithms are wanted.
    #[serde(skip)]
    pub usual: bool,
    #[serde(skip)]
    material: Material,
}

#[derive(Clone, PartialEq, Eq)]
enum Material {
    Secret(SecretBytes),
    Rsa {
        n: Box<[u8]>,
        e: Box<[u8]>,
    },
    /// As ring takes it: a point, uncompressed, or the 32 bytes of Ed25519.
    Point(Box<[u8]>),
    P521(Box<VerifyingKey>),
}

impl fmt::Debug for Key {
    /// Without what it is made of.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

impl Key {
    /// Whether this is its signature of a message.
    pub fn verifies(&self, message: &[u8], signed: &[u8]) -> bool {
        use Algorithm::*;
        match &self.material {
            Material::Secret(secret) => {
                let hash = match self.algorithm {
                    HS384 => hmac::HMAC_SHA384,
                    HS512 => hmac::HMAC_SHA512,
                    _ => hmac::HMAC_SHA256,
                };
                // Compares in constant time.
                hmac::verify(&hmac::Key::new(hash, secret.expose()), message, signed).is_ok()
            }
            Material::Rsa { n, e } => {
                let scheme = match self.algorithm {
                    RS384 => &signature::RSA_PKCS1_2048_8192_SHA384,
                    RS512 => &signature::RSA_PKCS1_2048_8192_SHA512,
                    PS256 => &signature::RSA_PSS_2048_8192_SHA256,
                    PS384 => &signature::RSA_PSS_2048_8192_SHA384,
                    PS512 => &signature::RSA_PSS_2048_8192_SHA512,
                    _ => &signature::RSA_PKCS1_2048_8192_SHA256,
                };
                signature::RsaPublicKeyComponents { n, e }.verify(scheme, message, signed).is_ok()
            }
            Material::Point(point) => {
                let scheme: &dyn signature::VerificationAlgorithm = match self.algorithm {
                    ES384 => &signature::ECDSA_P384_SHA384_FIXED,
                    EdDSA => &signature::ED25519,
                    _ => &signature::ECDSA_P256_SHA256_FIXED,
                };
                signature::UnparsedPublicKey::new(scheme, point).verify(message, signed).is_ok()
            }
            Material::P521(key) => {
                Signature::from_slice(signed).is_ok_and(|signature| key.verify(message, &signature).is_ok())
            }
        }
    }
}

/// The keys of an issuer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Keys(Box<[Key]>);

/// Why a set of keys cannot be used. It holds nothing of the keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidKeys(pub String);

/// What is read of a set.
#[derive(Deserialize)]
struct Set {
    keys: Vec<Jwk>,
}

/// What is read of a key. Members that come twice are refused by what is derived.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    kid: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
    k: Option<String>,
    d: Option<String>,
}

impl Drop for Jwk {
    fn drop(&mut self) {
        self.k.zeroize();
        self.d.zeroize();
    }
}

impl Keys {
    /// Reads a set. Keys of kinds, and for algorithms, that are not known or not wanted are left out (RFC 7517 5), and so are those
    /// that are not for signatures; `wanted` is empty if all are. Only what is kept secret may hold symmetric keys.
    ///
    /// # Errors
    /// [`InvalidKeys`], also if no key is left.
    pub fn read(text: &[u8], wanted: &[Algorithm], secret: bool) -> Result<Self, InvalidKeys> {
        Self::of(text, wanted, if secret { Origin::Secret } else { Origin::Policy })
    }

    /// Reads a set that was fetched from its issuer. Keys that cannot be used are left out, whatever is wrong with them. An RSA key
    /// that does not say what it is for is one for each algorithm.
    ///
    /// # Errors
    /// [`InvalidKeys`], also if no key is left.
    pub fn fetched(text: &[u8]) -> Result<Self, InvalidKeys> {
        Self::of(text, &[], Origin::Url)
    }

    fn of(text: &[u8], wanted: &[Algorithm], origin: Origin) -> Result<Self, InvalidKeys> {
        // What serde says may repeat what it read.
        let place = |error: serde_json::Error| {
            InvalidKeys(format!(
                "this is no JSON Web Key Set, {{\"keys\": [{{\"kty\": …}}]}}: look at line {}, column {}",
                error.line(),
                error.column()
            ))
        };
        let Set { keys: given } = serde_json::from_slice(text).map_err(place)?;
        let most = if origin == Origin::Url { MOST_FETCHED } else { MOST_KEYS };
        if given.len() > most {
            return Err(InvalidKeys(format!("there are {} keys, and {most} is the most", given.len())));
        }
        let mut keys: Vec<Key> = Vec::with_capacity(given.len());
        for (at, jwk) in given.iter().enumerate() {
            let wrong = |why: &str| InvalidKeys(format!("keys[{at}] {why}"));
            let read = match jwk.read(wanted, origin) {
                Err(_) if origin == Origin::Url => None,
                read => read.map_err(|why| wrong(&why))?,
            };
            let Some((material, algorithms)) = read else { continue };
            for algorithm in algorithms {
                let usual = jwk.alg.is_some() || algorithm.kind() != Kind::Rsa || algorithm == Algorithm::RS256;
                let id = jwk.kid.as_deref().map(Box::from);
                if id.is_some() && keys.iter().any(|key| key.id == id && key.algorithm == algorithm) {
                    return Err(wrong("has the same kid and algorithm as one before"));
                }
                keys.push(Key { id, algorithm, usual, material: material.clone() });
            }
        }
        if keys.is_empty() {
            let names =
                |algorithms: &[Algorithm]| algorithms.iter().map(|one| one.name()).collect::<Vec<_>>().join(", ");
            let which = names(if wanted.is_empty() { &Algorithm::ALL } else { wanted });
            return Err(InvalidKeys(format!("there is no key for signatures by any of {which}")));
        }
        Ok(Keys(keys.into()))
    }

    /// The keys.
    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        self.0.iter()
    }
}

impl Jwk {
    /// What the key is made of, and what it is for; `None` if it is left out.
    fn read(&self, wanted: &[Algorithm], origin: Origin) -> Result<Option<(Material, Vec<Algorithm>)>, String> {
        let signs = self.usage.as_deref().is_none_or(|usage| usage == "sig")
            && self.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        let kind = match (&*self.kty, self.crv.as_deref()) {
            ("oct", _) => Kind::Symmetric,
            ("RSA", _) => Kind::Rsa,
            ("EC", Some("P-256")) => Kind::P256,
            ("EC", Some("P-384")) => Kind::P384,
            ("EC", Some("P-521")) => Kind::P521,
            ("OKP", Some("Ed25519")) => Kind::Ed25519,
            _ => return Ok(None),
        };
        if !signs {
            return Ok(None);
        }
        let algorithms = match &self.alg {
            Some(name) => match Algorithm::named(name) {
                Some(algorithm) if algorithm.kind() == kind => vec![algorithm],
                Some(_) => return Err(format!("is of type {}, which is not that of its alg", self.kty)),
                None => return Ok(None),
            },
            None => {
                let fitting = |algorithm: &Algorithm| algorithm.kind() == kind;
                match kind {
                    // Those who use it say for what.
                    Kind::Rsa if origin == Origin::Url => Algorithm::ALL.into_iter().filter(fitting).collect(),
                    Kind::Symmetric | Kind::Rsa if !wanted.is_empty() => {
                        wanted.iter().copied().filter(fitting).collect()
                    }
                    Kind::Symmetric => return Err("needs an alg, for example HS256".to_owned()),
                    // RFC 7518 3.1 recommends it, and issuers that do not say what they use use it.
                    Kind::Rsa => vec![Algorithm::RS256],
                    _ => Algorithm::ALL.into_iter().filter(fitting).collect(),
                }
            }
        };
        let algorithms: Vec<_> =
            algorithms.into_iter().filter(|one| wanted.is_empty() || wanted.contains(one)).collect();
        if algorithms.is_empty() {
            return Ok(None);
        }
        let material = match kind {
            Kind::Symmetric if origin != Origin::Secret => {
                return Err("is symmetric: who can read it can sign, so it belongs into a Secret".to_owned());
            }
            Kind::Symmetric => {
                let bytes = SecretBytes::from(decoded(&self.k, "k")?);
                let least = algorithms.iter().map(|one| one.least_secret()).max().unwrap_or_default();
                if bytes.expose().len() < least {
                    return Err(format!("is shorter than the {least} bytes that its algorithm asks for"));
                }
                Material::Secret(bytes)
            }
            _ if self.d.is_some() => return Err("is a private key; leave its member d out".to_owned()),
            Kind::Rsa => rsa(decoded(&self.n, "n")?, decoded(&self.e, "e")?)?,
            Kind::P256 => Material::Point(point(decoded(&self.x, "x")?, decoded(&self.y, "y")?, 32)?),
            Kind::P384 => Material::Point(point(decoded(&self.x, "x")?, decoded(&self.y, "y")?, 48)?),
            Kind::P521 => p521(&point(decoded(&self.x, "x")?, decoded(&self.y, "y")?, 66)?)?,
            Kind::Ed25519 => match decoded(&self.x, "x")? {
                point if point.len() == 32 => Material::Point(point.into()),
                _ => return Err("has an x that is not 32 bytes long".to_owned()),
            },
        };
        Ok(Some((material, algorithms)))
    }
}

fn decoded(member: &Option<String>, name: &str) -> Result<Vec<u8>, String> {
    let text = member.as_ref().ok_or_else(|| format!("has no {name}"))?;
    BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| format!("has a {name} that is not base64url"))
}

/// RFC 7518 3.3: "A key of size 2048 bits or larger MUST be used"; ring takes no exponents below 3 and above 33 bits, and no
/// larger moduli.
fn rsa(n: Vec<u8>, e: Vec<u8>) -> Result<Material, String> {
    let bits = (n.len() * 8).saturating_sub(n.first().map_or(8, |first| first.leading_zeros()) as usize);
    // RFC 7518 2: an unsigned integer is written with "the minimum number of octets".
    if n.first().is_none_or(|first| *first == 0) || n.last().is_none_or(|last| last % 2 == 0) {
        return Err("has an n that is no modulus".to_owned());
    }
    if !(2048..=8192).contains(&bits) {
        return Err(format!("has {bits} bits, and 2048 to 8192 are taken"));
    }
    let exponent = e.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    if e.len() > 4 || e.first() == Some(&0) || exponent < 3 || exponent % 2 == 0 {
        return Err("has an e that is no exponent from 3 to 2^32".to_owned());
    }
    Ok(Material::Rsa { n: n.into(), e: e.into() })
}

/// RFC 7518 6.2.1.2: "The length of this octet string MUST be the full size of a coordinate".
fn point(x: Vec<u8>, y: Vec<u8>, size: usize) -> Result<Box<[u8]>, String> {
    if x.len() != size || y.len() != size {
        return Err(format!("has coordinates that are not {size} bytes long"));
    }
    Ok([&[4][..], &x, &y].concat().into())
}

fn p521(point: &[u8]) -> Result<Material, String> {
    let key = VerifyingKey::from_sec1_bytes(point).map_err(|_| "has coordinates of no point on its curve")?;
    Ok(Material::P521(Box::new(key)))
}
