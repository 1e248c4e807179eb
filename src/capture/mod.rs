//! Redirecting the connections of a network namespace, which is a pod's: a table of nf_tables, programmed over netlink without
//! another program; where the kernel has no nf_tables, by legacy iptables, if that is there. `plan` says what is redirected, `nft` writes it
//! as people read it, `message` and `encode` as the kernel does, `socket` hands it over, and `iptables` is the other way.
//! Nothing else of the program is known here.

mod encode;
mod iptables;
mod message;
mod nft;
mod plan;
mod socket;

use std::fmt;

pub use encode::batch;
pub use nft::nft;
pub use plan::Plan;

use encode::Transaction;
use socket::Trouble;

/// How connections are redirected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// By the table `inet floodway`.
    NfTables,
    /// By chains of the table `nat`.
    LegacyIptables,
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            How::NfTables => "nf_tables",
            How::LegacyIptables => "legacy iptables",
        })
    }
}

/// Why connections are not redirected: a sentence with the remedy.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failed(String);

/// Redirects, in one step, by `legacy` iptables if that is asked for or nothing else is there; whatever an earlier run has left is replaced by it.
///
/// # Errors
/// If the kernel does not do it; nothing has changed then, except by legacy iptables.
pub fn program(plan: &Plan, legacy: bool) -> Result<How, Failed> {
    let commit = || {
        let Transaction { bytes, acknowledged } = encode::transaction(plan);
        socket::commit(&bytes, acknowledged)
    };
    redirect(legacy, commit, || iptables::program(plan)).map_err(Failed)
}

/// By the first of both ways that there is.
fn redirect(
    legacy: bool,
    commit: impl FnOnce() -> Result<(), Trouble>,
    iptables: impl FnOnce() -> Result<(), String>,
) -> Result<How, String> {
    if legacy {
        return iptables().map(|()| How::LegacyIptables);
    }
    match commit() {
        Ok(()) => Ok(How::NfTables),
        Err(Trouble::Missing(what)) => iptables()
            .map(|()| How::LegacyIptables)
            .map_err(|why| format!("the kernel has no nf_tables for this ({what}), and {why}")),
        Err(Trouble::NotPermitted) => Err(
            "not permitted to change the rules of the network: the container needs the capability NET_ADMIN and to run as root, which Pod \
             Security allows in privileged namespaces only; or use mode local, which needs neither"
                .to_owned(),
        ),
        Err(Trouble::Failed(what)) => Err(format!("nf_tables could not be programmed: {what}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without() -> Result<(), String> {
        Err("there is no iptables".to_owned())
    }

    #[test]
    fn iptables_stands_in_for_what_the_kernel_lacks_and_for_nothing_else() {
        let missing = || Err(Trouble::Missing("step 1: Operation not supported".to_owned()));
        let failed = || Err(Trouble::Failed("step 4: Invalid argument".to_owned()));
        let never = || -> Result<(), String> { unreachable!("it is not needed") };
        assert_eq!(redirect(false, || Ok(()), never), Ok(How::NfTables));
        assert_eq!(redirect(false, missing, || Ok(())), Ok(How::LegacyIptables));
        assert_eq!(redirect(true, || unreachable!("it was not asked for"), || Ok(())), Ok(How::LegacyIptables));
        for (told, words) in [
            (
                redirect(false, missing, without),
                "the kernel has no nf_tables for this (step 1: Operation not supported), and there is no iptables",
            ),
            (redirect(true, missing, without), "there is no iptables"),
            (redirect(false, failed, never), "nf_tables could not be programmed: step 4: Invalid argument"),
        ] {
            assert_eq!(told, Err(words.to_owned()));
        }
        let refused = redirect(false, || Err(Trouble::NotPermitted), never);
        assert!(refused.is_err_and(|why| why.contains("NET_ADMIN") && why.contains("mode local")));
    }
}
