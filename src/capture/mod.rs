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
    if legacy {
        return iptables::program(plan).map(|()| How::LegacyIptables).map_err(Failed);
    }
    match socket::commit(&batch(plan), encode::acknowledged(plan)) {
        Ok(()) => Ok(How::NfTables),
        Err(Trouble::Missing(what)) => iptables::program(plan).map(|()| How::LegacyIptables).map_err(|why| {
            Failed(format!("the kernel has no nf_tables for this ({what}), and {why}"))
        }),
        Err(Trouble::NotPermitted) => Err(Failed(
            "not permitted to change the rules of the network: the container needs the capability NET_ADMIN and to run as root, which Pod \
             Security allows in privileged namespaces only; or use mode local, which needs neither"
                .to_owned(),
        )),
        Err(Trouble::Failed(what)) => Err(Failed(format!("nf_tables could not be programmed: {what}"))),
    }
}
