//! Runs the CEL rules of a definition on an object: parsing and functions are `kube-cel`'s, walking the object is ours,
//! because theirs compiles a regular expression anew for every value it meets, which took nearly all of the time.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use kube_cel::cel::extractors::This;
use kube_cel::cel::objects::{Key, Map};
use kube_cel::cel::{Context, ExecutionError, Value as Cel};
use kube_cel::{CompiledSchema, KubeCelExt as _};
use regex::Regex;
use serde_json::Value;

use super::Violation;

thread_local! {
    static FUNCTIONS: Context<'static> = {
        let mut functions = Context::default().with_all();
        functions.add_function("matches", matches);
        functions
    };
    /// Patterns come from our own definitions, so that there are few.
    static PATTERNS: RefCell<HashMap<String, Regex>> = RefCell::default();
}

/// Whether a text matches a pattern of a definition.
///
/// # Errors
/// The pattern is not a regular expression.
pub(super) fn is_match(pattern: &str, text: &str) -> Result<bool, regex::Error> {
    PATTERNS.with_borrow_mut(|patterns| {
        if let Some(known) = patterns.get(pattern) {
            return Ok(known.is_match(text));
        }
        let new = Regex::new(pattern)?;
        let matches = new.is_match(text);
        patterns.insert(pattern.to_owned(), new);
        Ok(matches)
    })
}

fn matches(This(text): This<Arc<String>>, pattern: Arc<String>) -> Result<bool, ExecutionError> {
    is_match(&pattern, &text).map_err(|error| ExecutionError::function_error("matches", error))
}

/// What the rules say against an object whose structure is right.
pub(super) fn violations(rules: &CompiledSchema, object: &Value) -> Vec<Violation> {
    FUNCTIONS.with(|functions| {
        let mut found = Vec::new();
        walk(rules, object, "", functions, &mut found);
        found
    })
}

fn walk(rules: &CompiledSchema, value: &Value, path: &str, functions: &Context<'_>, found: &mut Vec<Violation>) {
    if !rules.validations.is_empty() {
        let mut context = functions.new_inner_scope();
        context.add_variable_from_value("self", cel(value));
        for rule in &rules.validations {
            let message = match rule.as_ref().map(|rule| (rule, rule.program.execute(&context))) {
                Ok((_, Ok(Cel::Bool(true)))) => continue,
                Ok((rule, Ok(Cel::Bool(false)))) => rule.rule.message.clone().unwrap_or_else(|| rule.rule.rule.clone()),
                Ok((rule, result)) => format!("the rule {:?} cannot be evaluated: {result:?}", rule.rule.rule),
                Err(error) => error.to_string(),
            };
            found.push(Violation { path: path.to_owned(), message });
        }
    }
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if let Some(rules) = rules.properties.get(name) {
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    walk(rules, value, &path, functions, found);
                }
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                if let Some(rules) = &rules.items {
                    walk(rules, item, &format!("{path}[{at}]"), functions, found);
                }
            }
        }
        _ => {}
    }
}

/// As rules see a value. No field of ours has a name that CEL reserves, nor a format that makes a text something else.
fn cel(value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(value) => Cel::Bool(*value),
        Value::Number(number) => {
            number.as_i64().map_or_else(|| Cel::Float(number.as_f64().unwrap_or(f64::NAN)), Cel::Int)
        }
        Value::String(text) => Cel::String(Arc::new(text.clone())),
        Value::Array(items) => Cel::List(Arc::new(items.iter().map(cel).collect())),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| (Key::String(Arc::new(name.clone())), cel(value)));
            Cel::Map(Map { map: Arc::new(fields.collect()) })
        }
    }
}
