//! The Lease by which the replicas agree who writes statuses. Its times are those of the holder's clock, so a little is forgiven.

use jiff::Timestamp;

use super::Visit;
use super::ask::{self, NoAnswer};
use super::installation::Installation;
use super::report::{Check, Report};
use crate::status::LEASE;

/// Clocks differ, and a renewal takes its time.
const FORGIVEN: i64 = 5;

impl Visit<'_> {
    /// Who holds it, and whether that is still true.
    pub(super) async fn lease(&self, installation: &Installation, report: &mut Report) {
        let place = format!("{}/{LEASE}", self.namespace);
        let path = format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases/{LEASE}", self.namespace);
        let lease = match ask::get(&self.client, &path).await {
            Ok(lease) => lease,
            Err(NoAnswer::Absent) if installation.pods.is_empty() => {
                return report.ok(Check::Lease, place, "there is none yet; the first pod makes it");
            }
            Err(NoAnswer::Absent) => {
                let remedy = "the log of a pod says why it cannot make it; see Rights";
                return report.warn(Check::Lease, place, "there is none, so nobody writes statuses", remedy);
            }
            Err(error) => {
                let message = format!("it could not be looked at: {}", error.why());
                return report.warn(Check::Lease, place, message, "look as somebody who may get it");
            }
        };
        let spec = &lease["spec"];
        let holder = spec["holderIdentity"].as_str().unwrap_or_default();
        if holder.is_empty() {
            let remedy = "within seconds a running pod takes it; if there is one, its log says why not";
            return report.warn(Check::Lease, place, "nobody holds it, so nobody writes statuses", remedy);
        }
        let renewed = spec["renewTime"].as_str().and_then(|time| time.parse::<Timestamp>().ok());
        let age = renewed.map(|renewed| Timestamp::now().as_second() - renewed.as_second());
        let lasts = spec["leaseDurationSeconds"].as_i64().unwrap_or(15);
        match age {
            Some(age) if age <= lasts + FORGIVEN => {
                let known = installation.pods.is_empty() || installation.pods.iter().any(|pod| pod == holder);
                let message = format!("{holder} holds it, renewed {} s ago", age.max(0));
                if known {
                    report.ok(Check::Lease, place, message);
                } else {
                    let remedy = "another Floodway in this namespace has it: give each release a namespace of its own";
                    report.warn(Check::Lease, place, format!("{message}, and is no pod of this installation"), remedy);
                }
            }
            Some(age) => {
                let message = format!(
                    "{holder} holds it and has not renewed it for {age} s by the clock here (it lasts {lasts} s): nobody writes statuses"
                );
                let remedy =
                    "if pods run, their log says why they cannot take it; else it is what an ended one has left";
                report.warn(Check::Lease, place, message, remedy);
            }
            None => {
                let message = format!("{holder} holds it, and it does not say since when");
                report.warn(Check::Lease, place, message, "delete it: a running pod makes it anew");
            }
        }
    }
}
