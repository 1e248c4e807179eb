#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use ring::rand::SystemRandom;
use ring::signature::{EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::json;

use super::super::Tokens;
use super::super::vectors::*;
use super::*;
use crate::snapshot::{ClaimHeader, Keys};

/// A section for tokens of joe.
fn joe(keys: &str) -> Jwt {
    let keys = Keys::read(keys.as_bytes(), &[], true).unwrap();
    Jwt {
        issuers: [Issuer { issuer: "joe".into(), audiences: [].into(), keys: keys.into() }].into(),
        from: [].into(),
        skew: Duration::ZERO,
        required: [].into(),
        headers: [].into(),
        forward: false,
        close_code: None,
        realm: "r".into(),
    }
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

const SECRET: &[u8; 64] = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn hmac_keys() -> String {
    json!({"keys": [{"kty": "oct", "alg": "HS256", "kid": "one", "k": encode(SECRET)}]}).to_string()
}

/// A token with this header and these claims, signed with the secret.
fn signed(header: &str, claims: &str) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET);
    format!("{message}.{}", encode(ring::hmac::sign(&key, message.as_bytes())))
}

const HEADER: &str = r#"{"alg": "HS256"}"#;

fn refused(jwt: &Jwt, token: &str) -> Refusal {
    Verified::read(jwt, token.as_bytes(), EXPIRES).expect_err(token)
}

#[test]
fn the_examples_of_the_specifications_verify() {
    for (token, keys) in [(A1, A1_KEYS), (A2, A2_KEYS), (A3, A3_KEYS)] {
        let verified = Verified::read(&joe(keys), token.as_bytes(), EXPIRES).unwrap();
        assert_eq!(verified.claim("http://example.com/is_root").as_deref(), Some("true"));
        assert_eq!(verified.at(EXPIRES - 1), Ok(()));
        assert_eq!(verified.at(EXPIRES), Err(Refusal::Expired), "on or after");
        let late = Jwt { skew: Duration::from_secs(60), ..joe(keys) };
        assert_eq!(Verified::read(&late, token.as_bytes(), EXPIRES).unwrap().at(EXPIRES + 59), Ok(()));
    }
    // The fourth signs what is no token, and the fifth has no signature.
    let (message, signature) = A4.rsplit_once('.').unwrap();
    let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap();
    let keys = Keys::read(A4_KEYS.as_bytes(), &[], false).unwrap();
    let key = keys.iter().next().unwrap();
    assert!(key.algorithm == JwtAlgorithm::ES512 && key.verifies(message.as_bytes(), &signature));
    assert!(!key.verifies(b"eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZB", &signature), "another message");
    for at in [0, 1, 65, 66, 131] {
        let mut altered = signature.clone();
        altered[at] ^= 1;
        assert!(!key.verifies(message.as_bytes(), &altered), "byte {at}");
    }
    let negligible = [[0; 66], [0; 66]].concat();
    let doubled = [&signature[..], &[0]].concat();
    for other in [&signature[..131], &doubled, &negligible, &[0xff; 132], &[]] {
        assert!(!key.verifies(message.as_bytes(), other), "{other:?}");
    }
    for keys in [A1_KEYS, A2_KEYS, A3_KEYS] {
        assert!(matches!(refused(&joe(keys), A5), Refusal::Invalid(_)));
    }
}

