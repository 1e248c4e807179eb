//! Sections that lead to other services: whom they ask, or copy requests for. Which clusters these are is looked up with what the backends of
//! rules refer to.

use std::sync::Arc;

use super::{Policies, PolicyPlan};
use crate::snapshot::{ClusterName, ExternalAuth, Invalid, Map, Mirror, Policy};
use crate::translate::Key;
use crate::translate::clusters::Clusters;
use crate::translate::conditions::Problem;
use crate::translate::route;

/// What a section needs a cluster for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::translate) enum Lead {
    /// It is asked who may pass.
    ExternalAuth,
    /// It gets copies.
    Mirror,
}

impl Lead {
    /// The section.
    pub(in crate::translate) fn path(self) -> &'static str {
        match self {
            Lead::ExternalAuth => "spec.externalAuth",
            Lead::Mirror => "spec.mirror",
        }
    }

    /// Whether nobody may pass while it leads nowhere.
    fn is_vital(self) -> bool {
        self == Lead::ExternalAuth
    }
}

/// The cluster that a section leads to, if it leads anywhere, and what is wrong with that now.
pub(in crate::translate) type Found = (Lead, Option<ClusterName>, Option<Problem>);

impl PolicyPlan {
    /// Takes over where its sections lead; returns whether that changes anything.
    fn lead(&mut self, found: &[Found]) -> bool {
        let mut policy = Policy::clone(&self.policy);
        // What was wrong before may be right now; what is wrong with the policy itself stays.
        let own = self.problems.first().or(self.unresolved.first());
        let mut vital = found.iter().filter(|(lead, cluster, _)| lead.is_vital() && cluster.is_none());
        let problem = own.or(vital.find_map(|(.., problem)| problem.as_ref()));
        policy.invalid = problem.map(|problem| Invalid(problem.to_string().into()));
        for (lead, cluster, _) in found {
            match lead {
                Lead::ExternalAuth => {
                    policy.external_auth = policy.external_auth.as_deref().map(|external| {
                        let cluster = cluster.clone().unwrap_or_else(|| ClusterName::new(""));
                        Arc::new(ExternalAuth { cluster, ..external.clone() })
                    });
                }
                Lead::Mirror => {
                    let cluster = cluster.clone();
                    policy.mirror =
                        policy.mirror.as_deref().map(|mirror| Arc::new(Mirror { cluster, ..mirror.clone() }));
                }
            }
        }
        let astray: Vec<_> = found.iter().filter_map(|(.., problem)| problem.clone()).collect();
        let changed = *self.policy != policy || self.astray != astray;
        if changed {
            self.policy = Arc::new(policy);
            self.astray = astray;
        }
        changed
    }

    /// Whether there are no copies, because whoever is to get them is missing.
    pub(super) fn copies_nothing(&self) -> bool {
        self.policy.mirror.as_ref().is_some_and(|mirror| mirror.cluster.is_none())
    }
}

impl Policies {
    /// Where sections of policies lead.
    pub(in crate::translate) fn leads(&self) -> impl Iterator<Item = (&Key, &[(Lead, route::Target)])> {
        self.plans.iter().map(|(key, plan)| (key, &plan.leads[..])).filter(|(_, leads)| !leads.is_empty())
    }

    /// Where they lead was looked up: clusters that were acquired for them, or what is wrong. Returns whether that changed anything.
    pub(in crate::translate) fn lead(&mut self, found: Map<Key, Vec<Found>>, clusters: &mut Clusters) -> bool {
        let mut changed = false;
        for (key, found) in &found {
            if let Some(plan) = self.plans.get_mut(key) {
                changed |= plan.lead(found);
            }
        }
        let before = std::mem::replace(&mut self.led, found);
        before.into_values().flatten().filter_map(|(_, name, _)| name).for_each(|name| clusters.release(&name));
        if changed {
            self.attach();
        }
        changed
    }
}
