//! `floodway check`: what the API server would refuse, and what translation would tell, without either. Reads like a
//! compiler: one line per finding, a summary, and exit code 2 if something is wrong.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Failure;
use super::complaints::complaints;
use super::offline;
use super::roots::system;
use crate::api::Condition;
use crate::api::ProxyPolicySpec;
use crate::args::CheckArgs;
use crate::settings::RouteDefaults;
use crate::snapshot::KeyHosts;
use crate::source::files::{self, Found, MAX_BYTES, Object, Parsed, Sound};
use crate::translate::{Context, Key, Resources, WrongCertificate, check_certificate};
use crate::yaml::Problem;

/// What was found, and how bad it is.
#[derive(Debug, Default)]
pub(super) struct Findings {
    lines: Vec<(String, Option<u64>, String)>,
    files: usize,
    objects: usize,
    errors: usize,
    warnings: usize,
}

/// Checks everything that was named. Prints the findings; fails if there are errors.
pub(super) fn check(args: &CheckArgs) -> Result<(), Failure> {
    let mut findings = Findings::default();
    let mut objects = Vec::new();
    for (name, text) in args.files.iter().flat_map(|file| texts(file)) {
        findings.files += 1;
        match text {
            Ok(text) => {
                let Parsed { objects: sound, errors, skipped, .. } = files::parse(&text, &mut Sound::default());
                errors.iter().for_each(|error| findings.error(&name, error));
                skipped.iter().for_each(|skipped| findings.warning(&name, skipped.clone()));
                objects.extend(sound.into_iter().map(|found| (name.clone(), found)));
            }
            Err(reason) => {
                findings.error(&name, &Problem { place: None, document: None, path: String::new(), message: reason })
            }
        }
    }
    let mut resources = Resources::default();
    for folder in args.files.iter().filter(|file| file.is_dir()) {
        // That the folder cannot be read has been found already.
        for (path, pair) in files::pairs(folder).unwrap_or_default() {
            findings.files += 1;
            match pair {
                Ok((key, object)) => {
                    findings.objects += 1;
                    if let Object::Secret(secret) = &object
                        && let Err(WrongCertificate { entry, why }) = check_certificate(&key, secret)
                    {
                        let file = path.with_extension(files::extension(entry)).display().to_string();
                        findings
                            .error(&file, &Problem { place: None, document: None, path: String::new(), message: why });
                    }
                    insert(&mut resources, key, &object);
                }
                Err(message) => {
                    let problem = Problem { place: None, document: None, path: String::new(), message };
                    findings.error(&path.display().to_string(), &problem);
                }
            }
        }
    }
    findings.objects += objects.len();
    findings.together(resources, &objects, &args.class);
    super::print(&findings.to_string())?;
    if findings.errors > 0 { Err(Failure::Told) } else { Ok(()) }
}

/// The texts that a name stands for: the standard input, the files of a folder, or a file.
fn texts(name: &Path) -> Vec<(String, Result<Vec<u8>, String>)> {
    let read = |path: &Path| (path.display().to_string(), files::read_bounded(path));
    if name == Path::new("-") {
        let mut text = Vec::new();
        let read = std::io::stdin().lock().take(MAX_BYTES + 1).read_to_end(&mut text);
        let text = match read {
            Err(error) => Err(format!("cannot be read: {error}")),
            Ok(_) if text.len() as u64 > MAX_BYTES => Err(format!("larger than {} MiB", MAX_BYTES / 1024 / 1024)),
            Ok(_) => Ok(text),
        };
        return vec![("<stdin>".to_owned(), text)];
    }
    if !name.is_dir() {
        return vec![read(name)];
    }
    match files::yaml_files(name) {
        Ok(paths) => paths.iter().map(|path: &PathBuf| read(path)).collect(),
        Err(error) => vec![(name.display().to_string(), Err(format!("the folder cannot be read: {error}")))],
    }
}

