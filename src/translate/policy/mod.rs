//! ProxyPolicies: what each says, whom it is for, and what all of them together say of the requests of a route. What is said
//! nearer to a request goes before what is said farther away, section by section. A policy that cannot be applied lets
//! nobody pass: requests under it are answered with 503.

mod access;
mod basic;
mod client;
mod compression;
mod cors;
mod external;
mod headers;
mod jwks;
mod jwt;
mod key;
mod leads;
mod limits;
mod material;
mod mirror;
mod pages;
mod place;
mod rate_limit;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use self::leads::{Found, Lead};
pub(super) use self::material::Material;
use super::changes::Changes;
use super::conditions::{Problem, Verdict, conditions, reason};
use super::route::{self, Age};
use super::{Context, Key, KeySources, Own, Resources};
use crate::api::{self, Condition, PolicyTargetKind, ProxyPolicySpec};
use crate::snapshot::{Invalid, Map, Policy};

/// What a ProxyPolicy says.
#[derive(Debug)]
pub(super) struct PolicyPlan {
    age: Age,
    generation: Option<i64>,
    targets: Vec<Target>,
    policy: Arc<Policy>,
    problems: Vec<Problem>,
    /// What is wrong with what it refers to.
    unresolved: Vec<Problem>,
    /// What it has to do without, though it can be applied.
    lacking: Vec<Problem>,
    /// Where its sections lead, and what is wrong with that now.
    leads: Vec<(Lead, route::Target)>,
    astray: Vec<Problem>,
    /// From where its keys are fetched.
    key_sources: KeySources,
    /// What it refers to, whether that is there or not.
    secrets: BTreeSet<Key>,
    config_maps: BTreeSet<Key>,
}

/// What a policy is for.
pub(super) type Target = (PolicyTargetKind, Key);

impl PolicyPlan {
    fn read(key: &Key, object: &Own<ProxyPolicySpec>, resources: &Resources, context: &Context) -> Self {
        let Own { created, generation, spec, unread } = object;
        let unread = unread.as_ref().map(|why| Problem::invalid("spec", format!("this version cannot read it: {why}")));
        let mut problems: Vec<_> = unread.into_iter().collect();
        let mut material = Material::new(resources, &key.namespace, context);
        let policy = policy(spec, &key.to_string().into(), &mut material, &mut problems);
        let Material { unresolved, lacking, key_sources, leads, secrets, config_maps, .. } = material;
        let target = |target: &api::PolicyTarget| {
            (target.kind, Key { namespace: Arc::clone(&key.namespace), name: target.name.as_str().into() })
        };
        PolicyPlan {
            age: Age(created.clone(), key.clone()),
            generation: *generation,
            targets: spec.target_refs.iter().map(target).collect(),
            policy: Arc::new(policy),
            problems,
            unresolved,
            lacking,
            leads,
            astray: Vec::new(),
            key_sources,
            secrets,
            config_maps,
        }
    }

    /// What to tell the owner of a policy.
    fn verdicts(&self, resources: &Resources) -> Arc<[Condition]> {
        let missing = self.targets.iter().enumerate().filter(|(_, (kind, key))| match kind {
            PolicyTargetKind::ProxyRoute => !resources.routes.contains_key(key),
            PolicyTargetKind::ProxyUpstream => !resources.upstreams.contains_key(key),
        });
        let missing = missing.map(|(at, (kind, key))| Problem {
            reason: reason::TARGET_NOT_FOUND,
            path: format!("spec.targetRefs[{at}]"),
            message: format!("{kind:?} {key} does not exist"),
        });
        let missing: Vec<_> = missing.collect();
        let all_missing = !missing.is_empty() && missing.len() == self.targets.len();
        let unresolved = [&self.unresolved[..], &self.astray, &self.lacking, &missing].concat();
        let accepted = Verdict::of_problems(&self.problems);
        let programmed = if self.policy.invalid.is_some() {
            Verdict::bad(
                reason::INVALID,
                "requests under this policy are answered with 503, because it cannot be applied",
            )
        } else if self.copies_nothing() {
            Verdict::bad(
                reason::INVALID,
                "there are no copies of requests, because mirror is not resolved; what else the policy says is in force",
            )
        } else if all_missing {
            Verdict::pending("the policy waits for what it is for")
        } else {
            Verdict::good("Programmed", "the policy is in force")
        };
        conditions(
            self.generation,
            accepted.unwrap_or_else(|| Verdict::good("Accepted", "the spec is valid")),
            Verdict::of_problems(&unresolved)
                .unwrap_or_else(|| Verdict::good("ResolvedRefs", "all references are resolved")),
            programmed,
        )
    }
}

