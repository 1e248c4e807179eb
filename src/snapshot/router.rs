//! Which route serves a request: hosts first, then within a host the precedence of the Gateway API. Whether a single
//! match fits is `matching`'s to say.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::{HostPattern, Map, PathMatch, Route, RouteMatch, SharedMap};

/// What a router looks at. `host` is lower case, without port and trailing dot; `path` is what
/// [`super::path::normalize`] made of the target, without the query.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    /// Host name.
    pub host: &'a str,
    /// Path, beginning with `/` (or `*`).
    pub path: &'a str,
    /// Raw query, without `?`.
    pub query: Option<&'a str>,
    /// Method.
    pub method: &'a http::Method,
    /// Fields.
    pub headers: &'a dyn super::FieldLines,
}

/// The route that was found, and the path match that found it (a prefix rewrite needs to know).
#[derive(Clone, Copy, Debug)]
pub struct Matched<'a> {
    /// The route.
    pub route: &'a Arc<Route>,
    /// How its path matched.
    pub path: &'a PathMatch,
}

/// All hosts. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Router(Arc<Hosts>);

/// Three maps instead of one by [`HostPattern`], so that a request finds its host without building a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Hosts {
    exact: SharedMap<Arc<str>, Arc<VirtualHost>>,
    wildcard: SharedMap<Arc<str>, Arc<VirtualHost>>,
    any: Option<Arc<VirtualHost>>,
}

/// No longer host name exists (RFC 1035 2.3.4), which bounds the work that a request can ask for.
const LONGEST_HOST: usize = 253;

impl Router {
    /// A router of these hosts; of two that are the same, the last counts.
    pub fn build(hosts: impl IntoIterator<Item = (HostPattern, Arc<VirtualHost>)>) -> Self {
        let mut router = Router::default();
        hosts.into_iter().for_each(|(pattern, host)| router.set(&pattern, Some(host)));
        router
    }

    /// Whether both are the same version.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Puts other routes at a host, or takes the host away. Clones of this router do not see it.
    pub fn set(&mut self, pattern: &HostPattern, host: Option<Arc<VirtualHost>>) {
        let all = Arc::make_mut(&mut self.0);
        let (map, name) = match pattern {
            HostPattern::Exact(name) => (&mut all.exact, name),
            HostPattern::Wildcard(name) => (&mut all.wildcard, name),
            HostPattern::Any => {
                all.any = host;
                return;
            }
        };
        match host {
            Some(host) => drop(map.insert(Arc::clone(name), host)),
            None => drop(map.remove(name)),
        }
    }

    /// The route for a request: an exact host before the longest wildcard before any. A host whose routes do not take
    /// the request leaves it to the next less specific one, as the Gateway API asks: "if a Route … does not match …
    /// the next most specific hostname".
    pub fn find(&self, request: RequestView<'_>) -> Option<Matched<'_>> {
        let hosts = &*self.0;
        let host = request.host;
        let exact = hosts.exact.get(host).and_then(|exact| exact.find(&request));
        exact
            .or_else(|| {
                if hosts.wildcard.is_empty() || host.len() > LONGEST_HOST {
                    return None;
                }
                // The first dot from the left leaves the longest suffix. A dot in front has no label before it.
                host.bytes().enumerate().skip(1).filter(|(_, byte)| *byte == b'.').find_map(|(dot, _)| {
                    hosts.wildcard.get(&host[dot + 1..]).and_then(|wildcard| wildcard.find(&request))
                })
            })
            .or_else(|| hosts.any.as_ref()?.find(&request))
    }

    /// The most specific host that names this one; [`HostPattern::Any`] names none.
    pub fn closest(&self, host: &str) -> Option<&Arc<VirtualHost>> {
        let hosts = &*self.0;
        hosts.exact.get(host).or_else(|| {
            let mut dots = host.bytes().enumerate().skip(1).filter(|(_, byte)| *byte == b'.');
            dots.find_map(|(dot, _)| hosts.wildcard.get(&host[dot + 1..]))
        })
    }

    /// Every host with its routes, in no order.
    pub fn hosts(&self) -> impl Iterator<Item = (HostPattern, &Arc<VirtualHost>)> {
        let exact = self.0.exact.iter().map(|(name, host)| (HostPattern::Exact(Arc::clone(name)), host));
        let wildcard = self.0.wildcard.iter().map(|(name, host)| (HostPattern::Wildcard(Arc::clone(name)), host));
        exact.chain(wildcard).chain(self.0.any.iter().map(|host| (HostPattern::Any, host)))
    }

    /// The routes of one host.
    pub fn host(&self, pattern: &HostPattern) -> Option<&Arc<VirtualHost>> {
        match pattern {
            HostPattern::Exact(name) => self.0.exact.get(name),
            HostPattern::Wildcard(name) => self.0.wildcard.get(name),
            HostPattern::Any => self.0.any.as_ref(),
        }
    }
}

impl Serialize for Router {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.hosts().collect::<BTreeMap<_, _>>())
    }
}

