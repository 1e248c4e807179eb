//! The two containers, and the volume that the sidecar's rights come from.

use serde_json::{Value, json};

use super::annotations::Wishes;
use super::template::Template;
use super::{ADMIN, CAPTURE, INBOUND, OUTBOUND, SIDECAR, UID};

/// The volume with the sidecar's token.
pub(super) const VOLUME: &str = "floodway-api-access";
/// Where clients of the API server look for a token, and where the API server mounts the one of the pod otherwise.
const MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The container that serves the pod.
pub(super) fn sidecar(
    template: &Template,
    wishes: &Wishes,
    app_port: Option<u16>,
    captured: &[u16],
    probes: &[Value],
) -> Value {
    let mut args = vec!["sidecar".to_owned(), format!("--mode={}", wishes.mode.word())];
    args.extend(app_port.map(|port| format!("--app-port={port}")));
    args.extend(captured.iter().map(|port| format!("--inbound-port={port}")));
    args.extend(wishes.policies.iter().map(|name| format!("--policy={name}")));
    args.extend(wishes.tls_secret.iter().map(|name| format!("--tls-secret={name}")));
    if let Some(name) = &wishes.client_ca_secret {
        args.push(format!("--client-ca-secret={name}"));
        args.push(format!("--client-certificates={}", wishes.client_certificates.as_deref().unwrap_or("Required")));
    }
    args.extend(wishes.upstream.iter().map(|name| format!("--upstream={name}")));
    let listening = |port| std::net::SocketAddr::from((template.bind_address, port));
    args.push(format!("--inbound={}", listening(INBOUND)));
    args.push(format!("--outbound=127.0.0.1:{OUTBOUND}"));
    args.push(format!("--admin={}", listening(ADMIN)));
    args.extend(probes.iter().map(|probe| format!("--probe={probe}")));
    args.push(format!("--log={}", wishes.log.as_ref().unwrap_or(&template.log)));
    args.extend(wishes.access_log.iter().map(|target| format!("--access-log={target}")));

    let field = |path: &str| json!({"fieldRef": {"fieldPath": path}});
    let probe = |path: &str, period: u32, failures: u32| {
        json!({
            "httpGet": {"path": path, "port": ADMIN, "scheme": "HTTP"},
            "periodSeconds": period, "timeoutSeconds": 2, "failureThreshold": failures,
        })
    };
    let mut container = json!({
        "name": SIDECAR,
        "image": template.image,
        // KEP-753: it is started before, and ended after, all containers that follow.
        "restartPolicy": "Always",
        "args": literal(args),
        "env": [
            {"name": "POD_NAME", "valueFrom": field("metadata.name")},
            {"name": "POD_NAMESPACE", "valueFrom": field("metadata.namespace")},
            {"name": "POD_IP", "valueFrom": field("status.podIP")},
            // Empty where the cluster does not copy it from the node, which means unknown.
            {"name": "FLOODWAY_ZONE", "valueFrom": field("metadata.labels['topology.kubernetes.io/zone']")},
        ],
        "ports": [
            {"name": "floodway-in", "containerPort": INBOUND, "protocol": "TCP"},
            {"name": "floodway-admin", "containerPort": ADMIN, "protocol": "TCP"},
        ],
        "startupProbe": probe("/readyz", 1, 60),
        "livenessProbe": probe("/livez", 10, 3),
        "readinessProbe": probe("/readyz", 2, 2),
        "resources": resources(template, wishes),
        "securityContext": {
            "runAsUser": UID, "runAsGroup": UID, "runAsNonRoot": true, "allowPrivilegeEscalation": false, "privileged": false,
            "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [{"name": VOLUME, "mountPath": MOUNT, "readOnly": true}],
    });
    pulled(&mut container, template);
    container
}

/// The container that redirects the pod's connections, and ends before anything else begins.
pub(super) fn capture(template: &Template, wishes: &Wishes, captured: &[u16]) -> Value {
    let mut args = vec![
        "capture".to_owned(),
        format!("--inbound-listener={INBOUND}"),
        format!("--outbound-listener={OUTBOUND}"),
        format!("--uid={UID}"),
    ];
    args.extend(captured.iter().map(|port| format!("--inbound-port={port}")));
    args.extend(wishes.exclude_inbound.iter().map(|port| format!("--exclude-inbound-port={port}")));
    args.extend(wishes.exclude_outbound.iter().map(|port| format!("--exclude-outbound-port={port}")));
    args.extend(wishes.exclude_addresses.iter().map(|block| format!("--exclude-outbound-address={block}")));
    let mut rights = vec!["NET_ADMIN"];
    if template.legacy_iptables {
        rights.push("NET_RAW");
    }
    let mut container = json!({
        "name": CAPTURE,
        "image": template.capture_image.as_ref().unwrap_or(&template.image),
        "args": literal(args),
        "resources": resources(template, wishes),
        "securityContext": {
            "runAsUser": 0, "runAsGroup": 0, "runAsNonRoot": false, "allowPrivilegeEscalation": false, "privileged": false,
            "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"], "add": rights},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    });
    pulled(&mut container, template);
    container
}

/// As kubelets hand them on: `$(NAME)` is a variable to them, and `$$` a `$`.
fn literal(args: Vec<String>) -> Vec<String> {
    args.into_iter().map(|arg| arg.replace('$', "$$")).collect()
}

fn pulled(container: &mut Value, template: &Template) {
    if let Some(policy) = &template.image_pull_policy {
        container["imagePullPolicy"] = policy.as_str().into();
    }
}

fn resources(template: &Template, wishes: &Wishes) -> Value {
    let mut resources = Value::Object(template.resources.clone());
    for (list, of, said) in [
        ("requests", "cpu", &wishes.cpu_request),
        ("requests", "memory", &wishes.memory_request),
        ("limits", "memory", &wishes.memory_limit),
    ] {
        if let Some(said) = said {
            if !resources[list].is_object() {
                resources[list] = json!({});
            }
            resources[list][of] = said.as_str().into();
        }
    }
    resources
}

/// What the sidecar speaks to the API server with: the pod's own account, also where the pod asks not to be given its token, and for
/// the sidecar alone. As kubelets would mount it (KEP-1205).
pub(super) fn access() -> Value {
    json!({"name": VOLUME, "projected": {"defaultMode": 0o644, "sources": [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]}})
}