/// What a spec says, made ready to be asked. What is wrong with it, or missing, lets nobody pass.
fn policy(spec: &ProxyPolicySpec, name: &Arc<str>, material: &mut Material<'_>, problems: &mut Vec<Problem>) -> Policy {
    let ProxyPolicySpec {
        target_refs: _,
        ip_access,
        cors,
        headers,
        compression,
        error_pages,
        request_limits,
        client_certificate,
        basic_auth,
        api_key,
        rate_limit,
        jwt,
        external_auth,
        mirror,
    } = spec;
    let ip_access = ip_access.as_ref().map(|given| Arc::new(access::ip_access(given, "spec.ipAccess", problems)));
    let cors = cors.as_ref().map(|given| Arc::new(cors::cors(given, "spec.cors", problems)));
    let headers = headers.as_ref().map(|given| Arc::new(headers::headers(given, "spec.headers", problems)));
    let compression =
        compression.as_ref().map(|given| Arc::new(compression::compression(given, "spec.compression", problems)));
    let error_pages =
        (!error_pages.is_empty()).then(|| pages::error_pages(error_pages, "spec.errorPages", material, problems));
    let request_limits =
        request_limits.as_ref().map(|given| Arc::new(limits::request_limits(given, "spec.requestLimits", problems)));
    let client_certificate = client_certificate
        .as_ref()
        .map(|given| Arc::new(client::client_certificate(given, "spec.clientCertificate", problems)));
    let basic_auth = basic_auth
        .as_ref()
        .and_then(|given| basic::basic_auth(given, "spec.basicAuth", material, problems).map(Arc::new));
    let api_key =
        api_key.as_ref().and_then(|given| key::api_key(given, "spec.apiKey", material, problems).map(Arc::new));
    let rate_limit = (!rate_limit.is_empty())
        .then(|| rate_limit::rate_limit(rate_limit, name, "spec.rateLimit", material.context.shared_limits, problems));
    let jwt = jwt.as_ref().map(|given| Arc::new(jwt::jwt(given, "spec.jwt", material, problems)));
    let external_auth = external_auth
        .as_ref()
        .map(|given| Arc::new(external::external_auth(given, "spec.externalAuth", material, problems)));
    let mirror = mirror.as_ref().map(|given| Arc::new(mirror::mirror(given, "spec.mirror", material, problems)));
    let invalid = problems.first().or(material.unresolved.first()).map(|problem| Invalid(problem.to_string().into()));
    Policy {
        invalid,
        ip_access,
        cors,
        headers,
        compression,
        error_pages,
        request_limits,
        client_certificate,
        basic_auth,
        api_key,
        rate_limit,
        jwt,
        external_auth,
        mirror,
    }
}

/// All policies.
#[derive(Debug)]
pub(super) struct Policies {
    plans: BTreeMap<Key, PolicyPlan>,
    /// What is attached to a target, as one.
    attached: Map<Target, Arc<Policy>>,
    /// Where their sections lead.
    led: Map<Key, Vec<Found>>,
    /// What the settings say of every request, and from where its keys are fetched.
    default: Option<Arc<Policy>>,
    default_sources: KeySources,
}

impl Policies {
    pub(super) fn new(context: &Context) -> Self {
        let (plans, attached, led) = Default::default();
        let mut policies = Policies { plans, attached, led, default: None, default_sources: KeySources::default() };
        policies.read_default(&Resources::default(), context);
        policies
    }

    /// Settings are checked before they are used, and have no namespace in which something could be looked up.
    fn read_default(&mut self, resources: &Resources, context: &Context) {
        let namespace = Arc::from("");
        let mut material = Material::new(resources, &namespace, context);
        let said = policy(&context.policy, &"settings".into(), &mut material, &mut Vec::new());
        self.default = (said != Policy::default()).then(|| Arc::new(said));
        self.default_sources = material.key_sources;
    }

