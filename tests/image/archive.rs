//! Reading an image: a tar archive in OCI's layout, with every digest and size held against what it names.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// An image with one layer, unpacked.
pub(crate) struct Image {
    pub(crate) index: Value,
    pub(crate) manifest: Value,
    pub(crate) config: Value,
    /// What `docker load` of old engines reads.
    pub(crate) docker: Value,
    /// Bytes of the layer as it is pulled, and unpacked.
    pub(crate) packed: u64,
    pub(crate) unpacked: u64,
    /// The layer, not packed.
    layer: PathBuf,
    folder: tempfile::TempDir,
}

impl Image {
    /// # Panics
    /// If anything is not what its digest and size say, or if there is anything that nothing leads to.
    pub(crate) fn read(archive: &Path) -> Image {
        let folder = tempfile::tempdir().unwrap();
        run(Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(folder.path()));
        let json = |path: &str| serde_json::from_slice::<Value>(&fs::read(folder.path().join(path)).unwrap()).unwrap();
        assert_eq!(json("oci-layout")["imageLayoutVersion"], "1.0.0");

        let mut met = Vec::new();
        let mut blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap().to_owned();
            let path = folder.path().join("blobs/sha256").join(&digest);
            let bytes = fs::read(&path).unwrap();
            assert_eq!(sha256(&bytes), digest);
            assert_eq!(descriptor["size"], bytes.len());
            met.push(digest);
            path
        };
        let index = json("index.json");
        let manifests = index["manifests"].as_array().unwrap();
        assert_eq!(manifests.len(), 1, "{index}");
        let manifest: Value = serde_json::from_slice(&fs::read(blob(&manifests[0])).unwrap()).unwrap();
        let config: Value = serde_json::from_slice(&fs::read(blob(&manifest["config"])).unwrap()).unwrap();
        let layers = manifest["layers"].as_array().unwrap();
        assert_eq!(layers.len(), 1, "{manifest}");
        let packed = blob(&layers[0]);
        let blobs = fs::read_dir(folder.path().join("blobs/sha256")).unwrap().count();
        assert_eq!(blobs, met.len(), "blobs that nothing leads to");

        let layer = folder.path().join("layer.tar");
        fs::write(&layer, run(Command::new("gzip").arg("-dc").arg(&packed))).unwrap();
        let unpacked = fs::read(&layer).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"], serde_json::json!([format!("sha256:{}", sha256(&unpacked))]));
        Image {
            docker: json("manifest.json"),
            packed: fs::metadata(&packed).unwrap().len(),
            unpacked: unpacked.len() as u64,
            index,
            manifest,
            config,
            layer,
            folder,
        }
    }

    /// The entries of the layer as tar lists them: mode, owner, size, time and name.
    pub(crate) fn entries(&self) -> Vec<String> {
        let mut list = Command::new("tar");
        list.args(["--numeric-owner", "--full-time", "-tvf"]).arg(&self.layer).env("TZ", "UTC");
        let text = String::from_utf8(run(&mut list)).unwrap();
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    /// The root file system that a container of it has.
    pub(crate) fn root(&self) -> PathBuf {
        let root = self.folder.path().join("root");
        if !root.exists() {
            fs::create_dir(&root).unwrap();
            run(Command::new("tar").arg("-xf").arg(&self.layer).arg("-C").arg(&root));
        }
        root
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a command prints. Panics with what it says if it fails.
pub(crate) fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
