//! The folder, file by file: what each last said without error, and what all of them together say.

use std::collections::BTreeSet;
use std::fmt;
use std::hash::BuildHasher;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::POLL;
use super::folder::{self, Files, Shape, Stamp};
use super::objects::{Object, Sound, parse};
use super::pair::{Pairs, Part};
use super::union::{Held, Union};
use super::watch::{Seen, Step};
use crate::snapshot::SecretBytes;
use crate::translate::{Key, Resources};
use crate::yaml::{Place, Problem};

/// How long a file of which no event told that its writer has come to an end is left alone before it is read, and how
/// long one that is gone may be about to come back: some programs replace files in these two steps.
const SETTLED: Duration = Duration::from_millis(15);
/// The same for a file that a writer has begun with, or that was emptied: programs pause while they write.
const BEING_WRITTEN: Duration = Duration::from_secs(1);
/// Younger than this, the time of a file does not tell two versions apart: clocks of file systems tick slowly.
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
    /// When to look again though nothing happens.
    pub(super) again: Option<Duration>,
}

/// The folder as it was last read.
pub(super) struct Loader {
    root: PathBuf,
    /// In the order of their paths.
    files: Vec<(PathBuf, File)>,
    pairs: Pairs,
    union: Union,
    shape: Shape,
    /// When all of it was last looked at, and did not want another look.
    whole: Option<Instant>,
    /// Whether the folder was read before.
    known: bool,
    /// What is true of all files together, so that it is told once.
    told: BTreeSet<String>,
    /// Of that, the objects that are in two places.
    conflicts: BTreeSet<String>,
    hasher: foldhash::fast::RandomState,
}

#[derive(Default)]
struct File {
    /// When it was last read.
    stamp: Option<Stamp>,
    /// Whether a further write could not leave that as it is.
    certain: bool,
    digest: u64,
    /// Why it could not be read the last time.
    unreadable: Option<String>,
    /// Whether it is not the last version that is served.
    broken: bool,
    /// Since when there is no such file.
    gone: Option<Instant>,
    /// The last good version.
    good: Vec<Kept>,
    /// The same, if it is part of a pair.
    part: Option<SecretBytes>,
    sound: Sound,
}

/// An object and where it stood.
pub(super) struct Kept {
    pub(super) key: Key,
    pub(super) object: Object,
    pub(super) document: usize,
    pub(super) place: Option<Place>,
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

impl Load {
    fn reject(&mut self, text: String) {
        self.rejected += 1;
        self.reports.push(Report { severity: Severity::Error, text });
    }

    fn look_again_in(&mut self, wait: Duration) {
        self.again = Some(self.again.map_or(wait, |sooner| sooner.min(wait)));
    }
}

impl Loader {
    pub(super) fn new(root: PathBuf) -> Self {
        Loader {
            root,
            files: Vec::new(),
            pairs: Pairs::default(),
            union: Union::default(),
            shape: Shape::default(),
            whole: None,
            known: false,
            told: BTreeSet::new(),
            conflicts: BTreeSet::new(),
            hasher: Default::default(),
        }
    }

    /// Reads what changed since the last time, when `seen` is all that events have told.
    pub(super) fn load(&mut self, seen: &Seen, now: Instant) -> Load {
        let mut load = Load::default();
        let mut standing = BTreeSet::new();
        match self.list(seen, now) {
            Ok((files, whole)) => {
                load.complete = true;
                if self.follow(files, whole, seen, now, &mut load) {
                    self.conflicts = self.unite();
                }
                self.known = true;
                match load.again {
                    Some(_) => self.whole = None,
                    None if whole => self.whole = Some(now),
                    None => {}
                }
            }
            Err(error) => {
                self.whole = None;
                let what = "the folder cannot be read; keeping what was read before";
                standing.insert(format!("{}: {what}: {error}", self.root.display()));
            }
        }
        standing.extend(self.conflicts.iter().cloned());
        let new = standing.difference(&self.told);
        load.reports.extend(new.map(|text| Report { severity: Severity::Error, text: text.clone() }));
        self.told = standing;
        load
    }

