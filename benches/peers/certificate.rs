//! The certificate that proxies end TLS with: ECDSA on P-256, made anew for each run, and the same for all.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use anyhow::Result;

/// The host that clients ask for.
pub(crate) const NAME: &str = "bench.example.com";

/// Certificate and key in PEM.
pub(crate) struct Made {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

static MADE: LazyLock<Made> = LazyLock::new(|| {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let signed = rcgen::CertificateParams::new([NAME.to_owned()]).unwrap().self_signed(&key).unwrap();
    Made { certificate: signed.pem(), key: key.serialize_pem() }
});

pub(crate) fn made() -> &'static Made {
    &MADE
}

/// Writes them as each proxy wants them: in two files, and in one.
pub(crate) fn write(folder: &Path) -> Result<()> {
    let Made { certificate, key } = made();
    fs::write(folder.join("tls.crt"), certificate)?;
    fs::write(folder.join("tls.key"), key)?;
    fs::write(folder.join("tls.pem"), format!("{certificate}{key}"))?;
    Ok(())
}
