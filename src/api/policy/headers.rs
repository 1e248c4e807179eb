//! Which header fields neither clients nor backends may send, and which every answer has.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::rules::{UNEDITABLE_HEADERS, rules, texts};

/// Which header fields neither clients nor backends may send, and which every answer has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([(
    "has(self.security) || has(self.hide) || has(self.requestRemove) || has(self.hideServer) && self.hideServer || \
     has(self.requestRemoveUnderscored) && self.requestRemoveUnderscored",
    "headers needs something to do, for example {security: {}, hideServer: true}",
)])))]
pub struct Headers {
    /// Fields by which browsers guard pages; `{}` is a preset that suits most of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security: Option<SecurityHeaders>,
    /// Whether answers say nothing of the software behind: no `Server`, `X-Powered-By`, `X-AspNet-Version`, `X-AspNetMvc-Version`,
    /// `X-Runtime` or `X-Generator`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hide_server: bool,
    /// Fields that go from no backend to clients, for example `[x-backend, x-debug-*]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), extend("items" = texts(128, names()), "x-kubernetes-list-type" = "set"))]
    pub hide: Vec<String>,
    /// Fields that go from no client to backends, nor to other sections of policies, for example `[x-user, x-internal-*]`; also those
    /// that have `_` in place of `-`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), extend("items" = texts(128, names()), "x-kubernetes-list-type" = "set"))]
    pub request_remove: Vec<String>,
    /// Whether that holds for all fields with `_` in their names, which some servers take for others with `-`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub request_remove_underscored: bool,
}

/// Fields by which browsers guard pages. One that the backend or the rule gives itself stays, unless `replace` says otherwise.
/// `X-Content-Type-Options: nosniff` is always among them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecurityHeaders {
    /// Which pages may show the answer in a frame: `SameOrigin` when absent, `None`, or `Any`.
    #[serde(default)]
    pub frames: Frames,
    /// What pages tell of themselves where they lead: `strict-origin-when-cross-origin` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub referrer_policy: Option<ReferrerPolicy>,
    /// The `Content-Security-Policy`, for example `default-src 'self'`; none when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096), extend("x-kubernetes-validations" = value()))]
    pub content_security_policy: Option<String>,
    /// The `Permissions-Policy`, for example `camera=(), microphone=()`; none when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096), extend("x-kubernetes-validations" = value()))]
    pub permissions_policy: Option<String>,
    /// Whether these replace what the backend and the rule give.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replace: bool,
}

/// Which pages may show an answer in a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Frames {
    /// Those of its own origin.
    #[default]
    SameOrigin,
    /// None.
    None,
    /// All: nothing is said of it.
    Any,
}

/// What pages tell of themselves where they lead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the words of the standard")]
pub enum ReferrerPolicy {
    NoReferrer,
    NoReferrerWhenDowngrade,
    Origin,
    OriginWhenCrossOrigin,
    SameOrigin,
    StrictOrigin,
    #[default]
    StrictOriginWhenCrossOrigin,
    UnsafeUrl,
}

/// The name of a field that is not the connection's, or what such names begin with and `-*`.
fn names() -> Value {
    let names = UNEDITABLE_HEADERS.map(|name| format!("'{name}'")).join(", ");
    rules([
        (
            "self.matches('^[_0-9A-Za-z]+(-[_0-9A-Za-z]+)*(-[*])?$')",
            "write the name of a header, for example 'x-tenant', or what names begin with and '-*', for example 'x-internal-*'",
        ),
        (
            &format!(
                "![{names}].exists(name, self.endsWith('-*') ? name.startsWith(self.lowerAscii().replace('*', '')) : \
                 name == self.lowerAscii())"
            ),
            "this takes a header that belongs to the connection or frames the message, which cannot be removed",
        ),
    ])
}

/// The value of a field.
fn value() -> Value {
    rules([(
        "self.matches('^[!-~]([ -~]*[!-~])?$')",
        "write the value of a header: one line of ASCII without spaces around it",
    )])
}
