//! Probes of kubelets. They would arrive at the sidecar, and meet what it demands of clients; so kubelets ask the sidecar's own
//! port instead, and the sidecar asks the app on loopback.

use serde_json::{Map, Value, json};

use super::ADMIN;
use super::inject::Refusal;
use super::patch::Patch;
use super::pod::{Container, Pod, Probe, asks_elsewhere};

/// The longest request that the sidecar is told of in its arguments, in bytes of JSON.
const LONGEST: usize = 4096;

/// Has the sidecar asked instead of those ports that `taken` says; returns what the sidecar has to know of each probe.
///
/// # Errors
/// If a probe names a port that its container does not have.
pub(super) fn rewrite(pod: &Pod, taken: impl Fn(u16) -> bool, patch: &mut Patch) -> Result<Vec<Value>, Refusal> {
    let mut asked = Vec::new();
    for (path, container) in pod.lasting() {
        for (kind, field, probe) in [
            ("startup", "startupProbe", &container.startup_probe),
            ("liveness", "livenessProbe", &container.liveness_probe),
            ("readiness", "readinessProbe", &container.readiness_probe),
        ] {
            let Some(probe) = probe else { continue };
            let Some((action, port, mut question)) = question(container, field, probe)? else { continue };
            if !taken(port) {
                continue;
            }
            let name = format!("{}/{kind}", container.name);
            let instead = json!({"path": format!("/probe/{name}"), "port": ADMIN, "scheme": "HTTP"});
            question.insert("name".to_owned(), name.into());
            question.insert("timeoutSeconds".to_owned(), probe.timeout_seconds.unwrap_or(1).max(1).into());
            let question = Value::Object(question);
            if question.to_string().len() > LONGEST {
                let whose = format!("the {field} of container {}", container.name);
                return Err(Refusal(format!(
                    "{whose} is longer than the {LONGEST} bytes that the sidecar can ask; make it shorter"
                )));
            }
            patch.remove(format!("{path}/{field}/{action}"));
            patch.add(format!("{path}/{field}/httpGet"), instead);
            asked.push(question);
        }
    }
    Ok(asked)
}

/// The field of a probe that says what it asks, the port, and the question as the sidecar is told of it.
type Question = (&'static str, u16, Map<String, Value>);

/// What a probe asks; `None` for one that is not asked over the pod's network,
/// or of another host.
fn question(container: &Container, field: &str, probe: &Probe) -> Result<Option<Question>, Refusal> {
    let port = |port| {
        container.resolve(port).ok_or_else(|| {
            let what = format!("the {field} of container {} asks port {}", container.name, shown(port));
            Refusal(format!("{what}, which the container does not have; name one of its ports, or write a number"))
        })
    };
    let (action, port, content) = match probe {
        Probe { http_get: Some(http), .. } if !asks_elsewhere(http.host.as_deref()) => {
            let port = port(&http.port)?;
            let headers = http.http_headers.clone().unwrap_or_default();
            let path = http.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
            let scheme = http.scheme.as_deref().unwrap_or("HTTP");
            let mut content = json!({"path": path, "port": port, "scheme": scheme});
            if !headers.is_empty() {
                content["httpHeaders"] = json!(headers);
            }
            ("httpGet", port, content)
        }
        Probe { tcp_socket: Some(tcp), .. } if !asks_elsewhere(tcp.host.as_deref()) => {
            let port = port(&tcp.port)?;
            ("tcpSocket", port, json!({"port": port}))
        }
        Probe { grpc: Some(grpc), .. } => {
            let port = port(&super::pod::PortName::Number(grpc.port))?;
            let mut content = json!({"port": port});
            if let Some(service) = grpc.service.as_deref().filter(|service| !service.is_empty()) {
                content["service"] = service.into();
            }
            ("grpc", port, content)
        }
        _ => return Ok(None),
    };
    Ok(Some((action, port, Map::from_iter([(action.to_owned(), content)]))))
}

fn shown(port: &super::pod::PortName) -> String {
    match port {
        super::pod::PortName::Number(number) => number.to_string(),
        super::pod::PortName::Name(name) => format!("\"{name}\""),
    }
}
