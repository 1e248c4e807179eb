//! What the API server would say to an object of ours, said without one: the structural schema is walked here, the CEL
//! rules are run by `cel`. Both are read from the definitions in `crds/`, so that each rule exists once.

use std::collections::{BTreeMap, HashSet};
use std::sync::{LazyLock, OnceLock};

use kube_cel::{CompiledSchema, compile_schema};
use serde_json::{Map, Value};

use super::{cel, nearest};

/// Why an object would be refused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// Where: `spec.rules[0].backends[1].weight`; empty for the whole object.
    pub path: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

struct Definition {
    schema: Value,
    /// Made when they are first run: a gateway with an API server leaves that to it.
    rules: OnceLock<CompiledSchema>,
}

static DEFINITIONS: LazyLock<BTreeMap<String, Definition>> = LazyLock::new(|| {
    let definitions = super::crds().into_iter().filter_map(|mut crd| {
        let schema = crd.pointer_mut("/spec/versions/0/schema/openAPIV3Schema")?.take();
        Some((crd["spec"]["names"]["kind"].as_str()?.to_owned(), Definition { schema, rules: OnceLock::new() }))
    });
    definitions.collect()
});

impl Definition {
    fn rules(&self) -> &CompiledSchema {
        self.rules.get_or_init(|| compile_schema(&self.schema))
    }
}

/// What the API server would say to an object of this kind, in the order of the fields; nothing if it would take it.
/// Kinds that are not ours have no violations here.
///
/// Fields that the schema does not know are violations, as `kubectl` asks of the server by default.
pub fn validate(kind: &str, object: &Value) -> Vec<Violation> {
    let Some(definition) = DEFINITIONS.get(kind) else { return Vec::new() };
    let mut walk = Walk::default();
    let mut object = object.clone();
    walk.metadata(&object);
    walk.value(&definition.schema, &mut object, "");
    // Like the API server: rules see only objects whose structure is right.
    if walk.violations.is_empty() { cel::violations(definition.rules(), &object) } else { walk.violations }
}

/// What is first wrong with the structure of an object's spec: with fields, types and lengths. Rules are not run.
pub fn structure(kind: &str, object: &Value) -> Option<Violation> {
    let mut spec = object.get("spec").cloned().unwrap_or_default();
    let mut walk = Walk::default();
    walk.value(DEFINITIONS.get(kind)?.schema.pointer("/properties/spec")?, &mut spec, "spec");
    walk.violations.into_iter().next()
}

#[derive(Default)]
struct Walk {
    violations: Vec<Violation>,
}

impl Walk {
    fn refuse(&mut self, path: &str, message: String) {
        self.violations.push(Violation { path: path.to_owned(), message });
    }

    /// The definition says nothing of `metadata`; every object needs a name.
    fn metadata(&mut self, object: &Value) {
        match object.pointer("/metadata/name").and_then(Value::as_str) {
            Some(name) if is_dns_subdomain(name) => {}
            Some(name) => self.refuse(
                "metadata.name",
                format!("{name:?} is not a name; it is made of lower-case letters, digits, '-' and '.'"),
            ),
            None => self.refuse("metadata.name", "a name is required".to_owned()),
        }
    }

