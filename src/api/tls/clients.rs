//! Which certificates the clients of a host show, and what endpoints are told of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::rules::{object_name, rules};

/// Certificates of clients. All routes of a host have the same: those of the one whose certificate the host has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([
    (
        "has(self.mode) && self.mode == 'Disabled' || has(self.caSecretName) != has(self.caConfigMapName)",
        "clientCertificates needs exactly one of caSecretName and caConfigMapName: who signs the certificates of clients",
    ),
    (
        "!has(self.mode) || self.mode != 'Disabled' || \
         !has(self.caSecretName) && !has(self.caConfigMapName) && !has(self.revocation) && !has(self.forward)",
        "with mode Disabled nobody is asked for a certificate: the other fields would have no effect",
    ),
])))]
pub struct ClientCertificates {
    /// `Required` (when absent): who shows none, or one that is not good, is refused. `Optional`: who shows none comes in, without being
    /// anybody. `Disabled`: nobody is asked, whatever the settings say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<ClientCertificateMode>,
    /// The Secret, in the namespace of the route and labelled `floodway.dev/use: "true"`, whose entry `ca.crt` has the certificates, in
    /// PEM, of the authorities that sign those of clients. If it has an entry `ca.crl`, those who are on that list are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = object_name()))]
    pub ca_secret_name: Option<String>,
    /// The ConfigMap that has them, in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = object_name()))]
    pub ca_config_map_name: Option<String>,
    /// Lists of certificates that are no longer good (CRL), for example `{configMapName: partners-crl}`. They have to be there: without
    /// them nobody is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation: Option<Revocation>,
    /// In which headers endpoints are told who a client is, for example `[ClientCert]`; in none when absent. What clients send under
    /// these names never gets there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 4), extend("x-kubernetes-list-type" = "set"))]
    pub forward: Vec<ClientCertificateHeaders>,
}

/// What becomes of clients without a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ClientCertificateMode {
    /// They are refused.
    #[default]
    Required,
    /// They come in.
    Optional,
    /// Nobody is asked.
    Disabled,
}

/// Lists of certificates that are no longer good.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([(
    "!has(self.secretName) || !has(self.configMapName)",
    "the lists are in a Secret or in a ConfigMap: only one of secretName and configMapName",
)])))]
pub struct Revocation {
    /// The Secret whose entry `ca.crl` has the lists, in PEM (several, if need be) or one in DER. When neither this nor `configMapName`
    /// is given, it is that of the authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = object_name()))]
    pub secret_name: Option<String>,
    /// The ConfigMap whose entry `ca.crl` has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = object_name()))]
    pub config_map_name: Option<String>,
    /// `Chain` (when absent): nobody between client and authority may be on a list, and there is one of each of their issuers.
    /// `Client`: only lists of the client's own issuer are asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<RevocationScope>,
    /// What becomes of clients whose list is older than it says it may get: `Refuse` (when absent) or `Accept`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expired: Option<ExpiredList>,
}

/// Of which certificates lists are asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RevocationScope {
    /// Of all but the authority's own.
    #[default]
    Chain,
    /// Of the client's own.
    Client,
}

/// What becomes of clients whose list is older than it may get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ExpiredList {
    /// They are refused.
    #[default]
    Refuse,
    /// They are believed not to be on a newer one.
    Accept,
}

/// Headers that tell who a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ClientCertificateHeaders {
    /// `Client-Cert`: the certificate (RFC 9440).
    ClientCert,
    /// `Client-Cert-Chain`: what the client sent with it (RFC 9440).
    ClientCertChain,
    /// `X-Forwarded-Client-Cert`, as Envoy has it: `Hash=…;Subject="CN=cart,O=Shop";URI=spiffe://…;DNS=cart.example.com`.
    Xfcc,
    /// `ssl-client-verify` (`SUCCESS` or `NONE`), `ssl-client-subject-dn` and `ssl-client-issuer-dn`, as ingress-nginx has them, and
    /// `ssl-client-fingerprint` (SHA-256) and `ssl-client-san`.
    SslClient,
}
