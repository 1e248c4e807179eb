//! Questions to the API server whose answers are read as JSON: of each, only a field or two are needed, so that a type with all of
//! them would only make the program larger. Lists are bounded.

use anyhow::Context as _;
use http::Request;
use kube::Client;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::Value;

use crate::source::kube::explain_answer;

/// Objects of a list that are read.
const MOST: usize = 500;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// There is no such object, or no such resource.
    Absent,
    /// Whoever asks may not.
    Refused(String),
    /// Anything else.
    Failed(String),
}

impl NoAnswer {
    /// A sentence.
    pub(super) fn why(&self) -> &str {
        match self {
            NoAnswer::Absent => "it does not exist",
            NoAnswer::Refused(why) | NoAnswer::Failed(why) => why,
        }
    }
}

impl From<kube::Error> for NoAnswer {
    fn from(error: kube::Error) -> Self {
        let code = match &error {
            kube::Error::Api(status) => status.code,
            _ => 0,
        };
        match code {
            404 => NoAnswer::Absent,
            401 | 403 => NoAnswer::Refused(explain_answer(&error)),
            _ => NoAnswer::Failed(explain_answer(&error)),
        }
    }
}

/// What is at a path.
pub(super) async fn get(client: &Client, path: &str) -> Result<Value, NoAnswer> {
    ask(client, Request::get(path).body(Vec::new()).context("a path of the API server")).await
}

/// What the API server makes of an object.
pub(super) async fn post(client: &Client, path: &str, object: &Value) -> Result<Value, NoAnswer> {
    let request = Request::post(path).header(http::header::CONTENT_TYPE, "application/json");
    ask(client, request.body(object.to_string().into_bytes()).context("a path of the API server")).await
}

async fn ask(client: &Client, request: anyhow::Result<Request<Vec<u8>>>) -> Result<Value, NoAnswer> {
    let request = request.map_err(|error| NoAnswer::Failed(format!("{error:#}")))?;
    Ok(client.request(request).await?)
}

/// The objects of a list that have a label, the first of them if there are very many.
pub(super) async fn list(client: &Client, path: &str, label: &str) -> Result<Vec<Value>, NoAnswer> {
    const QUERY: &AsciiSet = &CONTROLS.add(b' ').add(b'=').add(b'&').add(b'/').add(b'+').add(b'#').add(b'%');
    let label = utf8_percent_encode(label, QUERY);
    let mut answer = get(client, &format!("{path}?limit={MOST}&labelSelector={label}")).await?;
    Ok(answer.get_mut("items").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default())
}