/// The routes of one host, with an index of their paths.
#[derive(Clone, Debug, Default)]
pub struct VirtualHost {
    routes: Box<[Arc<Route>]>,
    /// Every match of every route, in order of precedence. None if there is one route with one match, as at most hosts: whoever looks it
    /// up waits for one place in memory less.
    entries: Box<[Entry]>,
    /// Where the paths are in `entries`; `None` for few entries, which are faster looked through and need no maps.
    index: Option<Box<Index>>,
}

/// A match, by position: of the route in `routes`, of the match in the route.
#[derive(Clone, Copy, Debug)]
struct Entry {
    route: u32,
    position: u32,
}

/// Entries with the same path lie side by side; these are their ranges, as `start..end`.
#[derive(Clone, Debug, Default)]
struct Index {
    exact: Map<Arc<str>, (u32, u32)>,
    regexes: (u32, u32),
    prefixes: Map<Arc<str>, (u32, u32)>,
    /// Segments of the prefix that has most: deeper ones of a request are not looked up.
    depth: usize,
}

/// With up to this many entries, comparing one by one beats hashing.
const FEW: usize = 6;

impl VirtualHost {
    /// Builds the index. `routes` come by age, then by name of their object, then by position of the rule: the order
    /// that decides where the matches themselves do not.
    pub fn build(routes: impl Into<Box<[Arc<Route>]>>) -> Self {
        let routes = routes.into();
        let mut entries: Vec<Entry> = (0u32..)
            .zip(&routes)
            .flat_map(|(route, one)| (0u32..).zip(&one.matches).map(move |(position, _)| Entry { route, position }))
            .collect();
        // Stable: what the Gateway API leaves to age, name and position stays in that order.
        entries.sort_by(|a, b| precedence(entry_match(&routes, *a), entry_match(&routes, *b)));
        let index = (entries.len() > FEW).then(|| Box::new(Index::build(&routes, &entries)));
        if entries.len() == 1 && routes.len() == 1 {
            entries.clear();
        }
        VirtualHost { routes, entries: entries.into(), index }
    }

