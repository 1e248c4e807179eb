//! Users with passwords.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::rules::{editable_header_name, object_name, rules};

/// Users with passwords, as browsers ask for them (RFC 7617).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BasicAuth {
    /// The Secret with the users, in the namespace of the policy and labelled `floodway.dev/use: "true"`.
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = object_name()))]
    pub secret_name: String,
    /// Its entry with a line `user:hash` for each user, as `htpasswd -B` writes it; `htpasswd` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = entry_name()))]
    pub entry: Option<String>,
    /// What browsers say the password is for, for example `Shop`; `Floodway` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), extend("x-kubernetes-validations" = rules([(
        r#"self.matches('^[ !#-\\[\\]-~]+$')"#,
        "write letters, digits, spaces and signs of ASCII, without quotes and backslashes",
    )])))]
    pub realm: Option<String>,
    /// The header that tells the backend the name of the user, for example `x-user`. One that a client sends is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), extend("x-kubernetes-validations" = editable_header_name()))]
    pub forward_user: Option<String>,
    /// Whether the backend gets the Authorization with the password, too; `false` when absent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forward: bool,
}

/// The name of an entry of a Secret.
fn entry_name() -> serde_json::Value {
    rules([("self.matches('^[-._a-zA-Z0-9]+$')", "write the name of an entry: letters, digits, '-', '_' and '.'")])
}
