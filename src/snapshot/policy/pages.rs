//! Pages for failures, and the places in them that are filled in.

use serde::{Serialize, Serializer};

/// The pages for some failures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ErrorPage {
    /// Statuses that it is for, as ranges with both ends.
    pub statuses: Vec<(u16, u16)>,
    /// Reasons that it is for; all if there are none.
    pub reasons: Box<[Box<str>]>,
    /// Whether it is for answers of endpoints, too.
    pub endpoint_answers: bool,
    /// In HTML.
    pub html: Option<Page>,
    /// In JSON.
    pub json: Option<Page>,
    /// In plain text.
    pub plain: Option<Page>,
}

impl ErrorPage {
    /// Whether it is for a failure that Floodway tells of.
    pub fn is_for(&self, status: u16, reason: &str) -> bool {
        self.has(status) && (self.reasons.is_empty() || self.reasons.iter().any(|one| **one == *reason))
    }

    /// Whether it is for an answer of an endpoint.
    pub fn is_for_endpoints(&self, status: u16) -> bool {
        self.endpoint_answers && self.has(status)
    }

    fn has(&self, status: u16) -> bool {
        self.statuses.iter().any(|(first, last)| (*first..=*last).contains(&status))
    }
}

/// A page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// What is written, and what comes behind it.
    pieces: Box<[(Box<str>, Option<Place>)]>,
}

/// What is filled in. None of it has anything that means something to HTML or JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Status,
    Reason,
    RequestId,
}

const PLACES: [(&str, Place); 3] =
    [("{{status}}", Place::Status), ("{{reason}}", Place::Reason), ("{{requestId}}", Place::RequestId)];

impl Page {
    /// A page with `{{status}}`, `{{reason}}` and `{{requestId}}` in it. Other braces stay.
    pub fn new(text: &str) -> Self {
        let (mut pieces, mut rest) = (Vec::new(), text);
        while let Some((at, mark, place)) =
            PLACES.iter().filter_map(|(mark, place)| Some((rest.find(mark)?, mark, *place))).min_by_key(|found| found.0)
        {
            pieces.push((rest[..at].into(), Some(place)));
            rest = &rest[at + mark.len()..];
        }
        pieces.push((rest.into(), None));
        Page { pieces: pieces.into() }
    }

    /// The page for one failure. The reason is one of our own words; of the id every byte that could mean something where it is
    /// put is left out.
    pub fn filled(&self, status: u16, reason: &str, request_id: &str) -> String {
        let mut text = String::with_capacity(self.len() + 3 + reason.len() + request_id.len());
        for (before, place) in &self.pieces {
            text.push_str(before);
            match place {
                None => {}
                Some(Place::Status) => text.push_str(&status.to_string()),
                Some(Place::Reason) => text.push_str(reason),
                Some(Place::RequestId) => {
                    let harmless = |letter: &char| letter.is_ascii_alphanumeric() || "-_.:/+=".contains(*letter);
                    text.extend(request_id.chars().filter(harmless));
                }
            }
        }
        text
    }

    fn len(&self) -> usize {
        self.pieces.iter().map(|(before, _)| before.len()).sum()
    }
}

/// Of what ConfigMaps hold nothing is shown.
impl Serialize for Page {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{} bytes", self.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled_in_and_nothing_else_changes() {
        for (text, filled) in [
            ("", ""),
            ("a", "a"),
            ("{{status}}", "404"),
            ("<{{reason}}|{{status}}{{status}}> {{requestId}}.", "<no_route|404404> id-1scriptb."),
            ("{\"a\":{\"b\":\"{{reason}}\"}}", "{\"a\":{\"b\":\"no_route\"}}"),
            ("{{other}} {{ status }} {{{status}}}", "{{other}} {{ status }} {404}"),
            ("{{status", "{{status"),
        ] {
            assert_eq!(Page::new(text).filled(404, "no_route", "id-1<script>\"b"), filled, "{text}");
        }
    }

    #[test]
    fn pages_are_for_statuses_and_reasons() {
        let page = |statuses: &[(u16, u16)], reasons: &[&str]| ErrorPage {
            statuses: statuses.to_vec(),
            reasons: reasons.iter().map(|reason| (*reason).into()).collect(),
            endpoint_answers: false,
            html: None,
            json: None,
            plain: None,
        };
        assert!(page(&[(500, 599)], &[]).is_for(503, "a") && !page(&[(500, 599)], &[]).is_for(404, "a"));
        assert!(page(&[(404, 404), (500, 599)], &["a", "b"]).is_for(404, "b"));
        assert!(!page(&[(500, 599)], &["a"]).is_for(503, "b"));
        let all = ErrorPage { endpoint_answers: true, ..page(&[(500, 599)], &[]) };
        assert!(all.is_for_endpoints(500) && !all.is_for_endpoints(404));
        assert!(!page(&[(500, 599)], &[]).is_for_endpoints(500));
    }
}
