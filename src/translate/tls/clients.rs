//! Certificates of clients: what a route or the settings ask of them, and what became of that. What cannot be asked serves nobody: an
//! authority that is missing is not one that everybody has. How authorities and revocation lists are read is `judge`'s.

mod judge;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use self::judge::{Made, Wrong, unusable};
use crate::api::{self, ClientCertificateHeaders, ClientCertificateMode, ExpiredList, RevocationScope};
use crate::settings;
use crate::snapshot::{ClientAuth, ClientHeaders, ClientTerms, Map};
use crate::translate::changes::Changes;
use crate::translate::conditions::Problem;
use crate::translate::{Key, Resources};

/// Which certificates the clients of a host show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::translate) enum Clients {
    /// What the settings say.
    #[default]
    AsSettings,
    /// None, whatever the settings say.
    Nobody,
    /// These.
    Asked(Arc<ClientPlan>),
    /// Nobody can say: nobody is served.
    Invalid,
}

/// What is asked of the certificates of clients, before any object is looked at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::translate) struct ClientPlan {
    required: bool,
    authority: Holder,
    lists: Option<ListPlan>,
    forward: ClientHeaders,
}

/// Revocation lists that have to be there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ListPlan {
    /// `None`: where the authorities are.
    holder: Option<Holder>,
    whole_chain: bool,
    may_expire: bool,
}

/// An object that a field names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Holder {
    Secret(Key),
    ConfigMap(Key),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Secret(key) => write!(f, "Secret {key}"),
            Holder::ConfigMap(key) => write!(f, "ConfigMap {key}"),
        }
    }
}

impl Clients {
    /// What a route asks beside whose `key` the objects are.
    ///
    /// # Errors
    /// What is wrong with that.
    pub(super) fn read(given: Option<&api::ClientCertificates>, key: &Key) -> Result<Self, Problem> {
        let Some(given) = given else { return Ok(Clients::AsSettings) };
        let api::ClientCertificates { mode, ca_secret_name, ca_config_map_name, revocation, forward } = given;
        let beside = |name: &String| Key::new(Arc::clone(&key.namespace), name.as_str());
        let holder = |secret: &Option<String>, map: &Option<String>, field: &str, why: &str| match (secret, map) {
            (Some(name), None) => Ok(Some(Holder::Secret(beside(name)))),
            (None, Some(name)) => Ok(Some(Holder::ConfigMap(beside(name)))),
            (None, None) => Ok(None),
            (Some(_), Some(_)) => Err(Problem::invalid(format!("spec.tls.clientCertificates{field}"), why)),
        };
        let needed = "clientCertificates needs exactly one of caSecretName and caConfigMapName: who signs the certificates of clients";
        let authority = holder(ca_secret_name, ca_config_map_name, "", needed)?;
        let mode = mode.unwrap_or_default();
        if mode == ClientCertificateMode::Disabled {
            return match (authority, revocation, &forward[..]) {
                (None, None, []) => Ok(Clients::Nobody),
                _ => Err(Problem::invalid(
                    "spec.tls.clientCertificates",
                    "with mode Disabled nobody is asked for a certificate: the other fields would have no effect",
                )),
            };
        }
        let authority = authority.ok_or_else(|| Problem::invalid("spec.tls.clientCertificates", needed))?;
        let lists = match revocation {
            None => None,
            Some(api::Revocation { secret_name, config_map_name, scope, expired }) => {
                let twice = "the lists are in a Secret or in a ConfigMap: only one of secretName and configMapName";
                let holder = holder(secret_name, config_map_name, ".revocation", twice)?;
                Some(ListPlan::new(holder, scope.unwrap_or_default(), expired.unwrap_or_default()))
            }
        };
        let required = mode == ClientCertificateMode::Required;
        Ok(Clients::Asked(Arc::new(ClientPlan { required, authority, lists, forward: headers(forward) })))
    }
}

impl ListPlan {
    fn new(holder: Option<Holder>, scope: RevocationScope, expired: ExpiredList) -> Self {
        let (whole_chain, may_expire) = (scope == RevocationScope::Chain, expired == ExpiredList::Accept);
        ListPlan { holder, whole_chain, may_expire }
    }
}

impl ClientPlan {
    /// What the settings ask, which were checked before.
    fn of_settings(given: &settings::ClientCertificates) -> Option<Self> {
        let settings::ClientCertificates { mode, ca_secret, ca_config_map, revocation, forward } = given;
        if *mode == ClientCertificateMode::Disabled {
            return None;
        }
        let key = |text: &Option<String>| {
            let (namespace, name) = settings::place(text.as_deref()?)?;
            Some(Key::new(namespace, name))
        };
        let holder = |secret, map| key(secret).map(Holder::Secret).or_else(|| key(map).map(Holder::ConfigMap));
        let lists = revocation.as_ref().map(|settings::Revocation { secret, config_map, scope, expired }| {
            ListPlan::new(holder(secret, config_map), *scope, *expired)
        });
        // Whoever asks and names nobody trusts nobody.
        let authority = holder(ca_secret, ca_config_map).unwrap_or(Holder::Secret(Key::new("", "")));
        let required = *mode == ClientCertificateMode::Required;
        Some(ClientPlan { required, authority, lists, forward: headers(forward) })
    }

