//! TLS with the endpoints of an upstream.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::rules::rules;

/// How TLS is spoken with the endpoints. What they show is verified, unless `insecureSkipVerify` says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([
    (
        "!has(self.caSecretName) || !has(self.caConfigMapName)",
        "the authority is in a Secret or in a ConfigMap: only one of caSecretName and caConfigMapName",
    ),
    (
        "!has(self.insecureSkipVerify) || !self.insecureSkipVerify || \
         !has(self.caSecretName) && !has(self.caConfigMapName) && !has(self.subjectAltNames)",
        "with insecureSkipVerify nothing is verified: caSecretName, caConfigMapName and subjectAltNames would have no effect",
    ),
])))]
pub struct UpstreamTls {
    /// The name that endpoints are asked for (SNI), and that their certificate has to be for. When absent: the `hostname` of the
    /// upstream, the name that a Service of type `ExternalName` stands for, `NAME.NAMESPACE.svc` for other Services, and each
    /// address itself for `endpoints`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        extend("x-kubernetes-validations" = rules([(NAME, "write a name in lower case, without a port, for example 'api.example.com'")]))
    )]
    pub server_name: Option<String>,
    /// The Secret of this namespace whose entry `ca.crt` has the certificates, in PEM, of which one must have signed. When neither this
    /// nor `caConfigMapName` is given, those that the system trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub ca_secret_name: Option<String>,
    /// The ConfigMap of this namespace whose entry `ca.crt` has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub ca_config_map_name: Option<String>,
    /// Names, or addresses, of which the certificate has to be for at least one, instead of for `serverName`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 16),
        inner(length(min = 1, max = 253)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub subject_alt_names: Vec<String>,
    /// The Secret of this namespace, of type `kubernetes.io/tls`, with the certificate that Floodway shows to endpoints that ask for
    /// one, and its key. None is shown when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub client_certificate_secret_name: Option<String>,
    /// INSECURE. Believes whoever answers, whatever they show: anybody between Floodway and the endpoint can read and change
    /// everything. For trying things out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub insecure_skip_verify: bool,
}

const NAME: &str = "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')";