    /// Checks a value, and fills in the defaults that the rules will read.
    fn value(&mut self, schema: &Value, value: &mut Value, path: &str) {
        if schema["x-kubernetes-int-or-string"] == true {
            if !value.is_string() && !is_integer(value) {
                return self.refuse(path, format!("must be a number or a name, not {}", type_name(value)));
            }
        } else if let Some(expected) = schema["type"].as_str()
            && !has_type(value, expected)
        {
            return self.refuse(path, format!("must be {}, not {}", article(expected), type_name(value)));
        }
        if let Some(allowed) = schema["enum"].as_array()
            && !allowed.contains(value)
        {
            let meant = value.as_str().and_then(|found| nearest(found, allowed.iter().filter_map(Value::as_str)));
            let meant = meant.map(|meant| format!("; did you mean {meant}?")).unwrap_or_default();
            let allowed: Vec<_> = allowed.iter().map(|one| one.to_string().replace('"', "")).collect();
            self.refuse(path, format!("{value} is not one of {}{meant}", allowed.join(", ")));
        }
        match value {
            Value::Object(fields) => self.fields(schema, fields, path),
            Value::Array(items) => self.items(schema, items, path),
            Value::String(text) => self.text(schema, text, path),
            Value::Number(number) => self.number(schema, number, path),
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn fields(&mut self, schema: &Value, fields: &mut Map<String, Value>, path: &str) {
        let none = Map::new();
        let known = match schema["properties"].as_object() {
            Some(known) => known,
            // A choice that needs no words: `tcp: {}`.
            None if path.starts_with("spec.") && schema["additionalProperties"].is_null() => &none,
            None => return,
        };
        let inside = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        for name in fields.keys().filter(|name| !known.contains_key(*name)) {
            if !(path.is_empty() && ["apiVersion", "kind", "metadata"].contains(&name.as_str())) {
                let known: Vec<_> = known.keys().map(String::as_str).collect();
                self.refuse(&inside(name), format!("unknown field; known here are {}", known.join(", ")));
            }
        }
        for (name, schema) in known {
            if fields.get(name).is_none_or(Value::is_null)
                && let Some(default) = schema.get("default")
            {
                fields.insert(name.clone(), default.clone());
            }
        }
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !fields.contains_key(name) {
                self.refuse(&inside(name), "is required".to_owned());
            }
        }
        for (name, value) in fields {
            if let Some(schema) = known.get(name) {
                self.value(schema, value, &inside(name));
            }
        }
    }

    fn items(&mut self, schema: &Value, items: &mut [Value], path: &str) {
        if let Some(least) = schema["minItems"].as_u64().filter(|least| (items.len() as u64) < *least) {
            let items = if least == 1 { "1 item".to_owned() } else { format!("{least} items") };
            self.refuse(path, format!("needs at least {items}, or leave it out"));
        }
        if schema["maxItems"].as_u64().is_some_and(|most| items.len() as u64 > most) {
            self.refuse(path, format!("{} items are more than the {} allowed", items.len(), schema["maxItems"]));
        }
        for (at, item) in items.iter_mut().enumerate() {
            self.value(&schema["items"], item, &format!("{path}[{at}]"));
        }
        let keys = schema["x-kubernetes-list-map-keys"].as_array();
        let identity = |item: &Value| match (schema["x-kubernetes-list-type"].as_str(), keys) {
            (Some("set"), _) => Some(item.to_string()),
            (Some("map"), Some(keys)) => Some(
                keys.iter().filter_map(Value::as_str).map(|key| item[key].to_string()).collect::<Vec<_>>().join(", "),
            ),
            _ => None,
        };
        let mut seen = HashSet::new();
        for (at, item) in items.iter().enumerate() {
            if let Some(identity) = identity(item)
                && !seen.insert(identity.clone())
            {
                self.refuse(&format!("{path}[{at}]"), format!("{identity} is here twice"));
            }
        }
    }

    fn text(&mut self, schema: &Value, text: &str, path: &str) {
        let length = text.chars().count() as u64;
        if schema["minLength"].as_u64().is_some_and(|least| length < least) {
            self.refuse(path, "must not be empty".to_owned());
        }
        if schema["maxLength"].as_u64().is_some_and(|most| length > most) {
            self.refuse(path, format!("{length} characters are more than the {} allowed", schema["maxLength"]));
        }
        if let Some(pattern) = schema["pattern"].as_str()
            && !cel::is_match(pattern, text).unwrap_or(false)
        {
            self.refuse(path, format!("{text:?} does not match {pattern}"));
        }
    }

    fn number(&mut self, schema: &Value, number: &serde_json::Number, path: &str) {
        let value = number.as_f64().unwrap_or(f64::NAN);
        if schema["minimum"].as_f64().is_some_and(|least| value < least) {
            self.refuse(path, format!("{number} is less than {}", schema["minimum"]));
        }
        if schema["maximum"].as_f64().is_some_and(|most| value > most) {
            self.refuse(path, format!("{number} is more than {}", schema["maximum"]));
        }
    }
}

fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.is_u64()
}

fn has_type(value: &Value, expected: &str) -> bool {
    match expected {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => is_integer(value),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        _ => true,
    }
}

fn article(expected: &str) -> &str {
    match expected {
        "object" => "a map",
        "array" => "a list",
        "string" => "a text",
        "integer" => "a whole number",
        "boolean" => "true or false",
        other => other,
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

/// RFC 1123, as Kubernetes asks of names.
fn is_dns_subdomain(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() <= 253
        && name.split('.').all(|label| {
            let bytes = label.as_bytes();
            label.bytes().all(|byte| inner(byte) || byte == b'-')
                && bytes.first().is_some_and(|first| inner(*first))
                && bytes.last().is_some_and(|last| inner(*last))
        })
}

#[cfg(test)]
mod tests;
