//! What the objects that a pod is concerned with name: which Services, and whether Secrets and ConfigMaps. Of these, a sidecar reads no
//! others.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use super::{Inbound, Outbound};
use crate::api::{ProxyPolicySpec, ServiceRef, UpstreamTls};
use crate::translate::{Key, Resources};

/// What is named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Services.
    pub services: BTreeSet<Key>,
    /// Whether some object names a Secret.
    pub secrets: bool,
    /// Whether some object names a ConfigMap.
    pub config_maps: bool,
}

impl Named {
    /// What the objects read so far name.
    pub fn of(inbound: &Inbound, outbound: &Outbound, read: &Resources) -> Self {
        let (policies, upstreams) = inbound.kept(read);
        let mut named = Named { services: outbound.named(read), ..Named::default() };
        for (key, policy) in policies.iter() {
            let ProxyPolicySpec { external_auth, mirror, .. } = &policy.spec;
            let external = external_auth.as_ref().and_then(|external| external.service.as_ref());
            let mirrored = mirror.as_ref().and_then(|mirror| mirror.service.as_ref());
            let services = external.into_iter().chain(mirrored);
            named
                .services
                .extend(services.map(|ServiceRef { name, .. }| Key::new(Arc::clone(&key.namespace), name.as_str())));
            // By their names, so that no section that comes later is forgotten.
            named.note(&serde_json::to_value(&policy.spec).unwrap_or_default());
        }
        for upstream in upstreams.values() {
            let Some(UpstreamTls { ca_secret_name, ca_config_map_name, client_certificate_secret_name, .. }) =
                &upstream.spec.tls
            else {
                continue;
            };
            named.secrets |= ca_secret_name.is_some() || client_certificate_secret_name.is_some();
            named.config_maps |= ca_config_map_name.is_some();
        }
        named
    }

    /// Looks for fields that hold the name of a Secret or a ConfigMap.
    fn note(&mut self, value: &Value) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let holds = |suffix: &str| value.is_string() && name.to_lowercase().ends_with(suffix);
                    self.secrets |= holds("secretname");
                    self.config_maps |= holds("configmapname");
                    self.note(value);
                }
            }
            Value::Array(values) => values.iter().for_each(|value| self.note(value)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::super::own;
    use super::*;

    fn named(objects: &[(&str, &str, Value)]) -> Named {
        let mut read = Resources::default();
        for (kind, name, spec) in objects {
            let (key, spec) = (Key::new("shop", *name), spec.clone());
            match *kind {
                "policy" => drop(read.policies.insert(key, own(serde_json::from_value(spec).unwrap()))),
                "route" => drop(read.routes.insert(key, own(serde_json::from_value(spec).unwrap()))),
                _ => drop(read.upstreams.insert(key, own(serde_json::from_value(spec).unwrap()))),
            }
        }
        let inbound = Inbound {
            namespace: "shop".to_owned(),
            policies: vec!["asked".to_owned()],
            ports: [8080].into(),
            ..Inbound::default()
        };
        Named::of(&inbound, &Outbound { namespace: "shop".to_owned(), ..Outbound::default() }, &read)
    }

    fn services(named: &Named) -> Vec<String> {
        named.services.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn services_are_named_by_routes_by_upstreams_and_by_the_policies_of_the_pod() {
        let leads = json!({"externalAuth": {"service": {"name": "who", "port": 80}}, "mirror": {"service": {"name": "copy", "port": 80}}});
        let other = json!({"externalAuth": {"service": {"name": "others", "port": 80}}});
        let named = named(&[
            ("policy", "asked", leads),
            ("policy", "of-somebody-else", other),
            ("upstream", "a", json!({"targetRefs": [{"kind": "Service", "name": "cart"}]})),
            ("route", "r", json!({"rules": [{"backends": [{"service": {"name": "web", "port": 80}}]}]})),
        ]);
        assert_eq!(services(&named), ["shop/cart", "shop/copy", "shop/web", "shop/who"]);
        assert!(!named.secrets && !named.config_maps);
    }

    #[test]
    fn secrets_and_config_maps_are_read_if_something_that_is_asked_names_one() {
        let jwt = |jwks: Value| json!({"jwt": {"issuers": [{"issuer": "a", "jwks": jwks}]}});
        let tls = |tls: Value| json!({"targetRefs": [{"kind": "Service", "name": "a"}], "tls": tls});
        for (kind, name, spec, secrets, config_maps) in [
            ("policy", "asked", json!({"apiKey": {"secretName": "s"}}), true, false),
            ("policy", "asked", json!({"basicAuth": {"secretName": "s"}}), true, false),
            ("policy", "asked", jwt(json!({"secretName": "s"})), true, false),
            ("policy", "asked", jwt(json!({"url": "https://a", "caSecretName": "s"})), true, false),
            ("policy", "asked", jwt(json!({"url": "https://a", "caConfigMapName": "s"})), false, true),
            ("policy", "asked", jwt(json!({"url": "https://a"})), false, false),
            ("policy", "asked", json!({"ipAccess": {"allow": ["10.0.0.0/8"]}}), false, false),
            ("policy", "nobodys", json!({"apiKey": {"secretName": "s"}}), false, false),
            ("upstream", "a", tls(json!({"caSecretName": "s"})), true, false),
            ("upstream", "a", tls(json!({"clientCertificateSecretName": "s"})), true, false),
            ("upstream", "a", tls(json!({"caConfigMapName": "s"})), false, true),
            ("upstream", "a", tls(json!({})), false, false),
            (
                "upstream",
                "nobodys",
                json!({"endpoints": [{"address": "a:1"}], "tls": {"caSecretName": "s"}}),
                false,
                false,
            ),
        ] {
            let named = named(&[(kind, name, spec.clone())]);
            assert_eq!((named.secrets, named.config_maps), (secrets, config_maps), "{spec}");
        }
    }
}