    /// The routes, by age, name and position.
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    fn find(&self, request: &RequestView<'_>) -> Option<Matched<'_>> {
        let Some(index) = &self.index else {
            if let ([route], []) = (&*self.routes, &*self.entries) {
                let only = route.matches.first().filter(|only| only.accepts(request))?;
                return Some(Matched { route, path: &only.path });
            }
            let mut entries = self.entries.iter();
            return entries.find(|entry| self.of(**entry).accepts(request)).map(|entry| self.matched(*entry));
        };
        let exact = index.exact.get(request.path).and_then(|range| self.first_in(*range, request));
        exact
            .or_else(|| {
                let mut regexes = self.range(index.regexes).iter();
                regexes.find(|entry| self.of(**entry).accepts(request)).map(|entry| self.matched(*entry))
            })
            .or_else(|| {
                let mut prefix = leading_segments(request.path, index.depth);
                loop {
                    let found = index.prefixes.get(prefix).and_then(|range| self.first_in(*range, request));
                    if found.is_some() || prefix.is_empty() {
                        return found;
                    }
                    prefix = &prefix[..prefix.rfind('/').unwrap_or(0)];
                }
            })
    }

    /// The first entry of a range whose path fits already.
    fn first_in(&self, range: (u32, u32), request: &RequestView<'_>) -> Option<Matched<'_>> {
        let mut entries = self.range(range).iter();
        entries.find(|entry| self.of(**entry).accepts_rest(request)).map(|entry| self.matched(*entry))
    }

    fn range(&self, (start, end): (u32, u32)) -> &[Entry] {
        &self.entries[start as usize..end as usize]
    }

    fn of(&self, entry: Entry) -> &RouteMatch {
        entry_match(&self.routes, entry)
    }

    fn matched(&self, entry: Entry) -> Matched<'_> {
        Matched { route: &self.routes[entry.route as usize], path: &self.of(entry).path }
    }
}

fn entry_match(routes: &[Arc<Route>], entry: Entry) -> &RouteMatch {
    &routes[entry.route as usize].matches[entry.position as usize]
}

/// The path up to, not including, the slash after its `depth`th segment.
fn leading_segments(path: &str, depth: usize) -> &str {
    let slashes = path.bytes().enumerate().filter(|(_, byte)| *byte == b'/');
    slashes.map(|(at, _)| at).nth(depth).map_or(path, |end| &path[..end])
}

impl Index {
    fn build(routes: &[Arc<Route>], entries: &[Entry]) -> Self {
        let mut index = Index::default();
        for (at, entry) in (0u32..).zip(entries) {
            let range = match &entry_match(routes, *entry).path {
                PathMatch::Exact(path) => index.exact.entry(Arc::clone(path)).or_insert((at, at)),
                PathMatch::Regex(_) if index.regexes == (0, 0) => {
                    index.regexes.0 = at;
                    &mut index.regexes
                }
                PathMatch::Regex(_) => &mut index.regexes,
                PathMatch::Prefix(path) => {
                    index.depth = index.depth.max(path.matches('/').count());
                    index.prefixes.entry(Arc::clone(path)).or_insert((at, at))
                }
            };
            range.1 = at + 1;
        }
        index.exact.shrink_to_fit();
        index.prefixes.shrink_to_fit();
        index
    }
}

/// The Gateway API, `HTTPRouteRule.matches`: "precedence must be given to the match having: "Exact" path match;
/// "Prefix" path match with largest number of characters; Method match; Largest number of header matches; Largest
/// number of query param matches. Note: The precedence of RegularExpression path matches are implementation-specific."
/// Ours come between exact paths and prefixes, the longer pattern first. "If ties still exist …: The oldest Route based
/// on creation timestamp; The Route appearing first in alphabetical order by "{namespace}/{name}" … the FIRST matching
/// rule (in list order)": a stable sort of routes that come in this order.
fn precedence(a: &RouteMatch, b: &RouteMatch) -> Ordering {
    let path = match (&a.path, &b.path) {
        // Different paths of one kind never take the same request with the same length; the text keeps equal ones
        // together.
        (PathMatch::Exact(a), PathMatch::Exact(b)) => a.cmp(b),
        (PathMatch::Prefix(a), PathMatch::Prefix(b)) => b.len().cmp(&a.len()).then_with(|| a.cmp(b)),
        (PathMatch::Regex(a), PathMatch::Regex(b)) => b.as_str().len().cmp(&a.as_str().len()),
        (a, b) => kind(a).cmp(&kind(b)),
    };
    let rest = |one: &RouteMatch| (one.method.is_none(), Reverse(one.headers.len()), Reverse(one.query.len()));
    path.then_with(|| rest(a).cmp(&rest(b)))
}

fn kind(path: &PathMatch) -> u8 {
    match path {
        PathMatch::Exact(_) => 0,
        PathMatch::Regex(_) => 1,
        PathMatch::Prefix(_) => 2,
    }
}

/// The index follows from the routes.
impl PartialEq for VirtualHost {
    fn eq(&self, other: &Self) -> bool {
        self.routes == other.routes
    }
}

impl Eq for VirtualHost {}

impl Serialize for VirtualHost {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&self.routes)
    }
}

#[cfg(test)]
mod tests;
