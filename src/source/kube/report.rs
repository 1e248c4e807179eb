//! What the watches tell of themselves: readiness, metrics and the log, with the remedy where there is one.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use kube::core::Status;
use kube::runtime::watcher::Error;
use tokio::sync::watch;

use super::watch::Manner;
use crate::ready::{BlockReady, Ready};
use crate::telemetry::Metrics;
use crate::translate::{Key, Malformed};

/// Of one watch.
pub(super) struct Report {
    kind: Arc<KindReport>,
    /// The namespace that is watched; all if `None`.
    namespace: Option<String>,
    ready: Ready,
    gate: Mutex<Option<BlockReady>>,
    connected: AtomicBool,
    listed: AtomicBool,
    counted: AtomicBool,
    /// Objects that cannot be read.
    unreadable: AtomicUsize,
    /// Counts the watches that are not waited for any more.
    progress: watch::Sender<usize>,
    last_error: Mutex<String>,
}

/// Whether a kind has to be readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rights {
    /// Nothing is served before it was read.
    Needed,
    /// Without the right to read it the rest is served, and what refers to it does not resolve.
    Wanted,
}

/// What becomes of a watch that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It is tried again soon.
    Again,
    /// It is refused, and everything else goes on without it.
    WithoutIt,
}

/// Of all watches of a kind.
pub(super) struct KindReport {
    name: &'static str,
    rights: Rights,
    manner: Manner,
    /// The namespaces in which reading is refused; `None` is all of them.
    refused: Mutex<BTreeSet<Option<String>>>,
    metrics: Metrics,
    /// Watches that are not connected.
    down: AtomicUsize,
}

impl KindReport {
    pub(super) fn new(name: &'static str, rights: Rights, manner: Manner, metrics: Metrics) -> Arc<Self> {
        metrics.source_connected(name, false);
        metrics.unreadable_objects(name, 0, 0);
        Arc::new(KindReport { name, rights, manner, refused: Mutex::default(), metrics, down: AtomicUsize::new(0) })
    }
}

impl Report {
    /// A watch that is about to begin: the process is not ready before its first list.
    pub(super) fn new(
        kind: &Arc<KindReport>,
        namespace: Option<String>,
        ready: &Ready,
        progress: watch::Sender<usize>,
    ) -> Self {
        kind.down.fetch_add(1, Ordering::Relaxed);
        let report = Report {
            kind: Arc::clone(kind),
            namespace,
            ready: ready.clone(),
            gate: Mutex::default(),
            connected: AtomicBool::new(false),
            listed: AtomicBool::new(false),
            counted: AtomicBool::new(false),
            unreadable: AtomicUsize::new(0),
            progress,
            last_error: Mutex::default(),
        };
        report.wait_because(None);
        report
    }

    /// The API server said something.
    pub(super) fn heard(&self) {
        self.kind.metrics.source_event(self.kind.name);
    }

    /// A list is complete, and the watch goes on from it.
    pub(super) fn listed(&self) {
        self.kind.metrics.source_listed(self.kind.name);
        self.up_to_date();
        let last_error = std::mem::take(&mut *lock(&self.last_error));
        if !last_error.is_empty() {
            tracing::info!(kind = self.kind.name, namespace = self.namespace, "the watch is back and up to date");
        }
    }

    /// There is no watch, because nothing is to be read.
    pub(super) fn nothing_to_read(&self) {
        self.up_to_date();
        lock(&self.last_error).clear();
    }

