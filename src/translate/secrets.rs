//! What is kept of Secrets and ConfigMaps: their type and their data. Which of them are read at all is `source`'s to say, and
//! what an entry means belongs to whoever refers to it.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use serde::Deserialize;
use serde::de::value::StrDeserializer;
use serde_json::Value;
use zeroize::Zeroize;

use super::Malformed;
use crate::snapshot::SecretBytes;

/// The type of Secrets that hold a certificate and its key.
pub const TLS_TYPE: &str = "kubernetes.io/tls";
/// Where a Secret of that type has its certificates, in PEM, the server's own first.
pub const TLS_CERTIFICATE: &str = "tls.crt";
/// Where it has the private key, in PEM.
pub const TLS_KEY: &str = "tls.key";
/// Where it may have the response of the OCSP responder, in DER. Kubernetes knows no name for it; this one is Floodway's.
pub const TLS_STAPLE: &str = "tls.ocsp-staple";
/// Where an object has certificates of authorities, in PEM, as Kubernetes itself has it.
pub const AUTHORITIES: &str = "ca.crt";
/// Where it has lists of revoked certificates, as ingress-nginx has it.
pub const REVOKED: &str = "ca.crl";
/// The label by which other Secrets, and ConfigMaps, are given to Floodway to read; its value is `"true"`.
pub const USE_LABEL: &str = "floodway.dev/use";
/// Why a Secret that a field names is not there, to be put after its name.
pub const UNREAD_SECRET: &str = "is not there, or not for Floodway to read: it has to be of type kubernetes.io/tls or labelled \
                                 floodway.dev/use: \"true\", in a namespace whose Secrets Floodway may watch (a sidecar may if \
                                 sidecar.secrets of the chart is true)";
/// Why a ConfigMap that a field names is not there, to be put after its name.
pub const UNREAD_CONFIG_MAP: &str = "is not there, or not for Floodway to read: it has to be labelled floodway.dev/use: \
                                     \"true\", in a namespace whose ConfigMaps Floodway may watch (a sidecar may if sidecar.secrets \
                                     of the chart is true)";

/// The most bytes that all entries of an object have together, as Kubernetes has it.
pub const MAX_DATA_BYTES: usize = 1024 * 1024;
/// The longest name of an entry, as Kubernetes has it.
const MAX_NAME_BYTES: usize = 253;

/// What is kept of a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretData {
    /// Its type, like `kubernetes.io/tls`.
    pub kind: Box<str>,
    /// Its entries.
    pub data: BTreeMap<Box<str>, SecretBytes>,
}

/// What is kept of a ConfigMap. People put secrets there, too, so it is held like one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigMapData {
    /// Its entries, of `data` and of `binaryData`.
    pub data: BTreeMap<Box<str>, SecretBytes>,
}

impl SecretData {
    /// What is kept of a Secret; `stringData` wins over `data`, as it does in the API server. Its text is wiped.
    ///
    /// # Errors
    /// [`Malformed`] for what Kubernetes does not have: other names and types, and more than [`MAX_DATA_BYTES`]. It tells
    /// names, and nothing of what they hold.
    pub fn read(mut secret: Value) -> Result<Self, Malformed> {
        let kind = match secret.get("type") {
            None | Some(Value::Null) => "Opaque".into(),
            Some(Value::String(kind)) => kind.as_str().into(),
            Some(_) => return Err(Malformed("type: has to be text".to_owned())),
        };
        Ok(SecretData { kind, data: read_all(&mut secret, [("data", BASE64), ("stringData", TEXT)])? })
    }

    /// A Secret of type [`TLS_TYPE`].
    ///
    /// # Errors
    /// [`Malformed`] for more than [`MAX_DATA_BYTES`].
    pub fn tls(certificate: SecretBytes, key: SecretBytes, staple: Option<SecretBytes>) -> Result<Self, Malformed> {
        let parts = [(TLS_CERTIFICATE, Some(certificate)), (TLS_KEY, Some(key)), (TLS_STAPLE, staple)];
        let data = parts.into_iter().filter_map(|(name, bytes)| Some((name.into(), bytes?))).collect();
        bounded(&data)?;
        Ok(SecretData { kind: TLS_TYPE.into(), data })
    }

    /// An entry.
    pub fn entry(&self, name: &str) -> Option<&SecretBytes> {
        self.data.get(name)
    }

    /// Whether it is of type [`TLS_TYPE`].
    pub fn is_tls(&self) -> bool {
        &*self.kind == TLS_TYPE
    }
}

impl ConfigMapData {
    /// What is kept of a ConfigMap. Its text is wiped.
    ///
    /// # Errors
    /// [`Malformed`], as for a Secret.
    pub fn read(mut map: Value) -> Result<Self, Malformed> {
        Ok(ConfigMapData { data: read_all(&mut map, [("data", TEXT), ("binaryData", BASE64)])? })
    }

    /// One with authorities and lists of revoked certificates, of which there may be either.
    ///
    /// # Errors
    /// [`Malformed`] for more than [`MAX_DATA_BYTES`].
    pub fn authorities(authorities: Option<SecretBytes>, revoked: Option<SecretBytes>) -> Result<Self, Malformed> {
        let parts = [(AUTHORITIES, authorities), (REVOKED, revoked)];
        let data = parts.into_iter().filter_map(|(name, bytes)| Some((name.into(), bytes?))).collect();
        bounded(&data)?;
        Ok(ConfigMapData { data })
    }

    /// An entry.
    pub fn entry(&self, name: &str) -> Option<&SecretBytes> {
        self.data.get(name)
    }
}

