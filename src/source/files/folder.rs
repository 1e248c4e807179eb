//! Which files of a folder hold objects, and their content, within bounds. Nothing here waits for a pipe or follows a
//! link in circles.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::pair::Part;

/// The largest file that is read.
pub const MAX_BYTES: u64 = 8 * 1024 * 1024;
/// The most files that are read.
const MAX_FILES: usize = 10_000;
/// Folders within folders.
const MAX_DEPTH: usize = 8;

/// What tells two versions of a file apart without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// How long ago the file was written to; `None` if its clock is ahead of ours.
    pub(super) fn age(&self) -> Option<Duration> {
        let (seconds, nanos) = self.modified;
        let modified = Duration::new(seconds.max(0).unsigned_abs(), u32::try_from(nanos).unwrap_or(0));
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().checked_sub(modified)
    }
}

/// The files of a folder in the order of their paths, which are within it, and for those that cannot be read the reason.
pub(super) type Files = Vec<(PathBuf, Result<Stamp, String>)>;

/// What is in a folder.
#[derive(Default)]
pub(super) struct Listing {
    pub(super) files: Files,
    pub(super) shape: Shape,
}

/// What is in a folder beside files.
#[derive(Default)]
pub(super) struct Shape {
    /// Itself and the folders in it.
    folders: BTreeSet<PathBuf>,
    /// Whether events do not tell everything: something in them is a link, or there is more than is listed.
    odd: bool,
}

impl Shape {
    /// The files among `paths` that may have changed, if that is all that may have: no link leads to what it did not before,
    /// and no file or folder went. Otherwise, everything has to be listed.
    pub(super) fn files<'a>(&self, root: &Path, paths: impl Iterator<Item = &'a PathBuf>) -> Option<Files> {
        let mut files = Files::new();
        for path in paths.filter(|_| !self.odd) {
            let known = path.parent().is_some_and(|parent| self.folders.contains(parent));
            match fs::symlink_metadata(root.join(path)) {
                _ if self.folders.contains(path) => return None,
                Ok(metadata) if known && metadata.is_file() && is_listed(path) => {
                    files.push((path.clone(), Ok(Stamp::of(&metadata))));
                }
                // What has no part in it, as it was or as it is: scratch files of editors, most often.
                Ok(metadata) if metadata.is_file() && !is_listed(path) => {}
                Err(_) if !is_listed(path) => {}
                _ if path.iter().any(is_hidden) => {}
                _ => return None,
            }
        }
        files.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        (!self.odd).then_some(files)
    }
}

/// Lists the `*.yaml` and `*.yml` files and the parts of pairs in `root` and the folders in it. Names that begin with a dot
/// are left out: they are the machinery of ConfigMap mounts and the scratch files of editors.
pub(super) fn list(root: &Path) -> io::Result<Listing> {
    let mut listing = Listing::default();
    let mut seen = BTreeSet::new();
    let metadata = fs::metadata(root)?;
    seen.insert((metadata.dev(), metadata.ino()));
    walk(root, Path::new(""), MAX_DEPTH, &mut seen, &mut listing)?;
    Ok(listing)
}

/// Whether a file of this path within a folder is listed, if it is one.
fn is_listed(path: &Path) -> bool {
    path.file_name().is_some_and(is_ours) && !path.iter().any(is_hidden)
}

/// Whether a file of this name is read.
fn is_ours(name: &OsStr) -> bool {
    is_yaml(name) || Part::of(Path::new(name)).is_some()
}

fn is_yaml(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.ends_with(b".yaml") || name.ends_with(b".yml")
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

/// The files of YAML that a folder's objects are read from, in the order of their names.
///
/// # Errors
/// If the folder cannot be read.
pub fn yaml_files(root: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(paths(root)?.into_iter().filter(|path| path.file_name().is_some_and(is_yaml)).collect())
}

/// All files that are read, in the order of their names.
pub(super) fn paths(root: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(list(root)?.files.into_iter().map(|(path, _)| root.join(path)).collect())
}

fn walk(
    root: &Path,
    within: &Path,
    depth: usize,
    seen: &mut BTreeSet<(u64, u64)>,
    listing: &mut Listing,
) -> io::Result<()> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(root.join(within))? {
        let entry = entry?;
        let name = entry.file_name();
        // What is neither a file of ours nor may lead to one is not asked any further: each question is a system call.
        let kind = entry.file_type().ok().filter(|kind| !kind.is_symlink());
        listing.shape.odd |= kind.is_none() && !is_hidden(&name);
        if !is_hidden(&name) && (is_ours(&name) || !kind.is_some_and(|kind| kind.is_file())) {
            if entries.len() >= MAX_FILES {
                let reason = format!("more than {MAX_FILES} files and folders in it; others are not read");
                listing.files.push((within.to_owned(), Err(reason)));
                listing.shape.odd = true;
                break;
            }
            entries.push((name, kind.is_some(), entry));
        }
    }
    listing.shape.folders.insert(within.to_owned());
    // By name within each folder is by path over all of them.
    entries.sort_unstable_by(|(one, ..), (other, ..)| one.cmp(other));
    for (name, plain, entry) in entries {
        let (path, is_ours) = (within.join(&name), is_ours(&name));
        if listing.files.len() >= MAX_FILES {
            listing.shape.odd = true;
            listing.files.push((path, Err(format!("more than {MAX_FILES} files; this one and others are not read"))));
            return Ok(());
        }
        // Of what is no link, the open folder is asked, which is cheaper than a path.
        let metadata = if plain { entry.metadata() } else { fs::metadata(root.join(&path)) };
        match metadata {
            Ok(metadata) if metadata.is_dir() => {
                if depth > 0 && seen.insert((metadata.dev(), metadata.ino())) {
                    // A folder within that cannot be read hides its files but not the others.
                    let first = listing.files.len();
                    if let Err(error) = walk(root, &path, depth - 1, seen, listing) {
                        listing.files.insert(first, (path, Err(format!("this folder cannot be read: {error}"))));
                    }
                }
            }
            Ok(metadata) if metadata.is_file() && is_ours => listing.files.push((path, Ok(Stamp::of(&metadata)))),
            Ok(_) if is_ours => listing.files.push((path, Err("not a regular file".to_owned()))),
            // Gone between the look at the folder and the look at the file.
            Err(error) if error.kind() == io::ErrorKind::NotFound && entry_is_gone(&root.join(&path)) => {}
            Err(error) if is_ours => listing.files.push((path, Err(format!("cannot be read: {error}")))),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(())
}

/// Whether there is not even a link any more; a link to nowhere is worth a word.
fn entry_is_gone(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err()
}

/// The content of a file, if it is a regular one of at most [`MAX_BYTES`].
///
/// # Errors
/// Why it cannot be read, for people.
pub fn read_bounded(path: &Path) -> Result<Vec<u8>, String> {
    let cannot = |error: io::Error| format!("cannot be read: {error}");
    // Asked before it is opened: to open a pipe waits for a writer.
    if !fs::metadata(path).map_err(cannot)?.is_file() {
        return Err("not a regular file".to_owned());
    }
    let mut text = Vec::new();
    fs::File::open(path).map_err(cannot)?.take(MAX_BYTES + 1).read_to_end(&mut text).map_err(cannot)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(format!("larger than {} MiB; split it", MAX_BYTES / 1024 / 1024));
    }
    Ok(text)
}
