//! What a ProxyRoute asks of TLS with its clients: which certificate its hosts have, and that nobody comes without.

mod clients;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use clients::{ClientCertificateHeaders, ClientCertificateMode, ClientCertificates};
pub use clients::{ExpiredList, Revocation, RevocationScope};

use super::TimeBounds;
use super::rules::{duration_within, object_name, rules};

/// Of `tls.hsts.maxAge`. Zero takes back what was said before (RFC 6797 6.1.1).
pub const HSTS_AGE: TimeBounds = ("0s", "87600h");

/// TLS with the clients of a route, ended here or by its backends. The hosts are those of the route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([
    (
        "has(self.secretName) || !(has(self.alternateSecretName) || has(self.minVersion))",
        "alternateSecretName and minVersion say more of the certificate of secretName: they need it",
    ),
    (
        "!has(self.passthrough) || !self.passthrough || \
         !(has(self.secretName) || has(self.alternateSecretName) || has(self.minVersion) || has(self.hsts) || \
         has(self.clientCertificates))",
        "TLS that is passed through ends at the endpoints: secretName, alternateSecretName, minVersion, clientCertificates and hsts are theirs",
    ),
    (
        "has(self.secretName) || has(self.passthrough) && self.passthrough || !has(self.clientCertificates)",
        "clientCertificates is asked where a host has its own certificate: it needs secretName",
    ),
    (
        "!has(self.secretName) || !has(self.alternateSecretName) || self.secretName != self.alternateSecretName",
        "alternateSecretName is for a certificate with another kind of key: name another Secret, or leave it out",
    ),
])))]
pub struct RouteTls {
    /// A Secret of type `kubernetes.io/tls` in the namespace of the route, with the certificate of its hosts. While a new version of
    /// it cannot be used, the last good one stays in force. When absent, the hosts have the certificate that other routes give
    /// them, or the default one of the settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = object_name()))]
    pub secret_name: Option<String>,
    /// Another such Secret, for the same hosts and with another kind of key: RSA for clients that cannot verify ECDSA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = object_name()))]
    pub alternate_secret_name: Option<String>,
    /// Whether requests that come without TLS are answered with 308 and their location under `https`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub redirect: bool,
    /// The oldest version of TLS that is spoken with the hosts: `"1.2"`, the default, or `"1.3"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_version: Option<TlsVersion>,
    /// Which certificates clients show, for example `{caSecretName: partners-ca, forward: [ClientCert]}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificates: Option<ClientCertificates>,
    /// Has browsers come by TLS only, also the next time (RFC 6797), for example `{maxAge: 8760h}`. Said in answers over TLS, in
    /// place of what the endpoint says of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hsts: Option<Hsts>,
    /// Whether TLS is not ended here, but passed on to the backends of the only rule, byte by byte: they have the certificates, and
    /// nobody else sees what is said. Requests that come without TLS are answered with `redirect`, or not at all.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub passthrough: bool,
}

/// What a route that passes TLS on needs: rules of its whole spec.
pub(super) const PASSTHROUGH_HOSTS: (&str, &str) = (
    "!has(self.tls) || !has(self.tls.passthrough) || !self.tls.passthrough || has(self.hosts)",
    "what is passed through is known by the host that a client names: tls.passthrough needs hosts",
);
pub(super) const PASSTHROUGH_RULE: (&str, &str) = (
    "!has(self.tls) || !has(self.tls.passthrough) || !self.tls.passthrough || \
     self.rules.size() == 1 && self.rules.all(r, has(r.backends) && \
     !(has(r.matches) || has(r.requestHeaders) || has(r.responseHeaders) || has(r.rewrite) || has(r.retry)) && \
     !(has(r.timeouts) && has(r.timeouts.responseHead)) && \
     !(has(r.streaming) && (has(r.streaming.sse) || has(r.streaming.webSocket) || \
     has(r.streaming.holdFirstByte) && r.streaming.holdFirstByte)))",
    "with tls.passthrough there is one rule, and nothing of HTTP in it: it has backends, and may have a name, policies, timeouts \
     without responseHead, streaming.maxAge and streaming.removalGrace",
);

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TlsVersion {
    /// TLS 1.2
    #[serde(rename = "1.2")]
    Tls12,
    /// TLS 1.3
    #[serde(rename = "1.3")]
    Tls13,
}

/// What browsers are told of coming by TLS only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([(
    "!has(self.preload) || !self.preload || \
     (has(self.includeSubDomains) && self.includeSubDomains && duration(self.maxAge) >= duration('8760h'))",
    "the preload lists of browsers ask for includeSubDomains and a maxAge of at least 8760h",
)])))]
pub struct Hsts {
    /// For how long browsers remember it, for example `8760h`, a year. `0s` makes them forget it.
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration_within(HSTS_AGE)))]
    pub max_age: String,
    /// Whether it is for all hosts below the one that says it, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub include_sub_domains: bool,
    /// Whether the owner of the host agrees to its being in the lists that browsers come with.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub preload: bool,
}
