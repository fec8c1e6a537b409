//! The image: what is in it, and that it works, built by `deploy/build` as anybody would.
//!
//! The binary in it is compiled without optimisation (profile `image-test`), which `tests/run` has done by
//! now; a plain `cargo test` does it here, which takes minutes once.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::egret::listener;
use crate::support::nginx::{Nginx, certauth};
use crate::support::pki::{Pair, Pki};
use crate::support::process::{Process, attempt, guarded, run};
use crate::support::{PATIENCE, free_port, http, loopback};

const NAME: &str = "localhost/egret-test";
const PROFILE: &str = "image-test";
/// User and group, as the Containerfile says.
const USER: u32 = 65_532;
/// Where the configuration belongs.
const CONFIG: &str = "/etc/egret";
const HOST: &str = "certauth.example.com";

/// The image, in a storage of its own.
struct Image {
    folder: TempDir,
    config: Value,
}

impl Image {
    fn build() -> Self {
        let folder = TempDir::new().unwrap();
        let path = |name: &str| folder.path().join(name);
        // Copies, no overlay: works everywhere.
        let storage = format!(
            "[storage]\ndriver = \"vfs\"\ngraphroot = {:?}\nrunroot = {:?}\n",
            path("storage"),
            path("running")
        );
        fs::write(path("storage.conf"), storage).unwrap();
        let mut image = Self { folder, config: Value::Null };
        let build = root().join("deploy/build");
        run(guarded(&build).args(["--binary-only", PROFILE]));
        image.run(image.command(&build).args([PROFILE, NAME]));
        image.run(image.buildah().args(["push", NAME]).arg(format!("dir:{}", image.path("image").display())));
        let config = image.manifest()["config"]["digest"].as_str().map(|digest| image.blob(digest)).expect("a digest");
        image.config = serde_json::from_slice(&fs::read(config).unwrap()).unwrap();
        image
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn manifest(&self) -> Value {
        serde_json::from_slice(&fs::read(self.path("image/manifest.json")).unwrap()).unwrap()
    }

    fn blob(&self, digest: &str) -> PathBuf {
        self.path("image").join(digest.trim_start_matches("sha256:"))
    }

    /// Everything in all layers: permissions, owner, path.
    fn content(&self) -> Vec<[String; 3]> {
        let manifest = self.manifest();
        let layers =
            manifest["layers"].as_array().unwrap().iter().map(|layer| self.blob(layer["digest"].as_str().unwrap()));
        let listing: String =
            layers.map(|layer| run(Command::new("tar").args(["--numeric-owner", "-tvf"]).arg(layer))).collect();
        let line = |line: &str| {
            let words: Vec<_> = line.split_whitespace().collect();
            [words[0], words[1], words[words.len() - 1]].map(str::to_owned)
        };
        listing.lines().map(line).collect()
    }

    /// The words of a list in the image's configuration.
    fn words(&self, key: &str) -> Vec<&str> {
        let list = self.config["config"][key].as_array().unwrap_or_else(|| panic!("no {key}: {}", self.config));
        list.iter().filter_map(Value::as_str).collect()
    }

    /// A command with these arguments in a fresh container with these folders mounted. Needs no container
    /// runtime; the network is this machine's.
    fn contained(&self, mounted: &[(&Path, &str)], arguments: &[&str]) -> Command {
        let container = self.run(self.buildah().args(["from", "--pull-never", NAME]));
        // buildah starts the program some processes away from itself: all of them end with its namespace.
        let mut command = self.command(Path::new("unshare"));
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.args(["buildah", "run", "--isolation", "chroot"]);
        for (folder, place) in mounted {
            command.arg(format!("--volume={}:{place}:ro", folder.display()));
        }
        command.arg(container.trim()).arg("--").args(arguments);
        command
    }

    fn buildah(&self) -> Command {
        self.command(Path::new("buildah"))
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = guarded(program);
        command.env("CONTAINERS_STORAGE_CONF", self.path("storage.conf")).env("TMPDIR", self.folder.path());
        command
    }

    fn run(&self, command: &mut Command) -> String {
        let output = attempt(command);
        assert!(
            output.status.success(),
            "{command:?} failed with {}. buildah needs root, mounts and chroot, or user namespaces: \
             without them the image can neither be built nor tested.\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn image_holds_a_static_binary_and_nothing_else() {
    let image = Image::build();
    let content = image.content();
    let files: Vec<_> = content.iter().filter(|[permissions, ..]| !permissions.starts_with('d')).collect();
    assert_eq!(files, [&["-rwxr-xr-x", "0/0", "egret"].map(str::to_owned)], "{content:?}");
    let folders: Vec<_> = content.iter().filter(|[permissions, ..]| permissions.starts_with('d')).collect();
    assert!(folders.iter().all(|[.., path]| ["./", "etc/", "etc/egret/"].contains(&path.as_str())), "{content:?}");

    let config = &image.config["config"];
    assert_eq!(config["User"], format!("{USER}:{USER}"), "{config}");
    assert_eq!(config["WorkingDir"], "/etc/egret", "{config}");
    assert_eq!(image.words("Entrypoint"), ["/egret"]);
    assert_eq!(image.words("Cmd"), ["run", "/etc/egret/egret.toml"]);

    let layer = image.manifest()["layers"][0]["digest"].as_str().map(|digest| image.blob(digest)).unwrap();
    run(Command::new("tar").arg("-C").arg(image.folder.path()).arg("-xf").arg(layer).arg("egret"));
    let read = |table: &str| run(Command::new("readelf").args(["--wide", table]).arg(image.path("egret")));
    let (segments, dynamic) = (read("--program-headers"), read("--dynamic"));
    assert!(segments.contains("LOAD"), "{segments}");
    assert!(!segments.contains("INTERP"), "it wants a loader, which the image lacks:\n{segments}");
    assert!(!dynamic.contains("NEEDED"), "it wants libraries, which the image lacks:\n{dynamic}");
}

#[test]
fn image_runs_as_its_user_and_originates_with_a_client_certificate() {
    let image = Image::build();
    let pki = Pki::new();
    let port = free_port();
    let server = certauth(port, "default_server", HOST, "TLSv1.3", &pki.server(&[HOST]), &pki);
    let _nginx = Nginx::start(&server, &[port]);
    let (listens, admin) = (free_port(), free_port());
    let mounted = mounted(
        &pki,
        &format!(
            "[admin]\nlisten = \"127.0.0.1:{admin}\"\n\
         [identities.payments]\ncertificate = \"payments.crt\"\nprivate_key = \"payments.key\"\n\
         [trust.internal]\nroots = [\"root.pem\"]\n\
         [upstreams.certauth]\nservers = [\"localhost:{port}\"]\n\
         tls = {{ identity = \"payments\", trust = \"internal\", server_name = \"{HOST}\" }}\n{}",
            listener("certauth", listens, "certauth")
        ),
    );

    let entry = image.words("Entrypoint");
    let check = [&entry[..], &["check", "/etc/egret/egret.toml"]].concat();
    image.run(&mut image.contained(&[(mounted.path(), CONFIG)], &check));

    let start = [entry, image.words("Cmd")].concat();
    let log = image.path("egret.log");
    let mut process = Process::spawn("buildah run", image.contained(&[(mounted.path(), CONFIG)], &start), &log);
    process.wait_for_port(loopback(listens));
    let answer = http::get_as(HOST, loopback(listens));
    assert_eq!(answer.status, 200, "{answer:?}\n{}", process.output());
    assert!(answer.body.contains("dn=CN=payments verify=SUCCESS"), "{answer:?}");
    assert_eq!(owner_of_listener(listens), USER, "{}", process.output());

    let drain = http::curl(&["--request", "POST", &format!("http://127.0.0.1:{admin}/drain")]);
    assert_eq!(drain.status, 202, "{drain:?}");
    let status = process.wait(PATIENCE).expect("it ends after a drain");
    assert!(status.success(), "{status}\n{}", process.output());
}

#[test]
fn image_without_mounted_roots_trusts_those_of_mozilla_and_no_others() {
    let image = Image::build();
    let pki = Pki::new();
    let (examples, roots) = (root().join("config"), TempDir::new().unwrap());
    fs::copy(pki.root(), roots.path().join("ca-certificates.crt")).unwrap();
    let entry = image.words("Entrypoint");
    let check = [&entry[..], &["check", "/etc/egret/minimal.toml"]].concat();
    image.run(&mut image.contained(&[(&examples, CONFIG)], &check));

    let port = free_port();
    let server = certauth(port, "default_server", HOST, "TLSv1.3", &pki.server(&[HOST]), &pki);
    let _nginx = Nginx::start(&server, &[port]);
    let address = format!("localhost:{port}");
    let explain = [&entry[..], &["explain", &address, "--server-name", HOST]].concat();
    let untrusted = attempt(&mut image.contained(&[(&examples, CONFIG)], &explain));
    assert!(String::from_utf8_lossy(&untrusted.stdout).contains("unknown_issuer"), "{untrusted:?}");
    let mounted = attempt(&mut image.contained(&[(&examples, CONFIG), (roots.path(), "/etc/ssl/certs")], &explain));
    assert!(!String::from_utf8_lossy(&mounted.stdout).contains("unknown_issuer"), "{mounted:?}");
}

/// A folder for `/etc/egret`; the key belongs to the image's user alone.
fn mounted(pki: &Pki, config: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    let Pair { certificate, key, .. } = pki.client("payments");
    let path = |name: &str| folder.path().join(name);
    fs::write(path("egret.toml"), config).unwrap();
    for (from, name) in [(&certificate, "payments.crt"), (&key, "payments.key"), (&pki.root(), "root.pem")] {
        fs::copy(from, path(name)).unwrap();
    }
    for path in [path("payments.key"), folder.path().to_owned()] {
        chown(&path, Some(USER), Some(USER)).expect("only root can give the key to the image's user");
    }
    folder
}

/// The user whose socket listens on this port of 127.0.0.1, as the kernel tells.
fn owner_of_listener(port: u16) -> u32 {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let (address, listens) = (format!("0100007F:{port:04X}"), "0A");
    let words = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut found = words.filter(|words| words[1] == address && words[3] == listens);
    found.next().expect("a listener").get(7).expect("a user").parse().unwrap()
}
