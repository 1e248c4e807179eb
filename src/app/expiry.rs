//! Certificates that expire: when, in metrics; and a line in the log and an event about the route for each that is about to, or has.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use crate::snapshot::{Certificate, HostPattern, Reader, Snapshot};
use crate::status::{Notice, Object};
use crate::telemetry::{Expiry, Metrics};
use crate::translate::Key;

/// How often certificates are looked at.
const INTERVAL: Duration = Duration::from_secs(60);
/// How long before the end people are told, in seconds: three weeks, when whoever renews them by itself, a third before the end of 90 days,
/// has failed for more than one. The alert FloodwayCertificateExpiresSoon (`tests/chart/monitoring.rs`) and `floodway doctor` say the same.
pub const NEAR: i64 = 21 * DAY;
/// How often they are told again.
const AGAIN: i64 = DAY;
pub(super) const DAY: i64 = 24 * 60 * 60;

/// Looks at certificates, for ever.
pub(super) async fn run(mut reader: Reader, metrics: Metrics, told: mpsc::Sender<Notice>) -> Infallible {
    let asked = reader.clone();
    metrics.ask_expiry(move || asked.clone().current().map(|snapshot| expiries(snapshot)).unwrap_or_default());
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known = Known::default();
    loop {
        ticks.tick().await;
        let Some(snapshot) = reader.current() else { continue };
        for due in known.due(snapshot, seconds_since_1970()) {
            tracing::warn!("{}", due.note);
            if let Some(route) = due.route {
                let object = Object::Route(route);
                // Nobody takes them without a cluster, or there are too many: the log has them all.
                let notice = Notice { object, reason: due.reason, warning: true, note: due.note, lasting: true };
                let _ = told.try_send(notice);
            }
        }
    }
}

fn seconds_since_1970() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Every certificate that is served, with a host and the route that it is served for.
fn served(snapshot: &Snapshot) -> impl Iterator<Item = (&HostPattern, Option<&Arc<str>>, &Arc<Certificate>)> {
    let hosts = snapshot.tls.iter();
    hosts.flat_map(|(host, terms)| terms.certificates.iter().map(move |served| (host, terms.route.as_ref(), served)))
}

/// The name of the Secret, without its kind.
fn secret(certificate: &Certificate) -> &str {
    certificate.source.strip_prefix("Secret ").unwrap_or(&certificate.source)
}

fn expiries(snapshot: &Snapshot) -> Vec<Expiry> {
    let expiry =
        |certificate: &Certificate| Expiry { secret: secret(certificate).to_owned(), not_after: certificate.not_after };
    served(snapshot).map(|(_, _, certificate)| expiry(certificate)).collect()
}

/// Of which routes and certificates was told, and when.
#[derive(Debug, Default)]
struct Known(BTreeMap<(Option<Arc<str>>, Box<str>), i64>);

/// What is to be told.
#[derive(Debug, PartialEq, Eq)]
struct Due {
    route: Option<Key>,
    reason: &'static str,
    note: String,
}

impl Known {
    /// What is to be told now, once for each route and certificate, and not again for a day.
    fn due(&mut self, snapshot: &Snapshot, now: i64) -> Vec<Due> {
        let (mut before, mut due) = (std::mem::take(&mut self.0), Vec::new());
        let near = served(snapshot).filter(|(_, _, certificate)| certificate.not_after - now <= NEAR);
        for (host, route, certificate) in near {
            let key = (route.cloned(), certificate.fingerprint.clone());
            if self.0.contains_key(&key) {
                continue;
            }
            let last = before.remove(&key).filter(|last| now - last < AGAIN);
            if last.is_none() {
                due.push(told(host, route, certificate, now));
            }
            self.0.insert(key, last.unwrap_or(now));
        }
        due
    }
}

