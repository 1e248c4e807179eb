//! Questions to the API server whose answers are read as JSON: of each, only a field or two are needed, so that a type with all of
//! them would only make the program larger. Lists are bounded.

use anyhow::Context as _;
use http::Request;
use kube::Client;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::source::kube::explain_answer;

/// Objects of a page, and of a list of which there are few.
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

/// The objects of a list that labels choose, the first of them if there are very many.
pub(super) async fn list(client: &Client, path: &str, selector: &str) -> Result<Vec<Value>, NoAnswer> {
    let mut all = Vec::new();
    pages(client, path, selector, Of::Objects, MOST, |object| all.push(object)).await?;
    Ok(all)
}

/// What is read of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    Objects,
    /// Their names, labels and annotations.
    Metadata,
}

/// Hands on each object of a list that labels choose, page by page; false if there are more than `most`.
pub(super) async fn pages(
    client: &Client,
    path: &str,
    selector: &str,
    of: Of,
    most: usize,
    mut take: impl FnMut(Value),
) -> Result<bool, NoAnswer> {
    const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    let encoded = |text: &str| utf8_percent_encode(text, QUERY).to_string();
    let accept = match of {
        Of::Objects => "application/json",
        Of::Metadata => "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
    };
    let (mut next, mut seen) = (String::new(), 0);
    loop {
        let limit = MOST.min(most - seen);
        let uri = format!("{path}?limit={limit}&labelSelector={}&continue={}", encoded(selector), encoded(&next));
        let request = Request::get(uri).header(http::header::ACCEPT, accept);
        let mut page = ask(client, request.body(Vec::new()).context("a path of the API server")).await?;
        let items = page.get_mut("items").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
        seen += items.len();
        items.into_iter().for_each(&mut take);
        next = page.pointer("/metadata/continue").and_then(Value::as_str).unwrap_or_default().to_owned();
        if next.is_empty() || seen >= most {
            return Ok(next.is_empty());
        }
    }
}
