//! Who is signed in: tokens, and whose signatures count.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::TokenSource;
use crate::api::TimeBounds;
use crate::api::rules::{duration_within, editable_header_name, object_name, rules, texts};

/// Of `jwks.maxStale`.
pub const MAX_STALE: TimeBounds = ("1m", "720h");
/// Of `jwt.clockSkew`.
pub const CLOCK_SKEW: TimeBounds = ("1s", "10m");

/// What a request has to show that it comes from somebody who is signed in: a JSON Web Token (RFC 7519), signed by one of these
/// issuers and not expired.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([(
    "!has(self.closeCode) || !has(self.onExpiry) || self.onExpiry == 'CloseStream'",
    "closeCode is of WebSockets that are closed: it needs onExpiry CloseStream",
)])))]
pub struct Jwt {
    /// Whose tokens may pass, for example `[{issuer: "https://id.example.com", audiences: [chat], jwks: {secretName: id-keys}}]`.
    #[schemars(
        length(min = 1, max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["issuer"])
    )]
    pub issuers: Vec<Issuer>,
    /// Where the token is looked for, the first place that has one counts: for example
    /// `[{header: authorization, prefix: Bearer}, {query: access_token}]`; only that header when absent. Browsers cannot give
    /// WebSockets and EventSource headers, but cookies and queries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub from: Vec<TokenSource>,
    /// By how much the clocks of an issuer and of Floodway may differ, for example `30s`; `1m` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration_within(CLOCK_SKEW)))]
    pub clock_skew: Option<String>,
    /// What the claims have to say, all of it, for example `[{claim: role, values: [editor, admin]}]`. Others get 403.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["claim"])
    )]
    pub required_claims: Vec<RequiredClaim>,
    /// Claims that the endpoint is told in header fields, for example `[{claim: sub, header: x-user}]`. What clients send
    /// under these names never gets there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["header"])
    )]
    pub claims_to_headers: Vec<ClaimToHeader>,
    /// Whether the endpoint gets the token, too. It is taken out of the request when absent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forward: bool,
    /// What becomes of a stream whose token expires: `CloseStream` (when absent) or `Ignore`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_expiry: Option<OnExpiry>,
    /// The status with which WebSockets are closed whose token expires, for example `4000`; `4401` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 3000, max = 4999))]
    pub close_code: Option<u16>,
    /// What clients are told that they need a token for (RFC 9110 11.5); `floodway` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), extend("x-kubernetes-validations" = rules([(
        r#"self.matches('^[ !#-\\[\\]-~]+$')"#,
        "write a realm without quotes and backslashes",
    )])))]
    pub realm: Option<String>,
}

/// Somebody who signs tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([
    (
        r"!has(self.jwks.discover) || !self.jwks.discover || self.issuer.matches('^https?://([-._a-zA-Z0-9]+|\\[[0-9a-fA-F:.]+\\])(:[0-9]{1,5})?(/[!$-;=@-\\[\\]_a-z~]*)?$')",
        "discover needs an issuer that is a URL without query, for example 'https://id.example.com'",
    ),
    (
        "!has(self.jwks.discover) || !self.jwks.discover || !self.issuer.startsWith('http://') || \
         (has(self.jwks.insecureHttp) && self.jwks.insecureHttp)",
        "whoever is on the way can replace keys that come without TLS, and let in everybody: an issuer of https, or insecureHttp: true",
    ),
])))]
pub struct Issuer {
    /// What its tokens have as `iss`, to the letter: for example `https://id.example.com`.
    #[schemars(length(min = 1, max = 512))]
    pub issuer: String,
    /// Whom its tokens have to be for: one of these is among `aud`. When absent, only tokens that say of nobody that they are for
    /// him may pass (RFC 7519 4.1.3).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 16),
        extend("items" = texts(512, serde_json::json!([])), "x-kubernetes-list-type" = "atomic")
    )]
    pub audiences: Vec<String>,
    /// With which algorithms it signs, for example `[ES256]`; keys for others are not used. What the key says when absent, and
    /// RS256 for RSA keys that say nothing. The algorithm that a token names has to be that of the key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 12), extend("x-kubernetes-list-type" = "set"))]
    pub algorithms: Vec<JwtAlgorithm>,
    /// Its keys.
    pub jwks: Jwks,
}

