//! From objects to a routing table. Pure: no async, no clock, no I/O; and it never fails: what is wrong becomes a
//! condition on the object and a route that answers 5xx, never a missing rule.

mod action;
mod backend;
mod changes;
mod clusters;
mod conditions;
mod connections;
mod convert;
mod hosts;
mod matches;
mod policy;
mod resilience;
mod resources;
mod retry;
mod route;
mod secrets;
mod streaming;
mod tls;
mod unsaid;
mod upstream;
mod upstream_tls;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use convert::Malformed;
pub use resources::{
    AddressSlice, EndpointPlace, Key, KeySet, Own, Resources, Service, ServiceKind, ServicePort, SliceEndpoint,
    SlicePort, Slices, TargetPort,
};
pub use secrets::{
    AUTHORITIES, ConfigMapData, MAX_DATA_BYTES, REVOKED, SecretData, TLS_CERTIFICATE, TLS_KEY, TLS_STAPLE, TLS_TYPE,
    UNREAD_CONFIG_MAP, UNREAD_SECRET, USE_LABEL,
};
pub use tls::{WrongCertificate, check_certificate};
pub use upstream_tls::unverified_tls;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

use self::backend::{Lookup, Source};
use self::changes::Changes;
use self::clusters::Clusters;
use self::hosts::Hosts;
use self::policy::Policies;
use self::route::RouteState;
use self::tls::TlsTable;
use self::upstream::{Place, UpstreamPlan, Upstreams};
use crate::api::{Condition, ProxyPolicySpec};
use crate::settings::{ClientCertificates, RouteDefaults};
use crate::snapshot::{KeyHosts, KeySource, Map, SharedMap, Snapshot};

/// What translation needs to know of the process.
#[derive(Clone, Debug, PartialEq)]
pub struct Context {
    /// Routes of other classes are left alone.
    pub class_name: String,
    /// The zone that this process runs in, if it knows.
    pub zone: Option<String>,
    /// Values for routes that do not say otherwise.
    pub defaults: RouteDefaults,
    /// What is asked of every request, unless a policy nearer to it says otherwise. Its targets mean nothing.
    pub policy: ProxyPolicySpec,
    /// Whether the settings name a Redis that counts limits for all replicas.
    pub shared_limits: bool,
    /// The Secret of the certificate for clients that name no host that a route gives one.
    pub default_certificate: Option<Key>,
    /// Which certificates clients show where no route says otherwise.
    pub client_certificates: Option<ClientCertificates>,
    /// The port that requests are sent to which have to come with TLS.
    pub https_port: u16,
    /// Whom the system trusts.
    pub roots: Roots,
    /// From whom keys may be fetched.
    pub key_hosts: KeyHosts,
}

/// The authorities whose certificates are good for endpoints where nobody names one.
#[derive(Clone, Debug)]
pub struct Roots(Arc<RootCertStore>);

impl Roots {
    /// Of these certificates, those that are sound.
    pub fn new(certificates: impl IntoIterator<Item = CertificateDer<'static>>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates);
        Roots(Arc::new(roots))
    }
}

impl Default for Roots {
    fn default() -> Self {
        Roots(Arc::new(RootCertStore::empty()))
    }
}

impl PartialEq for Roots {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// What the owner of each object is told.
pub type Told = SharedMap<Key, Arc<[Condition]>>;

/// The conditions of every object of ours that was read, without times. What did not change since the last translation
/// is shared with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statuses {
    /// Of routes of our class.
    pub routes: Told,
    /// Of upstreams.
    pub upstreams: Told,
    /// Of policies.
    pub policies: Told,
}

impl Statuses {
    /// The objects of each kind.
    pub fn kinds(&self) -> [(&'static str, &Told); 3] {
        let Statuses { routes, upstreams, policies } = self;
        [("ProxyRoute", routes), ("ProxyUpstream", upstreams), ("ProxyPolicy", policies)]
    }
}

/// From where keys are fetched, by name.
pub type KeySources = BTreeMap<Arc<str>, Arc<KeySource>>;

/// What came out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Translation {
    /// The routing table.
    pub snapshot: Snapshot,
    /// What to tell the owners of the objects.
    pub statuses: Statuses,
    /// Names that the table needs an address of; the answers come back as [`Resources::resolved`].
    pub hostnames: BTreeSet<String>,
    /// Keys that the table needs; what is known of them comes back as [`Resources::key_sets`].
    pub key_sources: KeySources,
    /// What is wrong with what the settings refer to.
    pub complaint: Option<String>,
}

/// Translates again and again, and remembers what came of objects that have not changed: a burst of changes costs what
/// it touches. The result never depends on what it remembers.
#[derive(Debug)]
pub struct Translator {
    context: Context,
    /// What was translated last.
    seen: Resources,
    routes: Map<Key, Box<RouteState>>,
    upstreams: Upstreams,
    policies: Policies,
    clusters: Clusters,
    hosts: Hosts,
    tls: TlsTable,
    /// The conditions of routes without flaw, by generation: one for all of them.
    flawless: Map<Option<i64>, Arc<[Condition]>>,
    last: Translation,
}

