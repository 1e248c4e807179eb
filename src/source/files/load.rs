//! The folder, file by file: what each last said without error, and what all of them together say.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::BuildHasher;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::folder::{self, Stamp};
use super::objects::{Object, Sound, parse};
use crate::snapshot::SharedMap;
use crate::translate::{Key, Resources, Slices};
use crate::yaml::{Place, Problem};

/// A file may be cut short while an editor writes it: an emptied one is believed only after this time.
const BEING_WRITTEN: Duration = Duration::from_secs(1);
/// Younger than this, the time of a file does not tell two versions apart.
const CLOCK_TICK: Duration = Duration::from_millis(100);

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file, or the object, is not served as it stands.
    Error,
    /// Something was left out, and nothing is wrong with that.
    Note,
}

/// Something to tell about a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// How bad it is.
    pub severity: Severity,
    /// The file, and after it the problem, on one line.
    pub text: String,
}

/// What a look at the folder brought.
#[derive(Debug, Default)]
pub struct Load {
    /// What is new to tell.
    pub reports: Vec<Report>,
    /// Files that were read anew.
    pub read: usize,
    /// Files that were found broken in this look.
    pub rejected: usize,
    /// Whether the folder itself could be read.
    pub complete: bool,
}

/// The folder as it was last read.
pub(super) struct Loader {
    root: PathBuf,
    files: BTreeMap<PathBuf, File>,
    /// What is true of all files together, so that it is told once.
    told: BTreeSet<String>,
    hasher: foldhash::fast::RandomState,
}

#[derive(Default)]
struct File {
    /// `None` while a further write might not change it.
    stamp: Option<Stamp>,
    digest: u64,
    /// Why it could not be read the last time.
    unreadable: Option<String>,
    /// Whether it is not the last version that is served.
    broken: bool,
    /// The last good version.
    good: Vec<Kept>,
    sound: Sound,
}

/// An object and where it stood.
struct Kept {
    key: Key,
    object: Object,
    document: usize,
    place: Option<Place>,
}

impl Report {
    fn new(severity: Severity, file: &Path, problem: &Problem) -> Self {
        Report { severity, text: format!("{}:{problem}", file.display()) }
    }

