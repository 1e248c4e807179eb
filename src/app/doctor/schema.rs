//! What is different in two schemas of the same object.

use serde_json::{Map, Value};

/// Paths of fields, as people write them: `spec.rules[].name`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Differences {
    /// Fields that only ours has; of a field, not also all below it.
    pub(super) missing: Vec<String>,
    /// Fields that only theirs has.
    pub(super) unknown: Vec<String>,
    /// Fields of both for which they say something else: types, bounds, rules.
    pub(super) other: Vec<String>,
}

/// Compares ours with theirs. What is written for people does not count.
pub(super) fn compare(ours: &Value, theirs: &Value) -> Differences {
    let mut found = Differences::default();
    walk(ours, theirs, String::new(), &mut found);
    found
}

fn walk(ours: &Value, theirs: &Value, path: String, found: &mut Differences) {
    let none = Map::new();
    let (Some(own), Some(their)) = (ours.as_object(), theirs.as_object()) else {
        if ours != theirs {
            found.other.push(path);
        }
        return;
    };
    let rules = |schema: &Map<String, Value>| {
        let mut rules = schema.clone();
        ["description", "properties", "items"].iter().for_each(|inner| drop(rules.remove(*inner)));
        // The API server leaves out what is empty.
        rules.retain(|_, value| !value.is_null() && value.as_array().is_none_or(|all| !all.is_empty()));
        rules
    };
    if rules(own) != rules(their) {
        found.other.push(if path.is_empty() { "the object itself".to_owned() } else { path.clone() });
    }
    let fields = |schema: &Map<String, Value>| schema.get("properties").and_then(Value::as_object).cloned();
    let (own_fields, their_fields) = (fields(own).unwrap_or_default(), fields(their).unwrap_or(none));
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    for (name, field) in &own_fields {
        match their_fields.get(name) {
            Some(theirs) => walk(field, theirs, below(name), found),
            None => found.missing.push(below(name)),
        }
    }
    found.unknown.extend(their_fields.keys().filter(|name| !own_fields.contains_key(*name)).map(|name| below(name)));
    match (own.get("items"), their.get("items")) {
        (Some(own), Some(their)) => walk(own, their, format!("{path}[]"), found),
        (None, None) => {}
        _ => found.other.push(path),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn paths(of: &[&str]) -> Vec<String> {
        of.iter().map(|path| (*path).to_owned()).collect()
    }

    #[test]
    fn fields_and_rules_are_compared_and_words_are_not() {
        let ours = json!({"type": "object", "description": "a", "properties": {
            "same": {"type": "string", "description": "b", "x-kubernetes-validations": []},
            "bounds": {"type": "string", "maxLength": 3},
            "new": {"type": "object", "properties": {"inner": {"type": "string"}}},
            "list": {"type": "array", "items": {"type": "object", "properties": {"in": {"type": "string"}, "also": {}}}},
        }});
        let theirs = json!({"type": "object", "properties": {
            "same": {"type": "string", "description": "another"},
            "bounds": {"type": "string", "maxLength": 4},
            "old": {"type": "string"},
            "list": {"type": "array", "items": {"type": "object", "properties": {"in": {"type": "string"}}}},
        }});
        let differences = compare(&ours, &theirs);
        assert_eq!(differences.missing, paths(&["list[].also", "new"]));
        assert_eq!(differences.unknown, paths(&["old"]));
        assert_eq!(differences.other, paths(&["bounds"]));
        assert_eq!(compare(&ours, &ours), Differences::default());
    }
}