impl Translator {
    /// A translator that remembers nothing yet.
    pub fn new(context: Context) -> Self {
        let (policies, upstreams) = (Policies::new(&context), Upstreams::new(&context));
        let tls = TlsTable::new(context.default_certificate.clone(), context.client_certificates.as_ref());
        let (seen, routes, clusters, hosts, flawless) = Default::default();
        let (complaint, key_sources) = (tls.complaint(), policies.key_sources());
        let last = Translation { complaint, key_sources, ..Translation::default() };
        Translator { context, seen, routes, upstreams, policies, clusters, hosts, tls, flawless, last }
    }

    /// Translates everything. What did not change since the last time is shared with the last result.
    pub fn translate(&mut self, resources: &Resources) -> Translation {
        let mut changes = Changes::follow(&mut self.seen, resources);
        if changes.is_empty() {
            return self.last.clone();
        }
        // What an upstream refers to is a part of it.
        changes.upstreams.extend(self.upstreams.using(&changes));
        self.read_upstreams(&changes);
        let policies = self.policies.read(&changes, &self.seen, &self.context);
        if policies {
            self.last.key_sources = self.policies.key_sources();
        }
        let policies = self.resolve_policies(&changes, policies) || policies;
        let mut touched = self.read_routes(&changes);
        self.resolve_fallbacks(&changes);
        touched.extend(self.resolve(&changes, policies));
        self.build_clusters(&changes);
        touched.extend(self.build_hosts());
        let (hosts, tls) = (&self.hosts, &mut self.last.snapshot.tls);
        touched.extend(self.tls.build(&changes, &self.seen, hosts, &mut self.routes, tls));
        self.last.complaint = self.tls.complaint();
        self.tell_routes(&touched);
        self.tell_upstreams(&changes);
        self.tell_policies(&changes, policies);
        self.last.clone()
    }

    fn read_upstreams(&mut self, changes: &Changes) {
        for key in &changes.upstreams {
            let new =
                self.seen.upstreams.get(key).map(|object| UpstreamPlan::read(key, object, &self.seen, &self.context));
            let new = new.map(Arc::new);
            // Their clusters are there without a route, too, so that names are resolved before one comes.
            let own = |plan: &UpstreamPlan| plan.is_usable() && !matches!(plan.place, Place::Services(_));
            if new.as_deref().is_some_and(own) {
                self.clusters.acquire(Source::Upstream(key.clone()));
            }
            let old = match new {
                Some(new) => self.upstreams.plans.insert(key.clone(), new),
                None => self.upstreams.plans.remove(key),
            };
            if old.as_deref().is_some_and(own) {
                self.clusters.release(&Source::Upstream(key.clone()).cluster_name());
            }
        }
        if !changes.upstreams.is_empty() {
            self.upstreams.attach();
        }
    }

    /// Reads the routes that changed; returns those whose conditions may have.
    fn read_routes(&mut self, changes: &Changes) -> BTreeSet<Key> {
        let lookup = Lookup::new(&self.seen, &self.upstreams, &self.policies, &self.context);
        for key in &changes.routes {
            let object = self.seen.routes.get(key);
            let (context, unsaid) = (&self.context, &self.upstreams.unsaid);
            let mut new = object.and_then(|object| RouteState::read(key, object, context, unsaid));
            if let Some(new) = &mut new {
                new.resolve(lookup, &mut self.clusters);
            }
            let old = self.routes.remove(key);
            if let (Some(new), Some(old)) = (&mut new, &old) {
                new.keep(old);
            }
            let same = matches!((&new, &old), (Some(new), Some(old)) if new.serves_like(old));
            if let Some(old) = old {
                self.tls.leave(&old);
                old.release(&mut self.clusters);
                if !same {
                    self.hosts.leave(&old);
                    self.hosts.touch(&old);
                }
            }
            if let Some(new) = new {
                self.tls.join(&new, &self.seen);
                if !same {
                    self.hosts.join(&new);
                    self.hosts.touch(&new);
                }
                self.routes.insert(key.clone(), Box::new(new));
            }
        }
        changes.routes.clone()
    }

    /// Looks up again what changed references may lead to; returns the routes for which the answer differs.
    fn resolve(&mut self, changes: &Changes, policies: bool) -> Vec<Key> {
        let all = policies || !changes.upstreams.is_empty() || !changes.resolved.is_empty();
        if !all && changes.services.is_empty() {
            return Vec::new();
        }
        let lookup = Lookup::new(&self.seen, &self.upstreams, &self.policies, &self.context);
        let mut touched = Vec::new();
        for (key, state) in &mut self.routes {
            if all || state.uses_any(&changes.services) {
                if state.resolve(lookup, &mut self.clusters) {
                    self.hosts.touch(state);
                    self.tls.touch(state);
                }
                if state.conditions.is_none() {
                    touched.push(key.clone());
                }
            }
        }
        touched
    }

