//! Who may import whom: the table of ARCHITECTURE.md, as data. Tests inside `src` may import what they like.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// A room of the crate: a folder or a file in `src`.
struct Room {
    name: &'static str,
    /// Rooms it may import, beside itself.
    uses: &'static [&'static str],
    /// Words that must not occur: crates of the other plane, and what would make it impure.
    never: &'static [&'static str],
}

const KUBERNETES: &[&str] = &["kube::", "k8s_openapi::", "kube_cel::"];
const NETWORK: &[&str] = &["hyper::", "hyper_util::", "tokio::", "rustls::"];

const TABLE: &[Room] = &[
    Room { name: "api", uses: &[], never: &["hyper::", "hyper_util::", "tokio::", "kube::Client", "kube::Api"] },
    Room { name: "snapshot", uses: &[], never: &["kube::", "k8s_openapi::", "hyper::", "schemars::", "tokio::net"] },
    Room {
        name: "translate",
        uses: &["api", "snapshot", "settings"],
        never: &[
            "tokio::",
            "hyper::",
            "kube::Client",
            "kube::Api",
            "std::env",
            "std::fs",
            "Instant",
            "SystemTime",
            "now()",
        ],
    },
    Room { name: "source", uses: &["api", "translate", "snapshot", "telemetry", "ready", "yaml"], never: &["hyper::"] },
    Room { name: "status", uses: &["api", "translate", "telemetry"], never: &["hyper::"] },
    Room {
        name: "proxy",
        uses: &[
            "clock",
            "snapshot",
            "settings",
            "drain",
            "ready",
            "resilience",
            "tally",
            "telemetry",
            "proxy_protocol",
        ],
        never: KUBERNETES,
    },
    Room { name: "proxy_protocol", uses: &["snapshot"], never: NETWORK },
    Room {
        name: "resilience",
        uses: &["snapshot"],
        never: &["kube::", "k8s_openapi::", "tokio::", "hyper::", "now()"],
    },
    Room { name: "clock", uses: &["resilience"], never: KUBERNETES },
    Room {
        name: "health",
        uses: &["clock", "proxy_protocol", "resilience", "snapshot", "telemetry"],
        never: KUBERNETES,
    },
    Room { name: "jwks", uses: &["ready", "snapshot", "source", "telemetry", "translate"], never: KUBERNETES },
    Room {
        name: "injector",
        uses: &["drain", "ready", "snapshot", "telemetry", "yaml"],
        never: &["std::env", "std::fs", "std::process"],
    },
    Room { name: "capture", uses: &[], never: &["kube::", "k8s_openapi::", "hyper::", "tokio::", "rustls::"] },
    Room { name: "tally", uses: &["resilience", "settings", "snapshot"], never: KUBERNETES },
    Room { name: "telemetry", uses: &[], never: NETWORK },
    Room { name: "drain", uses: &[], never: KUBERNETES },
    Room { name: "ready", uses: &[], never: KUBERNETES },
    Room { name: "admin", uses: &["clock", "snapshot", "ready", "resilience", "telemetry"], never: KUBERNETES },
    Room { name: "sidecar", uses: &["api", "snapshot", "translate"], never: NETWORK },
    Room { name: "yaml", uses: &[], never: NETWORK },
    Room { name: "settings", uses: &["api", "snapshot", "telemetry", "yaml"], never: NETWORK },
    Room { name: "args", uses: &["api", "settings", "snapshot"], never: NETWORK },
    // Backends for people who try it out: as far from the product as a server elsewhere.
    Room { name: "demo", uses: &[], never: KUBERNETES },
    Room {
        name: "app",
        uses: &[
            "admin",
            "api",
            "args",
            "capture",
            "clock",
            "demo",
            "drain",
            "health",
            "injector",
            "jwks",
            "proxy",
            "ready",
            "resilience",
            "settings",
            "sidecar",
            "snapshot",
            "source",
            "status",
            "tally",
            "telemetry",
            "translate",
            "yaml",
        ],
        never: &[],
    },
    Room { name: "main", uses: &[], never: &[] },
    Room { name: "lib", uses: &[], never: &[] },
];

