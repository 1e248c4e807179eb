//! `floodway doctor`: whether Floodway works in a cluster, or could, and what it serves there or would. It only looks, within a bounded
//! time, and with whatever rights it has: what it could not look at, it says.
//!
//! `ask` asks the API server, `report` is what was found, and each of the others is a check.

mod access;
mod ask;
mod beyond;
mod certificates;
mod definitions;
mod injector;
mod installation;
mod lease;
mod objects;
mod report;
mod schema;
mod served;
mod sidecars;
mod webhook;

use ::kube::Client;
use tokio::time::timeout;

use super::{Failure, control, print, sources};
use crate::args::DoctorArgs;
use crate::settings::Settings;
use crate::source::kube;
use installation::Installation;
use report::{Check, Report};

/// Where Floodway is installed when nobody says so: what the documents propose.
const NAMESPACE: &str = "floodway-system";

/// What all checks need to know.
pub(super) struct Visit<'a> {
    args: &'a DoctorArgs,
    client: Client,
    /// Where Floodway is installed.
    namespace: String,
    /// Whether this runs in a pod of the cluster.
    inside: bool,
}

/// Looks, and shows what was found.
pub(super) fn run(args: &DoctorArgs) -> Result<(), Failure> {
    let report = control::runtime()?.block_on(async {
        let client = kube::client_of(args.kubeconfig.as_deref(), args.context.as_deref()).await;
        let client = client.map_err(|error| Failure::configuration(told(&error)))?;
        let file = match &args.config {
            Some(path) => Some(super::configure::file(path)?),
            None => None,
        };
        let inside = args.kubeconfig.is_none() && sources::in_a_pod();
        let own = sources::namespace_of_the_pod().filter(|_| inside);
        let namespace = args.namespace.clone().or(own).unwrap_or_else(|| NAMESPACE.to_owned());
        let visit = Visit { args, client, namespace, inside };
        let mut report = Report::default();
        if timeout(args.timeout, visit.look(file, &mut report)).await.is_err() {
            let message = format!("not all was looked at within {:?}", args.timeout);
            report.fail(Check::Time, "", message, "give it more with --timeout, or see why the API server is slow");
        }
        Ok::<_, Failure>(report)
    })?;
    let colours = std::io::IsTerminal::is_terminal(&std::io::stdout()) && std::env::var_os("NO_COLOR").is_none();
    let text = match args.json {
        true => report.json().map_err(anyhow::Error::new)?,
        false => report.text(colours),
    };
    print(&text)?;
    if report.fails() { Err(Failure::Unwell) } else { Ok(()) }
}

/// An error and its causes, each said once.
fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

impl Visit<'_> {
    async fn look(&self, file: Option<Settings>, report: &mut Report) {
        // Nothing else can be said of an API server that does not answer.
        if !self.api_server(report).await {
            return;
        }
        let defined = self.definitions(report).await;
        let installation = self.installation(report).await;
        let settings = self.settings(file, &installation, report).await;
        self.rights(&settings, &installation, report).await;
        self.lease(&installation, report).await;
        self.rate_limits(&settings, report).await;
        self.admin_port(report).await;
        if defined {
            self.objects(&settings, report).await;
        }
        // Last, because they look at the pods of all namespaces.
        let injector = self.injector(&installation, report).await;
        self.sidecars(injector, report).await;
    }

    /// Whether it answers.
    async fn api_server(&self, report: &mut Report) -> bool {
        let info = match self.client.apiserver_version().await {
            Ok(info) => info,
            Err(::kube::Error::Api(status)) if matches!(status.code, 401 | 403) => {
                let message = format!("its version may not be looked at: {}", status.message);
                let remedy = match status.code {
                    401 => {
                        "the credentials are not accepted: renew those of the kubeconfig, or see the service account"
                    }
                    _ => "bind the ClusterRole system:public-info-viewer to whoever asks",
                };
                let refused = status.code == 401;
                if refused {
                    report.fail(Check::ApiServer, "", message, remedy);
                } else {
                    report.warn(Check::ApiServer, "", message, remedy);
                }
                return !refused;
            }
            Err(error) => {
                let mut why = kube::explain_answer(&error);
                for wrapping in ["ServiceError: ", "client error (Connect): "] {
                    why = why.strip_prefix(wrapping).map(str::to_owned).unwrap_or(why);
                }
                let message = format!("it does not answer: {why}");
                let remedy = "see that its address in the kubeconfig is right and can be reached from here; nothing else was looked at";
                report.fail(Check::ApiServer, "", message, remedy);
                return false;
            }
        };
        match kube::version::judge(&info) {
            Ok(()) => {
                let (major, minor) = kube::version::OLDEST;
                let message = format!("Kubernetes {}; {major}.{minor} or later will do", info.git_version);
                report.ok(Check::ApiServer, "", message);
            }
            Err(too_old) => report.fail(Check::ApiServer, "", too_old.to_string(), ""),
        }
        true
    }

    /// The settings of the gateway: what a file says that was named, else what its pods are given.
    async fn settings(&self, file: Option<Settings>, installation: &Installation, report: &mut Report) -> Settings {
        if let Some(file) = file {
            report.ok(Check::Settings, "", "those of the file that --config names");
            return file;
        }
        match self.mounted(installation).await {
            Ok(Some((place, settings))) => {
                report.ok(Check::Settings, place, "what the pods of Floodway read at their start");
                settings
            }
            Ok(None) => {
                let message = "no Deployment or DaemonSet says where they are; the defaults are taken";
                report.warn(Check::Settings, "", message, "name the settings file with --config");
                Settings::default()
            }
            Err((place, why)) => {
                let message = format!("they cannot be looked at, and the defaults are taken: {why}");
                report.warn(Check::Settings, place, message, "name the settings file with --config");
                Settings::default()
            }
        }
    }
}
