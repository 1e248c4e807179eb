//! Which certificates clients show where no route says otherwise.

use serde::{Deserialize, Serialize};

use crate::api::{ClientCertificateHeaders, ClientCertificateMode, ExpiredList, RevocationScope};

/// Certificates of clients, as `tls.clientCertificates` of a ProxyRoute has them. Objects are named with their namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClientCertificates {
    /// What becomes of clients without one.
    pub mode: ClientCertificateMode,
    /// `namespace/name` of the Secret with the certificates of authorities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_secret: Option<String>,
    /// `namespace/name` of the ConfigMap that has them in its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_config_map: Option<String>,
    /// Lists of certificates that are no longer good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revocation: Option<Revocation>,
    /// In which headers endpoints are told who a client is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub forward: Vec<ClientCertificateHeaders>,
}

/// Lists of certificates that are no longer good.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Revocation {
    /// `namespace/name` of the Secret with them; where the authorities are if neither is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// `namespace/name` of the ConfigMap with them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_map: Option<String>,
    /// Of which certificates lists are asked.
    pub scope: RevocationScope,
    /// What becomes of clients whose list is older than it may get.
    pub expired: ExpiredList,
}

impl ClientCertificates {
    /// The first thing that makes no sense.
    pub(super) fn wrong(&self) -> Option<(&'static str, String)> {
        let ClientCertificates { mode, ca_secret, ca_config_map, revocation, forward: _ } = self;
        let asked = *mode != ClientCertificateMode::Disabled;
        if asked && ca_secret.is_some() == ca_config_map.is_some() {
            let why = "name exactly one of caSecret and caConfigMap: who signs the certificates of clients";
            return Some(("listeners.tls.clientCertificates", why.to_owned()));
        }
        let lists = revocation.as_ref();
        if lists.is_some_and(|lists| lists.secret.is_some() && lists.config_map.is_some()) {
            let why = "the lists are in a Secret or in a ConfigMap: only one of secret and configMap";
            return Some(("listeners.tls.clientCertificates.revocation", why.to_owned()));
        }
        let named = [
            ("listeners.tls.clientCertificates.caSecret", ca_secret.as_deref()),
            ("listeners.tls.clientCertificates.caConfigMap", ca_config_map.as_deref()),
            ("listeners.tls.clientCertificates.revocation.secret", lists.and_then(|lists| lists.secret.as_deref())),
            (
                "listeners.tls.clientCertificates.revocation.configMap",
                lists.and_then(|lists| lists.config_map.as_deref()),
            ),
        ];
        let wrong = named.into_iter().find(|(_, name)| name.is_some_and(|name| place(name).is_none()))?;
        Some((wrong.0, "write namespace and name of the object, like infra/clients-ca".to_owned()))
    }
}

/// Namespace and name, if both are written.
pub fn place(text: &str) -> Option<(&str, &str)> {
    let (namespace, name) = text.split_once('/')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains('/')).then_some((namespace, name))
}