    /// What it asks, by the names of where the answers are.
    pub(super) fn terms(&self) -> ClientTerms {
        let ClientPlan { required, authority, lists: _, forward } = self;
        ClientTerms { required: *required, authority: authority.to_string().into(), forward: *forward }
    }

    /// Whether it names one of the objects that changed.
    fn uses_any(&self, changes: &Changes) -> bool {
        let mut holders =
            [Some(&self.authority), self.lists.as_ref().and_then(|lists| lists.holder.as_ref())].into_iter();
        holders.any(|holder| match holder {
            Some(Holder::Secret(key)) => changes.secrets.contains(key),
            Some(Holder::ConfigMap(key)) => changes.config_maps.contains(key),
            None => false,
        })
    }
}

fn headers(given: &[ClientCertificateHeaders]) -> ClientHeaders {
    let has = |one| given.contains(&one);
    ClientHeaders {
        certificate: has(ClientCertificateHeaders::ClientCert),
        chain: has(ClientCertificateHeaders::ClientCertChain),
        xfcc: has(ClientCertificateHeaders::Xfcc),
        ssl_client: has(ClientCertificateHeaders::SslClient),
    }
}

/// What is asked of clients by everybody, and what judges them.
#[derive(Debug, Default)]
pub(super) struct ClientTable {
    /// What the settings ask.
    default: Option<(ClientPlan, Made)>,
    /// What routes ask, and which.
    plans: Map<Arc<ClientPlan>, (BTreeSet<Key>, Made)>,
}

impl ClientTable {
    pub(super) fn new(default: Option<&settings::ClientCertificates>) -> Self {
        let default = default.and_then(ClientPlan::of_settings);
        let made = |plan: ClientPlan| {
            let made = plan.made(&Resources::default());
            (plan, made)
        };
        ClientTable { default: default.map(made), plans: Map::default() }
    }

    /// A route asks.
    pub(super) fn join(&mut self, clients: &Clients, route: &Key, resources: &Resources) {
        let Clients::Asked(plan) = clients else { return };
        let made = || (BTreeSet::new(), plan.made(resources));
        self.plans.entry(Arc::clone(plan)).or_insert_with(made).0.insert(route.clone());
    }

    /// A route asks no longer.
    pub(super) fn leave(&mut self, clients: &Clients, route: &Key) {
        let Clients::Asked(plan) = clients else { return };
        if let Some((routes, _)) = self.plans.get_mut(plan) {
            routes.remove(route);
            if routes.is_empty() {
                self.plans.remove(plan);
            }
        }
    }

    /// Looks at the objects that changed; returns the routes to which it matters, and whether it does to those that ask nothing.
    pub(super) fn follow(&mut self, changes: &Changes, resources: &Resources) -> (BTreeSet<Key>, bool) {
        let mut touched = BTreeSet::new();
        if changes.secrets.is_empty() && changes.config_maps.is_empty() {
            return (touched, false);
        }
        for (plan, (routes, made)) in &mut self.plans {
            if plan.uses_any(changes) {
                *made = plan.made(resources);
                touched.extend(routes.iter().cloned());
            }
        }
        let default = self.default.as_mut().filter(|(plan, _)| plan.uses_any(changes));
        let changed = default.map(|(plan, made)| *made = plan.made(resources)).is_some();
        (touched, changed)
    }

    /// What judges the clients of hosts with these terms; `None` if they are asked for nothing.
    pub(super) fn of(&self, clients: &Clients) -> Option<Arc<ClientAuth>> {
        match clients {
            Clients::AsSettings => self.default.as_ref().map(|(_, made)| Arc::clone(&made.auth)),
            Clients::Nobody => None,
            Clients::Asked(plan) => match self.plans.get(plan) {
                Some((_, made)) => Some(Arc::clone(&made.auth)),
                None => Some(nobody()),
            },
            Clients::Invalid => Some(nobody()),
        }
    }

    /// What is wrong with what a route names.
    pub(super) fn problem(&self, clients: &Clients) -> Option<Problem> {
        let Clients::Asked(plan) = clients else { return None };
        let Wrong { field, reason, why } = self.plans.get(plan)?.1.wrong.clone()?;
        Some(Problem { reason, path: format!("spec.tls.clientCertificates{field}"), message: why })
    }

    /// What is wrong with what the settings name.
    pub(super) fn complaint(&self) -> Option<String> {
        let wrong = self.default.as_ref()?.1.wrong.as_ref()?;
        Some(format!("listeners.tls.clientCertificates: {}", wrong.why))
    }
}

/// Terms under which nobody is served.
fn nobody() -> Arc<ClientAuth> {
    let terms = ClientTerms { required: true, authority: "".into(), forward: ClientHeaders::default() };
    Arc::new(ClientAuth { digest: unusable(&terms), terms: Arc::new(terms), good_until: None, verifier: None })
}
