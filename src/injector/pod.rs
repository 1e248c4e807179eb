//! What is read of a pod. The API server has defaulted what it sends, but has not yet validated it: anything may be missing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A pod.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Pod {
    pub(super) metadata: Metadata,
    pub(super) spec: Spec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Metadata {
    pub(super) annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Spec {
    pub(super) host_network: Option<bool>,
    pub(super) os: Option<Os>,
    pub(super) node_selector: Option<BTreeMap<String, String>>,
    pub(super) security_context: Option<SecurityContext>,
    pub(super) containers: Option<Vec<Container>>,
    pub(super) init_containers: Option<Vec<Container>>,
    pub(super) volumes: Option<Vec<Volume>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Os {
    pub(super) name: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SecurityContext {
    pub(super) run_as_user: Option<i64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Volume {
    pub(super) name: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Container {
    #[serde(default)]
    pub(super) name: String,
    pub(super) restart_policy: Option<String>,
    pub(super) ports: Option<Vec<Port>>,
    pub(super) security_context: Option<SecurityContext>,
    pub(super) readiness_probe: Option<Probe>,
    pub(super) liveness_probe: Option<Probe>,
    pub(super) startup_probe: Option<Probe>,
    pub(super) lifecycle: Option<Lifecycle>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Port {
    pub(super) name: Option<String>,
    pub(super) container_port: i64,
    pub(super) protocol: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Lifecycle {
    pub(super) post_start: Option<Hook>,
    pub(super) pre_stop: Option<Hook>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Hook {
    pub(super) http_get: Option<HttpGet>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Probe {
    pub(super) http_get: Option<HttpGet>,
    pub(super) tcp_socket: Option<TcpSocket>,
    pub(super) grpc: Option<Grpc>,
    pub(super) timeout_seconds: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HttpGet {
    pub(super) path: Option<String>,
    pub(super) port: PortName,
    pub(super) host: Option<String>,
    pub(super) scheme: Option<String>,
    pub(super) http_headers: Option<Vec<Header>>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Header {
    pub(super) name: String,
    pub(super) value: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct TcpSocket {
    pub(super) port: PortName,
    pub(super) host: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Grpc {
    pub(super) port: i64,
    pub(super) service: Option<String>,
}

/// A port, by number or by its name in the container.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum PortName {
    Number(i64),
    Name(String),
}

impl Pod {
    pub(super) fn annotation(&self, name: &str) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(name).map(String::as_str)
    }

    pub(super) fn containers(&self) -> &[Container] {
        self.spec.containers.as_deref().unwrap_or_default()
    }

    pub(super) fn init_containers(&self) -> &[Container] {
        self.spec.init_containers.as_deref().unwrap_or_default()
    }

    /// The containers that run as long as the pod, each with its place in the pod.
    pub(super) fn lasting(&self) -> impl Iterator<Item = (String, &Container)> {
        let init = self.init_containers().iter().enumerate();
        // KEP-753: an init container with `restartPolicy: Always` is a sidecar, and may have probes.
        let sidecars = init.filter(|(_, container)| container.restart_policy.as_deref() == Some("Always"));
        let sidecars = sidecars.map(|(index, container)| (format!("/spec/initContainers/{index}"), container));
        let own = self.containers().iter().enumerate();
        own.map(|(index, container)| (format!("/spec/containers/{index}"), container)).chain(sidecars)
    }

    /// Runs on Windows, which has neither the containers' program nor nftables.
    pub(super) fn is_windows(&self) -> bool {
        let selected = self.spec.node_selector.as_ref().and_then(|labels| labels.get("kubernetes.io/os"));
        selected.is_some_and(|os| os == "windows") || self.spec.os.as_ref().is_some_and(|os| os.name == "windows")
    }
}

impl Container {
    /// Ports for TCP, in the order in which they are declared; those that are none are the API server's to refuse.
    pub(super) fn tcp_ports(&self) -> impl Iterator<Item = u16> {
        let ports = self.ports.as_deref().unwrap_or_default().iter();
        let tcp = ports.filter(|port| port.protocol.as_deref().unwrap_or("TCP") == "TCP");
        tcp.filter_map(|port| number(port.container_port))
    }

    /// The number of a port that is named as probes name it.
    pub(super) fn resolve(&self, port: &PortName) -> Option<u16> {
        match port {
            PortName::Number(port) => number(*port),
            PortName::Name(name) => {
                let mut ports = self.ports.as_deref().unwrap_or_default().iter();
                let named = ports.find(|port| port.name.as_deref() == Some(name))?;
                number(named.container_port)
            }
        }
    }
}

/// A port, if it is one.
fn number(port: i64) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port > 0)
}

/// Whether a kubelet asks somebody else than the pod.
pub(super) fn asks_elsewhere(host: Option<&str>) -> bool {
    host.is_some_and(|host| !host.is_empty())
}
