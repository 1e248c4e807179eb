//! The real `floodway gateway` program, and what a user sees of it: answers, readiness, metrics, the log.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http::StatusCode;
use serde_json::Value;

use crate::control_plane::{ControlPlane, FLOODWAY, free_port};
use crate::guarded::Guarded;
use crate::http1::get;
use crate::objects::eventually;

/// One replica.
pub(crate) struct Gateway {
    process: Guarded,
    pub(crate) http: SocketAddr,
    admin: SocketAddr,
    pub(crate) pod: String,
}

/// How a replica is started.
pub(crate) struct Options<'a> {
    /// The user of the API server that it is.
    pub(crate) user: &'a str,
    /// Namespaces to watch; all if empty.
    pub(crate) namespaces: &'a [&'a str],
    /// Namespace of the Lease.
    pub(crate) pod_namespace: &'a str,
    /// Arguments besides.
    pub(crate) args: &'a [&'a str],
}

impl Default for Options<'_> {
    fn default() -> Self {
        Options { user: FLOODWAY, namespaces: &[], pod_namespace: crate::control_plane::SYSTEM, args: &[] }
    }
}

impl Gateway {
    /// Starts a replica; see [`Gateway::ready`].
    pub(crate) fn start(plane: &ControlPlane, options: Options<'_>) -> Gateway {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let pod = format!("floodway-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let http = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let admin = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut command = Command::new(crate::program());
        command
            .args(["gateway", "--workers=2", "--grace=2s"])
            .arg(format!("--http={http}"))
            .arg(format!("--admin={admin}"))
            .args(options.namespaces.iter().map(|namespace| format!("--watch-namespace={namespace}")))
            .args(options.args)
            .env("KUBECONFIG", plane.kubeconfig(options.user))
            .env("POD_NAME", &pod)
            .env("POD_NAMESPACE", options.pod_namespace);
        let process = Guarded::spawn(&command, &plane.path(&format!("{pod}.log")), None);
        Gateway { process, http, admin, pod }
    }

    /// Starts a replica and waits until it is ready.
    pub(crate) async fn ready(plane: &ControlPlane, options: Options<'_>) -> Gateway {
        let gateway = Gateway::start(plane, options);
        eventually(&format!("{} to be ready", gateway.pod), async || {
            assert!(gateway.alive(), "{} ended:\n{}", gateway.pod, gateway.log());
            let (status, _) = gateway.admin("/readyz").await?;
            status.is_success().then_some(())
        })
        .await;
        gateway
    }

    pub(crate) fn alive(&self) -> bool {
        self.process.alive()
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        self.process.output()
    }

    /// Ends it at once.
    pub(crate) async fn kill(&self) {
        self.process.signal("KILL");
        assert!(self.process.ended(Duration::from_secs(5)).await);
    }

    /// Asks it to end, and waits.
    pub(crate) async fn terminate(&self) {
        self.process.signal("TERM");
        assert!(self.process.ended(Duration::from_secs(10)).await, "still running:\n{}", self.log());
    }

    /// Its admin port.
    pub(crate) fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// An answer of the admin port; `None` while it does not listen.
    pub(crate) async fn admin(&self, path: &str) -> Option<(StatusCode, String)> {
        get(self.admin, "admin", path).await.ok()
    }

    /// The answer to a request for `host`.
    pub(crate) async fn get(&self, host: &str) -> Option<(StatusCode, String)> {
        get(self.http, host, "/").await.ok()
    }

    /// Waits until requests for `host` get this answer.
    pub(crate) async fn answers(&self, host: &str, status: u16, body: &str) {
        let mut last = None;
        let what = format!("{host} to answer {status} {body:?} on {}", self.pod);
        let result = eventually_or(&what, async || {
            last = self.get(host).await;
            last.as_ref().is_some_and(|(s, b)| s.as_u16() == status && b.contains(body)).then_some(())
        });
        let in_time = result.await;
        assert!(in_time, "waited for {what}, got {last:?}; log:\n{}", self.log());
    }

    /// The table in force.
    pub(crate) async fn config_dump(&self) -> Value {
        let (_, text) = self.admin("/config_dump").await.unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// The sum of a metric over the series whose labels contain all of `labels`.
    pub(crate) async fn metric(&self, name: &str, labels: &[&str]) -> Option<f64> {
        let (_, text) = self.admin("/metrics").await?;
        let series = text.lines().filter(|line| {
            let end = line.find(['{', ' ']).unwrap_or(0);
            &line[..end] == name && labels.iter().all(|label| line.contains(label))
        });
        series.map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

async fn eventually_or(what: &str, probe: impl AsyncFnMut() -> Option<()>) -> bool {
    tokio::time::timeout(Duration::from_secs(30), eventually(what, probe)).await.is_ok()
}
