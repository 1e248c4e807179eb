//! From which addresses requests may come.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::rules::{rules, texts};

/// From which addresses requests may come. The address is that of the client, as far as trusted proxies tell it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([(
    "has(self.allow) || has(self.deny)",
    "ipAccess needs allow or deny, for example {allow: ['10.0.0.0/8']}",
)])))]
pub struct IpAccess {
    /// Networks and addresses that may pass, for example `[10.0.0.0/8, "2001:db8::/32", 192.0.2.7]`; all when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 16384),
        extend("items" = texts(43, network()), "x-kubernetes-list-type" = "atomic")
    )]
    pub allow: Vec<String>,
    /// Networks and addresses that may not, even if `allow` has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 16384),
        extend("items" = texts(43, network()), "x-kubernetes-list-type" = "atomic")
    )]
    pub deny: Vec<String>,
}

/// An address, or a network in CIDR notation.
fn network() -> serde_json::Value {
    rules([(
        "self.matches('^[0-9a-fA-F:.]+(/[0-9]{1,3})?$')",
        "write an address or a network in CIDR notation, for example '192.0.2.7', '10.0.0.0/8' or '2001:db8::/32'",
    )])
}
