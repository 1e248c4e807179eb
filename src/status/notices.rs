//! Events on changes of endpoints: at most one of a kind per object and ten seconds, which speaks for those that came in
//! between. Only the leader publishes them, of what it saw itself: other replicas may have seen the same.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{self as core, ObjectReference};
use kube::api::ListParams;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::observed::{Id, Kind, Observed};
use crate::translate::Key;

/// How often it is looked what is due.
const TICK: Duration = Duration::from_secs(1);
/// The time between two events of a kind about an object.
const PAUSE: Duration = Duration::from_secs(10);
/// How long an event waits for the identity of its object.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long what lasts waits for this replica to lead.
const LASTS: Duration = Duration::from_secs(24 * 60 * 60);
/// Kinds and objects that are remembered; notices about more are dropped.
const MAX_KNOWN: usize = 4096;

/// What happened to an endpoint, a circuit breaker or a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Whose endpoints they are, or which route it is.
    pub object: Object,
    /// One CamelCase word.
    pub reason: &'static str,
    /// Whether somebody should look at it.
    pub warning: bool,
    /// A sentence.
    pub note: String,
    /// Whether it is still so when this replica comes to lead, within a day: others have not told of it then, or long ago.
    pub lasting: bool,
}

/// Whose endpoints they are, or which route it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Object {
    /// A Service's.
    Service(Key),
    /// A ProxyUpstream's own.
    Upstream(Key),
    /// None's: it is about a ProxyRoute.
    Route(Key),
}

/// What waits to be published.
#[derive(Debug, Default)]
struct Pending(BTreeMap<(Object, &'static str), Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    /// When the last one was published.
    published: Option<Instant>,
    latest: Option<Notice>,
    /// When that came.
    came: Option<Instant>,
    /// How many the latest speaks for, itself included.
    count: u32,
}

impl Pending {
    fn add(&mut self, notice: Notice, now: Instant) {
        let key = (notice.object.clone(), notice.reason);
        if self.0.len() < MAX_KNOWN || self.0.contains_key(&key) {
            let waiting = self.0.entry(key).or_default();
            waiting.latest = Some(notice);
            waiting.came = Some(now);
            waiting.count = waiting.count.saturating_add(1);
        }
    }

    /// Another replica leads: forgets what only a leader tells of.
    fn rest(&mut self, now: Instant) {
        self.0.retain(|_, waiting| {
            let lasts = waiting.latest.as_ref().is_some_and(|notice| notice.lasting);
            // It speaks for nothing that the other one has told.
            waiting.count = 1;
            lasts && waiting.came.is_some_and(|came| now - came < LASTS)
        });
    }

    /// Takes what may be published now.
    fn due(&mut self, now: Instant) -> Vec<Notice> {
        let rested = |waiting: &Waiting| waiting.published.is_none_or(|last| now - last >= PAUSE);
        self.0.retain(|_, waiting| waiting.latest.is_some() || !rested(waiting));
        let mut due = Vec::new();
        for waiting in self.0.values_mut().filter(|waiting| rested(waiting)) {
            if let Some(mut notice) = waiting.latest.take() {
                if waiting.count > 1 {
                    notice.note += &format!(" (and {} others of late)", waiting.count - 1);
                }
                waiting.published = Some(now);
                waiting.count = 0;
                due.push(notice);
            }
        }
        due
    }
}

/// Publishes notices while leading, until they end.
pub(super) async fn run(
    client: Client,
    identity: &str,
    observed: Observed,
    mut notices: mpsc::Receiver<Notice>,
    leads: watch::Receiver<bool>,
) {
    let reporter = Reporter { controller: "floodway.dev/gateway".to_owned(), instance: Some(identity.to_owned()) };
    let recorder = Recorder::new(client.clone(), reporter);
    let mut pending = Pending::default();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            notice = notices.recv() => match notice {
                Some(notice) if notice.lasting || *leads.borrow() => pending.add(notice, Instant::now()),
                // Whoever leads tells of what it sees.
                Some(_) => {}
                None => return,
            },
            now = ticks.tick() => {
                if !*leads.borrow() {
                    pending.rest(now);
                    continue;
                }
                for notice in pending.due(now) {
                    let uid = uid(&client, &notice.object, &observed).await;
                    let (event, regarding) = event(notice, uid);
                    if let Err(error) = recorder.publish(&event, &regarding).await {
                        tracing::warn!(reason = event.reason, "cannot publish an event: {error}");
                    }
                }
            }
        }
    }
}

/// The identity of an object, without which `kubectl describe` does not show its events. Those of Services are not kept for the few
/// that ever have one. Whoever may list them may ask for one by its name.
async fn uid(client: &Client, object: &Object, observed: &Observed) -> Option<String> {
    match object {
        Object::Upstream(key) => of_ours(Kind::Upstream, key, observed),
        Object::Route(key) => of_ours(Kind::Route, key, observed),
        Object::Service(key) => {
            let api: Api<core::Service> = Api::namespaced(client.clone(), &key.namespace);
            let named = ListParams::default().fields(&format!("metadata.name={}", key.name));
            let found = timeout(PATIENCE, api.list_metadata(&named)).await.ok()?.ok()?;
            found.items.into_iter().next()?.metadata.uid
        }
    }
}

