//! What the documents say is what the code does: their examples are valid, their tables complete.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// The blocks of YAML in a document that hold objects of ours.
fn examples(text: &str) -> Vec<&str> {
    let blocks = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.filter(|block| block.contains("apiVersion: floodway.dev")).collect()
}

fn check(folder: &Path) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_floodway")).arg("check").arg(folder).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn examples_in_documents_are_what_the_api_server_would_take() {
    for (document, least) in [
        ("README.md", 2),
        ("docs/routes.md", 2),
        ("docs/streaming.md", 1),
        ("docs/resilience.md", 1),
        ("docs/policies.md", 15),
        ("docs/tls.md", 1),
        ("docs/sidecar.md", 3),
    ] {
        let text = read(document);
        let examples = examples(&text);
        assert!(examples.len() >= least, "{document} has {} examples", examples.len());
        for example in examples {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("example.yaml"), example).unwrap();
            let (valid, said) = check(folder.path());
            assert!(valid, "{document}:\n{example}\n{said}");
        }
    }
}

#[test]
fn every_folder_of_examples_is_valid() {
    let folders: Vec<PathBuf> =
        fs::read_dir(root().join("examples")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(folders.len() >= 2, "{folders:?}");
    for folder in folders {
        let (valid, said) = check(&folder);
        assert!(valid && said.contains(" 0 warnings"), "{}: {said}", folder.display());
    }
}

/// Words in backticks at the beginning of the rows of a table.
fn first_cells(document: &str) -> BTreeSet<String> {
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| row.split('`').next()).map(str::to_owned).collect()
}

#[test]
fn every_reason_is_explained() {
    let source = read("src/proxy/error.rs");
    let body = source.split("fn reason(self)").nth(1).unwrap().split("\n    }\n").next().unwrap();
    let reasons = body.split('"').skip(1).step_by(2).map(str::to_owned).collect::<BTreeSet<_>>();
    assert!(reasons.len() > 15, "{reasons:?}");
    assert_eq!(first_cells(&read("docs/errors.md")), reasons);
}

/// Whatever reason an answer may have, a page of `errorPages` may be for, and for no other.
#[test]
fn pages_may_be_for_every_reason_of_an_answer() {
    let document = read("docs/errors.md");
    let (answers, _) = document.split_once("These end an exchange").unwrap();
    let known: BTreeSet<_> = floodway::api::ANSWER_REASONS.into_iter().map(str::to_owned).collect();
    assert_eq!(known, first_cells(answers));
}

/// States of endpoints and breakers, why they change, what is limited, and what events say of it.
#[test]
fn every_word_of_resilience_is_explained() {
    use floodway::resilience::{Limited, RETRIES, State, Why};

    let document = read("docs/resilience.md");
    let of = |section: &str| -> BTreeSet<String> {
        let text = document.split("\n## ").find(|text| text.starts_with(section)).unwrap();
        text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let seen = of("What is seen from outside");
    for state in State::ALL {
        assert!(seen.contains(state.word()), "docs/resilience.md does not say that something becomes {state}");
    }
    // Several that are alike share a row.
    let cells = document.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let rules: BTreeSet<&str> = cells.flat_map(|cell| cell.split('`').step_by(2)).collect();
    for why in Why::ALL {
        assert!(rules.contains(why.word()), "no table of docs/resilience.md explains {why}");
    }
    let limits = of("Limits");
    for word in Limited::ALL.map(Limited::as_str).into_iter().chain([RETRIES]) {
        assert!(limits.contains(word), "docs/resilience.md does not say what counts as one of {word}");
    }
}

#[test]
fn every_flag_is_in_the_settings() {
    use clap::CommandFactory;

    let document = read("docs/settings.md");
    let command = floodway::args::Args::command();
    for name in ["gateway", "standalone"] {
        let command = command.find_subcommand(name).unwrap();
        for flag in command.get_arguments().filter_map(|argument| argument.get_long()).filter(|flag| *flag != "help") {
            assert!(document.contains(&format!("--{flag}")), "docs/settings.md does not have --{flag} of {name}");
        }
    }
}

#[test]
fn every_command_is_in_the_settings() {
    use clap::CommandFactory;

    let document = read("docs/settings.md");
    for command in floodway::args::Args::command().get_subcommands() {
        let name = command.get_name();
        assert!(
            document.contains(&format!("`floodway {name}")),
            "docs/settings.md does not say what `floodway {name}` does"
        );
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    let documents = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "charts/floodway/README.md"];
    let in_docs = [
        "docs/install.md",
        "docs/operations.md",
        "docs/routes.md",
        "docs/streaming.md",
        "docs/settings.md",
        "docs/errors.md",
        "docs/metrics.md",
        "docs/resilience.md",
        "docs/policies.md",
        "docs/tls.md",
        "docs/sidecar.md",
    ];
    for document in documents.into_iter().chain(in_docs) {
        let folder = root().join(document).parent().unwrap().to_owned();
        for link in read(document).split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap_or_default();
            if !link.starts_with("http") && !path.is_empty() {
                assert!(folder.join(path).exists(), "{document} links to {link}");
            }
        }
    }
}