impl Findings {
    fn error(&mut self, file: &str, problem: &Problem) {
        self.errors += 1;
        self.tell(file, problem);
    }

    fn warning(&mut self, file: &str, mut problem: Problem) {
        self.warnings += 1;
        problem.message = format!("warning: {}", problem.message);
        self.tell(file, &problem);
    }

    fn tell(&mut self, file: &str, problem: &Problem) {
        let line = problem.place.map(|place| place.line);
        self.lines.push((file.to_owned(), line, format!("{file}:{problem}")));
    }

    /// What is wrong with the objects only together.
    fn together(&mut self, mut resources: Resources, objects: &[(String, Found)], class: &str) {
        let mut first: BTreeMap<(&str, &Key), (&str, &Found)> = BTreeMap::new();
        for (file, found) in objects {
            let kind = found.object.kind();
            if let Some((other, at)) = first.get(&(kind, &found.key)) {
                let line = at.problem("", "").place.map_or(0, |place| place.line);
                let message = format!("{kind} {} is already in {other}:{line}; remove one of them", found.key);
                self.error(file, &found.problem("", message));
                continue;
            }
            first.insert((kind, &found.key), (file, found));
            if let Object::Secret(secret) = &found.object
                && secret.is_tls()
                && let Err(WrongCertificate { entry, why }) = check_certificate(&found.key, secret)
            {
                self.error(file, &found.problem(&format!("data.{entry}"), why));
            }
            insert(&mut resources, found.key.clone(), &found.object);
        }

        let context = Context {
            class_name: class.to_owned(),
            zone: None,
            defaults: RouteDefaults::default(),
            policy: ProxyPolicySpec::default(),
            // What the settings say nobody knows here.
            shared_limits: true,
            default_certificate: None,
            client_certificates: None,
            https_port: 443,
            roots: system(),
            key_hosts: KeyHosts::default(),
        };
        let statuses = offline::translate(context, resources).statuses;
        for (kind, conditions) in statuses.kinds() {
            for (key, conditions) in BTreeMap::from_iter(conditions.iter()) {
                if let Some((file, found)) = first.get(&(kind, key)) {
                    self.conditions(file, found, conditions);
                }
            }
        }
    }

    /// What the conditions of one object complain of.
    fn conditions(&mut self, file: &str, found: &Found, conditions: &[Condition]) {
        for (condition, sentences) in complaints(conditions) {
            for sentence in sentences {
                let (path, message) = match sentence.split_once(": ") {
                    Some((path, message)) if path.starts_with("spec") && !path.contains(' ') => (path, message),
                    _ => ("", sentence),
                };
                if condition.type_ == "Accepted" {
                    self.error(file, &found.problem(path, message));
                } else {
                    self.warning(file, found.problem(path, message));
                }
            }
        }
    }
}

fn insert(resources: &mut Resources, key: Key, object: &Object) {
    match object {
        Object::Route(route) => drop(resources.routes.insert(key, Arc::clone(route))),
        Object::Upstream(upstream) => drop(resources.upstreams.insert(key, Arc::clone(upstream))),
        Object::Policy(policy) => drop(resources.policies.insert(key, Arc::clone(policy))),
        Object::Service(service) => drop(resources.services.insert(key, Arc::clone(service))),
        Object::Slice(service, slice) => {
            resources.put_slice(service.clone(), key.name, Arc::clone(slice));
        }
        Object::Secret(secret) => resources.put_secret(key, Arc::clone(secret)),
        Object::ConfigMap(map) => drop(resources.config_maps.insert(key, Arc::clone(map))),
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines: Vec<_> = self.lines.iter().collect();
        lines.sort_by_key(|(file, line, _)| (file, *line));
        for (_, _, line) in lines {
            writeln!(f, "{line}")?;
        }
        let count = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        writeln!(
            f,
            "{}, {}: {}, {}",
            count(self.files, "file"),
            count(self.objects, "sound object"),
            count(self.errors, "error"),
            count(self.warnings, "warning")
        )
    }
}
