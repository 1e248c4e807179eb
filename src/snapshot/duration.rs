//! Durations as people write them: `30s`, `1m30s`, `500ms`. The notation of the Gateway API (GEP-2257): up to four
//! parts of at most five digits with the units h, m, s and ms, the larger before the smaller.

use std::time::Duration;

/// Why a text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a duration; write for example \"30s\", \"1m30s\" or \"500ms\"")]
pub struct InvalidDuration(pub String);

const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads the notation.
///
/// # Errors
/// [`InvalidDuration`] for anything else, an empty text included.
pub fn parse(text: &str) -> Result<Duration, InvalidDuration> {
    let invalid = || InvalidDuration(text.to_owned());
    let mut rest = text;
    let mut millis = 0;
    let mut units = UNITS.iter();
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 || digits > 5 {
            return Err(invalid());
        }
        let count: u64 = rest[..digits].parse().map_err(|_| invalid())?;
        let letters = rest[digits..].bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit = &rest[digits..digits + letters];
        let (_, factor) = units.find(|(name, _)| *name == unit).ok_or_else(invalid)?;
        millis += count * factor;
        rest = &rest[digits + letters..];
    }
    if text.is_empty() { Err(invalid()) } else { Ok(Duration::from_millis(millis)) }
}

/// Writes the shortest notation; what is finer than a millisecond is lost.
pub fn format(duration: Duration) -> String {
    let mut rest = duration.as_millis();
    let mut text = String::new();
    for (name, factor) in UNITS {
        let count = rest / u128::from(factor);
        if count > 0 {
            text.push_str(&format!("{count}{name}"));
            rest %= u128::from(factor);
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_the_notation() {
        for (text, millis) in [("0s", 0), ("30s", 30_000), ("1m30s", 90_000), ("500ms", 500), ("2h1ms", 7_200_001)] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
            assert_eq!(format(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn refuses_everything_else() {
        for text in ["", "5", "s", "1d", "1s1m", "1.5s", "-1s", " 1s", "123456s", "1s1s"] {
            assert_eq!(parse(text), Err(InvalidDuration(text.to_owned())), "{text}");
        }
    }
}
