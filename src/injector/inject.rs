//! What becomes of a pod: nothing, the sidecar, or a refusal. Nothing here knows who asks.

use serde_json::json;

use super::annotations::Wishes;
use super::containers::{self, VOLUME};
use super::patch::{Patch, token};
use super::pod::{Pod, asks_elsewhere};
use super::template::{Mode, Template};
use super::{CAPTURE, OWN_PORTS, PREFIX, SIDECAR, UID, probes};

/// Ports that are redirected, as many as `floodway capture` takes.
const MOST_PORTS: usize = 256;

/// What becomes of a pod that is let in.
#[derive(Clone, Debug, PartialEq)]
pub enum Injection {
    /// It gets the sidecar.
    Injected {
        /// By these changes.
        patch: Patch,
        /// What whoever creates the pod should know.
        warnings: Vec<String>,
    },
    /// It stays as it is.
    Skipped {
        /// Why.
        why: &'static str,
        /// Whether whoever creates the pod asked for something else, and should know.
        warn: bool,
    },
}

/// Why a pod that asked for the sidecar cannot have it: a sentence with the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

/// What becomes of a pod. Asked again about what came of it, it changes nothing.
///
/// # Errors
/// If the pod asked for the sidecar, and cannot have it as it asked.
pub fn inject(pod: &Pod, template: &Template) -> Result<Injection, Refusal> {
    let skipped = |why, warn| Ok(Injection::Skipped { why, warn });
    match pod.annotation(&format!("{PREFIX}inject")).map(str::trim) {
        None => return skipped("it does not ask for the sidecar", false),
        Some("false") => return skipped("it asks not to have the sidecar", false),
        Some("true") => {}
        Some(_) => {
            return Err(Refusal(format!(
                "the annotation {PREFIX}inject is neither \"true\" nor \"false\": write one of the two"
            )));
        }
    }
    if pod.annotation("kubernetes.io/config.mirror").is_some() {
        return skipped("it is a static pod, which its kubelet runs as its file says", true);
    }
    if pod.is_windows() {
        return skipped("it is for Windows, on which the sidecar does not run", true);
    }
    if pod.init_containers().iter().chain(pod.containers()).any(|container| container.name == SIDECAR) {
        return skipped("it has the sidecar", false);
    }
    let annotations = pod.metadata.annotations.as_ref().map_or_else(Default::default, Clone::clone);
    let wishes = Wishes::read(&annotations, template.default_mode)?;
    refuse_conflicts(pod, &wishes)?;
    let app_port = app_port(pod, &wishes)?;
    let captured = captured(pod, &wishes)?;

    let mut patch = Patch::default();
    let taken = |port: u16| match wishes.mode {
        Mode::Transparent => captured.contains(&port),
        // The app may listen on loopback alone, so that nobody gets past what is demanded.
        Mode::Local => wishes.demands() && app_port == Some(port),
    };
    let asked = probes::rewrite(pod, taken, &mut patch)?;
    let warnings = warnings(pod, &wishes, &captured);

    if pod.spec.init_containers.is_none() {
        patch.add("/spec/initContainers", json!([]));
    }
    // In front of all others, the capture step first: what is put in front last is first.
    patch.add("/spec/initContainers/0", containers::sidecar(template, &wishes, app_port, &captured, &asked));
    if wishes.mode == Mode::Transparent {
        patch.add("/spec/initContainers/0", containers::capture(template, &wishes, &captured));
    }
    if pod.spec.volumes.is_none() {
        patch.add("/spec/volumes", json!([]));
    }
    patch.add("/spec/volumes/-", containers::access());
    patch.add(format!("/metadata/annotations/{}", token(&format!("{PREFIX}status"))), json!("injected"));
    Ok(Injection::Injected { patch, warnings })
}