    /// Looks up again where policies lead; returns whether that changed any.
    fn resolve_policies(&mut self, changes: &Changes, policies: bool) -> bool {
        if !policies && changes.upstreams.is_empty() && changes.services.is_empty() && changes.resolved.is_empty() {
            return false;
        }
        let lookup = Lookup::new(&self.seen, &self.upstreams, &self.policies, &self.context);
        let mut found = Map::default();
        for (key, leads) in self.policies.leads() {
            let resolved = leads.iter().map(|(lead, target)| match lookup.resolve(target, || lead.path().to_owned()) {
                Ok((source, pending)) => (*lead, Some(self.clusters.acquire(source)), pending),
                Err(problem) => (*lead, None, Some(problem)),
            });
            found.insert(key.clone(), resolved.collect());
        }
        self.policies.lead(found, &mut self.clusters)
    }

    /// Looks up again what the fallbacks of upstreams lead to.
    fn resolve_fallbacks(&mut self, changes: &Changes) {
        if changes.upstreams.is_empty() && changes.services.is_empty() && changes.resolved.is_empty() {
            return;
        }
        let lookup = Lookup::new(&self.seen, &self.upstreams, &self.policies, &self.context);
        let mut found = Map::default();
        for (key, plan) in &self.upstreams.plans {
            let Some(target) = &plan.fallback else { continue };
            let resolved = match lookup.resolve(target, || "spec.fallback".to_owned()) {
                Ok((source, pending)) => (Some(self.clusters.acquire(source)), pending),
                Err(problem) => (None, Some(problem)),
            };
            found.insert(key.clone(), resolved);
        }
        let before = std::mem::replace(&mut self.upstreams.fallbacks, found);
        before.into_values().filter_map(|(name, _)| name).for_each(|name| self.clusters.release(&name));
    }

    fn build_clusters(&mut self, changes: &Changes) {
        let lookup = Lookup::new(&self.seen, &self.upstreams, &self.policies, &self.context);
        self.clusters.touch(changes, lookup);
        if self.clusters.build(lookup, &mut self.last.snapshot.clusters) {
            self.last.hostnames = self.clusters.hostnames();
        }
    }

    /// Builds the hosts that were touched; returns the routes whose losses changed.
    fn build_hosts(&mut self) -> Vec<Key> {
        let affected = self.hosts.build(&self.routes, &mut self.last.snapshot.router).into_iter();
        let changed = affected.filter(|key| {
            let Some(state) = self.routes.get_mut(key) else { return false };
            let lost = self.hosts.lost(key, state);
            let changed = state.lost != lost;
            if changed {
                (state.lost, state.conditions) = (lost, None);
            }
            changed
        });
        changed.collect()
    }

    /// Says anew what may have changed about routes. A status that did not change stays as it is: whoever still reads the
    /// last ones makes touching them a copy.
    fn tell_routes(&mut self, touched: &BTreeSet<Key>) {
        // Generations that no route has any more are forgotten.
        self.flawless.retain(|_, shared| Arc::strong_count(shared) > 1);
        for key in touched {
            match self.routes.get_mut(key) {
                Some(state) => {
                    let conditions = match state.conditions.take() {
                        Some(conditions) => conditions,
                        None if state.is_flawless() => {
                            let shared = self.flawless.entry(state.generation);
                            Arc::clone(shared.or_insert_with(|| state.verdicts()))
                        }
                        None => state.verdicts(),
                    };
                    state.conditions = Some(Arc::clone(&conditions));
                    if self.last.statuses.routes.get(key) != Some(&conditions) {
                        self.last.statuses.routes.insert(key.clone(), conditions);
                    }
                }
                None => drop(self.last.statuses.routes.remove(key)),
            }
        }
    }

    fn tell_upstreams(&mut self, changes: &Changes) {
        if changes.upstreams.is_empty() && changes.services.is_empty() && changes.resolved.is_empty() {
            return;
        }
        let told = &self.last.statuses.upstreams;
        let differs = |(key, plan): (&Key, &Arc<UpstreamPlan>)| {
            let conditions = self.upstreams.verdicts(key, plan, &self.seen);
            (told.get(key) != Some(&conditions)).then(|| (key.clone(), conditions))
        };
        let new: Vec<_> = self.upstreams.plans.iter().filter_map(differs).collect();
        let told = &mut self.last.statuses.upstreams;
        new.into_iter().for_each(|(key, conditions)| drop(told.insert(key, conditions)));
        let gone = changes.upstreams.iter().filter(|key| !self.upstreams.plans.contains_key(*key));
        gone.for_each(|key| drop(told.remove(key)));
    }

    fn tell_policies(&mut self, changes: &Changes, policies: bool) {
        if !policies && changes.routes.is_empty() && changes.upstreams.is_empty() {
            return;
        }
        let told = &mut self.last.statuses.policies;
        for (key, conditions) in self.policies.verdicts(&self.seen) {
            if told.get(key) != Some(&conditions) {
                told.insert(key.clone(), conditions);
            }
        }
        let gone = changes.policies.iter().filter(|key| !self.policies.contain(key));
        gone.for_each(|key| drop(told.remove(key)));
    }
}

#[cfg(test)]
mod tests;
