//! An identity provider, as far as benchmarks need one: a key, and a token that it signed.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::json;

/// A day in 2100, in seconds since 1970, until which a token may be good.
#[allow(dead_code)]
pub(crate) const YEAR_2100: u64 = 4_102_444_800;

/// A key of P-256, and a token as identity providers make them: some eight hundred bytes.
pub(crate) fn es256(expires: u64) -> (String, String) {
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let (random, scheme) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(scheme, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(scheme, pkcs8.as_ref(), &random).unwrap();
    let point = pair.public_key().as_ref();
    let key = json!({"kty": "EC", "crv": "P-256", "kid": "one", "x": encode(&point[1..33]), "y": encode(&point[33..])});
    let claims = json!({
        "iss": "joe", "exp": expires, "nbf": 1, "iat": 1, "sub": "248289761001", "azp": "chat",
        "name": "Ada Lovelace", "email": "ada@example.com", "email_verified": true, "sid": "8".repeat(36),
        "realm_access": {"roles": ["editor", "reader", "offline_access"]}, "scope": "openid profile email",
        "jti": "0".repeat(36), "note": "x".repeat(120),
    });
    let header = json!({"alg": "ES256", "typ": "JWT", "kid": "one"});
    let message = format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
    let signature = pair.sign(&random, message.as_bytes()).unwrap();
    (json!({"keys": [key]}).to_string(), format!("{message}.{}", encode(signature.as_ref())))
}