fn told(host: &HostPattern, route: Option<&Arc<str>>, certificate: &Certificate, now: i64) -> Due {
    let left = certificate.not_after - now;
    let date = jiff::Timestamp::from_second(certificate.not_after).map(|date| date.to_string()).unwrap_or_default();
    let whose = match host {
        HostPattern::Any => "the default certificate".to_owned(),
        host => format!("the certificate of {host}"),
    };
    let secret = secret(certificate);
    let (reason, when) = match left / DAY {
        _ if left <= 0 => ("CertificateExpired", "expired".to_owned()),
        0 => ("CertificateExpires", "expires within a day,".to_owned()),
        1 => ("CertificateExpires", "expires in 1 day,".to_owned()),
        days => ("CertificateExpires", format!("expires in {days} days,")),
    };
    let note = format!("{whose}, Secret {secret}, {when} at {date}; renew it, or see why it was not renewed");
    let route = route.and_then(|route| route.split_once('/')).map(|(namespace, name)| Key::new(namespace, name));
    Due { route, reason, note }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use rustls::pki_types::PrivateKeyDer;
    use rustls::sign::CertifiedKey;

    use super::*;
    use crate::snapshot::HostTls;

    fn certificate(secret: &str, not_after: i64) -> Arc<Certificate> {
        let pair = rcgen::KeyPair::generate().unwrap();
        let der = PrivateKeyDer::try_from(pair.serialize_der()).unwrap();
        let key = rustls::crypto::ring::sign::any_supported_type(&der).unwrap();
        let names = Vec::new();
        let source = format!("Secret {secret}").into();
        let key = Arc::new(CertifiedKey::new(Vec::new(), key));
        Arc::new(Certificate { source, names, not_after, issuer: "".into(), fingerprint: secret.into(), key })
    }

    fn snapshot(hosts: &[(HostPattern, Option<&str>, &Arc<Certificate>)]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (host, route, certificate) in hosts {
            let certificates = vec![Arc::clone(certificate)];
            let terms = HostTls { route: route.map(Arc::from), certificates, ..HostTls::default() };
            snapshot.tls.insert(host.clone(), Arc::new(terms));
        }
        snapshot
    }

    #[test]
    fn who_is_near_the_end_is_told_of_once_a_day() {
        let (near, far) = (certificate("shop/near", 27 * DAY), certificate("shop/far", 400 * DAY));
        let host = |name: &str| HostPattern::parse(name).unwrap();
        let snapshot = snapshot(&[
            (host("a.example.com"), Some("shop/a"), &near),
            (host("b.example.com"), Some("shop/a"), &near),
            (host("c.example.com"), Some("shop/c"), &far),
            (HostPattern::Any, None, &near),
        ]);
        let mut known = Known::default();
        let mut at = |now| {
            let mut due = known.due(&snapshot, now);
            due.sort_by_key(|due| due.route.clone());
            due
        };
        assert_eq!(at(0), []);
        let due = at(6 * DAY);
        assert_eq!(due.len(), 2, "{due:?}");
        assert_eq!((&due[0].route, due[0].reason), (&None, "CertificateExpires"));
        assert!(
            due[0].note.starts_with("the default certificate, Secret shop/near, expires in 21 days, at 1970-01-28")
        );
        assert_eq!(due[1].route, Some(Key::new("shop", "a")));
        assert!(due[1].note.contains(".example.com, Secret shop/near, expires in 21 days, at 1970-01-28T00:00:00Z"));
        assert_eq!(at(6 * DAY + 60), []);
        assert_eq!(at(7 * DAY).len(), 2);
        let gone = at(27 * DAY);
        assert_eq!((gone.len(), gone[1].reason), (2, "CertificateExpired"));
        assert!(gone[1].note.contains("expired at"), "{gone:?}");
    }

    #[test]
    fn metrics_have_each_secret_once() {
        let one = certificate("shop/one", 7);
        let snapshot = snapshot(&[(HostPattern::Any, None, &one), (HostPattern::Exact("a".into()), Some("x/y"), &one)]);
        let metrics = crate::telemetry::Telemetry::default().metrics().clone();
        metrics.ask_expiry(move || expiries(&snapshot));
        let text = metrics.text();
        assert_eq!(text.matches("floodway_certificate_expiry_seconds{secret=\"shop/one\"} 7\n").count(), 1, "{text}");
    }
}
