//! Fields that neither side may send, and those that every answer has.

use http::{HeaderName, HeaderValue};
use serde::{Serialize, Serializer};

/// What becomes of the fields of requests and answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Headers {
    /// Not from backends.
    pub hide: Names,
    /// Not from clients.
    pub request_remove: Names,
    /// Nor any with an underscore.
    pub request_remove_underscored: bool,
    /// What answers have.
    #[serde(serialize_with = "fields")]
    pub give: Box<[(HeaderName, HeaderValue)]>,
    /// Whether that replaces what they have under these names.
    pub replace: bool,
}

impl Headers {
    /// Whether answers are touched at all.
    pub fn touches_answers(&self) -> bool {
        !self.hide.is_empty() || !self.give.is_empty()
    }
}

/// A set of names of fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Names {
    /// These names.
    whole: Box<[Box<str>]>,
    /// All that begin like one of these.
    starts: Box<[Box<str>]>,
}

impl Names {
    /// The names of these texts in any case: `x-user`, or `x-internal-*`.
    pub fn new<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let (mut whole, mut starts) = (Vec::new(), Vec::new());
        for text in texts {
            let name = text.to_ascii_lowercase().replace('_', "-");
            match name.strip_suffix('*') {
                Some(start) => starts.push(start.into()),
                None => whole.push(name.into()),
            }
        }
        Names { whole: whole.into(), starts: starts.into() }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.whole.is_empty() && self.starts.is_empty()
    }

    /// Whether a name in lower case is among them. CGI and its heirs read `-` and `_` as one, and so does this.
    pub fn contain(&self, name: &[u8]) -> bool {
        let begins = |start: &str| {
            name.len() >= start.len()
                && start.bytes().zip(name).all(|(one, other)| one == *other || one == b'-' && *other == b'_')
        };
        self.whole.iter().any(|whole| whole.len() == name.len() && begins(whole))
            || self.starts.iter().any(|start| begins(start))
    }
}

fn fields<S: Serializer>(fields: &[(HeaderName, HeaderValue)], serializer: S) -> Result<S::Ok, S::Error> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    serializer.collect_map(fields.iter().map(|(name, value)| (name.as_str(), text(value))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_whole_or_by_their_beginning_with_either_line() {
        let names = Names::new(["X-User", "x-internal-*", "a_b"]);
        for (name, contained) in [
            ("x-user", true),
            ("x_user", true),
            ("x-user-id", false),
            ("x-use", false),
            ("x-internal-a", true),
            ("x_internal_a", true),
            ("x-internal", false),
            ("a-b", true),
            ("", false),
        ] {
            assert_eq!(names.contain(name.as_bytes()), contained, "{name}");
        }
        assert!(Names::default().is_empty() && !Names::default().contain(b""));
    }
}
