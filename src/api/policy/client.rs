//! Which clients may pass, by the certificates that they showed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::rules::{host_pattern, rules};

/// Which clients may pass: those whose connection was opened with a certificate that was verified, and, if there is a list, that is
/// somebody's on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientCertificate {
    /// Who may pass, for example `[{dns: cart.example.com}, {uri: "spiffe://example.com/ns/shop/*"}]`; everyone with a certificate when
    /// absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 256), extend("x-kubernetes-list-type" = "atomic"))]
    pub allow: Vec<ClientName>,
}

/// Something that a certificate says of its owner. DNS names, URIs and mail addresses are those of `subjectAltName`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([(
    "(has(self.dns) ? 1 : 0) + (has(self.uri) ? 1 : 0) + (has(self.email) ? 1 : 0) + (has(self.subject) ? 1 : 0) + \
     (has(self.fingerprint) ? 1 : 0) == 1",
    "write exactly one of dns, uri, email, subject and fingerprint, for example {dns: cart.example.com}",
)])))]
pub struct ClientName {
    /// A host name, or `*.` and one: `*.example.com` is for `cart.example.com`, and neither for `example.com` nor for
    /// `eu.cart.example.com`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = host_pattern()))]
    pub dns: Option<String>,
    /// A URI, to the letter; or its beginning, up to a slash, and `*`: `spiffe://example.com/ns/shop/*` is for everything below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), extend("x-kubernetes-validations" = rules([(
        "self.matches('^[A-Za-z][-A-Za-z0-9+.]*:[-A-Za-z0-9._~:/?#@!$&()+=%]+$') || \
         self.matches('^[A-Za-z][-A-Za-z0-9+.]*://[-A-Za-z0-9._~:@]+/([-A-Za-z0-9._~:@!$&()+=/]*/)?[*]$')",
        "write a URI, for example 'spiffe://example.com/ns/shop/sa/cart', or its beginning, up to a slash behind the host, and '*'",
    )])))]
    pub uri: Option<String>,
    /// A mail address, or `*@` and a domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 320), extend("x-kubernetes-validations" = rules([(
        r#"self.matches("^([*]|[-A-Za-z0-9!#$%&'+/=?^_`{|}~.]+)@[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")"#,
        "write a mail address whose domain is in lower case, for example 'ops@example.com' or '*@example.com'",
    )])))]
    pub email: Option<String>,
    /// The whole subject, as RFC 4514 writes it and the access log has it: `CN=cart,O=Shop`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 1024), extend("x-kubernetes-validations" = rules([(
        "self.matches('^[A-Za-z0-9.]+=[ -~]*$')",
        "write a subject as the access log has it, for example 'CN=cart,O=Shop'",
    )])))]
    pub subject: Option<String>,
    /// The SHA-256 of the certificate, in 64 hexadecimal digits, with or without colons between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 64, max = 95), extend("x-kubernetes-validations" = rules([(
        "self.matches('^([0-9a-fA-F]{2}:?){31}[0-9a-fA-F]{2}$')",
        "write the SHA-256 of a certificate in 64 hexadecimal digits: openssl x509 -noout -fingerprint -sha256",
    )])))]
    pub fingerprint: Option<String>,
}