    /// The files to look at, and whether they are all. Those that events named are enough for a while: to list thousands
    /// takes longer than everything else that comes of one that changed.
    fn list(&mut self, seen: &Seen, now: Instant) -> std::io::Result<(Files, bool)> {
        let lately = self.whole.is_some_and(|whole| now.duration_since(whole) < POLL);
        if lately
            && !seen.more
            && let Some(files) = self.shape.files(&self.root, seen.paths.keys())
        {
            return Ok((files, false));
        }
        let folder::Listing { files, shape } = folder::list(&self.root)?;
        self.shape = shape;
        Ok((files, true))
    }

    /// Looks at files, which are in the order of their paths and may be the `whole` of them; returns whether what all say
    /// together may have changed.
    fn follow(&mut self, files: Files, whole: bool, seen: &Seen, now: Instant, load: &mut Load) -> bool {
        let room = Vec::with_capacity(self.files.len() + 1);
        let mut before = std::mem::replace(&mut self.files, room).into_iter().peekable();
        let mut changed = false;
        // Both are in the same order, so that each path is found by going through both at once.
        for (path, stamp) in files {
            while let Some(other) = before.next_if(|(known, _)| *known < path) {
                changed |= self.pass(other, whole, now, load);
            }
            let known = before.next_if(|(known, _)| known.as_os_str() == path.as_os_str());
            let mut file = known.map(|(_, file)| file).unwrap_or_default();
            changed |= file.gone.take().is_some();
            changed |= self.look(&path, &mut file, stamp, seen.paths.get(&path).copied().flatten(), load);
            self.files.push((path, file));
        }
        for other in before {
            changed |= self.pass(other, whole, now, load);
        }
        changed
    }

    /// A file that was not looked at: not there, if all were. Returns whether that changes anything.
    fn pass(&mut self, other: (PathBuf, File), whole: bool, now: Instant, load: &mut Load) -> bool {
        if whole {
            return self.miss(other, now, load);
        }
        self.files.push(other);
        false
    }

    /// A file that is not there: forgets it in a while. Returns whether that changes anything.
    fn miss(&mut self, (path, mut file): (PathBuf, File), now: Instant, load: &mut Load) -> bool {
        let new = file.gone.is_none();
        let left = SETTLED.saturating_sub(now.duration_since(*file.gone.get_or_insert(now)));
        let forget = left.is_zero() || !file.serves();
        if !forget {
            load.look_again_in(left);
            self.files.push((path, file));
        }
        new || forget
    }

    /// Reads a file if it is another and whole; returns whether there is another good version.
    fn look(
        &self,
        path: &Path,
        file: &mut File,
        stamp: Result<Stamp, String>,
        step: Option<Step>,
        load: &mut Load,
    ) -> bool {
        let on_disk = || self.root.join(path);
        let text = match &stamp {
            Ok(stamp) => {
                let same = file.stamp == Some(*stamp);
                if same && file.certain {
                    return false;
                }
                // What is there when the folder is first read is all there is to serve.
                if self.known
                    && let Some(wait) = file.patience(stamp, step)
                {
                    if !same {
                        load.look_again_in(wait);
                    }
                    return false;
                }
                folder::read_bounded(&on_disk())
            }
            Err(reason) => Err(reason.clone()),
        };
        file.stamp = stamp.ok();
        file.certain = file.stamp.is_some_and(|stamp| stamp.age().is_some_and(|age| age >= CLOCK_TICK));
        let text = match text {
            Ok(text) => text,
            Err(reason) => {
                if file.unreadable.as_ref() != Some(&reason) {
                    load.reject(format!("{}: {reason}", on_disk().display()));
                }
                file.unreadable = Some(reason);
                return false;
            }
        };
        let digest = self.hasher.hash_one(&text).max(1);
        if file.digest == digest && file.unreadable.take().is_none() {
            return false;
        }
        file.digest = digest;
        load.read += 1;
        file.read(&on_disk(), text, load)
    }