/// How the values of a field become bytes, and what they have to be.
type Encoding = (fn(String) -> Option<SecretBytes>, &'static str);

const TEXT: Encoding = (|text| Some(text.into_bytes().into()), "has to be text; put it in quotes");
const BASE64: Encoding = (base64, "has to be base64 of its content");

/// Line breaks do not count, as they do not for the API server.
fn base64(mut text: String) -> Option<SecretBytes> {
    let mut joined = text.replace(['\r', '\n'], "");
    text.zeroize();
    let decoded = ByteString::deserialize(StrDeserializer::<serde::de::value::Error>::new(&joined)).ok();
    joined.zeroize();
    decoded.map(|ByteString(bytes)| bytes.into())
}

/// The entries of some fields, of which the later ones win. The text of all of them is wiped. Nothing here goes through the
/// errors of serde, which repeat what they do not understand.
fn read_all(object: &mut Value, fields: [(&str, Encoding); 2]) -> Result<BTreeMap<Box<str>, SecretBytes>, Malformed> {
    let mut all = BTreeMap::new();
    let mut refused = None;
    for (field, (decode, what)) in fields {
        let entries = match object.get_mut(field).map(Value::take) {
            None | Some(Value::Null) => continue,
            Some(Value::Object(entries)) => entries,
            Some(_) => return Err(Malformed(format!("{field}: has to be names with values"))),
        };
        for (name, value) in entries {
            let bytes = match value {
                Value::String(text) => decode(text),
                Value::Null => Some(Vec::new().into()),
                _ => None,
            };
            if let Some(wrong) = wrong_name(&name) {
                // Whoever mistook where a name goes may have written something else there.
                refused = refused.or_else(|| Some(Malformed(format!("{field}: {wrong}"))));
            } else if let Some(bytes) = bytes {
                all.insert(name.into(), bytes);
            } else {
                refused = refused.or_else(|| Some(Malformed(format!("{field}.{name}: {what}"))));
            }
        }
    }
    bounded(&all)?;
    refused.map_or(Ok(all), Err)
}

fn bounded(all: &BTreeMap<Box<str>, SecretBytes>) -> Result<(), Malformed> {
    let bytes: usize = all.values().map(|bytes| bytes.expose().len()).sum();
    if bytes > MAX_DATA_BYTES {
        return Err(Malformed(format!(
            "data: {bytes} bytes are more than an object may hold, which are {MAX_DATA_BYTES}"
        )));
    }
    Ok(())
}

/// "… must consist of alphanumeric characters, -, _ or ." (Kubernetes, Secret.data)
fn wrong_name(name: &str) -> Option<&'static str> {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let short = (1..=MAX_NAME_BYTES).contains(&name.len());
    let known = short && name.bytes().all(sound) && name != "." && !name.starts_with("..");
    (!known).then_some(
        "a name here is not one that Kubernetes has; write letters, digits, '-', '_' and '.', at most 253 of them",
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    #[test]
    fn entries_are_kept_and_not_shown() {
        let secret = json!({"data": {"a": "b25l", "b": "aHV\nzaA==\n", "n": null}, "stringData": {"a": "two"}, "x": 1});
        let read = SecretData::read(secret).unwrap();
        let entry = |name| read.entry(name).map(|bytes| bytes.expose_text().unwrap());
        assert_eq!((entry("a"), entry("b"), entry("n"), entry("c")), (Some("two"), Some("hush"), Some(""), None));
        assert_eq!((&*read.kind, read.is_tls()), ("Opaque", false));
        assert!(!format!("{read:?}").contains("hush"), "{read:?}");
        assert!(SecretData::read(json!({"type": TLS_TYPE})).unwrap().is_tls());
    }

    #[test]
    fn what_kubernetes_does_not_have_is_refused_without_its_content() {
        let long = "n".repeat(254);
        let named = ["", "a b", "a/b", ".", "..", "..a", "é", &long].map(|name| json!({"data": {name: "aHVzaA=="}}));
        let odd = [
            (json!({"data": "hush"}), "data: has to be names with values"),
            (json!({"data": {"a": "hush!"}}), "data.a: has to be base64 of its content"),
            (json!({"stringData": {"a": ["hush"]}}), "stringData.a: has to be text; put it in quotes"),
            (json!({"type": ["hush"]}), "type: has to be text"),
        ];
        let named = named.into_iter().map(|secret| (secret, "data: a name here is not one that Kubernetes has"));
        for (secret, expected) in odd.into_iter().chain(named) {
            let Malformed(why) = SecretData::read(secret).unwrap_err();
            assert!(why.starts_with(expected) && !why.contains("hush") && !why.contains("aHVz"), "{why}");
        }
        let half = "x".repeat(MAX_DATA_BYTES / 2);
        assert!(SecretData::read(json!({"stringData": {"a": half, "b": half}})).is_ok());
        let Malformed(why) = SecretData::read(json!({"stringData": {"a": half, "b": half, "c": "x"}})).unwrap_err();
        assert_eq!(why, "data: 1048577 bytes are more than an object may hold, which are 1048576");
    }

    #[test]
    fn both_kinds_of_entries_of_a_config_map_are_kept() {
        let read = ConfigMapData::read(json!({"data": {"page": "<p>"}, "binaryData": {"icon": "AP8="}})).unwrap();
        assert_eq!(read.entry("page").unwrap().expose(), b"<p>");
        assert_eq!(read.entry("icon").unwrap().expose(), [0, 255]);
    }
}
