//! What deploy/image.sh makes of a program, with a stand-in that is a program by its head alone.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::archive::{Image, run};

/// A folder to make images in, with a stand-in for the program.
struct Workshop {
    folder: tempfile::TempDir,
}

impl Workshop {
    fn new() -> Workshop {
        let workshop = Workshop { folder: tempfile::tempdir().unwrap() };
        fs::write(workshop.program("amd64"), stand_in(62)).unwrap();
        fs::write(workshop.program("arm64"), stand_in(183)).unwrap();
        workshop
    }

    fn program(&self, arch: &str) -> PathBuf {
        self.folder.path().join(format!("program-{arch}"))
    }

    /// The script, which writes into the folder.
    fn script(&self, arch: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(root().join("deploy/image.sh"));
        command.arg("--arch").arg(arch).arg("--binary").arg(self.program(arch)).arg("--out").arg(self.folder.path());
        command.arg("--no-sbom").args(arguments);
        command
    }

    fn archive(&self, arch: &str) -> PathBuf {
        self.folder.path().join(format!("floodway-{arch}.tar"))
    }

    fn image(&self, arch: &str, arguments: &[&str]) -> Image {
        run(&mut self.script(arch, arguments));
        Image::read(&self.archive(arch))
    }
}

/// The head of an ELF file for a kind of machine, and some content.
fn stand_in(machine: u16) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend_from_slice(&3u16.to_le_bytes());
    file.extend_from_slice(&machine.to_le_bytes());
    file.extend(std::iter::repeat_n(b"Floodway".as_slice(), 20_000).flatten());
    file
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn it_is_the_image_that_the_dockerfile_describes() {
    let workshop = Workshop::new();
    let mut script = workshop.script("amd64", &[]);
    run(script.env("SOURCE_DATE_EPOCH", "1700000000").env("SOURCE", "https://git.example.com/floodway"));
    let image = Image::read(&workshop.archive("amd64"));

    assert_eq!(image.manifest["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    assert_eq!(image.manifest["layers"][0]["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
    assert_eq!(image.manifest["config"]["mediaType"], "application/vnd.oci.image.config.v1+json");
    assert_eq!(image.index["manifests"][0]["platform"], json!({"architecture": "amd64", "os": "linux"}));
    assert_eq!(image.config["architecture"], "amd64");
    assert_eq!(image.config["os"], "linux");
    assert_eq!(image.config["created"], "2023-11-14T22:13:20Z");
    let mut config = image.config["config"].clone();
    let labels = config.as_object_mut().unwrap().remove("Labels").unwrap();
    assert_eq!(
        config,
        json!({
            "User": "65532:65532",
            "Entrypoint": ["/floodway"],
            "Cmd": ["gateway"],
            "ExposedPorts": {"8080/tcp": {}, "8443/tcp": {}, "9901/tcp": {}},
            "WorkingDir": "/",
        })
    );
    let label = |name: &str| labels[format!("org.opencontainers.image.{name}")].as_str().unwrap_or_default().to_owned();
    assert_eq!(label("title"), "Floodway");
    assert_eq!(label("description"), env!("CARGO_PKG_DESCRIPTION"));
    assert_eq!(label("licenses"), env!("CARGO_PKG_LICENSE"));
    assert_eq!(label("version"), env!("CARGO_PKG_VERSION"));
    assert_eq!(label("source"), "https://git.example.com/floodway");
    assert_eq!(label("created"), "2023-11-14T22:13:20Z");
    // A source without git has none.
    let revision = label("revision");
    let known = root().join(".git").exists();
    assert_eq!(known, revision.trim_end_matches("-modified").len() == 40, "{revision:?}");

    // Everything that the Dockerfile says in its last stage is in there, and what is known of the source, which `make image` adds.
    let dockerfile = fs::read_to_string(root().join("Dockerfile")).unwrap();
    let stage = dockerfile.split("\nFROM scratch\n").nth(1).unwrap();
    let labelled = stage.matches("org.opencontainers.image.").count();
    let of_source = 3 + usize::from(known);
    assert_eq!(labels.as_object().unwrap().len(), labelled + of_source, "{labels}");
    for instruction in stage.lines().filter_map(|line| line.split(' ').next().filter(|word| !word.is_empty())) {
        let known = ["#", "COPY", "LABEL", "USER", "EXPOSE", "ENTRYPOINT", "CMD"].contains(&instruction);
        assert!(known, "deploy/image.sh does not know {instruction} of the Dockerfile");
    }
}

/// A label without a value says less than none.
#[test]
fn labels_say_what_is_known_of_the_source() {
    let labels = |root: &Path, source: &str| {
        let mut script = Command::new(root.join("deploy/image.sh"));
        script
            .arg("--labels")
            .env("SOURCE_DATE_EPOCH", "1700000000")
            .env("SOURCE", source)
            .env("GIT_CEILING_DIRECTORIES", root.parent().unwrap());
        String::from_utf8(run(&mut script)).unwrap()
    };
    // A copy without git.
    let copy = tempfile::tempdir().unwrap();
    fs::create_dir(copy.path().join("deploy")).unwrap();
    for file in ["Cargo.toml", "Dockerfile", "deploy/image.sh"] {
        fs::copy(root().join(file), copy.path().join(file)).unwrap();
    }
    let version = env!("CARGO_PKG_VERSION");
    let known =
        format!("org.opencontainers.image.version={version}\norg.opencontainers.image.created=2023-11-14T22:13:20Z\n");
    assert_eq!(labels(copy.path(), ""), known);
    let address = "https://git.example.com/floodway";
    assert_eq!(labels(copy.path(), address), format!("{known}org.opencontainers.image.source={address}\n"));
    assert!(!fs::exists(copy.path().join("target")).unwrap(), "it made something");

    let workshop = Workshop { folder: copy };
    fs::write(workshop.program("amd64"), stand_in(62)).unwrap();
    let mut script = Command::new(workshop.folder.path().join("deploy/image.sh"));
    script
        .args(["--arch", "amd64", "--no-sbom", "--binary"])
        .arg(workshop.program("amd64"))
        .arg("--out")
        .arg(workshop.folder.path());
    run(script.env("SOURCE", "").env("GIT_CEILING_DIRECTORIES", workshop.folder.path().parent().unwrap()));
    let image = Image::read(&workshop.archive("amd64"));
    let labels = image.config["config"]["Labels"].as_object().unwrap();
    assert!(labels.values().all(|value| value != ""), "{labels:?}");
    assert!(!labels.contains_key("org.opencontainers.image.source"), "{labels:?}");
}

#[test]
fn its_layer_holds_the_program_and_whom_to_trust() {
    let workshop = Workshop::new();
    let image = workshop.image("amd64", &[]);
    let entries = image.entries();
    let shapes: Vec<(&str, &str, &str, String)> = entries
        .iter()
        .map(|entry| match entry.split(' ').collect::<Vec<_>>()[..] {
            [mode, owner, _, day, time, name] => (mode, owner, name, format!("{day} {time}")),
            _ => panic!("{entry}"),
        })
        .collect();
    let expected = [
        ("drwxr-xr-x", "etc/"),
        ("drwxr-xr-x", "etc/ssl/"),
        ("drwxr-xr-x", "etc/ssl/certs/"),
        ("-rw-r--r--", "etc/ssl/certs/ca-certificates.crt"),
        ("-rwxr-xr-x", "floodway"),
    ];
    let expected = expected.map(|(mode, name)| (mode, "0/0", name, "1970-01-01 00:00:00".to_owned()));
    assert_eq!(shapes, expected);
    assert_eq!(fs::read(image.root().join("floodway")).unwrap(), stand_in(62));
    let trusted = fs::read_to_string(image.root().join("etc/ssl/certs/ca-certificates.crt")).unwrap();
    assert!(trusted.contains("-----BEGIN CERTIFICATE-----"), "no authorities");
}

#[test]
fn the_same_program_makes_the_same_bytes() {
    let (one, two) = (Workshop::new(), Workshop::new());
    run(&mut one.script("amd64", &[]));
    // Another day, mode, umask, language and time zone.
    let program = two.program("amd64");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
    let file = fs::File::options().write(true).open(&program).unwrap();
    file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000)).unwrap();
    let script = two.script("amd64", &[]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "umask 077; exec \"$@\"", "sh"]).arg(script.get_program()).args(script.get_args());
    run(shell.env("TZ", "Asia/Tokyo").env("LC_ALL", "de_DE.UTF-8").env("GZIP", "-1").env("TAR_OPTIONS", "--owner=7"));
    assert_eq!(fs::read(one.archive("amd64")).unwrap(), fs::read(two.archive("amd64")).unwrap());

    // Another commit or time changes what is said of the layer, and not the layer.
    let (before, layer) = (Image::read(&one.archive("amd64")), |image: &Image| image.manifest["layers"].clone());
    run(one.script("amd64", &[]).env("SOURCE_DATE_EPOCH", "1"));
    let after = Image::read(&one.archive("amd64"));
    assert_eq!(layer(&before), layer(&after));
    assert_eq!(after.config["created"], "1970-01-01T00:00:01Z");
}

