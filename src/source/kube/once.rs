//! Every kind listed once, in pages, for whoever looks at a cluster and does not stay. What cannot be listed is told, and the
//! rest is there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use kube::api::ListParams;
use kube::runtime::watcher::Event;
use kube::{Api, Client};

use super::item::Item;
use super::kinds::{Kind, Ours, OwnedSlice};
use super::references::Secret;
use super::report::explain_answer;
use super::table::{Outcome, Table};
use crate::api::{Condition, ProxyPolicySpec, ProxyRouteSpec, ProxyUpstreamSpec};
use crate::source::Store;
use crate::translate::{ConfigMapData, Key, Malformed, Resources, Service};

/// Objects per page of a list.
const PAGE: u32 = 250;

/// The conditions that the API server has of objects, by kind and key.
pub type Conditions = BTreeMap<(String, Key), Vec<Condition>>;

/// What there is.
#[derive(Debug, Default)]
pub struct Looked {
    /// The objects.
    pub resources: Resources,
    /// The conditions that the API server has of ours, by kind and key.
    pub told: Conditions,
    /// Objects that cannot be read, with their kind, and why not.
    pub malformed: Vec<(&'static str, Key, Malformed)>,
    /// What could not be listed, or not all of it.
    pub unlisted: Vec<Unlisted>,
}

/// What could not be listed, or not all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unlisted {
    /// The kind.
    pub kind: &'static str,
    /// The namespace; all of them if `None`.
    pub namespace: Option<String>,
    /// A sentence.
    pub why: String,
    /// Whether it is for want of rights.
    pub refused: bool,
}

/// One look at a cluster.
struct Look {
    client: Client,
    store: Store,
    told: Arc<Mutex<Conditions>>,
    looked: Looked,
    most: usize,
}

/// Lists what a gateway would watch: in these namespaces, or in all if there are none; Secrets and ConfigMaps in theirs, or not at
/// all. Of each kind and namespace at most about `most` objects are read.
pub async fn look(client: &Client, namespaces: &[String], secrets: Option<&[String]>, most: usize) -> Looked {
    let mut look =
        Look { client: client.clone(), store: Store::default(), told: Arc::default(), looked: Looked::default(), most };
    look.kind::<Ours<ProxyRouteSpec>>(namespaces).await;
    look.kind::<Ours<ProxyUpstreamSpec>>(namespaces).await;
    look.kind::<Ours<ProxyPolicySpec>>(namespaces).await;
    look.kind::<Service>(namespaces).await;
    look.kind::<OwnedSlice>(namespaces).await;
    if let Some(namespaces) = secrets {
        look.kind::<Secret<true>>(namespaces).await;
        look.kind::<Secret<false>>(namespaces).await;
        look.kind::<ConfigMapData>(namespaces).await;
    }
    let Look { store, told, mut looked, .. } = look;
    looked.resources = store.read(Resources::clone);
    looked.told = std::mem::take(&mut *told.lock().unwrap_or_else(PoisonError::into_inner));
    looked
}

impl Look {
    async fn kind<K: Kind>(&mut self, namespaces: &[String]) {
        if namespaces.is_empty() {
            self.list::<K>(Api::all(self.client.clone()), None).await;
        }
        for namespace in namespaces {
            self.list::<K>(Api::namespaced(self.client.clone(), namespace), Some(namespace)).await;
        }
    }

    async fn list<K: Kind>(&mut self, api: Api<Item<K>>, namespace: Option<&String>) {
        let told = Arc::clone(&self.told);
        let seen = move |kind: &str, key: &Key, status: Option<(&str, &[Condition])>| {
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            let conditions = status.map(|(_, conditions)| conditions.to_vec()).unwrap_or_default();
            told.insert((kind.to_owned(), key.clone()), conditions);
        };
        let mut table = Table::<K>::new(self.store.clone(), Arc::new(seen));
        let mut params = ListParams { limit: Some(PAGE), ..ListParams::default() };
        params.label_selector = K::LABELS.map(str::to_owned);
        params.field_selector = K::FIELDS.map(str::to_owned);
        let mut count = 0;
        loop {
            let page = match api.list(&params).await {
                Ok(page) => page,
                Err(error) => return self.unlisted(K::NAME, namespace, &error),
            };
            count += page.items.len();
            for item in page.items {
                if let Outcome::Skipped(key, malformed) = table.handle(Event::InitApply(item)) {
                    self.looked.malformed.push((K::NAME, key, malformed));
                }
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                None => return,
                Some(_) if count >= self.most => {
                    let why = format!("there are more than {count}, and only those were looked at");
                    return self.push(K::NAME, namespace, why, false);
                }
                Some(token) => params.continue_token = Some(token),
            }
        }
    }

    fn unlisted(&mut self, kind: &'static str, namespace: Option<&String>, error: &kube::Error) {
        let refused = matches!(error, kube::Error::Api(status) if matches!(status.code, 401 | 403));
        self.push(kind, namespace, explain_answer(error), refused);
    }

    fn push(&mut self, kind: &'static str, namespace: Option<&String>, why: String, refused: bool) {
        let unlisted = Unlisted { kind, namespace: namespace.cloned(), why, refused };
        // Two lists of a kind share their rights.
        if !self.looked.unlisted.contains(&unlisted) {
            self.looked.unlisted.push(unlisted);
        }
    }
}