fn of_ours(kind: Kind, key: &Key, observed: &Observed) -> Option<String> {
    let id = Id { kind, key: key.clone() };
    observed.entries().get(&id).map(|entry| entry.uid.to_string())
}

fn event(notice: Notice, uid: Option<String>) -> (Event, ObjectReference) {
    let Notice { object, reason, warning, note, lasting: _ } = notice;
    let (api_version, kind, key, action) = match object {
        Object::Service(key) => ("v1", "Service", key, "Balance"),
        Object::Upstream(key) => (super::API_VERSION, Kind::Upstream.name(), key, "Balance"),
        Object::Route(key) => (super::API_VERSION, Kind::Route.name(), key, "Serve"),
    };
    let regarding = ObjectReference {
        api_version: Some(api_version.to_owned()),
        kind: Some(kind.to_owned()),
        namespace: Some(key.namespace.to_string()),
        name: Some(key.name.to_string()),
        uid,
        ..ObjectReference::default()
    };
    let type_ = if warning { EventType::Warning } else { EventType::Normal };
    let event =
        Event { type_, reason: reason.to_owned(), note: Some(note), action: action.to_owned(), secondary: None };
    (event, regarding)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn notice(reason: &'static str, note: &str) -> Notice {
        let (object, note) = (Object::Service(Key::new("shop", "llm")), note.to_owned());
        Notice { object, reason, warning: true, note, lasting: false }
    }

    #[test]
    fn a_flood_becomes_one_event_in_ten_seconds() {
        let (mut pending, start) = (Pending::default(), Instant::now());
        let told = |pending: &mut Pending, seconds| -> Vec<String> {
            let due = pending.due(start + Duration::from_secs(seconds));
            due.into_iter().map(|notice| notice.note).collect()
        };
        pending.add(notice("EndpointEjected", "a"), start);
        assert_eq!(told(&mut pending, 0), ["a"], "the first at once");
        for note in ["b", "c", "d"] {
            pending.add(notice("EndpointEjected", note), start);
        }
        pending.add(notice("EndpointAdmitted", "e"), start);
        assert_eq!(told(&mut pending, 1), ["e"], "another kind does not wait");
        assert_eq!(told(&mut pending, 9), [""; 0]);
        assert_eq!(told(&mut pending, 10), ["d (and 2 others of late)"]);
        assert_eq!(told(&mut pending, 40), [""; 0]);
        assert!(pending.0.is_empty(), "what is long over is forgotten");
    }

    #[test]
    fn what_lasts_waits_for_this_replica_to_lead() {
        let (mut pending, start) = (Pending::default(), Instant::now());
        let told = |pending: &mut Pending, at| -> Vec<String> {
            pending.due(at).into_iter().map(|notice| notice.note).collect()
        };
        for note in ["old", "new"] {
            pending.add(Notice { lasting: true, ..notice("CertificateExpires", note) }, start);
        }
        pending.add(notice("EndpointEjected", "of another time"), start);
        pending.rest(start + LASTS / 2);
        assert_eq!(told(&mut pending, start + LASTS / 2), ["new"]);
        pending.add(Notice { lasting: true, ..notice("CertificateExpires", "by now renewed") }, start);
        pending.rest(start + LASTS);
        assert_eq!(told(&mut pending, start + LASTS), [""; 0]);
    }

    /// Has one Service in `shop`, and answers those who list what has its name.
    async fn api_server(name: &'static str, uid: &'static str) -> Client {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") && stream.read_buf(&mut head).await.is_ok_and(|read| read > 0) {}
                let head = String::from_utf8_lossy(&head);
                let found = head.starts_with("GET /api/v1/namespaces/shop/services?")
                    && head.contains(&format!("fieldSelector=metadata.name%3D{name} "));
                let item = serde_json::json!({"metadata": {"name": name, "uid": uid}});
                let items = if found { vec![item] } else { vec![] };
                let list = serde_json::json!({
                    "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList", "metadata": {}, "items": items,
                });
                let (list, head) = (list.to_string(), "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length");
                let _ = stream.write_all(format!("{head}: {}\r\n\r\n{list}", list.len()).as_bytes()).await;
            }
        });
        Client::try_from(kube::Config::new(url.parse().expect("a URL"))).expect("a client")
    }

    #[tokio::test]
    async fn events_are_about_the_object_whose_endpoints_they_are() {
        let observed = Observed::default();
        let key = Key::new("shop", "llm");
        observed.seen("ProxyUpstream", &key, Some(("of the upstream", &[])));
        observed.seen("ProxyRoute", &key, Some(("of the route", &[])));
        let client = api_server("llm", "of the Service").await;
        for (object, kind, of) in [
            (Object::Service(key.clone()), "Service", Some("of the Service")),
            (Object::Upstream(key.clone()), "ProxyUpstream", Some("of the upstream")),
            (Object::Service(Key::new("shop", "gone")), "Service", None),
            (Object::Route(key.clone()), "ProxyRoute", Some("of the route")),
        ] {
            let about = Notice { object, ..notice("EndpointEjected", "a") };
            let uid = uid(&client, &about.object, &observed).await;
            let (event, regarding) = event(about, uid);
            assert_eq!((regarding.kind.as_deref(), regarding.uid.as_deref()), (Some(kind), of));
            assert_eq!((event.reason.as_str(), event.note.as_deref()), ("EndpointEjected", Some("a")));
        }
    }
}