/// For developing: such a program runs with its libraries, which lie where it looks for them.
#[test]
fn a_dynamic_program_brings_its_libraries() {
    let workshop = Workshop::new();
    let ls = ["/bin/ls", "/usr/bin/ls"].into_iter().find(|path| Path::new(path).is_file()).unwrap();
    let named = Command::new("ldd").arg(ls).output().map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let named = named.unwrap_or_default();
    let libraries: Vec<&str> = named.split_whitespace().filter_map(|word| word.strip_prefix('/')).collect();
    if libraries.is_empty() {
        println!("not run: {ls} is linked statically here");
        return;
    }
    let image = workshop.image(crate::shipped::ARCH, &["--binary", ls]);
    for library in libraries {
        assert!(image.root().join(library).is_file(), "/{library} is not in the image: {:?}", image.entries());
    }
}

#[test]
fn images_for_another_processor_say_so() {
    let image = Workshop::new().image("arm64", &[]);
    assert_eq!(image.config["architecture"], "arm64");
    assert_eq!(image.index["manifests"][0]["platform"]["architecture"], "arm64");
}

/// What links the program for arm64, with the compiler of this machine.
#[test]
fn static_programs_get_no_fixed_address() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("main.c");
    fs::write(&source, "int main(void) { return 0; }\n").unwrap();
    const FIXED: u8 = 2;
    const ANYWHERE: u8 = 3;
    for (flags, kind) in [(&["-static", "-no-pie"][..], ANYWHERE), (&["-no-pie"], FIXED), (&["-pie"], ANYWHERE)] {
        let program = folder.path().join("program");
        let mut linker = Command::new(root().join("deploy/static-pie.sh"));
        run(linker.env("FLOODWAY_CC", "cc").args(flags).args(["-fPIE", "-o"]).arg(&program).arg(&source));
        assert_eq!(fs::read(&program).unwrap()[16], kind, "{flags:?}");
        run(&mut Command::new(&program));
    }
}

