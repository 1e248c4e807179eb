//! Tokens for whoever asks, signed with the key that the folder's Secret has for the demo: to see a proxy that wants one.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use http::header::CACHE_CONTROL;
use http::{HeaderValue, Response, StatusCode};
use ring::hmac;
use serde_json::{Value, json};

use super::Folder;
use super::reply::{self, Body};

/// How long one is good for if nobody says otherwise, and at most, in seconds.
const SECONDS: u64 = 60;
const MOST_SECONDS: u64 = 3600;

/// A token of `ada`, good for a minute or as many seconds as `seconds` of the query says.
pub(super) fn answer(folder: &Folder, query: Option<&str>) -> Response<Body> {
    let mut fields = query.unwrap_or_default().split('&');
    let asked = fields.find_map(|field| field.strip_prefix("seconds=")?.parse().ok());
    let seconds = asked.map_or(SECONDS, |seconds: u64| seconds.clamp(1, MOST_SECONDS));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    match key(folder) {
        Some(key) => {
            let mut response = reply::whole("text/plain; charset=utf-8", token(&key, now, seconds));
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        None => reply::refusal(StatusCode::NOT_FOUND, "The folder has no Secret demo-tokens with a key for HS256."),
    }
}

/// The first key of the set in the Secret `demo-tokens`.
fn key(folder: &Folder) -> Option<Vec<u8>> {
    let secret = folder.secret("demo-tokens")?;
    let keys: Value = serde_json::from_str(secret["stringData"]["jwks.json"].as_str()?).ok()?;
    BASE64.decode(keys["keys"][0]["k"].as_str()?).ok()
}

fn token(key: &[u8], now: u64, seconds: u64) -> String {
    let claims = json!({"iss": "demo", "aud": "demo", "sub": "ada", "iat": now, "exp": now + seconds});
    let parts = [json!({"alg": "HS256"}), claims].map(|part| BASE64.encode(part.to_string()));
    let message = parts.join(".");
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message.as_bytes());
    format!("{message}.{}", BASE64.encode(signature.as_ref()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use super::*;

    #[test]
    fn tokens_are_signed_with_the_key_of_the_folder() {
        let folder = Folder::open(Some(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/demo")))).unwrap();
        let key = key(&folder).unwrap();
        assert!(key.starts_with(b"demo only"), "it says what it is for");
        let token = token(&key, 100, 60);
        let (message, signature) = token.rsplit_once('.').unwrap();
        let signature = BASE64.decode(signature).unwrap();
        hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, &key), message.as_bytes(), &signature).unwrap();
        let claims = BASE64.decode(message.split_once('.').unwrap().1).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&claims).unwrap()["exp"], 160);
    }
}