    pub(super) fn log(&self) {
        match self.severity {
            Severity::Error => tracing::error!("{self}"),
            Severity::Note => tracing::info!("{self}"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Loader {
    pub(super) fn new(root: PathBuf) -> Self {
        Loader { root, files: BTreeMap::new(), told: BTreeSet::new(), hasher: Default::default() }
    }

    /// Reads what changed since the last time.
    pub(super) fn load(&mut self) -> Load {
        let mut load = Load::default();
        let mut standing = BTreeSet::new();
        match folder::list(&self.root) {
            Ok(listing) => {
                load.complete = true;
                self.files.retain(|path, _| listing.contains_key(path));
                for (path, stamp) in listing {
                    self.look(path, stamp, &mut load);
                }
                self.conflicts(&mut standing);
            }
            Err(error) => {
                let what = "the folder cannot be read; keeping what was read before";
                standing.insert(format!("{}: {what}: {error}", self.root.display()));
            }
        }
        let new = standing.difference(&self.told);
        load.reports.extend(new.map(|text| Report { severity: Severity::Error, text: text.clone() }));
        self.told = standing;
        load
    }

    fn look(&mut self, path: PathBuf, stamp: Result<Stamp, String>, load: &mut Load) {
        let file = self.files.entry(path.clone()).or_default();
        let on_disk = self.root.join(&path);
        let text = match &stamp {
            Ok(stamp) if file.stamp == Some(*stamp) => return,
            Ok(stamp) if stamp.is_empty() && !file.good.is_empty() && stamp.is_fresh(BEING_WRITTEN) => return,
            Ok(_) => folder::read_bounded(&on_disk),
            Err(reason) => Err(reason.clone()),
        };
        file.stamp = stamp.ok().filter(|stamp| !stamp.is_fresh(CLOCK_TICK));
        let text = match text {
            Ok(text) => text,
            Err(reason) => {
                if file.unreadable.as_ref() != Some(&reason) {
                    load.rejected += 1;
                    load.reports
                        .push(Report { severity: Severity::Error, text: format!("{}: {reason}", on_disk.display()) });
                }
                file.unreadable = Some(reason);
                return;
            }
        };
        let digest = self.hasher.hash_one(&text).max(1);
        if file.digest == digest && file.unreadable.take().is_none() {
            return;
        }
        file.digest = digest;
        load.read += 1;
        let parsed = parse(&text, &mut file.sound);
        load.reports.extend(parsed.skipped.iter().map(|skipped| Report::new(Severity::Note, &on_disk, skipped)));
        if parsed.errors.is_empty() {
            let kept = parsed.objects.into_iter().map(|found| Kept {
                document: found.document.number,
                place: found.problem("", "").place,
                key: found.key,
                object: found.object,
            });
            file.good = kept.collect();
            if std::mem::take(&mut file.broken) {
                let text = format!("{}: sound again", on_disk.display());
                load.reports.push(Report { severity: Severity::Note, text });
            }
        } else {
            load.rejected += 1;
            file.broken = true;
            load.reports.extend(parsed.errors.iter().map(|error| Report::new(Severity::Error, &on_disk, error)));
        }
    }

    /// The same object in two places: the first by the name of the file is served, the others are told.
    fn conflicts(&self, told: &mut BTreeSet<String>) {
        let mut first: BTreeMap<(&str, &Key), (&Path, &Kept)> = BTreeMap::new();
        for (path, kept) in self.kept() {
            let kind = kept.object.kind();
            let Some((served, at)) = first.get(&(kind, &kept.key)) else {
                first.insert((kind, &kept.key), (path, kept));
                continue;
            };
            let line = at.place.map_or(0, |place| place.line);
            let served = self.root.join(served);
            let message = format!(
                "{kind} {} is already in {}:{line}, and that one is served; remove one of them",
                kept.key,
                served.display()
            );
            let problem = Problem { place: kept.place, document: Some(kept.document), path: String::new(), message };
            told.insert(Report::new(Severity::Error, &self.root.join(path), &problem).text);
        }
    }

    fn kept(&self) -> impl Iterator<Item = (&Path, &Kept)> {
        self.files.iter().flat_map(|(path, file)| file.good.iter().map(move |kept| (path.as_path(), kept)))
    }

    /// Makes `resources` what all files together say; returns whether that changed anything. What did not change keeps
    /// its `Arc`.
    pub(super) fn apply(&self, resources: &mut Resources) -> bool {
        let mut next = Resources::default();
        for (_, Kept { key, object, .. }) in self.kept() {
            match object {
                Object::Route(route) => put(&mut next.routes, &resources.routes, key, route),
                Object::Upstream(upstream) => put(&mut next.upstreams, &resources.upstreams, key, upstream),
                Object::Service(service) => put(&mut next.services, &resources.services, key, service),
                Object::Slice(service, slice) => {
                    if next.slices.get(service).is_none_or(|slices| slices.get(&key.name).is_none()) {
                        let old = resources.slices.get(service).and_then(|slices| slices.get(&key.name));
                        next.put_slice(service.clone(), Arc::clone(&key.name), kept_or(old, slice));
                    }
                }
            }
        }
        let changed = differ(&next.routes, &resources.routes)
            || differ(&next.upstreams, &resources.upstreams)
            || differ(&next.services, &resources.services)
            || next.slices.differing(&resources.slices, Slices::are).next().is_some();
        if changed {
            next.resolved = std::mem::take(&mut resources.resolved);
            *resources = next;
        }
        changed
    }
}

/// Puts an object under a key that is still free.
fn put<T: PartialEq>(next: &mut SharedMap<Key, Arc<T>>, old: &SharedMap<Key, Arc<T>>, key: &Key, new: &Arc<T>) {
    if !next.contains_key(key) {
        next.insert(key.clone(), kept_or(old.get(key), new));
    }
}

/// The old object if the new one is equal, so that whoever holds it sees that nothing changed.
fn kept_or<T: PartialEq>(old: Option<&Arc<T>>, new: &Arc<T>) -> Arc<T> {
    match old {
        Some(old) if Arc::ptr_eq(old, new) || **old == **new => Arc::clone(old),
        _ => Arc::clone(new),
    }
}

/// Whether two maps differ, when equal values are shared.
fn differ<T>(new: &SharedMap<Key, Arc<T>>, old: &SharedMap<Key, Arc<T>>) -> bool {
    new.differing(old, Arc::ptr_eq).next().is_some()
}
