//! What is not the API server: the Redis of rate limits, and the admin port of a running Floodway.

use std::time::Duration;

use http::StatusCode;
use tokio::time::timeout;

use super::Visit;
use super::report::{Check, Level, Report};
use crate::app::upstreams;
use crate::settings::Settings;
use crate::tally;

const PATIENCE: Duration = Duration::from_secs(5);

impl Visit<'_> {
    /// Whether the Redis answers that the settings name.
    pub(super) async fn rate_limits(&self, settings: &Settings, report: &mut Report) {
        let Some(redis) = &settings.rate_limits.redis else { return };
        let place = redis.address.as_str();
        match tally::try_once(redis).await {
            Ok(()) => report.ok(Check::RateLimits, place, "it answers, and counts"),
            Err(why) => {
                let (level, remedy) = match self.inside {
                    true => (
                        Level::Fail,
                        "see rateLimits.redis; meanwhile limits of scope Global do what their onFailure says",
                    ),
                    // Names of the cluster and files of its pods are not here.
                    false => (Level::Warn, "that may be so from here only: look in a pod of Floodway"),
                };
                report.add(Check::RateLimits, level, place, format!("limits cannot be counted there: {why}"), remedy);
            }
        }
    }

    /// What a running Floodway says of itself, if its admin port was named.
    pub(super) async fn admin_port(&self, report: &mut Report) {
        let Some(admin) = self.args.admin.as_deref() else { return };
        let asked = timeout(PATIENCE, async {
            let ready = upstreams::ask(admin, "/readyz").await?;
            let (_, metrics) = upstreams::ask(admin, "/metrics").await?;
            anyhow::Ok((ready, metrics))
        });
        let ((status, ready), metrics) = match asked.await {
            Ok(Ok(answers)) => answers,
            Ok(Err(error)) => {
                return report.fail(
                    Check::AdminPort,
                    admin,
                    format!("it does not answer: {error:#}"),
                    "name it with --admin HOST:PORT",
                );
            }
            Err(_) => {
                let message = format!("no answer within {PATIENCE:?}");
                return report.fail(Check::AdminPort, admin, message, "name it with --admin HOST:PORT");
            }
        };
        let begin = "floodway_build_info{version=\"";
        let version = metrics.lines().find_map(|line| line.strip_prefix(begin)?.split('"').next());
        let Some(version) = version else {
            return report.fail(
                Check::AdminPort,
                admin,
                "it is no admin port of Floodway",
                "name it with --admin HOST:PORT",
            );
        };
        if status == StatusCode::OK {
            report.ok(Check::AdminPort, admin, format!("Floodway {version} is ready"));
        } else {
            for reason in ready.lines() {
                report.fail(Check::AdminPort, admin, format!("Floodway {version} is not ready, {reason}"), "");
            }
        }
    }
}
