//! Images without a registry: OCI layouts in a tar, made of files of this machine. One has this very program in it, with the libraries
//! that it needs and busybox, and is the application, its helpers and the pause container.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

/// Writes images of this program: their names, and its arguments in them.
pub(crate) fn write_app(to: &Path, images: &[(&str, &[&str])]) -> io::Result<()> {
    let mut layer = Tar::default();
    let program = stripped(&std::env::current_exe()?, to)?;
    for file in libraries(&std::env::current_exe()?)? {
        layer.file(&file.to_string_lossy(), 0o755, &fs::read(&file)?);
    }
    layer.file("/app", 0o755, &program);
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].iter().find(|path| Path::new(path).exists()).unwrap();
    layer.file("/bin/busybox", 0o755, &fs::read(busybox)?);
    layer.link("/bin/sh", "busybox");
    let images: Vec<(&str, Value)> = images
        .iter()
        .map(|(name, arguments)| {
            let entrypoint: Vec<&str> = ["/app", "app"].into_iter().chain(arguments.iter().copied()).collect();
            (*name, json!({"Entrypoint": entrypoint, "Env": ["PATH=/bin"], "WorkingDir": "/"}))
        })
        .collect();
    write(to, layer, &images)
}

/// Writes an image of one program, with the libraries it needs: what the shipped image is, for builds that are not static.
pub(crate) fn write_program(to: &Path, program: &Path, name: &str, arguments: &[&str]) -> io::Result<()> {
    let mut layer = Tar::default();
    for file in libraries(program)? {
        layer.file(&file.to_string_lossy(), 0o755, &fs::read(&file)?);
    }
    layer.file("/floodway", 0o755, &stripped(program, to)?);
    let config = json!({"Entrypoint": ["/floodway"], "Cmd": arguments, "User": "65532:65532", "WorkingDir": "/"});
    write(to, layer, &[(name, config)])
}

/// The program without what debuggers read, which is most of it, if there is a `strip`.
fn stripped(program: &Path, beside: &Path) -> io::Result<Vec<u8>> {
    let out = beside.with_extension("stripped");
    let done = Command::new("strip").arg("-o").arg(&out).arg(program).status().is_ok_and(|status| status.success());
    let bytes = fs::read(if done { &out } else { program })?;
    if done {
        fs::remove_file(&out)?;
    }
    Ok(bytes)
}

/// What the loader takes along, itself included. Nothing for a static program.
fn libraries(program: &Path) -> io::Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let paths = text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    Ok(paths.map(PathBuf::from).collect())
}

fn write(to: &Path, layer: Tar, images: &[(&str, Value)]) -> io::Result<()> {
    let mut blobs: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut put = |bytes: Vec<u8>, kind: &str| {
        let sum = sha256(&bytes);
        let descriptor = json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": format!("sha256:{sum}"), "size": bytes.len(),
        });
        blobs.insert(sum, bytes);
        descriptor
    };
    let layer = put(layer.finish(), "layer.v1.tar");
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let mut manifests = Vec::new();
    for (name, config) in images {
        let config = json!({
            "architecture": architecture, "os": "linux", "config": config,
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        });
        let config = put(config.to_string().into_bytes(), "config.v1+json");
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config, "layers": [layer],
        });
        let mut manifest = put(manifest.to_string().into_bytes(), "manifest.v1+json");
        manifest["annotations"] = json!({"io.containerd.image.name": name});
        manifest["platform"] = json!({"architecture": architecture, "os": "linux"});
        manifests.push(manifest);
    }
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests,
    });
    let mut layout = Tar::default();
    layout.file("/oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#);
    layout.file("/index.json", 0o644, index.to_string().as_bytes());
    for (sum, bytes) in &blobs {
        layout.file(&format!("/blobs/sha256/{sum}"), 0o644, bytes);
    }
    fs::File::create(to)?.write_all(&layout.finish())
}

fn sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An archive in the format of POSIX (ustar).
#[derive(Default)]
struct Tar {
    bytes: Vec<u8>,
    folders: Vec<String>,
}

impl Tar {
    fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.folders(path);
        self.header(path, mode, content.len(), b'0', "");
        self.bytes.extend(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
    }

    fn link(&mut self, path: &str, target: &str) {
        self.folders(path);
        self.header(path, 0o777, 0, b'2', target);
    }

    /// The folders above a path, once each.
    fn folders(&mut self, path: &str) {
        for (end, _) in path.match_indices('/').skip(1) {
            let folder = format!("{}/", &path[..end]);
            if !self.folders.contains(&folder) {
                self.header(&folder, 0o755, 0, b'5', "");
                self.folders.push(folder);
            }
        }
    }

    fn header(&mut self, path: &str, mode: u32, size: usize, kind: u8, target: &str) {
        let mut block = [0_u8; 512];
        let mut put = |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
        let name = path.trim_start_matches('/');
        assert!(name.len() <= 100, "{name} is too long for a tar");
        put(0, name);
        put(100, &format!("{mode:07o}"));
        put(108, "0000000");
        put(116, "0000000");
        put(124, &format!("{size:011o}"));
        put(136, "00000000000");
        // The sum is made with spaces in its own place.
        put(148, "        ");
        put(157, target);
        put(257, "ustar\x0000");
        block[156] = kind;
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend(block);
    }

    fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }
}