    /// Reads those that changed, or whose material did; returns whether there were any.
    pub(super) fn read(&mut self, changes: &Changes, resources: &Resources, context: &Context) -> bool {
        let fetched = |sources: &KeySources| sources.keys().any(|name| changes.key_sets.contains(&**name));
        let default = fetched(&self.default_sources);
        if default {
            self.read_default(resources, context);
        }
        let mut changed = changes.policies.clone();
        if !changes.secrets.is_empty() || !changes.config_maps.is_empty() || !changes.key_sets.is_empty() {
            let uses = |plan: &PolicyPlan| {
                !plan.secrets.is_disjoint(&changes.secrets)
                    || !plan.config_maps.is_disjoint(&changes.config_maps)
                    || fetched(&plan.key_sources)
            };
            changed.extend(self.plans.iter().filter(|(_, plan)| uses(plan)).map(|(key, _)| key.clone()));
        }
        for key in &changed {
            match resources.policies.get(key) {
                Some(object) => drop(self.plans.insert(key.clone(), PolicyPlan::read(key, object, resources, context))),
                None => drop(self.plans.remove(key)),
            }
        }
        if !changed.is_empty() {
            self.attach();
        }
        default || !changed.is_empty()
    }

    /// From where keys are fetched.
    pub(super) fn key_sources(&self) -> KeySources {
        let sources = self.plans.values().map(|plan| &plan.key_sources).chain([&self.default_sources]);
        sources.flatten().map(|(name, source)| (Arc::clone(name), Arc::clone(source))).collect()
    }

    fn attach(&mut self) {
        let mut oldest_first: Vec<_> = self.plans.values().collect();
        oldest_first.sort_by(|a, b| a.age.cmp(&b.age));
        let mut attached: Map<Target, Arc<Policy>> = Map::default();
        for plan in oldest_first {
            for target in &plan.targets {
                let older = attached.remove(target);
                attached.insert(target.clone(), joined(older.as_ref(), &plan.policy));
            }
        }
        self.attached = attached;
    }

    /// What requests of a rule are under that go to `upstream`, if that is anybody's: by the policies that the rule names,
    /// those of its route, of the upstream and of the settings. A policy that is missing lets nobody pass.
    pub(super) fn of_request(&self, named: &[Key], route: &Key, upstream: Option<&Key>) -> Option<Arc<Policy>> {
        let named = named.iter().map(|key| match self.plans.get(key) {
            Some(plan) => Arc::clone(&plan.policy),
            None => Arc::new(Policy { invalid: Some(Invalid(missing(key).into())), ..Policy::default() }),
        });
        let attached = |kind, key: &Key| self.attached.get(&(kind, key.clone())).cloned();
        let nearest_first = named
            .chain(attached(PolicyTargetKind::ProxyRoute, route))
            .chain(upstream.and_then(|key| attached(PolicyTargetKind::ProxyUpstream, key)))
            .chain(self.default.clone());
        nearest_first.fold(None, |nearer, farther| Some(joined(nearer.as_ref(), &farther)))
    }

    /// What is wrong with the reference of a rule to a policy.
    pub(super) fn problem(&self, key: &Key, path: impl FnOnce() -> String) -> Option<Problem> {
        let (reason, message) = match self.plans.get(key) {
            None => (reason::POLICY_NOT_FOUND, missing(key)),
            Some(plan) => {
                let problem = plan.policy.invalid.as_ref()?;
                (reason::POLICY_INVALID, format!("ProxyPolicy {key} is not valid: {}", problem.0))
            }
        };
        Some(Problem { reason, path: path(), message })
    }

    /// What to tell the owners.
    pub(super) fn verdicts<'a>(
        &'a self,
        resources: &'a Resources,
    ) -> impl Iterator<Item = (&'a Key, Arc<[Condition]>)> {
        self.plans.iter().map(|(key, plan)| (key, plan.verdicts(resources)))
    }

    pub(super) fn contain(&self, key: &Key) -> bool {
        self.plans.contains_key(key)
    }
}

fn missing(key: &Key) -> String {
    format!("ProxyPolicy {key} does not exist")
}

/// What both say, the nearer first.
fn joined(nearer: Option<&Arc<Policy>>, farther: &Arc<Policy>) -> Arc<Policy> {
    match nearer {
        None => Arc::clone(farther),
        Some(nearer) => Arc::new(nearer.before(farther)),
    }
}
