//! The bill of materials beside the image: what is linked, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::archive::run;
use crate::shipped::{ARCH, folder};

/// Crates that the program is made of, as `name@version`, by cargo's own tree.
fn linked(edges: &str) -> BTreeSet<String> {
    let target = if ARCH == "arm64" { "aarch64-unknown-linux-gnu" } else { "x86_64-unknown-linux-gnu" };
    let mut tree = Command::new(option_env!("CARGO").unwrap_or("cargo"));
    tree.args(["tree", "--locked", "--offline", "--features", "jemalloc", "--target", target, "--edges", edges]);
    tree.args(["--prefix", "none", "--format", "{p}"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    let text = String::from_utf8(run(&mut tree)).unwrap();
    let crates = text.lines().filter_map(|line| {
        let mut words = line.split(' ');
        Some(format!("{}@{}", words.next()?, words.next()?.strip_prefix('v')?))
    });
    crates.filter(|name| !name.starts_with("floodway@")).collect()
}

#[test]
#[ignore = "needs the image: make image-check"]
fn the_bill_of_materials_names_what_is_linked() {
    let text = fs::read_to_string(folder().join(format!("floodway-{ARCH}.cdx.json"))).unwrap();
    let bill: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(bill["bomFormat"], "CycloneDX");
    assert!(["1.5", "1.6", "1.7"].contains(&bill["specVersion"].as_str().unwrap()), "{}", bill["specVersion"]);
    assert_eq!(bill["metadata"]["component"]["name"], "floodway");
    assert_eq!(bill["metadata"]["component"]["version"], env!("CARGO_PKG_VERSION"));
    assert!(!text.contains(env!("CARGO_MANIFEST_DIR")), "it tells where it was made");

    let components = bill["components"].as_array().unwrap();
    let crates: BTreeMap<String, &Value> = components
        .iter()
        .filter(|component| component["purl"].as_str().is_some_and(|purl| purl.starts_with("pkg:cargo/")))
        .map(|component| {
            (format!("{}@{}", component["name"].as_str().unwrap(), component["version"].as_str().unwrap()), component)
        })
        .collect();
    // `normal` takes crates along that run in the compiler (derives), and the bill may leave these out.
    let (linked, known) = (linked("no-proc-macro,normal"), linked("normal"));
    let named: BTreeSet<String> = crates.keys().cloned().collect();
    let missing: Vec<_> = linked.difference(&named).collect();
    let too_many: Vec<_> = named.difference(&known).collect();
    assert!(missing.is_empty() && too_many.is_empty(), "missing: {missing:?}; not linked: {too_many:?}");

    let lock = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock")).unwrap();
    for (name, component) in crates {
        let purl = component["purl"].as_str().unwrap();
        assert!(purl.starts_with(&format!("pkg:cargo/{name}")), "{name}: {purl}");
        assert!(component["licenses"].as_array().is_some_and(|licences| !licences.is_empty()), "{name} has no licence");
        let hash = component["hashes"][0]["content"].as_str().unwrap_or_default();
        assert!(hash.len() == 64 && lock.contains(hash), "{name}: its hash is not in Cargo.lock");
    }
    // What is linked beside crates, and lies beside the program.
    for name in ["glibc", "ca-certificates"] {
        assert!(components.iter().any(|component| component["name"] == name), "{name} is not named");
    }
}
