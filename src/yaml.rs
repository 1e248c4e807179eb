//! YAML to values that remember where they stood, so that an error can name line, column and field path. The one place
//! that speaks to the YAML crate for reading; what the values mean is for others to say.

mod marks;

use std::fmt;

use serde::de::DeserializeOwned;
use serde_json::Value;

use marks::{Marked, Marks};

/// A line and a column, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line.
    pub line: u64,
    /// Column, in characters.
    pub column: u64,
}

/// What is wrong with a text, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where, if it has a place.
    pub place: Option<Place>,
    /// Which document, from 1; `None` if it is about the whole text.
    pub document: Option<usize>,
    /// The field, like `spec.rules[0].matches`; empty if it is about the whole document.
    pub path: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// One document of a text. Fields that are null are left out, as the API server does.
#[derive(Clone)]
pub struct Document {
    /// Position in the text, from 1; documents that are empty do not count.
    pub number: usize,
    /// What it says.
    pub value: Value,
    marks: Marks,
}

/// Alias events that one text may cause: far more than people write, far less than a bomb needs.
const ALIAS_EVENTS: usize = 100_000;
/// Levels of nesting; the deepest object of ours has about ten. Reading recurses, and must fit in the stack of a thread.
const DEPTH: usize = 32;
/// Nodes of one document, aliases included. The files themselves are bounded in size.
const NODES: usize = 4_000_000;

/// Reads all documents of a text. A document with a wrong value does not hide those after it; a syntax error does.
pub fn documents(text: &[u8]) -> Vec<Result<Document, Problem>> {
    let text = match std::str::from_utf8(text) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(error) => {
            let good = String::from_utf8_lossy(&text[..error.valid_up_to()]);
            let line = 1 + good.matches('\n').count() as u64;
            let column = 1 + good.rsplit('\n').next().map_or(0, |rest| rest.chars().count()) as u64;
            let message = "not UTF-8 text; save the file as UTF-8".to_owned();
            let place = Some(Place { line, column });
            return vec![Err(Problem { place, document: None, path: String::new(), message })];
        }
    };
    let options = serde_yaml::options! {
        with_snippet: false,
        emit_comments: false,
        alias_limits: serde_yaml::alias_limits! { max_total_replayed_events: ALIAS_EVENTS },
        budget: serde_yaml::budget! { max_depth: DEPTH, max_nodes: NODES, max_events: 3 * NODES, max_documents: NODES },
    };
    let mut bytes = text.as_bytes();
    serde_yaml::read_with_options::<_, Marked>(&mut bytes, options)
        .enumerate()
        .map(|(index, read)| match read {
            Ok(Marked { value, marks }) => Ok(Document { number: index + 1, value, marks }),
            Err(error) => Err(Problem {
                place: error.location().map(Place::from),
                document: Some(index + 1),
                path: String::new(),
                message: message(&error),
            }),
        })
        .collect()
}

impl Document {
    /// The document as a value of some type.
    ///
    /// # Errors
    /// What does not fit, with its path and place.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        self.read_part(&self.value, "")
    }

    /// A part of the document, which stands at the path `at`, as a value of some type.
    ///
    /// # Errors
    /// What does not fit, with its path in the document and its place.
    pub fn read_part<T: DeserializeOwned>(&self, part: &Value, at: &str) -> Result<T, Problem> {
        serde_path_to_error::deserialize(part).map_err(|error| {
            let path = error.path().to_string();
            let path = join(at, if path == "." { "" } else { &path });
            self.problem(path, with_suggestion(error.inner().to_string()))
        })
    }

    /// A problem with the field at `path`, placed where that field stands, or the nearest field around it.
    pub fn problem(&self, path: impl Into<String>, message: impl Into<String>) -> Problem {
        let (path, message) = (path.into(), message.into());
        // A name that nobody knows is wrong where the name stands, not where its value does.
        let place = Some(self.marks.place(&path, message.starts_with("unknown field")));
        Problem { place, document: Some(self.number), path, message }
    }
}

impl fmt::Debug for Document {
    /// Not what it says, which may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document").field("number", &self.number).finish_non_exhaustive()
    }
}

impl fmt::Display for Problem {
    /// `3:5: document 2: spec.rules: what is wrong`, to be put after the name of the file and a colon.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Place { line, column }) = self.place {
            write!(f, "{line}:{column}: ")?;
        } else {
            f.write_str(" ")?;
        }
        if let Some(document) = self.document.filter(|number| *number > 1) {
            write!(f, "document {document}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

impl From<serde_yaml::Location> for Place {
    fn from(location: serde_yaml::Location) -> Self {
        Place { line: location.line(), column: location.column() }
    }
}

/// The sentence of an error without its place, which is told apart.
fn message(error: &serde_yaml::Error) -> String {
    let text = error.without_snippet().render_with_formatter(&serde_yaml::UserMessageFormatter);
    let end = text.find(" at line ").or_else(|| text.find(" (line ")).unwrap_or(text.len());
    text[..end].trim_end_matches([':', ',']).trim_start_matches("error: ").to_owned()
}

/// The path of a field at `path` within the field at `at`.
pub fn join(at: &str, path: &str) -> String {
    let dot = if at.is_empty() || path.is_empty() || path.starts_with('[') { "" } else { "." };
    format!("{at}{dot}{path}")
}

/// serde lists what it would have taken; when one of these is close to what it found, that is what was meant.
fn with_suggestion(mut message: String) -> String {
    if !message.starts_with("unknown ") || !message.contains("expected one of") {
        return message;
    }
    let mut quoted = message.split('`').skip(1).step_by(2);
    let found = quoted.next().unwrap_or_default();
    let likeness = |name: &&str| (strsim::jaro_winkler(found, name) * 1000.0) as u32;
    if let Some(meant) = quoted.filter(|name| likeness(name) >= 850).max_by_key(likeness) {
        message = format!("{message}; did you mean `{meant}`?");
    }
    message
}

#[cfg(test)]
#[path = "yaml/tests.rs"]
mod tests;
