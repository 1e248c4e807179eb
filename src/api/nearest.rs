//! What somebody may have meant who wrote a word that is none of a closed set.

/// How like two words have to be, of 1.
const LIKENESS: f64 = 0.85;

/// The known word that is most like the one that was found, if any is like it.
pub fn nearest<'a>(found: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let alike = known.into_iter().map(|word| (strsim::jaro_winkler(found, word), word));
    let best = alike.filter(|(likeness, _)| *likeness >= LIKENESS).max_by(|one, other| one.0.total_cmp(&other.0));
    best.map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_that_was_meant_is_found_or_none() {
        let known = ["no_endpoint", "no_backend", "no_route"];
        for (found, meant) in [
            ("no_endpont", Some("no_endpoint")),
            ("no-route", Some("no_route")),
            ("NoBackend", None),
            ("teapot", None),
            ("", None),
        ] {
            assert_eq!(nearest(found, known), meant, "{found}");
        }
    }
}