/// The sections of a kind's table in docs/routes.md, and the pages where they lead, name every field of its CRD.
/// GitHub shows a table as text when its head has another number of cells than the line below it.
#[test]
fn tables_have_a_head_for_each_column() {
    let columns = |line: &str| line.replace("\\|", "").matches('|').count();
    let pages = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let own = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path());
    for page in pages.chain(own).filter(|path| path.extension().is_some_and(|end| end == "md")) {
        let text = fs::read_to_string(&page).unwrap();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for (number, pair) in lines.windows(2).enumerate().filter(|(_, pair)| pair[1].starts_with("|--")) {
            assert_eq!(columns(pair[0]), columns(pair[1]), "{}:{}: {}", page.display(), number + 1, pair[0]);
        }
    }
}

#[test]
fn every_field_is_explained() {
    let document = ["routes", "resilience", "policies", "tls"].map(|page| read(&format!("docs/{page}.md"))).concat();
    for crd in floodway::api::crds() {
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        let mut fields = BTreeSet::new();
        collect(schema, &mut fields);
        for field in fields {
            assert!(document.contains(&field), "docs/routes.md, resilience.md and policies.md do not speak of {field}");
        }
    }
}

/// The fields, settings, metrics and reasons of docs/streaming.md are there. A setting without a default is named here.
#[test]
fn the_page_on_streams_names_what_exists() {
    let mut known = BTreeSet::from(["bodyBytes".to_owned()]);
    for crd in floodway::api::crds() {
        collect(&crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"], &mut known);
    }
    let settings = serde_json::to_value(floodway::settings::Settings::default()).unwrap();
    for section in settings.as_object().unwrap().values().filter_map(|section| section.as_object()) {
        known.extend(section.keys().cloned());
    }
    let (metrics, reasons) = (read("docs/metrics.md"), first_cells(&read("docs/errors.md")));
    for word in read("docs/streaming.md").split('`').skip(1).step_by(2) {
        let lower = word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        match word.rsplit_once('.') {
            Some((place, field)) if !place.contains([' ', ':']) => {
                assert!(known.contains(field), "docs/streaming.md speaks of {word}, which is no field");
            }
            _ if word.starts_with("floodway_") => assert!(metrics.contains(word), "{word} is no metric"),
            _ if lower && word.contains('_') => assert!(reasons.contains(word), "{word} is no reason"),
            _ => {}
        }
    }
}

fn collect(schema: &serde_json::Value, fields: &mut BTreeSet<String>) {
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        fields.insert(name.clone());
        collect(inner, fields);
    }
    if !schema["items"].is_null() {
        collect(&schema["items"], fields);
    }
}

/// The map and the import table of ARCHITECTURE.md have every room of `src`.
#[test]
fn every_room_is_on_the_map() {
    let document = read("ARCHITECTURE.md");
    let (map, table) = document.split_once("## Who may import whom").unwrap();
    for entry in fs::read_dir(root().join("src")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let room = name.trim_end_matches(".rs");
        if !matches!(room, "lib" | "main") {
            assert!(map.contains(&format!("`{room}`")), "the map does not have {room}");
            assert!(table.contains(&format!("`{room}`")), "the import table does not have {room}");
        }
    }
}

#[test]
fn the_chart_has_the_definitions() {
    for (name, text) in floodway::api::CRD_FILES {
        let copy = fs::read_to_string(root().join("charts/floodway/crds").join(name)).unwrap_or_default();
        assert!(copy == text, "charts/floodway/crds/{name} is not that of crds/; run `make crds`");
    }
}
