//! The document in which an issuer tells where its keys are (OpenID Connect Discovery 1.0).

use serde::Deserialize;

use super::failure::Failure;
use crate::snapshot::{KeySource, KeyUrl};

#[derive(Deserialize)]
struct Document {
    issuer: String,
    jwks_uri: String,
}

/// Where the keys of the issuer are, by its document.
///
/// # Errors
/// It is not its document, or leads to where keys may not come from.
pub(super) fn keys_of(source: &KeySource, issuer: &str, text: &[u8]) -> Result<KeyUrl, Failure> {
    let document: Document = serde_json::from_slice(text)
        .map_err(|_| Failure::Document("this is no document of an issuer, {\"issuer\": …, \"jwks_uri\": …}"))?;
    // 4.3: "The issuer value returned MUST be identical to the Issuer URL that was used as the prefix to /.well-known/openid-configuration".
    if document.issuer != issuer {
        return Err(Failure::Document("the document is of another issuer"));
    }
    let url = KeyUrl::parse(&document.jwks_uri).map_err(|_| Failure::Document("jwks_uri of the document is no URL"))?;
    if !url.secure && !source.insecure {
        return Err(Failure::Document("jwks_uri of the document is not https"));
    }
    if !source.hosts.allow(&url) {
        return Err(Failure::Document(
            "jwks_uri of the document leads to a host that jwks.allowHosts of the settings does not have",
        ));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{HostPattern, KeyHosts};

    #[test]
    fn only_the_document_of_the_issuer_tells_where_its_keys_are() {
        let id = "https://id.example.com/a";
        for (insecure, text, told) in [
            (
                false,
                r#"{"issuer": "https://id.example.com/a", "jwks_uri": "https://keys.example.com/k", "x": 1}"#,
                "https://keys.example.com/k",
            ),
            (
                true,
                r#"{"issuer": "https://id.example.com/a", "jwks_uri": "http://keys.example.com/k"}"#,
                "http://keys.example.com/k",
            ),
            (false, r#"{"issuer": "https://id.example.com/a", "jwks_uri": "http://keys.example.com/k"}"#, "not https"),
            (
                false,
                r#"{"issuer": "https://id.example.com/a/", "jwks_uri": "https://keys.example.com/k"}"#,
                "another issuer",
            ),
            (false, r#"{"issuer": "https://id.example.com/a", "jwks_uri": "https://a@keys.example.com/k"}"#, "no URL"),
            (false, r#"{"issuer": "https://id.example.com/a", "jwks_uri": "https://elsewhere.test/k"}"#, "allowHosts"),
            (false, r#"{"issuer": "https://id.example.com/a"}"#, "no document"),
            (
                false,
                r#"{"issuer": "x", "issuer": "https://id.example.com/a", "jwks_uri": "https://keys.example.com/k"}"#,
                "no document",
            ),
            (false, "<html>", "no document"),
            (false, "", "no document"),
        ] {
            let hosts = KeyHosts::only(HostPattern::parse("*.example.com"));
            let Ok(url) = KeyUrl::parse(id) else { unreachable!() };
            let source = KeySource { url, issuer: Some(id.into()), insecure, tls: None, hosts };
            let seen = keys_of(&source, id, text.as_bytes()).map_or_else(|why| why.to_string(), |url| url.to_string());
            assert!(seen.contains(told), "{text}: {seen}");
        }
    }
}
