//! Names of subjects and issuers as one text that stands for nothing else: the form of RFC 4514, in ASCII.

use std::fmt::Write as _;

use super::{Der, tag};

/// The kinds of text that are written as such; others as the hexadecimal digits of their DER.
const TEXTS: [u8; 4] = [0x0c, 0x12, 0x13, 0x16];
/// RFC 4514 3, and what is common beside it, by the words that OpenSSL has for them.
const WORDS: [(&[u8], &str); 11] = [
    (&[0x55, 4, 3], "CN"),
    (&[0x55, 4, 5], "serialNumber"),
    (&[0x55, 4, 6], "C"),
    (&[0x55, 4, 7], "L"),
    (&[0x55, 4, 8], "ST"),
    (&[0x55, 4, 9], "STREET"),
    (&[0x55, 4, 10], "O"),
    (&[0x55, 4, 11], "OU"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25], "DC"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1], "UID"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1], "emailAddress"),
];
/// Bytes of a name; longer ones are nobody's.
const LONGEST: usize = 1024;

/// A name in one line: `CN=cart,O=Shop`. `None` if it is malformed, empty, or too long.
pub(super) fn rfc4514(name: Der<'_>) -> Option<Box<str>> {
    let sets = all(name, tag::SET)?;
    let mut text = String::new();
    // RFC 4514 2.1: "the output consists of the string encodings of each RelativeDistinguishedName in the RDNSequence […], starting
    // with the last element of the sequence and moving backwards toward the first", with commas between.
    for (at, set) in sets.into_iter().rev().enumerate() {
        if at > 0 {
            text.push(',');
        }
        for (at, attribute) in all(Der(set), tag::SEQUENCE)?.into_iter().enumerate() {
            if at > 0 {
                text.push('+');
            }
            let mut fields = Der(attribute);
            let (kind, (tag, value)) = (fields.expect(tag::OID)?, fields.next()?);
            write(&mut text, kind, tag, value)?;
        }
        if text.len() > LONGEST {
            return None;
        }
    }
    (!text.is_empty()).then(|| text.into())
}

/// The contents of all elements, which have this tag, to the last byte.
fn all(mut elements: Der<'_>, tag: u8) -> Option<Vec<&[u8]>> {
    let mut contents = Vec::new();
    while !elements.0.is_empty() {
        contents.push(elements.expect(tag)?);
    }
    Some(contents)
}

fn write(text: &mut String, kind: &[u8], tag: u8, value: &[u8]) -> Option<()> {
    let word = WORDS.iter().find(|(known, _)| *known == kind).map(|(_, word)| *word);
    match word {
        Some(word) => text.push_str(word),
        None => dotted(text, kind)?,
    }
    text.push('=');
    if value.len() > LONGEST {
        return None;
    }
    match std::str::from_utf8(value) {
        Ok(value) if word.is_some() && TEXTS.contains(&tag) => escaped(text, value),
        // RFC 4514 2.4: otherwise "the AttributeValue […] is encoded by an octothorpe ('#') character followed by the hexadecimal
        // encoding of each of the octets of the BER encoding".
        _ => {
            text.push('#');
            hex(text, &[tag]);
            match value.len() {
                short @ 0..0x80 => hex(text, &[short as u8]),
                long => hex(text, &[&[0x82], &(long as u16).to_be_bytes()[..]].concat()),
            }
            hex(text, value);
        }
    }
    Some(())
}

/// RFC 4514 2.4: some characters are escaped with a backslash, and any may be by the digits of its bytes: here those of which a reader
/// might think that they end something, and all that is not ASCII.
fn escaped(text: &mut String, value: &str) {
    let last = value.len().saturating_sub(1);
    for (at, byte) in value.bytes().enumerate() {
        match byte {
            b',' | b'+' | b';' | b'<' | b'>' => text.extend(['\\', char::from(byte)]),
            b'#' if at == 0 => text.push_str("\\#"),
            b' ' if at == 0 || at == last => text.push_str("\\ "),
            b' '..=b'~' if !matches!(byte, b'"' | b'\\') => text.push(char::from(byte)),
            _ => {
                text.push('\\');
                hex(text, &[byte]);
            }
        }
    }
}

fn hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a text does not fail.
        let _ = write!(text, "{byte:02X}");
    }
}

/// X.690 8.19: numbers in base 128, of which the first has two.
fn dotted(text: &mut String, oid: &[u8]) -> Option<()> {
    let (mut number, mut first, mut whole) = (0_u64, true, false);
    for byte in oid {
        number = number.checked_mul(128)? | u64::from(byte & 0x7f);
        whole = byte & 0x80 == 0;
        if !whole {
            continue;
        }
        if first {
            let top = (number / 40).min(2);
            let _ = write!(text, "{top}.{}", number - top * 40);
        } else {
            let _ = write!(text, ".{number}");
        }
        (number, first) = (0, false);
    }
    whole.then_some(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn element(tag: u8, content: &[u8]) -> Vec<u8> {
        assert!(content.len() < 0x80);
        [&[tag, content.len() as u8], content].concat()
    }

    /// Kind, tag and value.
    type Attribute<'a> = (&'a [u8], u8, &'a [u8]);

    fn name(attributes: &[&[Attribute<'_>]]) -> Vec<u8> {
        let set = |attributes: &&[Attribute<'_>]| {
            let all = attributes.iter().map(|(kind, tag, value)| {
                element(tag::SEQUENCE, &[element(tag::OID, kind), element(*tag, value)].concat())
            });
            element(tag::SET, &all.collect::<Vec<_>>().concat())
        };
        attributes.iter().map(set).collect::<Vec<_>>().concat()
    }

    const CN: &[u8] = &[0x55, 4, 3];
    const O: &[u8] = &[0x55, 4, 10];
    const OU: &[u8] = &[0x55, 4, 11];

    #[test]
    fn names_are_those_of_the_standard() {
        for (attributes, expected) in [
            // Examples of RFC 4514 4.
            (
                &[&[(O, 0x13, &b"Test"[..])][..], &[(OU, 0x0c, b"Sales"), (CN, 0x0c, b"J.  Smith")]][..],
                "OU=Sales+CN=J.  Smith,O=Test",
            ),
            (&[&[(CN, 0x0c, "Lu\u{10d}i\u{107}".as_bytes())]], "CN=Lu\\C4\\8Di\\C4\\87"),
            (&[&[(&[0x2b, 6, 1, 4, 1, 0x8b, 0x3a, 0], 0x04, b"Hi")]], "1.3.6.1.4.1.1466.0=#04024869"),
            // Nothing in a value can pass for something outside of it.
            (&[&[(CN, 0x0c, b"a,O=b")]], "CN=a\\,O=b"),
            (&[&[(CN, 0x0c, b" \"\\\r\n\0;+<># ")]], "CN=\\ \\22\\5C\\0D\\0A\\00\\;\\+\\<\\>#\\ "),
            (&[&[(CN, 0x0c, b"#a")]], "CN=\\#a"),
            (&[&[(CN, 0x1e, b"\0a")]], "CN=#1E020061"),
            (&[&[(CN, 0x0c, b"\xff")]], "CN=#0C01FF"),
        ] {
            assert_eq!(rfc4514(Der(&name(attributes))).as_deref(), Some(expected));
        }
        assert_eq!(rfc4514(Der(&[])), None);
        assert_eq!(rfc4514(Der(&element(tag::SEQUENCE, b""))), None);
        let long = name(&[&[(CN, 0x0c, &[b'"'; 100])]]).repeat(4);
        assert_eq!(rfc4514(Der(&long)), None, "longer than anybody's");
    }
}