#[test]
fn names_are_completed_as_engines_do() {
    let workshop = Workshop::new();
    for (given, full, tag) in [
        ("floodway", "docker.io/library/floodway:latest", "latest"),
        ("floodway:dev", "docker.io/library/floodway:dev", "dev"),
        ("team/floodway:1", "docker.io/team/floodway:1", "1"),
        ("localhost/floodway:1", "localhost/floodway:1", "1"),
        ("registry.example.com:5000/a/floodway", "registry.example.com:5000/a/floodway:latest", "latest"),
    ] {
        let image = workshop.image("amd64", &["--tag", given]);
        let annotations = &image.index["manifests"][0]["annotations"];
        assert_eq!(annotations["io.containerd.image.name"], full, "{given}");
        assert_eq!(annotations["org.opencontainers.image.ref.name"], tag, "{given}");
        let with_tag = if given.ends_with(tag) { given.to_owned() } else { format!("{given}:{tag}") };
        assert_eq!(image.docker[0]["RepoTags"], json!([with_tag]));
        let path = |descriptor: &Value| descriptor["digest"].as_str().unwrap().replace("sha256:", "blobs/sha256/");
        assert_eq!(image.docker[0]["Config"], path(&image.manifest["config"]));
        assert_eq!(image.docker[0]["Layers"], json!([path(&image.manifest["layers"][0])]));
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let workshop = Workshop::new();
    let text = workshop.folder.path().join("text");
    fs::write(&text, "#!/bin/sh\n").unwrap();
    let (text, amd64) = (text.to_str().unwrap(), workshop.program("amd64"));
    for (arch, arguments, sentence) in [
        ("amd64", ["--tag", "UPPER CASE"], "'UPPER CASE' is not a name of an image"),
        ("amd64", ["--tag", ""], "--tag needs a value"),
        ("amd64", ["--binary", text], "is not a program for Linux"),
        ("amd64", ["--binary", "/nowhere/floodway"], "there is no file '/nowhere/floodway'"),
        ("arm64", ["--binary", amd64.to_str().unwrap()], "is a program for another processor than arm64"),
        ("amd64", ["--arch", "riscv64"], "images are made for amd64 and arm64, not for 'riscv64'"),
        ("amd64", ["--push", "now"], "unknown argument '--push'"),
    ] {
        let output = workshop.script(arch, &arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(sentence), "{arguments:?}: {said}");
        assert!(!workshop.archive(arch).exists(), "{arguments:?} left an image");
    }
}