#[test]
fn every_algorithm_verifies_what_others_have_signed() {
    for (name, token) in RSA_SIGNED {
        for other in RSA_SIGNED.map(|(name, _)| name) {
            let keys = json!({"keys": [{"kty": "RSA", "alg": other, "n": RSA_N, "e": "AQAB"}]}).to_string();
            assert_eq!(
                Verified::read(&joe(&keys), token.as_bytes(), EXPIRES).is_ok(),
                name == other,
                "{name} by {other}"
            );
        }
        let wanted = JwtAlgorithm::named(name).unwrap();
        let silent = json!({"keys": [{"kty": "RSA", "n": RSA_N, "e": "AQAB"}]}).to_string();
        let keys = Keys::read(silent.as_bytes(), &[wanted], false).unwrap();
        assert!(keys.iter().map(|key| key.algorithm).eq([wanted]));
    }
    let random = SystemRandom::new();
    let claims = encode(r#"{"iss": "joe", "exp": 9}"#);
    let pair = Ed25519KeyPair::from_pkcs8(Ed25519KeyPair::generate_pkcs8(&random).unwrap().as_ref()).unwrap();
    let message = format!("{}.{claims}", encode(r#"{"alg": "EdDSA"}"#));
    let token = format!("{message}.{}", encode(pair.sign(message.as_bytes())));
    let keys = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key())}]}).to_string();
    assert!(Verified::read(&joe(&keys), token.as_bytes(), EXPIRES).is_ok());

    let scheme = &ring::signature::ECDSA_P384_SHA384_FIXED_SIGNING;
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(scheme, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(scheme, pkcs8.as_ref(), &random).unwrap();
    let message = format!("{}.{claims}", encode(r#"{"alg": "ES384"}"#));
    let token = format!("{message}.{}", encode(pair.sign(&random, message.as_bytes()).unwrap()));
    let point = pair.public_key().as_ref();
    let key = json!({"kty": "EC", "crv": "P-384", "x": encode(&point[1..49]), "y": encode(&point[49..])});
    assert!(Verified::read(&joe(&json!({"keys": [key]}).to_string()), token.as_bytes(), EXPIRES).is_ok());

    for (hash, name) in
        [(ring::hmac::HMAC_SHA256, "HS256"), (ring::hmac::HMAC_SHA384, "HS384"), (ring::hmac::HMAC_SHA512, "HS512")]
    {
        let message = format!("{}.{claims}", encode(json!({"alg": name}).to_string()));
        let tag = ring::hmac::sign(&ring::hmac::Key::new(hash, SECRET), message.as_bytes());
        let keys = json!({"keys": [{"kty": "oct", "alg": name, "k": encode(SECRET)}]}).to_string();
        assert!(
            Verified::read(&joe(&keys), format!("{message}.{}", encode(tag)).as_bytes(), EXPIRES).is_ok(),
            "{name}"
        );
    }
}

#[test]
fn no_token_chooses_how_it_is_verified() {
    let jwt = joe(&hmac_keys());
    let claims = r#"{"iss": "joe", "exp": 9}"#;
    assert!(Verified::read(&jwt, signed(HEADER, claims).as_bytes(), EXPIRES).is_ok());
    for alg in
        ["none", "None", "NONE", "nOnE", "hs256", "HS256 ", "HS384", "RS256", "ES256", "ES512", "EdDSA", "A128KW", ""]
    {
        let header = json!({"alg": alg}).to_string();
        refused(&jwt, &signed(&header, claims));
        refused(&jwt, &format!("{}.{}.", encode(&header), encode(claims)));
    }
    for header in ["{}", r#"{"alg": null}"#, r#"{"alg": ["HS256"]}"#, r#"{"alg": 1}"#, "[]", "x"] {
        refused(&jwt, &signed(header, claims));
    }
    // A key that the token brings along counts for nothing.
    let stranger =
        json!({"alg": "HS256", "kid": "two", "jwk": {"kty": "oct", "k": encode(SECRET)}, "jku": "https://x.test"});
    assert_eq!(refused(&jwt, &signed(&stranger.to_string(), claims)), Refusal::Invalid("its key is not known"));
}

#[test]
fn public_keys_are_no_secrets_to_sign_with() {
    // What an attacker has of a key who knows it: its members, the modulus, the point.
    let n = BASE64_URL_SAFE_NO_PAD.decode(RSA_N).unwrap();
    let keys = json!({"keys": [{"kty": "RSA", "alg": "RS256", "n": RSA_N, "e": "AQAB"}]}).to_string();
    let rsa = joe(&keys);
    for secret in [&n[..], RSA_N.as_bytes(), keys.as_bytes()] {
        for alg in ["HS256", "RS256"] {
            let message = format!("{}.{}", encode(json!({"alg": alg}).to_string()), encode(r#"{"iss":"joe","exp":9}"#));
            let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
            let tag = ring::hmac::sign(&key, message.as_bytes());
            refused(&rsa, &format!("{message}.{}", encode(tag)));
        }
    }
    // Nor can symmetric keys be where everybody reads them, and keys of one type not be for another.
    for (keys, secret, says) in [
        (hmac_keys(), false, "keys[0] is symmetric: who can read it can sign, so it belongs into a Secret"),
        (
            json!({"keys": [{"kty": "RSA", "alg": "HS256", "n": RSA_N, "e": "AQAB"}]}).to_string(),
            true,
            "keys[0] is of type RSA",
        ),
        (
            json!({"keys": [{"kty": "oct", "alg": "RS256", "k": encode(SECRET)}]}).to_string(),
            true,
            "keys[0] is of type oct",
        ),
        (A3_KEYS.replace("\"x\"", "\"alg\": \"ES384\", \"x\""), false, "keys[0] is of type EC"),
        (A3_KEYS.replace("\"x\"", "\"d\": \"AA\", \"x\""), false, "keys[0] is a private key"),
        (A2_KEYS.replace("AQAB", "AQ"), false, "keys[0] has an e that is no exponent"),
        (
            json!({"keys": [{"kty": "RSA", "n": encode([0xff; 255]), "e": "AQAB"}]}).to_string(),
            false,
            "keys[0] has 2040 bits",
        ),
        (
            json!({"keys": [{"kty": "oct", "alg": "HS512", "k": encode([7; 63])}]}).to_string(),
            true,
            "keys[0] is shorter than the 64",
        ),
        (json!({"keys": [{"kty": "oct", "k": encode(SECRET)}]}).to_string(), true, "keys[0] needs an alg"),
        (A3_KEYS.replace("\"x_FE", "\""), false, "keys[0] has coordinates that are not 32"),
        (A3_KEYS.replace("\"x_FE", "\"x=FE"), false, "keys[0] has a y that is not base64url"),
        (A3_KEYS.replace("P-256", "secp256k1"), false, "there is no key for signatures"),
        (A3_KEYS.replace("P-256", "P-521"), false, "keys[0] has coordinates that are not 66 bytes long"),
        (A4_KEYS.replace("\"ADSm", "\"ADSn"), false, "keys[0] has coordinates of no point on its curve"),
        (A3_KEYS.replace("\"x\"", "\"use\": \"enc\", \"x\""), false, "there is no key for signatures"),
        ("{\"keys\": [{\"kty\": \"oct\", \"k\": 7}]}".to_owned(), true, "this is no JSON Web Key Set"),
        ("hush".to_owned(), true, "this is no JSON Web Key Set"),
    ] {
        let why = Keys::read(keys.as_bytes(), &[], secret).expect_err(&keys).to_string();
        assert!(why.starts_with(says), "{why}");
    }
    let twice = |other: &str| {
        let key = |kid: &str| json!({"kty": "oct", "alg": "HS256", "kid": kid, "k": encode(SECRET)});
        Keys::read(json!({"keys": [key("a"), key(other)]}).to_string().as_bytes(), &[], true)
    };
    assert!(twice("b").is_ok() && twice("a").unwrap_err().to_string().contains("same kid"));
    let shown = format!("{:?}", joe(A1_KEYS)) + &serde_json::to_string(&joe(A1_KEYS)).unwrap();
    assert!(!shown.contains("AyM1") && shown.contains("HS256"), "{shown}");
}

#[test]
fn a_token_is_what_was_signed_to_the_letter() {
    for (token, keys) in [(A1, A1_KEYS), (A2, A2_KEYS), (A3, A3_KEYS)] {
        let jwt = joe(keys);
        let (message, signature) = token.rsplit_once('.').unwrap();
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap();
        for at in [0, bytes.len() / 2, bytes.len() - 1] {
            let mut altered = bytes.clone();
            altered[at] ^= 1;
            refused(&jwt, &format!("{message}.{}", encode(altered)));
        }
        refused(&jwt, &format!("{message}.{}", encode(&bytes[..bytes.len() - 1])));
        refused(&jwt, &format!("{message}.{}", encode([&bytes[..], b"\0"].concat())));
        refused(&jwt, &format!("{message}.{}", encode(vec![0; bytes.len()])));
        refused(&jwt, &message.replace("eyJpc3", "eyJpc2"));
        for other in [
            format!("{token}="),
            format!("{token}\n"),
            format!(" {token}"),
            format!("{token}.x"),
            format!("{token}."),
            message.to_owned(),
            format!("{message}."),
            token.replacen('.', "..", 1),
            token.replace('_', "/").replace('-', "+") + "A",
            String::new(),
            "..".to_owned(),
            // RFC 7515 7.2: the JSON serialisations.
            json!({"payload": message, "signatures": [{"signature": signature}]}).to_string(),
            format!("{token}{}", "A".repeat(LONGEST)),
        ] {
            refused(&jwt, &other);
        }
    }
    // The last character of this signature has bits that nobody reads: RFC 4648 3.5 has them zero.
    let (stem, last) = A1.split_at(A1.len() - 1);
    assert_eq!(last, "k");
    for other in ["l", "m", "n"] {
        assert_eq!(refused(&joe(A1_KEYS), &format!("{stem}{other}")), Refusal::Invalid("its signature cannot be read"));
    }
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    let jwt = joe(&hmac_keys());
    let claims = r#"{"iss": "joe", "exp": 9}"#;
    for header in [
        r#"{"alg": "HS256", "alg": "HS256"}"#,
        r#"{"alg": "none", "alg": "HS256"}"#,
        r#"{"alg": "HS256", "kid": "one", "kid": "one"}"#,
        r#"{"alg": "HS256", "kid": 1}"#,
        r#"{"alg": "HS256", "crit": ["exp"], "exp": 9}"#,
        r#"{"alg": "HS256", "crit": []}"#,
        r#"{"alg": "HS256", "crit": null}"#,
        r#"{"alg": "HS256", "b64": false}"#,
        r#"{"alg": "HS256"} "#,
    ] {
        if header.ends_with(' ') {
            assert!(
                Verified::read(&jwt, signed(header, claims).as_bytes(), EXPIRES).is_ok(),
                "space around is JSON's own"
            );
        } else {
            refused(&jwt, &signed(header, claims));
        }
    }
    for claims in [
        r#"{"iss": "joe", "exp": 9, "exp": 99}"#,
        r#"{"iss": "joe", "iss": "joe", "exp": 9}"#,
        r#"{"iss": ["joe"], "exp": 9}"#,
        r#"{"iss": "jo", "exp": 9}"#,
        r#"{"exp": 9}"#,
        r#"{"iss": "joe"}"#,
        r#"{"iss": "joe", "exp": "9"}"#,
        r#"{"iss": "joe", "exp": null}"#,
        r#"{"iss": "joe", "exp": 9, "nbf": "1"}"#,
        r#"{"iss": "joe", "exp": 9, "aud": "chat"}"#,
        r#"{"iss": "joe", "exp": 9, "aud": []}"#,
        "\"joe\"",
    ] {
        refused(&jwt, &signed(HEADER, claims));
    }
    let deep = format!(r#"{{"iss": "joe", "exp": 9, "x": {}{}}}"#, "[".repeat(4000), "]".repeat(4000));
    refused(&jwt, &signed(HEADER, &deep));
}

#[test]
fn audiences_times_and_claims_are_held_to() {
    let mut jwt = joe(&hmac_keys());
    jwt.issuers[0].audiences = ["chat".into(), "shop".into()].into();
    jwt.skew = Duration::from_secs(5);
    let read = |claims: &str| Verified::read(&jwt, signed(HEADER, claims).as_bytes(), EXPIRES);
    for (audience, ours) in [
        (r#""chat""#, true),
        (r#"["x", "shop"]"#, true),
        (r#""Chat""#, false),
        (r#"["x"]"#, false),
        ("[[\"chat\"]]", false),
        ("null", false),
    ] {
        assert_eq!(read(&format!(r#"{{"iss":"joe","exp":100,"aud":{audience}}}"#)).is_ok(), ours, "{audience}");
    }
    assert!(read(r#"{"iss":"joe","exp":100}"#).is_err(), "for nobody");
    let verified = read(r#"{"iss":"joe","exp":100.9,"nbf":50,"aud":"chat"}"#).unwrap();
    assert!(matches!(verified.at(44), Err(Refusal::Invalid(_))));
    assert_eq!((verified.at(45), verified.at(104), verified.at(105)), (Ok(()), Ok(()), Err(Refusal::Expired)));
    for (exp, ends) in [("-1", 5), ("1e300", u64::MAX), ("18446744073709551615", u64::MAX)] {
        let verified = read(&format!(r#"{{"iss":"joe","exp":{exp},"aud":"chat"}}"#)).unwrap();
        assert_eq!(verified.ends(), ends);
    }

    jwt.required = [
        ClaimRule { claim: "role".into(), values: ["editor".into(), "7".into(), "true".into()].into() },
        ClaimRule { claim: "https://x.test/a.b".into(), values: ["yes".into()].into() },
        ClaimRule { claim: "realm.roles".into(), values: ["admin".into()].into() },
    ]
    .into();
    for (claims, suffices) in [
        (json!({"role": "editor", "https://x.test/a.b": "yes", "realm": {"roles": ["x", "admin"]}}), true),
        (json!({"role": 7, "https://x.test/a.b": ["yes"], "realm.roles": "admin"}), true),
        (json!({"role": true, "https://x.test/a.b": ["yes"], "realm": {"roles": "admin"}}), true),
        (json!({"role": "edit", "https://x.test/a.b": "yes", "realm": {"roles": ["admin"]}}), false),
        (json!({"https://x.test/a.b": "yes", "realm": {"roles": ["admin"]}}), false),
        (json!({"role": {"editor": 1}, "https://x.test/a.b": "yes", "realm": {"roles": ["admin"]}}), false),
        (json!({"role": "editor", "https://x.test/a.b": "yes", "realm": "admin"}), false),
    ] {
        let mut claims = claims;
        claims["iss"] = "joe".into();
        claims["exp"] = 9.into();
        claims["aud"] = "chat".into();
        let verified = Verified::read(&jwt, signed(HEADER, &claims.to_string()).as_bytes(), EXPIRES).unwrap();
        assert_eq!(verified.suffices(), suffices, "{claims}");
    }
}

#[test]
fn claims_are_told_that_a_field_can_have() {
    let mut jwt = joe(&hmac_keys());
    let header = |claim: &str| ClaimHeader { claim: claim.into(), header: http::HeaderName::from_static("x-told") };
    jwt.headers = [header("c")].into();
    for (value, told) in [
        (json!("ada"), Some("ada")),
        (json!(7), Some("7")),
        (json!(["a", "b"]), Some("a,b")),
        (json!(["a", "b,c"]), None),
        (json!(["a", ["b"]]), None),
        (json!([]), None),
        (json!(""), None),
        (json!("a\r\nX: y"), None),
        (json!("ä"), None),
        (json!(" a"), None),
        (json!({"a": 1}), None),
        (json!(null), None),
    ] {
        let claims = json!({"iss": "joe", "exp": 9, "c": value});
        let verified = Verified::read(&jwt, signed(HEADER, &claims.to_string()).as_bytes(), EXPIRES).unwrap();
        assert_eq!(verified.told().collect::<Vec<_>>(), [told], "{value}");
    }
}

#[test]
fn known_tokens_are_not_verified_again_and_no_others_pass_for_them() {
    let (tokens, jwt) = (Tokens::default(), Arc::new(joe(A3_KEYS)));
    let known = tokens.verify(&jwt, A3.as_bytes(), 1).unwrap();
    assert!(std::rc::Rc::ptr_eq(&known, &tokens.verify(&jwt, A3.as_bytes(), 2).unwrap()));
    assert_eq!(tokens.verify(&jwt, A3.as_bytes(), EXPIRES).err(), Some(Refusal::Expired));
    // An altered signature of a known token, and a section with other keys.
    assert!(tokens.verify(&jwt, A3.replace("NU1Q", "NU1g").as_bytes(), 2).is_err());
    let other = json!({"keys": [{"kty": "RSA", "n": RSA_N, "e": "AQAB"}]}).to_string();
    assert!(tokens.verify(&Arc::new(joe(&other)), A3.as_bytes(), 2).is_err());
    // As many as there may be: those that are shown again and again stay.
    let many = Arc::new(joe(&hmac_keys()));
    for number in 0..20_000 {
        let token = signed(HEADER, &json!({"iss": "joe", "exp": 9, "jti": number}).to_string());
        assert!(tokens.verify(&many, token.as_bytes(), 1).is_ok());
        if number % 1000 == 0 {
            assert!(std::rc::Rc::ptr_eq(&known, &tokens.verify(&jwt, A3.as_bytes(), 2).unwrap()), "{number}");
        }
    }
    assert!(tokens.len() <= 8192, "{}", tokens.len());
    let shown = format!("{tokens:?} {known:?}");
    assert!(!shown.contains("is_root") && !shown.contains("joe"), "{shown}");
}