    fn up_to_date(&self) {
        if !self.connected.swap(true, Ordering::Relaxed) && self.kind.down.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.kind.metrics.source_connected(self.kind.name, true);
        }
        self.listed.store(true, Ordering::Relaxed);
        self.pass();
        lock(&self.kind.refused).remove(&self.namespace);
    }

    /// The watch or the list failed; the last good objects stay.
    pub(super) fn failed(&self, error: &Error) -> Next {
        self.kind.metrics.source_error(self.kind.name);
        if self.connected.swap(false, Ordering::Relaxed) {
            self.kind.down.fetch_add(1, Ordering::Relaxed);
        }
        self.kind.metrics.source_connected(self.kind.name, false);
        let mut text = explain(self.kind.name, self.kind.manner, error);
        let refused = is_refusal(error);
        let next = match self.kind.rights {
            Rights::Wanted if refused => Next::WithoutIt,
            Rights::Wanted | Rights::Needed => Next::Again,
        };
        if next == Next::WithoutIt {
            text.push_str(match self.kind.manner {
                Manner::OneOfFew => WITHOUT_SECRETS,
                Manner::OneOfMany => SIDECAR_WITHOUT_SECRETS,
            });
            // Several watches of a kind share their rights.
            if !lock(&self.kind.refused).insert(self.namespace.clone()) {
                lock(&self.last_error).clone_from(&text);
            }
            self.pass();
        } else if refused && self.kind.manner == Manner::OneOfMany {
            text.push_str("; the chart grants it in the namespaces that sidecar.namespaces names");
        }
        if next == Next::Again && !self.listed.load(Ordering::Relaxed) {
            self.wait_because(Some(&text));
        }
        let mut last_error = lock(&self.last_error);
        // Attempts go on; the log tells what is new.
        if *last_error == text {
            tracing::debug!(kind = self.kind.name, namespace = self.namespace, "{text}");
        } else {
            let meanwhile = match self.listed.load(Ordering::Relaxed) {
                true => "what was read before stays in force, and reading is tried again",
                false => "trying again",
            };
            tracing::warn!(kind = self.kind.name, namespace = self.namespace, "{text}; {meanwhile}");
            *last_error = text;
        }
        next
    }

    /// So many objects of this watch cannot be read now.
    pub(super) fn unreadable(&self, count: usize) {
        let before = self.unreadable.swap(count, Ordering::Relaxed);
        if count != before {
            self.kind.metrics.unreadable_objects(self.kind.name, count, before);
        }
    }

    /// An object could not be read.
    pub(super) fn skipped(&self, key: &Key, malformed: &Malformed) {
        tracing::warn!(kind = self.kind.name, object = %key, "object skipped, its last good version stays: {malformed}");
    }

    /// Nobody waits for the first list any more.
    fn pass(&self) {
        *lock(&self.gate) = None;
        if !self.counted.swap(true, Ordering::Relaxed) {
            self.progress.send_modify(|listed| *listed += 1);
        }
    }

    fn wait_because(&self, error: Option<&str>) {
        let of = self.namespace.as_ref().map(|namespace| format!(" in namespace {namespace}")).unwrap_or_default();
        let why = error.map(|error| format!(": {error}")).unwrap_or_default();
        let gate = self.ready.block(format!("the first list of {}{of}{why}", plural(self.kind.name)));
        // The old one goes only now, so that there is always one.
        *lock(&self.gate) = Some(gate);
    }
}

/// Several of a kind.
fn plural(kind: &str) -> String {
    match kind.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{kind}s"),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a refusal of Secrets or ConfigMaps means, and how to live with it.
const WITHOUT_SECRETS: &str = "; the rest is served, and what refers to one does not resolve. Where they are not to be read, \
                               set kubernetes.secrets.watch to false or name the namespaces in kubernetes.secrets.namespaces";

/// The same to whoever reads the log of a sidecar.
const SIDECAR_WITHOUT_SECRETS: &str = "; the rest is served, and a policy or upstream that needs one is not applied: requests that it is for \
                                       get 503. To let the sidecars of the namespace read them, set sidecar.secrets to true in the \
                                       chart, which lets all its pods";

/// What the API server answered.
fn answer(error: &Error) -> Option<&Status> {
    match error {
        Error::InitialListFailed(kube::Error::Api(status)) | Error::WatchStartFailed(kube::Error::Api(status)) => {
            Some(status)
        }
        Error::WatchError(status) => Some(status),
        _ => None,
    }
}

fn is_refusal(error: &Error) -> bool {
    answer(error).is_some_and(|status| status.code == 403)
}

/// What went wrong and, where we know it, what to do.
fn explain(kind: &str, manner: Manner, error: &Error) -> String {
    match answer(error).map(|status| (status.code, status.message.trim())) {
        Some((404, _)) => {
            format!(
                "the API server does not know {kind}: install the custom resources \
                 (floodway crd | kubectl apply --server-side -f -)"
            )
        }
        Some((403, message)) if manner == Manner::OneOfMany => {
            format!("not allowed to list and watch {kind}: {message}")
        }
        Some((403, message)) => format!(
            "not allowed to list and watch {kind}: {message} (grant what charts/floodway/templates/rbac.yaml lists to \
             the service account; `floodway doctor` names each right that is missing)"
        ),
        Some((401, message)) => format!("the API server does not accept our credentials: {message}"),
        Some((410, _)) => format!("the watch of {kind} fell behind (410 Gone) and begins with a new list"),
        Some((code, message)) => format!("the API server refuses the watch of {kind}: {code} {message}"),
        None => format!("cannot watch {kind}: {}", chain(error)),
    }
}

/// What the API server answered, or why it did not, in one sentence.
pub fn explain_answer(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.message.trim().is_empty() => {
            format!("the API server answers {}", status.code)
        }
        kube::Error::Api(status) => status.message.trim().to_owned(),
        error => chain(error),
    }
}

/// An error and its causes, each said once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
