//! Pages for failures, of ConfigMaps. Where one is missing Floodway's own is shown: that opens nothing, so the policy holds.

use std::sync::Arc;

use super::Material;
use crate::api::{self, ANSWER_REASONS};
use crate::snapshot::{ErrorPage, Page};
use crate::translate::ConfigMapData;
use crate::translate::conditions::Problem;
use crate::translate::resilience::status_range;

/// The most bytes of a page.
const MAX_BYTES: usize = 64 * 1024;

/// The pages in the order in which they are looked at.
pub(super) fn error_pages(
    given: &[api::ErrorPage],
    path: &str,
    material: &mut Material<'_>,
    problems: &mut Vec<Problem>,
) -> Arc<[ErrorPage]> {
    let pages = given.iter().enumerate().map(|(at, given)| {
        let api::ErrorPage { statuses, reasons, endpoint_answers, config_map_name, html, json, plain } = given;
        let path = format!("{path}[{at}]");
        let ranges = statuses.iter().enumerate().filter_map(|(at, text)| {
            let range = status_range(text);
            if range.is_none() {
                let path = format!("{path}.statuses[{at}]");
                problems.push(Problem::invalid(path, "write a status or a class of them, for example '404' or '5xx'"));
            }
            range
        });
        let statuses = ranges.collect();
        for (at, reason) in reasons.iter().enumerate().filter(|(_, reason)| !ANSWER_REASONS.contains(&reason.as_str()))
        {
            let meant = api::nearest(reason, ANSWER_REASONS).map(|meant| format!("did you mean {meant}? "));
            let meant = meant.unwrap_or_default();
            let why = format!("no answer has the reason {reason:?}; {meant}All of them are in docs/errors.md");
            problems.push(Problem::invalid(format!("{path}.reasons[{at}]"), why));
        }
        let map = material.pages(config_map_name, &format!("{path}.configMapName")).map(|map| &**map);
        let mut page = |entry: &Option<String>, field: &str| {
            let (map, entry) = (map?, entry.as_ref()?);
            let read = read(map, entry);
            read.map_err(|why| {
                material.lacks(format!("{path}.{field}"), format!("{entry} of ConfigMap {config_map_name} {why}"))
            })
            .ok()
        };
        let (html, json, plain) = (page(html, "html"), page(json, "json"), page(plain, "plain"));
        ErrorPage {
            statuses,
            reasons: reasons.iter().map(|reason| reason.as_str().into()).collect(),
            endpoint_answers: *endpoint_answers,
            html,
            json,
            plain,
        }
    });
    pages.collect::<Vec<_>>().into()
}

fn read(map: &ConfigMapData, entry: &str) -> Result<Page, &'static str> {
    let bytes = map.entry(entry).ok_or("is not there")?;
    if bytes.expose().len() > MAX_BYTES {
        return Err("is longer than 64 KiB");
    }
    bytes.expose_text().map(Page::new).map_err(|_| "is not text in UTF-8")
}
