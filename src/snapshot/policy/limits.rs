//! How large requests may be, and of which kinds.

use http::{HeaderValue, Method};
use serde::{Serialize, Serializer};

/// How large requests may be, and of which kinds. What is `None` is not limited here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RequestLimits {
    /// The most bytes of content, in place of what the settings say.
    pub body_bytes: Option<u64>,
    /// The most bytes of header fields.
    pub header_bytes: Option<usize>,
    /// Methods that may be used.
    pub methods: Option<Methods>,
    /// What content there may be.
    pub content_types: Option<MediaTypes>,
}

/// A set of methods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Methods {
    methods: Box<[Method]>,
    allow: HeaderValue,
}

impl Methods {
    /// These, and HEAD if GET is among them: who may ask for something may ask for its head.
    pub fn new(methods: impl IntoIterator<Item = Method>) -> Self {
        let mut methods: Vec<Method> = methods.into_iter().collect();
        if methods.contains(&Method::GET) && !methods.contains(&Method::HEAD) {
            methods.push(Method::HEAD);
        }
        let allow = listed(methods.iter().map(Method::as_str));
        Methods { methods: methods.into(), allow }
    }

    /// Whether a method is among them.
    pub fn contain(&self, method: &Method) -> bool {
        self.methods.contains(method)
    }

    /// All of them, as Allow has them.
    pub fn as_value(&self) -> &HeaderValue {
        &self.allow
    }
}

impl Serialize for Methods {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.methods.iter().map(Method::as_str))
    }
}

/// A set of media types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaTypes {
    /// In lower case; `image/` stands for all of a kind.
    types: Box<[Box<str>]>,
    accept: HeaderValue,
}

impl MediaTypes {
    /// Types as `application/json`, or `image/*`.
    pub fn new<'a>(types: impl IntoIterator<Item = &'a str>) -> Self {
        let types: Vec<String> = types.into_iter().map(str::to_ascii_lowercase).collect();
        let accept = listed(types.iter().map(String::as_str));
        let types = types.iter().map(|text| text.strip_suffix('*').unwrap_or(text).into()).collect();
        MediaTypes { types, accept }
    }

    /// Whether content is of one of them, by the value of Content-Type, whose parameters do not count.
    pub fn contain(&self, content_type: &[u8]) -> bool {
        let end = content_type.iter().position(|&byte| byte == b';').unwrap_or(content_type.len());
        let given = content_type[..end].trim_ascii();
        self.types.iter().any(|one| match one.ends_with('/') {
            // A type, and not just the kind of one.
            true => given.len() > one.len() && given[..one.len()].eq_ignore_ascii_case(one.as_bytes()),
            false => given.eq_ignore_ascii_case(one.as_bytes()),
        })
    }

    /// All of them, as Accept has them.
    pub fn as_value(&self) -> &HeaderValue {
        &self.accept
    }
}

impl Serialize for MediaTypes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&String::from_utf8_lossy(self.accept.as_bytes()))
    }
}

/// Words as the members of a field. They were checked before; what is no value of a field is left out.
fn listed<'a>(words: impl Iterator<Item = &'a str>) -> HeaderValue {
    HeaderValue::try_from(words.collect::<Vec<_>>().join(", ")).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_and_case_of_a_content_type_do_not_count() {
        let types = MediaTypes::new(["application/JSON", "image/*"]);
        for (given, fits) in [
            ("application/json", true),
            ("Application/Json ; charset=utf-8", true),
            ("image/png", true),
            ("IMAGE/svg+xml;a=b", true),
            ("image/", false),
            ("image", false),
            ("application/jsonp", false),
            ("application/json, text/html", false),
            ("text/html;application/json", false),
            ("", false),
        ] {
            assert_eq!(types.contain(given.as_bytes()), fits, "{given}");
        }
        assert_eq!(types.as_value(), "application/json, image/*");
    }

    #[test]
    fn whoever_may_get_may_ask_for_the_head() {
        let methods = Methods::new([Method::GET, Method::POST]);
        assert_eq!(methods.as_value(), "GET, POST, HEAD");
        assert!(methods.contain(&Method::HEAD) && !methods.contain(&Method::PUT));
        assert!(!Methods::new([Method::POST]).contain(&Method::HEAD));
    }
}
