//! Which versions of Kubernetes will do. `kubeVersion` of the chart says the same (a test holds both together).

use std::fmt;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::version::Info;
use kube::Client;
use tokio::time::sleep;

use super::watch::Pause;
use crate::ready::Ready;

/// The oldest version, as major and minor: the CRDs need CEL rules with the functions that it knows.
pub const OLDEST: (u32, u32) = (1, 30);

/// Why a version will not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TooOld(String);

impl fmt::Display for TooOld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = OLDEST;
        write!(
            f,
            "Floodway needs Kubernetes {major}.{minor} or later, and the API server is {}: upgrade the cluster, or install a \
             release of Floodway that still knows it",
            self.0
        )
    }
}

/// Whether an API server of this version will do. One whose version cannot be read is taken as it is.
///
/// # Errors
/// [`TooOld`], if it will not.
pub fn judge(info: &Info) -> Result<(), TooOld> {
    // Providers write 30+.
    let number = |text: &str| text.trim_end_matches(|end: char| !end.is_ascii_digit()).parse::<u32>().ok();
    match (number(&info.major), number(&info.minor)) {
        (Some(major), Some(minor)) if (major, minor) < OLDEST => Err(TooOld(info.git_version.clone())),
        _ => Ok(()),
    }
}

/// How often one that will not do is asked again.
const AGAIN: Duration = Duration::from_secs(10);

/// Waits until the API server has answered, and will do. `ready` and the log tell of one that will not.
pub(super) async fn wait(client: &Client, ready: &Ready) {
    let (mut pause, mut waiting) = (Pause::default(), None);
    loop {
        let too_old = match client.apiserver_version().await {
            Ok(info) => match judge(&info) {
                Ok(()) => return,
                Err(too_old) => too_old,
            },
            // It keeps its version to itself, or has none.
            Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => return,
            Err(kube::Error::SerdeError(_)) => return,
            // The watches say why it does not answer.
            Err(_) => {
                sleep(pause.next(fastrand::f64())).await;
                continue;
            }
        };
        if waiting.is_none() {
            tracing::error!("{too_old}; nothing is served");
            waiting = Some(ready.block(format!("another API server: {too_old}")));
        }
        sleep(AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(major: &str, minor: &str) -> Info {
        let git_version = format!("v{major}.{minor}.7");
        Info { major: major.to_owned(), minor: minor.to_owned(), git_version, ..Info::default() }
    }

    #[test]
    fn the_oldest_version_and_later_ones_will_do() {
        for (major, minor) in [("1", "30"), ("1", "30+"), ("1", "36"), ("2", "0"), ("", ""), ("one", "two")] {
            assert_eq!(judge(&info(major, minor)), Ok(()), "{major}.{minor}");
        }
        for (major, minor) in [("1", "29"), ("1", "29+"), ("1", "9"), ("0", "40")] {
            let said = judge(&info(major, minor)).map_err(|old| old.to_string());
            let told = format!("Floodway needs Kubernetes 1.30 or later, and the API server is v{major}.{minor}.7: ");
            assert!(said.is_err_and(|said| said.starts_with(&told)), "{major}.{minor}");
        }
    }
}