/// Where keys are: a JSON Web Key Set (RFC 7517) of at most 32 keys, or of 128 if it is fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([
    (
        "(has(self.inline) ? 1 : 0) + (has(self.secretName) ? 1 : 0) + (has(self.url) ? 1 : 0) + (has(self.discover) && self.discover ? 1 : 0) == 1",
        "jwks needs exactly one of inline, secretName, url and discover, for example {url: 'https://id.example.com/keys'}",
    ),
    ("!has(self.secretEntry) || has(self.secretName)", "secretEntry is of a Secret: it needs secretName"),
    (
        "has(self.url) || (has(self.discover) && self.discover) || \
         !(has(self.maxStale) || has(self.caSecretName) || has(self.caConfigMapName) || (has(self.insecureHttp) && self.insecureHttp))",
        "maxStale, caSecretName, caConfigMapName and insecureHttp are of keys that are fetched: they need url or discover",
    ),
    (
        "!(has(self.caSecretName) && has(self.caConfigMapName))",
        "the authority is in a Secret or in a ConfigMap: only one of caSecretName and caConfigMapName",
    ),
    (
        "!has(self.url) || !self.url.startsWith('http://') || (has(self.insecureHttp) && self.insecureHttp)",
        "whoever is on the way can replace keys that come without TLS, and let in everybody: write https, or insecureHttp: true",
    ),
])))]
pub struct Jwks {
    /// The set itself, of public keys: `'{"keys": [{"kty": "EC", …}]}'`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    pub inline: Option<String>,
    /// The Secret that has it. Symmetric keys (`kty: oct`, for HS256 and its kin) can be there and nowhere else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = object_name()))]
    pub secret_name: Option<String>,
    /// Under which name the Secret has it; `jwks.json` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = rules([(
        "self.matches('^[-._a-zA-Z0-9]+$')",
        "write the name of an entry of a Secret: letters, digits, '-', '_' and '.'",
    )])))]
    pub secret_entry: Option<String>,
    /// Where it is fetched, again and again, for example `https://id.example.com/keys`. Redirects are not followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048), extend("x-kubernetes-validations" = rules([(
        r"self.matches('^https?://([-._a-zA-Z0-9]+|\\[[0-9a-fA-F:.]+\\])(:[0-9]{1,5})?([/?][!$-;=?-\\[\\]_a-z~]*)?$')",
        "write a URL without user, password or fragment, for example 'https://id.example.com/keys'",
    )])))]
    pub url: Option<String>,
    /// Whether the issuer itself tells where it is, in `/.well-known/openid-configuration` below its name (OpenID Connect
    /// Discovery), which then has to be a URL.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub discover: bool,
    /// How long fetched keys count that cannot be fetched anew, for example `1h`; `24h` when absent. Requests with tokens of this issuer
    /// get 503 then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration_within(MAX_STALE)))]
    pub max_stale: Option<String>,
    /// The Secret beside the policy whose `ca.crt` has the authorities that the host of the keys is verified by; those that the system
    /// trusts when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = object_name()))]
    pub ca_secret_name: Option<String>,
    /// The ConfigMap that has the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = object_name()))]
    pub ca_config_map_name: Option<String>,
    /// Whether keys may be fetched without TLS. INSECURE: whoever is on the way can replace them, and sign tokens for everybody.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub insecure_http: bool,
}

/// What a claim has to say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequiredClaim {
    /// The name of the claim, for example `role`. A claim within another is named with both: `realm_access.roles`.
    #[schemars(length(min = 1, max = 256))]
    pub claim: String,
    /// It is one of these, or a list that has one of them. Numbers and booleans are written as text: `"7"`, `"true"`.
    #[schemars(
        length(min = 1, max = 64),
        extend("items" = texts(512, serde_json::json!([])), "x-kubernetes-list-type" = "atomic")
    )]
    pub values: Vec<String>,
}

/// A claim that the endpoint is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimToHeader {
    /// The name of the claim, for example `sub`. A claim within another is named with both: `realm_access.roles`.
    #[schemars(length(min = 1, max = 256))]
    pub claim: String,
    /// The header field that has it, for example `x-user`. Lists of texts are joined with commas, and what is no text that a
    /// field can have is left out.
    #[schemars(length(min = 1, max = 256), extend("x-kubernetes-validations" = editable_header_name()))]
    pub header: String,
}

/// An algorithm of JSON Web Signatures (RFC 7518 3.1, RFC 8037 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "the names of the algorithms")]
pub enum JwtAlgorithm {
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

/// What becomes of a stream whose token expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnExpiry {
    /// It ends: a WebSocket with a close frame, an event stream between two events, a gRPC stream with a status.
    CloseStream,
    /// It goes on.
    Ignore,
}
