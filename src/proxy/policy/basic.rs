//! Who has a password that a policy knows (RFC 7617). Passwords are compared by `passwords`, which takes its time.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::{Asked, Sender};
use crate::proxy::error::Error;
use crate::proxy::fields::{Fields, Known};
use crate::snapshot::BasicAuth;

/// The longest name with password that is looked at, in base64. bcrypt looks at 72 bytes of a password.
const MOST_BYTES: usize = 1024;

/// Lets a request pass whose user has the password.
///
/// # Errors
/// None was given, it is wrong, or too many others wait to be compared.
pub(super) async fn admit(basic: &BasicAuth, asked: &mut Asked<'_>) -> Result<(), Error> {
    let admitted = compare(basic, asked).await;
    if matches!(admitted, Err(Error::BasicAuthMissing | Error::BasicAuthInvalid)) {
        // RFC 9110 15.5.2: "The server generating a 401 response MUST send a WWW-Authenticate header field".
        asked.exchange.adorn("www-authenticate", basic.challenge.as_bytes());
    }
    admitted
}

async fn compare(basic: &BasicAuth, asked: &mut Asked<'_>) -> Result<(), Error> {
    let given = Given::read(&asked.head.fields)?;
    let (user, password) = (given.user().unwrap_or_default(), given.password());
    // A stranger waits as long as a user with a wrong password does, and is told the same.
    let hash = basic.users.get(user);
    let right =
        asked.worker.passwords.are_equal(hash.unwrap_or(&basic.decoy), (user, password), asked.client.address).await?;
    if hash.is_none() || !right {
        return Err(Error::BasicAuthInvalid);
    }
    if !basic.forward {
        asked.head.fields.remove(Known::Authorization);
    }
    if let Some(name) = &basic.forward_user {
        asked.vouch(name, Some(user.as_bytes()));
    }
    asked.sender = Some(Sender::User(user.into()));
    Ok(())
}

/// A name and a password as they were given.
#[derive(Debug)]
struct Given {
    text: Zeroizing<Vec<u8>>,
    colon: usize,
}

impl Given {
    /// RFC 7617 2: "user-pass = user-id ":" password", in base64.
    fn read(fields: &Fields) -> Result<Given, Error> {
        let mut lines = fields.all(Known::Authorization);
        let line = lines.next().ok_or(Error::BasicAuthMissing)?;
        // Of two, the backend might believe the other one.
        if lines.next().is_some() {
            return Err(Error::BasicAuthInvalid);
        }
        let scheme = line.iter().position(|&byte| byte == b' ').unwrap_or(line.len());
        if !line[..scheme].eq_ignore_ascii_case(b"basic") {
            return Err(Error::BasicAuthMissing);
        }
        let coded = line[scheme..].trim_ascii();
        if coded.len() > MOST_BYTES {
            return Err(Error::BasicAuthInvalid);
        }
        let text = STANDARD.decode(coded).map(Zeroizing::new).map_err(|_| Error::BasicAuthInvalid)?;
        // "The user-id and password MUST NOT contain any control characters".
        if text.iter().any(u8::is_ascii_control) {
            return Err(Error::BasicAuthInvalid);
        }
        let colon = text.iter().position(|&byte| byte == b':').ok_or(Error::BasicAuthInvalid)?;
        Ok(Given { text, colon })
    }

    fn user(&self) -> Option<&str> {
        std::str::from_utf8(&self.text[..self.colon]).ok()
    }

    fn password(&self) -> &[u8] {
        &self.text[self.colon + 1..]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(lines: &[&str]) -> Result<(String, Vec<u8>), Error> {
        let lines: Vec<_> = lines.iter().map(|line| ("authorization", *line)).collect();
        Given::read(&Fields::of(&lines)).map(|given| (given.user().unwrap().to_owned(), given.password().to_vec()))
    }

    #[test]
    fn names_and_passwords_are_read() {
        // Examples of RFC 7617 2 and 2.1, the latter with a sign of money.
        assert_eq!(read(&["Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="]), Ok(("Aladdin".into(), b"open sesame".to_vec())));
        assert_eq!(read(&["bASIC  dGVzdDoxMjPCow=="]), Ok(("test".into(), "123\u{a3}".into())));
        assert_eq!(read(&["Basic OmE6Yg=="]), Ok((String::new(), b"a:b".to_vec())));
    }

    #[test]
    fn hostile_ones_are_refused() {
        assert_eq!(read(&[]), Err(Error::BasicAuthMissing));
        for other in ["Bearer QWxhZGRpbjpvcGVu", "", "Basics QTpi", "Digest username=\"a\""] {
            assert_eq!(read(&[other]), Err(Error::BasicAuthMissing), "{other}");
        }
        let long = format!("Basic {}", STANDARD.encode(format!("a:{}", "x".repeat(2000))));
        let sound = "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==";
        for wrong in [
            "Basic",
            "Basic ",
            "Basic !!!!",
            "Basic QTpi QTpi",
            "Basic QTpi,Basic QTpi",
            "Basic QTp",
            // No colon; a NUL and a line feed in the password; bits behind the end.
            "Basic QQ==",
            "Basic QTpiAGM=",
            "Basic QToKYg==",
            "Basic QTpiYx==",
            &long,
        ] {
            assert_eq!(read(&[wrong]), Err(Error::BasicAuthInvalid), "{wrong}");
        }
        assert_eq!(read(&[sound, sound]), Err(Error::BasicAuthInvalid));
    }
}
