//! Whose tokens may pass, where they are, and what they have to say. How a token is read and verified is `proxy::policy`'s.

use std::time::Duration;

use http::HeaderName;
use serde::{Serialize, Serializer};

use super::{IssuerKeys, TokenPlace};

/// What a request has to show that it comes from somebody who is signed in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Jwt {
    /// Whose tokens may pass.
    pub issuers: Box<[Issuer]>,
    /// Where a token can be; the first place that has one counts.
    pub from: Box<[TokenPlace]>,
    /// By how much clocks may differ.
    #[serde(serialize_with = "seconds")]
    pub skew: Duration,
    /// What the claims have to say, all of it.
    pub required: Box<[ClaimRule]>,
    /// Claims that the endpoint is told.
    pub headers: Box<[ClaimHeader]>,
    /// Whether the endpoint gets the token, too.
    pub forward: bool,
    /// With which status WebSockets are closed whose token expires; `None` if streams go on then.
    pub close_code: Option<u16>,
    /// What clients are told that they need a token for: text without quotes and backslashes.
    pub realm: Box<str>,
}

/// Somebody who signs tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Issuer {
    /// What the tokens have as `iss`.
    pub issuer: Box<str>,
    /// Whom they have to be for; nobody if empty.
    pub audiences: Box<[Box<str>]>,
    /// By which they are verified.
    pub keys: IssuerKeys,
}

/// What a claim has to say: it is one of these, or a list with one of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClaimRule {
    /// Its name, or the names of the claims around it and its own, with dots between.
    pub claim: Box<str>,
    /// Texts; numbers and booleans as JSON writes them.
    pub values: Box<[Box<str>]>,
}

/// A claim that the endpoint is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClaimHeader {
    /// Its name, or the names of the claims around it and its own, with dots between.
    pub claim: Box<str>,
    /// The field that has it.
    #[serde(serialize_with = "name")]
    pub header: HeaderName,
}

fn name<S: Serializer>(name: &HeaderName, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(name.as_str())
}

fn seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&super::super::duration::format(*time))
}
