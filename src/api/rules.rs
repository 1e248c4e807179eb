//! The CEL rules that several fields share, and how rules are put into a schema. A rule that only one field has stands at
//! that field.
//!
//! Rules are used instead of `pattern`, because a rule has a sentence and a pattern has not. Every text and list they
//! read is bounded: the API server refuses definitions whose rules could cost too much.

use serde_json::{Value, json};

/// Rules for `x-kubernetes-validations`: each an expression and the sentence for those who break it.
pub(super) fn rules<const N: usize>(rules: [(&str, &str); N]) -> Value {
    rules.iter().map(|(rule, message)| json!({"rule": rule, "message": message})).collect()
}

/// The `items` of a list of texts.
pub(super) fn texts(max_length: u32, rules: Value) -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": max_length, "x-kubernetes-validations": rules})
}

/// A duration above zero, in the notation of `snapshot::duration`.
pub(super) fn duration() -> Value {
    rules([(
        "self.matches('^([0-9]{1,5}h)?([0-9]{1,5}m)?([0-9]{1,5}s)?([0-9]{1,5}ms)?$') && duration(self) > duration('0s')",
        "write a duration above zero like '30s', '1m30s' or '500ms'; leave the field out for the default",
    )])
}

/// A duration in the same notation with a least and a most value.
pub(super) fn duration_within((least, most): (&str, &str)) -> Value {
    rules([(
        &format!(
            "self.matches('^([0-9]{{1,5}}h)?([0-9]{{1,5}}m)?([0-9]{{1,5}}s)?([0-9]{{1,5}}ms)?$') && \
             duration(self) >= duration('{least}') && duration(self) <= duration('{most}')"
        ),
        &format!("write a duration from {least} to {most}, like '30s' or '1m30s'; leave the field out for the default"),
    )])
}

/// A host name, without wildcard.
pub(super) fn host() -> Value {
    rules([(
        "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",
        "write a host in lower case and without a port, for example 'chat.example.com'",
    )])
}

/// A host name, or `*.` and a host name.
pub(super) fn host_pattern() -> Value {
    rules([(
        "self.matches('^([*][.])?[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",
        "write a host in lower case and without a port, for example 'chat.example.com' or '*.example.com'",
    )])
}

/// The name of an object.
pub(super) fn object_name() -> Value {
    rules([(
        "self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",
        "write the name of an object: lower-case letters, digits, '-' and '.'",
    )])
}

/// The name of a header field that may be matched (RFC 9110 5.6.2, token).
pub(super) fn header_name() -> Value {
    rules([HEADER_NAME])
}

const HEADER_NAME: (&str, &str) = (
    r#"self.matches("^[-!#$%&'*+.^_`|~0-9A-Za-z]+$")"#,
    "write the name of a header, for example 'x-tenant': letters, digits and '-', without a colon",
);

/// Header fields that frame a message or belong to one connection (RFC 9110 7.6.1), which the proxy writes itself, in
/// lower case. Routes cannot edit them.
pub const UNEDITABLE_HEADERS: [&str; 10] = [
    "connection",
    "content-length",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The name of a header field that may be edited.
pub(super) fn editable_header_name() -> Value {
    let names = UNEDITABLE_HEADERS.map(|name| format!("'{name}'")).join(", ");
    rules([
        HEADER_NAME,
        (
            &format!("!(self.lowerAscii() in [{names}])"),
            "this header belongs to the connection or frames the message and cannot be edited; for Host use rewrite.host",
        ),
    ])
}

/// A path that can be compared with the normal form of a request's path.
pub(super) const PLAIN_PATH: &str = "self.value.startsWith('/') && !self.value.contains('//') && !self.value.contains('?') && \
     !self.value.contains('#') && !self.value.matches('/[.][.]?(/|$)') && \
     self.value.matches('^([!-~]|[^ -~[:cntrl:]])*$')";
