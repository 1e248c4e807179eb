//! Which codings a client takes (RFC 9110 12.5.3).

/// A weight in thousandths.
type Weight = u16;

/// Whether a client takes content coded with gzip, and likes it no less than content as it is. Without the field "any content coding is
/// considered acceptable"; but then it is a program that never thought of it, and it gets content as it is.
pub(super) fn takes_gzip<'a>(lines: impl Iterator<Item = &'a [u8]>) -> bool {
    let (mut gzip, mut identity, mut any) = (None, None, None);
    for member in lines.flat_map(|line| line.split(|&byte| byte == b',')) {
        let mut parts = member.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let coding = parts.next().unwrap_or_default();
        // What cannot be read says nothing.
        let Some(weight) = weight(parts) else { continue };
        // RFC 9110 8.4.1.3: "A recipient SHOULD consider "x-gzip" to be equivalent to "gzip"".
        let known = match coding {
            b"*" => &mut any,
            _ if coding.eq_ignore_ascii_case(b"gzip") || coding.eq_ignore_ascii_case(b"x-gzip") => &mut gzip,
            _ if coding.eq_ignore_ascii_case(b"identity") => &mut identity,
            _ => continue,
        };
        known.get_or_insert(weight);
    }
    // "The asterisk "*" symbol in an Accept-Encoding field matches any available content coding not explicitly listed in the field".
    let weight = gzip.or(any).unwrap_or(0);
    weight > 0 && weight >= identity.unwrap_or(0)
}

/// `weight = OWS ";" OWS "q=" qvalue` (12.4.2), 1 if there is none; `None` if it is not written like that.
fn weight<'a>(mut parts: impl Iterator<Item = &'a [u8]>) -> Option<Weight> {
    let Some(part) = parts.next() else { return Some(1000) };
    if parts.next().is_some() {
        return None;
    }
    let [b'q' | b'Q', b'=', whole @ (b'0' | b'1'), rest @ ..] = part else { return None };
    let digits = match rest {
        [] => rest,
        [b'.', digits @ ..] if digits.len() <= 3 && digits.iter().all(u8::is_ascii_digit) => digits,
        _ => return None,
    };
    let thousandths = digits
        .iter()
        .zip([100, 10, 1])
        .fold(Weight::from(whole - b'0') * 1000, |sum, (digit, place)| sum + Weight::from(digit - b'0') * place);
    (thousandths <= 1000).then_some(thousandths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_read_as_the_rfc_has_them() {
        for (lines, expected) in [
            (&[][..], false),
            (&[""], false),
            (&["gzip"], true),
            (&["GZip"], true),
            (&["x-gzip"], true),
            (&["deflate, gzip;q=1.0, *;q=0.5"], true),
            (&["br", "zstd, gzip"], true),
            (&["compress, gzip"], true),
            (&["*"], true),
            (&["*;q=0.001"], true),
            (&["*;q=0"], false),
            (&["gzip;q=0"], false),
            (&["gzip;q=0.000"], false),
            (&["gzip;q=0, *"], false),
            (&["*, gzip;q=0"], false),
            (&["*;q=0, gzip"], true),
            (&["gzip ; q=0.5"], true),
            (&["gzip;\tQ=0.5"], true),
            (&["br;q=1.0, deflate"], false),
            (&["identity"], false),
            (&["identity;q=1, gzip;q=0.5"], false),
            (&["identity;q=0.5, gzip;q=0.5"], true),
            (&["identity;q=0, gzip;q=0.1"], true),
            (&["identity;q=0"], false),
            // What is not written as the RFC has it says nothing.
            (&["gzip;q=2"], false),
            (&["gzip;q=1.001"], false),
            (&["gzip;q=0.1234"], false),
            (&["gzip;q=-1"], false),
            (&["gzip;q="], false),
            (&["gzip;q"], false),
            (&["gzip;level=5"], false),
            (&["gzip;q=1;q=0"], false),
            (&["gzip;q=x, *"], true),
            (&["gzipped, gzi, g zip"], false),
            (&["gzip;q=1."], true),
            (&["gzip, gzip;q=0"], true),
        ] {
            assert_eq!(takes_gzip(lines.iter().map(|line| line.as_bytes())), expected, "{lines:?}");
        }
    }
}