/// Files that may be longer than [`LONGEST`], each with its reason.
const LONG_FILES: &[(&str, &str)] = &[];
const LONGEST: usize = 400;

struct Source {
    room: String,
    path: String,
    text: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    collect(&root.join("src"), &mut files);
    let sources = files.into_iter().map(|file| {
        let inside = file.strip_prefix(root.join("src")).unwrap();
        let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
        Source {
            room: first.trim_end_matches(".rs").to_owned(),
            path: inside.display().to_string(),
            text: fs::read_to_string(&file).unwrap(),
        }
    });
    sources.collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The code without comments and without its tests.
fn code(source: &Source) -> String {
    if source.path.ends_with("tests.rs") || source.path.contains("/tests/") {
        return String::new();
    }
    let tests = source.text.find("#[cfg(test)]\nmod ").unwrap_or(source.text.len());
    let lines = source.text[..tests].lines();
    lines.map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The rooms that a text names after `crate::`, alone or in a group.
fn imports(code: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for (at, found) in code.match_indices("crate::") {
        // `$crate` in macros and names that end so are not meant.
        if code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == '$') {
            continue;
        }
        let rest = &code[at + found.len()..];
        if let Some(group) = rest.strip_prefix('{') {
            rooms.extend(first_names_of_group(group));
        } else {
            rooms.extend(first_name(rest));
        }
    }
    rooms
}

fn first_name(text: &str) -> Option<String> {
    let name: String =
        text.trim_start().chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
    // Macros and types at the root of the crate have no room.
    (!name.is_empty() && name.starts_with(char::is_lowercase)).then_some(name)
}

fn first_names_of_group(group: &str) -> Vec<String> {
    let (mut depth, mut names, mut start) = (0, Vec::new(), 0);
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.extend(first_name(&group[start..at]));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.extend(first_name(&group[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    names
}

#[test]
fn rooms_import_only_what_the_table_allows() {
    let mut wrong = Vec::new();
    for source in sources() {
        let Some(room) = TABLE.iter().find(|room| room.name == source.room) else {
            wrong.push(format!("src/{} is in no room of the table", source.path));
            continue;
        };
        let code = code(&source);
        for import in imports(&code) {
            if import != room.name && !room.uses.contains(&import.as_str()) {
                wrong.push(format!("src/{} imports crate::{import}, which {} may not", source.path, room.name));
            }
        }
        for word in room.never {
            let named = code.match_indices(word).any(|(at, _)| {
                !code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == ':')
            });
            if named {
                wrong.push(format!("src/{} names {word:?}, which {} must not", source.path, room.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn files_are_short_and_begin_with_what_lives_there() {
    let mut wrong = Vec::new();
    for source in sources() {
        let lines = source.text.lines().count();
        if lines > LONGEST && !LONG_FILES.iter().any(|(path, _)| *path == source.path) {
            wrong.push(format!("src/{} has {lines} lines, more than {LONGEST}: split it", source.path));
        }
        let is_tests = source.path.ends_with("tests.rs") || source.path.contains("/tests/");
        if !source.text.starts_with("//!") && !is_tests {
            wrong.push(format!("src/{} does not begin with a //! line", source.path));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The check itself: what it must and must not see.
#[test]
fn imports_are_found() {
    assert_eq!(imports("use crate::api::X;"), ["api"]);
    assert_eq!(imports("use crate::{api::{A, B}, snapshot};"), ["api", "snapshot"]);
    assert_eq!(imports("fn f() -> crate::drain::Trigger"), ["drain"]);
    assert_eq!(imports("$crate::proxy::X; mycrate::proxy::X; crate::Error"), [""; 0]);
}