    /// Makes of all files one; returns what stands in the way. The same object in two places: the first by the name of
    /// the file is served, the others are told. A file that is gone comes after all that are there: its objects may have
    /// moved.
    fn unite(&mut self) -> BTreeSet<String> {
        let parts =
            self.files.iter().filter_map(|(path, file)| Some((path.as_path(), Part::of(path)?, file.part.as_ref())));
        let mut told = self.pairs.follow(&self.root, parts);
        let mut held = Held::with_capacity_and_hasher(self.union.len(), Default::default());
        for (path, file) in self.files.iter().filter(|(_, file)| file.gone.is_none()) {
            for kept in &file.good {
                let Some((first, at)) = held.get(&kept.named()) else {
                    held.insert(kept.named(), (path, kept));
                    continue;
                };
                let line = at.place.map_or(0, |place| place.line);
                let message = format!(
                    "{} {} is already in {}:{line}, and that one is served; remove one of them",
                    kept.object.kind(),
                    kept.key,
                    self.root.join(first).display()
                );
                let problem =
                    Problem { place: kept.place, document: Some(kept.document), path: String::new(), message };
                told.insert(Report::new(Severity::Error, &self.root.join(path), &problem).text);
            }
        }
        for (path, file) in self.files.iter().filter(|(_, file)| file.gone.is_some()) {
            for kept in &file.good {
                held.entry(kept.named()).or_insert((path, kept));
            }
        }
        self.pairs.join(&self.root, &mut held, &mut told);
        self.union.become_of(&held);
        told
    }

    /// Makes `resources` what all files together say; returns whether that changed anything. What did not change keeps
    /// its `Arc`.
    pub(super) fn apply(&self, resources: &mut Resources) -> bool {
        self.union.apply(resources)
    }
}

impl Kept {
    pub(super) fn named(&self) -> (&'static str, &Key) {
        (self.object.kind(), &self.key)
    }
}

impl File {
    /// How much longer to leave it alone, if at all: it may still be written to.
    fn patience(&self, stamp: &Stamp, step: Option<Step>) -> Option<Duration> {
        let patience = match step {
            _ if stamp.is_empty() && self.serves() => BEING_WRITTEN,
            Some(Step::Begun) => BEING_WRITTEN,
            Some(Step::Done) => return None,
            None => SETTLED,
        };
        // A clock ahead of ours says nothing about it.
        patience.checked_sub(stamp.age()?).filter(|left| !left.is_zero())
    }

    /// Takes over what a text says if all of it is sound; returns whether it was.
    fn read(&mut self, on_disk: &Path, text: Vec<u8>, load: &mut Load) -> bool {
        if let Some(part) = Part::of(on_disk) {
            return match part.read(text) {
                Ok(bytes) => {
                    self.part = Some(bytes);
                    self.mend(on_disk, load)
                }
                Err(why) => {
                    self.broken = true;
                    load.reject(format!("{}: {why}", on_disk.display()));
                    false
                }
            };
        }
        let parsed = parse(&text, &mut self.sound);
        load.reports.extend(parsed.skipped.iter().map(|skipped| Report::new(Severity::Note, on_disk, skipped)));
        if !parsed.errors.is_empty() {
            load.rejected += 1;
            self.broken = true;
            load.reports.extend(parsed.errors.iter().map(|error| Report::new(Severity::Error, on_disk, error)));
            return false;
        }
        let kept = parsed.objects.into_iter().map(|found| Kept {
            document: found.document.number,
            place: found.problem("", "").place,
            key: found.key,
            object: found.object,
        });
        self.good = kept.collect();
        self.mend(on_disk, load)
    }

    fn mend(&mut self, on_disk: &Path, load: &mut Load) -> bool {
        if std::mem::take(&mut self.broken) {
            let text = format!("{}: sound again", on_disk.display());
            load.reports.push(Report { severity: Severity::Note, text });
        }
        true
    }

    fn serves(&self) -> bool {
        !self.good.is_empty() || self.part.is_some()
    }
}
