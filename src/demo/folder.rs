//! The folder that the demo runs from: the examples of the repository, or a copy of them. Reads from it where the
//! backends are, and a summary of the routes for the page. What the objects mean to the proxy is not known here.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::DemoError;

/// The examples, as they were when this program was built.
const FILES: [(&str, &str); 7] = [
    ("routes.yaml", include_str!("../../examples/demo/routes.yaml")),
    ("services.yaml", include_str!("../../examples/demo/services.yaml")),
    ("tls.yaml", include_str!("../../examples/demo/tls.yaml")),
    ("who-may-pass.yaml", include_str!("../../examples/demo/who-may-pass.yaml")),
    ("authority.pem", include_str!("../../examples/demo/authority.pem")),
    ("acme.pem", include_str!("../../examples/demo/acme.pem")),
    ("umbrella.pem", include_str!("../../examples/demo/umbrella.pem")),
];
/// Where the examples are in the repository.
const IN_REPOSITORY: &str = "examples/demo";

/// The folder that the demo runs from.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
    copied: bool,
}

impl Folder {
    /// `dir` if given; else the examples, if the current directory is the repository; else a copy of them in a new
    /// temporary folder, which is left there when the program ends.
    ///
    /// # Errors
    /// If `dir` is not a folder, or the copy cannot be written.
    pub fn open(dir: Option<&Path>) -> Result<Self, DemoError> {
        let path = dir.unwrap_or(Path::new(IN_REPOSITORY));
        if path.is_dir() {
            return Ok(Folder { path: path.to_owned(), copied: false });
        }
        if let Some(path) = dir {
            return Err(DemoError::Folder {
                path: path.to_owned(),
                problem: "not a folder".to_owned(),
                remedy: "name a folder with YAML files, or leave --dir out to get the built-in examples",
            });
        }
        copy().map(|path| Folder { path, copied: true })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is a copy made for this run.
    pub fn copied(&self) -> bool {
        self.copied
    }

    /// The backends that EndpointSlices speak of: the name of the Service and an address.
    pub(super) fn backends(&self) -> Result<Vec<(String, SocketAddr)>, DemoError> {
        let mut found = Vec::new();
        for (path, documents) in self.documents()? {
            let documents = documents.map_err(|problem| DemoError::Folder {
                path,
                problem,
                remedy: "the demo reads the addresses of its backends there; mend it and start again",
            })?;
            for slice in documents.iter().filter(|document| document["kind"] == "EndpointSlice") {
                let Some(service) = slice["metadata"]["labels"]["kubernetes.io/service-name"].as_str() else {
                    continue;
                };
                let ports = list(&slice["ports"]).filter_map(|port| u16::try_from(port["port"].as_u64()?).ok());
                for port in ports {
                    let addresses = list(&slice["endpoints"]).filter_map(|endpoint| endpoint["addresses"][0].as_str());
                    found.extend(
                        addresses
                            .filter_map(|address| address.parse::<IpAddr>().ok())
                            .filter(IpAddr::is_loopback)
                            .map(|address| (service.to_owned(), SocketAddr::new(address, port))),
                    );
                }
            }
        }
        Ok(found)
    }

    /// A Secret by its name, read afresh.
    pub(super) fn secret(&self, name: &str) -> Option<Value> {
        let documents = self.documents().ok()?.into_iter().filter_map(|(_, documents)| documents.ok()).flatten();
        let mut secrets = documents.filter(|document| document["kind"] == "Secret");
        secrets.find(|secret| secret["metadata"]["name"] == name)
    }

    /// The rules in short, read afresh: what the page shows as the route table.
    pub(super) fn rules(&self) -> Value {
        let mut rules = Vec::new();
        let mut problems = Vec::new();
        for (path, documents) in self.documents().unwrap_or_default() {
            match documents {
                Ok(documents) => rules.extend(
                    documents
                        .iter()
                        .filter(|document| document["kind"] == "ProxyRoute")
                        .flat_map(rules_of)
                        .collect::<Vec<_>>(),
                ),
                Err(problem) => problems.push(format!("{}: {problem}", path.display())),
            }
        }
        json!({"folder": self.path.display().to_string(), "rules": rules, "problems": problems})
    }

    /// Every document of every file, in the order of the names.
    #[allow(clippy::type_complexity)]
    fn documents(&self) -> Result<Vec<(PathBuf, Result<Vec<Value>, String>)>, DemoError> {
        let unreadable = |error: io::Error| DemoError::Folder {
            path: self.path.clone(),
            problem: error.to_string(),
            remedy: "the folder must be readable",
        };
        let mut paths = fs::read_dir(&self.path)
            .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>())
            .map_err(unreadable)?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml"));
        paths.sort();
        let read = |path: PathBuf| {
            let documents = fs::read_to_string(&path)
                .map_err(|error| error.to_string())
                .and_then(|text| serde_yaml::from_multiple(&text).map_err(|error| error.to_string()));
            (path, documents)
        };
        Ok(paths.into_iter().map(read).collect())
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn rules_of(route: &Value) -> Vec<Value> {
    let hosts = list(&route["spec"]["hosts"]).filter_map(Value::as_str).collect::<Vec<_>>().join(", ");
    let rule = |(position, rule): (usize, &Value)| {
        let mut matches = list(&rule["matches"]).map(match_text).collect::<Vec<_>>();
        if matches.is_empty() {
            matches.push("every request".to_owned());
        }
        if !hosts.is_empty() {
            matches.iter_mut().for_each(|text| text.push_str(&format!(" for {hosts}")));
        }
        let name = rule["name"].as_str().map_or_else(|| position.to_string(), str::to_owned);
        json!({"name": name, "matches": matches, "action": action_text(rule)})
    };
    list(&route["spec"]["rules"]).enumerate().map(rule).collect()
}

/// `GET /clock`, `/files/…`
fn match_text(found: &Value) -> String {
    let value = found["path"]["value"].as_str().unwrap_or("/");
    let path = match found["path"]["type"].as_str() {
        Some("Exact") => value.to_owned(),
        Some("Regex") => format!("~ {value}"),
        _ => format!("{}/…", value.trim_end_matches('/')),
    };
    match found["method"].as_str() {
        Some(method) => format!("{method} {path}"),
        None => path,
    }
}

fn action_text(rule: &Value) -> String {
    if let Some(status) = rule["respond"]["status"].as_u64() {
        return format!("answer {status}");
    }
    if rule["redirect"].is_object() {
        let to = rule["redirect"]["path"]["value"].as_str().unwrap_or("elsewhere");
        return format!("redirect to {to}");
    }
    let backend = |backend: &Value| {
        let name =
            backend["service"]["name"].as_str().or(backend["upstream"]["name"].as_str()).unwrap_or("?").to_owned();
        match backend["weight"].as_u64() {
            Some(weight) => format!("{name} ({weight})"),
            None => name,
        }
    };
    list(&rule["backends"]).map(backend).collect::<Vec<_>>().join(", ")
}

fn copy() -> Result<PathBuf, DemoError> {
    let path = std::env::temp_dir().join(format!("floodway-demo-{:08x}", fastrand::u32(..)));
    let write = || {
        // Fails if somebody made it before us, so that nobody else's files are read or written.
        fs::create_dir(&path)?;
        FILES.iter().try_for_each(|(name, text)| fs::write(path.join(name), text))
    };
    match write() {
        Ok(()) => Ok(path),
        Err(error) => Err(DemoError::Folder {
            path,
            problem: error.to_string(),
            remedy: "set TMPDIR to a folder that can be written, or name one with --dir",
        }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_copy_names_every_backend() {
        let folder = Folder { path: copy().unwrap(), copied: true };
        let backends = folder.backends().unwrap();
        fs::remove_dir_all(folder.path()).unwrap();
        let mut names = backends.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>();
        names.sort_unstable();
        assert_eq!(names, ["clock", "echo", "echo", "files", "page", "socket"]);
        assert!(backends.iter().all(|(_, address)| address.ip().is_loopback()));
    }

    #[test]
    fn rules_are_told_in_short() {
        let folder = Folder::open(Some(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/demo")))).unwrap();
        let rules = folder.rules();
        assert_eq!(rules["problems"], json!([]));
        assert_eq!(rules["rules"][1], json!({"name": "clock", "matches": ["GET /clock"], "action": "clock"}));
        assert_eq!(rules["rules"][8], json!({"name": "moved", "matches": ["/old/…"], "action": "redirect to /echo"}));
        let of_host =
            json!({"name": "secure", "matches": ["every request for secure.demo.localhost"], "action": "echo"});
        assert_eq!(rules["rules"][9], of_host);
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = Folder::open(Some(Path::new("/no/such/folder"))).unwrap_err().to_string();
        assert!(error.starts_with("/no/such/folder: not a folder; name a folder"), "{error}");
    }
}