/// What in a pod stands against the sidecar.
fn refuse_conflicts(pod: &Pod, wishes: &Wishes) -> Result<(), Refusal> {
    let refused = |why: String| Err(Refusal(why));
    if pod.spec.host_network == Some(true) {
        return refused(format!(
            "the pod has hostNetwork, so the sidecar would take ports and connections of the whole node: take the annotation \
             {PREFIX}inject away, or hostNetwork"
        ));
    }
    let all = || pod.init_containers().iter().chain(pod.containers());
    if all().any(|container| container.name == CAPTURE) {
        return refused(format!(
            "a container of the pod has the name {CAPTURE}, which the sidecar needs: give it another one"
        ));
    }
    if pod.spec.volumes.as_deref().unwrap_or_default().iter().any(|volume| volume.name == VOLUME) {
        return refused(format!(
            "a volume of the pod has the name {VOLUME}, which the sidecar needs: give it another one"
        ));
    }
    for container in all() {
        if let Some(port) = container.tcp_ports().find(|port| OWN_PORTS.contains(port)) {
            return refused(format!(
                "container {} has port {port}, which is one of the sidecar's own: give it another one",
                container.name
            ));
        }
    }
    let whole = pod.spec.security_context.as_ref().and_then(|context| context.run_as_user);
    let same = |user: Option<i64>| user.is_some_and(|user| user == i64::from(UID));
    let own = all()
        .find(|container| same(container.security_context.as_ref().and_then(|context| context.run_as_user).or(whole)));
    if let (Mode::Transparent, Some(container)) = (wishes.mode, own) {
        return refused(format!(
            "container {} runs as user {UID}, which is the sidecar's and whose connections are not redirected: give it another runAsUser",
            container.name
        ));
    }
    Ok(())
}

/// The port in front of which the sidecar stands; there may be none if nothing is asked of it.
fn app_port(pod: &Pod, wishes: &Wishes) -> Result<Option<u16>, Refusal> {
    let first = || pod.containers().first().and_then(|container| container.tcp_ports().next());
    let port = wishes.app_port.or_else(first);
    if port.is_none() && (wishes.demands() || wishes.upstream.is_some()) {
        return Err(Refusal(format!(
            "the annotations say what incoming requests are held to, and the first container declares no TCP port: say which one is \
             the app's in {PREFIX}app-port"
        )));
    }
    Ok(port)
}

/// The ports whose incoming connections are redirected.
fn captured(pod: &Pod, wishes: &Wishes) -> Result<Vec<u16>, Refusal> {
    if wishes.mode == Mode::Local {
        return Ok(Vec::new());
    }
    let declared = || {
        let mut ports: Vec<u16> = pod.lasting().flat_map(|(_, container)| container.tcp_ports()).collect();
        ports.extend(wishes.app_port);
        ports
    };
    let mut ports = wishes.inbound_ports.clone().unwrap_or_else(declared);
    ports.retain(|port| !wishes.exclude_inbound.contains(port));
    ports.sort_unstable();
    ports.dedup();
    if ports.len() > MOST_PORTS {
        return Err(Refusal(format!(
            "the pod declares more than {MOST_PORTS} TCP ports: name those whose connections are to be redirected in {PREFIX}inbound-ports"
        )));
    }
    Ok(ports)
}

/// Hooks of the life cycle are not asked of the sidecar, as probes are: whoever reaches its port may ask there, and what a hook does (to
/// stop, say) is not for everybody. So those over HTTP meet what is demanded of clients.
fn warnings(pod: &Pod, wishes: &Wishes, captured: &[u16]) -> Vec<String> {
    let mut warnings = Vec::new();
    if wishes.mode == Mode::Local || !wishes.demands() {
        return warnings;
    }
    for (_, container) in pod.lasting() {
        let Some(lifecycle) = &container.lifecycle else { continue };
        for (name, hook) in [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)] {
            let http = hook.as_ref().and_then(|hook| hook.http_get.as_ref());
            let http = http.filter(|http| !asks_elsewhere(http.host.as_deref()));
            let port = http.and_then(|http| container.resolve(&http.port)).filter(|port| captured.contains(port));
            if let Some(port) = port {
                warnings.push(format!(
                    "floodway: the {name} hook of container {} asks port {port}, where it meets what clients are held to, and kubelets take \
                     any answer for success; use exec, or a port of its own in {PREFIX}exclude-inbound-ports",
                    container.name
                ));
            }
        }
    }
    warnings
}
