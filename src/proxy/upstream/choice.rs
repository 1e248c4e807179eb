//! Which of a cluster's endpoints a request may go to, and what it says of that itself. Who of them gets it is
//! `resilience::balance`'s to say.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::Host;
use crate::clock;
use crate::resilience::ClusterState;
use crate::resilience::balance::{Balancer, Member};
use crate::snapshot::Cluster;

/// What a request says of its endpoint. In a box, because most say nothing.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Wish(Option<Box<Wanted>>);

/// What a request that says something says of its endpoint.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::proxy) struct Wanted {
    /// Where it hashes to, if anywhere.
    pub place: Option<u64>,
    /// The subset that it asks for.
    pub subset: Option<Box<str>>,
    /// The cookie that its client gets, so that it finds the endpoint again: the value of a Set-Cookie field.
    pub issued: Option<Box<str>>,
}

impl Wish {
    pub(in crate::proxy) fn new(wanted: Wanted) -> Self {
        Wish((wanted != Wanted::default()).then(|| Box::new(wanted)))
    }

    fn place(&self) -> Option<u64> {
        self.0.as_ref().and_then(|wanted| wanted.place)
    }

    fn subset(&self) -> Option<&str> {
        self.0.as_ref().and_then(|wanted| wanted.subset.as_deref())
    }

    /// The value of a Set-Cookie field for the client.
    pub(in crate::proxy) fn issued(&self) -> Option<&str> {
        self.0.as_ref().and_then(|wanted| wanted.issued.as_deref())
    }
}

/// The endpoints of a cluster, as one worker chooses among them.
#[derive(Debug)]
pub(in crate::proxy) struct Choice {
    all: Balancer,
    subsets: Box<[Subset]>,
    /// Whether requests go anywhere that ask for a subset without endpoints.
    or_any: bool,
}

/// Those with one value of the label.
#[derive(Debug)]
struct Subset {
    value: Arc<str>,
    balancer: Balancer,
    /// The places of its members among all hosts.
    hosts: Box<[u32]>,
}

impl Choice {
    pub(super) fn new(cluster: &Cluster, state: Arc<ClusterState>, hosts: &[Rc<Host>]) -> Self {
        let tables = state.tables(cluster);
        let balancer = |members, table| {
            Balancer::new(Arc::clone(&state), Arc::clone(&cluster.resilience), members, table, fastrand::u64(..))
        };
        let member = |host: &Rc<Host>| Member {
            state: Arc::clone(&host.state),
            weight: host.endpoint.weight,
            local: host.endpoint.local,
        };
        let subset = cluster.resilience.balancing.subset.as_ref();
        let subsets = subset.map(|_| cluster.subsets()).into_iter().flatten().map(|value| {
            let is_member = |(_, host): &(u32, &Rc<Host>)| host.endpoint.subset.as_deref() == Some(&value);
            let (places, members): (Vec<_>, Vec<_>) =
                (0..).zip(hosts).filter(is_member).map(|(place, host)| (place, member(host))).unzip();
            let table = tables.as_ref().and_then(|tables| tables.of_subset(&value));
            Subset { balancer: balancer(members.into(), table), hosts: places.into(), value }
        });
        Choice {
            subsets: subsets.collect(),
            all: balancer(hosts.iter().map(member).collect(), tables.as_ref().and_then(|tables| tables.all())),
            or_any: subset.is_none_or(|subset| subset.or_any),
        }
    }

    /// The place of the host for the next request, not one of those tried already.
    pub(super) fn pick(&self, tried: &[SocketAddr], wish: &Wish) -> Option<usize> {
        match self.among(wish)? {
            Among::All => self.all.pick(tried, wish.place(), clock::now),
            Among::Subset(Subset { balancer, hosts, .. }) => {
                balancer.pick(tried, wish.place(), clock::now).map(|member| hosts[member] as usize)
            }
        }
    }

    /// Whether there is a host that was not tried yet.
    pub(super) fn has_another(&self, tried: &[SocketAddr], wish: &Wish) -> bool {
        match self.among(wish) {
            None => false,
            Some(Among::All) => self.all.has_another(tried, clock::now),
            Some(Among::Subset(subset)) => subset.balancer.has_another(tried, clock::now),
        }
    }

    /// The least loaded of the hosts that a request may go to and that fit; of those that are not kept out, if there are any.
    pub(super) fn least_loaded<'a>(
        &self,
        hosts: &'a [Rc<Host>],
        wish: &Wish,
        fits: impl Fn(&Host) -> bool,
    ) -> Option<&'a Rc<Host>> {
        let places: Box<dyn Iterator<Item = usize>> = match self.among(wish)? {
            Among::All => Box::new(0..hosts.len()),
            Among::Subset(subset) => Box::new(subset.hosts.iter().map(|place| *place as usize)),
        };
        let rank = |host: &Rc<Host>| {
            let load = (host.state.in_flight() + 1) * 1_000_000 / u64::from(host.endpoint.weight.max(1));
            (!host.state.is_available(), load)
        };
        places.map(|place| &hosts[place]).filter(|host| fits(host)).min_by_key(|host| rank(host))
    }

    /// Among whom a request has its choice; `None` if among nobody.
    fn among(&self, wish: &Wish) -> Option<Among<'_>> {
        let Some(wanted) = wish.subset() else { return Some(Among::All) };
        let found = self.subsets.iter().find(|subset| *subset.value == *wanted).map(Among::Subset);
        found.or(self.or_any.then_some(Among::All))
    }
}

enum Among<'a> {
    All,
    Subset(&'a Subset),
}
