//! Runs helm, which `tests/tools/build.sh` makes available, and reads what it renders. The tests against an API server use it, too.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// What helm says, or how it fails.
pub(crate) fn helm<S: AsRef<str>>(arguments: &[S]) -> Result<String, String> {
    let program = root().join("target/kube-tools/helm");
    assert!(
        program.is_file(),
        "{} is missing: run `tests/tools/build.sh` (as `make test` does) to build it from source",
        program.display()
    );
    // What it remembers of an API server is of no use to the next one.
    let cache = tempfile::tempdir().unwrap();
    let mut command = Command::new(program);
    command.current_dir(root()).env("KUBECACHEDIR", cache.path()).env_remove("KUBECONFIG");
    let output = command.args(arguments.iter().map(AsRef::as_ref)).output().unwrap();
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).unwrap()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// The objects that the chart makes of values, the pod of `helm test` included.
pub(crate) fn render(values: &str, more: &[&str]) -> Result<Vec<Value>, String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("values.yaml");
    std::fs::write(&file, values).unwrap();
    let mut arguments = vec!["template", "floodway", "charts/floodway", "--namespace", "edge", "-f"];
    arguments.push(file.to_str().unwrap());
    arguments.extend(more);
    Ok(documents(&helm(&arguments)?))
}

/// The documents of a YAML text.
pub(crate) fn documents(text: &str) -> Vec<Value> {
    let documents = floodway::yaml::documents(text.as_bytes()).into_iter();
    documents.map(|document| document.unwrap().read::<Value>().unwrap()).filter(|value| !value.is_null()).collect()
}

/// The blocks of values in docs/install.md, and the files of values of the tests.
pub(crate) fn all_values() -> Vec<(String, String)> {
    let page = std::fs::read_to_string(root().join("docs/install.md")).unwrap();
    let blocks = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let mut all: Vec<(String, String)> = blocks
        .enumerate()
        .map(|(index, block)| (format!("docs/install.md, block {index}"), block.to_owned()))
        .collect();
    assert!(all.len() >= 8, "docs/install.md has {} blocks of values", all.len());
    all.extend(files(&root().join("tests/chart/values")));
    all
}

fn files(folder: &Path) -> Vec<(String, String)> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.map(|path| (path.display().to_string(), std::fs::read_to_string(&path).unwrap())).collect()
}
