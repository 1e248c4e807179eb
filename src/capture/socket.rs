//! Handing a transaction to the kernel, and hearing what it says.

use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with};

/// How long the kernel may take; loading modules takes a while.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of an answer that are looked at: head, error, and the head of what was wrong.
const ANSWER: usize = 8192;
/// `NLMSG_ERROR`, which also acknowledges.
const ERROR: u16 = 2;
/// `struct nlmsghdr`
const HEAD: usize = 16;

/// Why the kernel did not do it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The process may not.
    NotPermitted,
    /// The kernel lacks nf_tables, or what of it is needed.
    Missing(String),
    /// Anything else.
    Failed(String),
}

/// Has the kernel do all of it, or nothing.
pub(super) fn commit(batch: &[u8], acknowledged: u32) -> Result<(), Trouble> {
    let step = |what: &'static str| move |error: Errno| trouble(error, what);
    let protocol = Some(netlink::NETFILTER);
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)
        .map_err(step("a socket to nfnetlink"))?;
    bind(&socket, &SocketAddrNetlink::new(0, 0)).map_err(step("an address of netlink"))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE)).map_err(step("a bound on waiting"))?;
    set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE)).map_err(step("a bound on waiting"))?;
    // A socket of netlink that is connected to nobody speaks with the kernel (netlink(7)).
    let sent = send(&socket, batch, SendFlags::empty()).map_err(step("sending the rules"))?;
    if sent != batch.len() {
        return Err(Trouble::Failed(format!("only {sent} of {} bytes were taken", batch.len())));
    }
    let mut answer = vec![0; ANSWER];
    loop {
        let (length, _) = match recv(&socket, &mut answer[..], RecvFlags::empty()) {
            Err(Errno::INTR) => continue,
            received => received.map_err(step("the kernel's answer"))?,
        };
        if heard(&answer[..length.min(ANSWER)], acknowledged)? {
            return Ok(());
        }
    }
}

/// Whether the kernel has said that all is done.
fn heard(mut answer: &[u8], acknowledged: u32) -> Result<bool, Trouble> {
    let word =
        |bytes: &[u8], at: usize| bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map(u32::from_ne_bytes);
    while answer.len() >= HEAD {
        let length = word(answer, 0).and_then(|length| usize::try_from(length).ok()).unwrap_or_default();
        if length < HEAD || length > answer.len() {
            return Err(Trouble::Failed("the kernel's answer is cut off".to_owned()));
        }
        let (message, rest) = answer.split_at(length);
        if u16::from_ne_bytes([message[4], message[5]]) == ERROR {
            // `struct nlmsgerr { int error; struct nlmsghdr msg; }`
            let code = word(message, HEAD).map_or(0, u32::cast_signed);
            let sequence = word(message, 8).unwrap_or_default();
            match code {
                0 if sequence == acknowledged => return Ok(true),
                0 => {}
                // The kernel has no others (linux/err.h, MAX_ERRNO).
                -4095..=-1 => return Err(trouble(Errno::from_raw_os_error(-code), &format!("step {sequence}"))),
                code => {
                    return Err(Trouble::Failed(format!("step {sequence}: the kernel says {code}, which is no error")));
                }
            }
        }
        answer = rest.get(length.next_multiple_of(4) - length..).unwrap_or_default();
    }
    Ok(false)
}

fn trouble(error: Errno, what: &str) -> Trouble {
    let said = || format!("{what}: {error}");
    match error {
        Errno::PERM | Errno::ACCESS => Trouble::NotPermitted,
        // No nfnetlink; no nf_tables, or no table for both families; no chains of nat, or no redirection.
        Errno::PROTONOSUPPORT | Errno::AFNOSUPPORT | Errno::OPNOTSUPP | Errno::NOENT | Errno::NOSYS => {
            Trouble::Missing(said())
        }
        Errno::AGAIN => Trouble::Failed(format!("{what}: no answer within {} seconds", PATIENCE.as_secs())),
        _ => Trouble::Failed(said()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An acknowledgement, or an error.
    fn message(sequence: u32, code: i32) -> Vec<u8> {
        let mut bytes = 36_u32.to_ne_bytes().to_vec();
        bytes.extend(ERROR.to_ne_bytes());
        bytes.extend([0; 2]);
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(code.to_ne_bytes());
        bytes.extend([0; 16]);
        bytes
    }

    #[test]
    fn only_the_last_message_says_that_all_is_done() {
        assert_eq!(heard(&message(3, 0), 7), Ok(false));
        assert_eq!(heard(&message(7, 0), 7), Ok(true));
        assert_eq!(heard(&[message(3, 0), message(7, 0)].concat(), 7), Ok(true));
        assert_eq!(heard(&[], 7), Ok(false));
    }

    #[test]
    fn errors_are_told_apart() {
        assert_eq!(heard(&message(0, -1), 7), Err(Trouble::NotPermitted));
        assert!(matches!(heard(&message(4, -2), 7), Err(Trouble::Missing(what)) if what.starts_with("step 4")));
        assert!(matches!(heard(&message(4, -95), 7), Err(Trouble::Missing(_))));
        assert!(matches!(heard(&message(4, -22), 7), Err(Trouble::Failed(_))));
        assert!(matches!(heard(&message(4, i32::MIN), 7), Err(Trouble::Failed(_))));
        // No socket for it; nf_tables is a module that is not there; no table for both families; no redirection.
        for lacks in [Errno::PROTONOSUPPORT, Errno::NOSYS, Errno::AFNOSUPPORT, Errno::NOENT, Errno::OPNOTSUPP] {
            assert!(
                matches!(trouble(lacks, "a step"), Trouble::Missing(what) if what.starts_with("a step: ")),
                "{lacks}"
            );
        }
        for not in [Errno::PERM, Errno::ACCESS] {
            assert_eq!(trouble(not, "a step"), Trouble::NotPermitted);
        }
        let late = Trouble::Failed("the kernel's answer: no answer within 20 seconds".to_owned());
        assert_eq!(trouble(Errno::AGAIN, "the kernel's answer"), late);
        for other in [Errno::INVAL, Errno::NOMEM, Errno::BUSY, Errno::EXIST] {
            assert!(matches!(trouble(other, "a step"), Trouble::Failed(_)), "{other}");
        }
    }

    #[test]
    fn answers_that_make_no_sense_are_errors() {
        for length in [0_u32, 15, 37, u32::MAX] {
            let mut answer = message(7, 0);
            answer[..4].copy_from_slice(&length.to_ne_bytes());
            assert!(heard(&answer, 7).is_err(), "{length}");
        }
    }
}
