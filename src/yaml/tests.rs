#![allow(clippy::unwrap_used)]

use serde::Deserialize;
use serde_json::json;

use super::*;

fn one(text: &str) -> Document {
    documents(text.as_bytes()).remove(0).unwrap()
}

fn complaint(text: &[u8]) -> String {
    documents(text).into_iter().find_map(Result::err).map_or_else(String::new, |problem| problem.to_string())
}

#[test]
fn values_are_read_and_nulls_left_out() {
    let document = one("a: 1\nb: [x, true, 1.5, null]\nc:\nd: {e: '8080'}\n");
    assert_eq!(document.value, json!({"a": 1, "b": ["x", true, 1.5, null], "d": {"e": "8080"}}));
}

#[test]
fn every_field_has_a_place() {
    let document = one("# a comment\nspec:\n  rules:\n    - name: a\n    - name: b\n      port: 80\n");
    for (path, line, column) in [
        ("spec", 2, 1),
        ("spec.rules", 3, 3),
        ("spec.rules[0]", 4, 7),
        ("spec.rules[1].name", 5, 13),
        ("spec.rules[1].port", 6, 13),
        ("spec.rules[1].absent.deeper", 5, 7),
        ("", 2, 1),
    ] {
        assert_eq!(document.problem(path, "").place, Some(Place { line, column }), "{path}");
    }
}

#[test]
fn a_wrong_type_is_told_with_path_and_place() {
    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    struct Outer {
        list: Vec<Inner>,
    }
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Inner {
        port: u16,
    }
    let told = |text: &str| documents(text.as_bytes()).pop().unwrap().unwrap().read::<Outer>().unwrap_err().to_string();
    assert_eq!(
        told("list:\n  - port: 80\n  - port: http\n"),
        "3:11: list[1].port: invalid type: string \"http\", expected u16"
    );
    assert_eq!(
        told("a: 1\n---\nlist: [{prot: 80}]\n"),
        "3:9: document 2: list[0].prot: unknown field `prot`, expected `port`"
    );
    assert_eq!(told("list: [{}]\n"), "1:8: list[0]: missing field `port`");
}

#[test]
fn broken_texts_are_told_and_never_panic() {
    for (text, told) in [
        (&b"a: [1, 2\nb: 3\n"[..], "2:2: "),
        (b"a: 1\na: 2\n", "2:1: "),
        (b"a: \"\xff\"\n", "1:5: not UTF-8 text"),
        (b"x: *nowhere\n", "1:4: "),
        (b"a: 1\n---\n\tb: [\n", "document 2"),
        (b"a: .nan\n", "1:4: "),
        (b"a: 999999999999999999999999\n", ""),
        (b"? [a]\n: b\n", "1:"),
        (b"\0", "1:1: "),
    ] {
        let complaint = complaint(text);
        println!("{complaint}");
        assert!(complaint.contains(told), "{:?}: {complaint}", String::from_utf8_lossy(text));
        assert!(!complaint.is_empty() || told.is_empty());
    }
}

#[test]
fn bombs_are_refused() {
    let mut aliases = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..10 {
        let name = format!("*a{}", level - 1);
        aliases += &format!("a{level}: &a{level} [{}]\n", vec![name; 10].join(","));
    }
    for text in [aliases, "[".repeat(100_000), "a: ".repeat(100_000), "- ".repeat(100_000), "{a: ".repeat(50_000)] {
        let complaint = complaint(text.as_bytes());
        println!("{complaint}");
        assert!(!complaint.is_empty());
        assert!(complaint.len() < 400, "{complaint}");
    }
}

#[test]
fn documents_count_from_one_and_empty_ones_not() {
    let read = documents(b"---\n# nothing\n---\na: 1\n---\n---\nb: 2\n");
    let numbers: Vec<_> = read.iter().map(|document| document.as_ref().map(|document| document.number)).collect();
    assert_eq!(numbers, [Ok(1), Ok(2)]);
    assert!(documents(b"").is_empty());
}
