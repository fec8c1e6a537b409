//! The image: what is in it, and that it works, built by `deploy/build` as anybody would.
//!
//! The binary in it is compiled without optimisation (profile `image-test`), which `tests/run` has done by
//! now; a plain `cargo test` does it here, which takes minutes once.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
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

    fn container(&self) -> Container<'_> {
        let name = self.run(self.buildah().args(["from", "--pull-never", NAME])).trim().to_owned();
        let root = self.run(self.buildah().args(["mount", &name])).trim().into();
        Container { image: self, name, root }
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

/// Becomes a command that sees the folder `$1` read-only. buildah has no option for a read-only root; the places that it
/// mounts on are made before, as a container runtime does it. `/run` is a file system of root's own, as podman has it with
/// `--read-only`: buildah removes its `.containerenv` there at the end.
const READ_ONLY: &str = r#"
set -eu
root=$1
shift
mkdir -p "$root/proc" "$root/sys" "$root/dev" "$root/run"
touch "$root/etc/hosts" "$root/etc/hostname" "$root/etc/resolv.conf"
mount --bind "$root" "$root"
mount -t tmpfs -o mode=0755 tmpfs "$root/run"
touch "$root/run/.containerenv"
mount -o remount,bind,ro "$root"
exec "$@"
"#;

struct Container<'a> {
    image: &'a Image,
    name: String,
    /// Its files, as this machine sees them.
    root: PathBuf,
}

impl Container<'_> {
    /// A command with these arguments, with these folders mounted, without capabilities and on a read-only root. Needs no
    /// container runtime; the network is this machine's.
    fn command(&self, mounted: &[(&Path, &str)], arguments: &[&str]) -> Command {
        // buildah starts the program some processes away from itself: all of them end with its namespace.
        let mut command = self.image.command(Path::new("unshare"));
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.args(["sh", "-c", READ_ONLY, "sh"]).arg(&self.root);
        command.args(["buildah", "run", "--isolation", "chroot", "--cap-drop", "ALL"]);
        for (folder, place) in mounted {
            command.arg(format!("--volume={}:{place}:ro", folder.display()));
        }
        command.arg(&self.name).arg("--").args(arguments);
        command
    }

    /// The process of the program in the container.
    fn pid(&self) -> u32 {
        let file = |path: &Path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino())).ok();
        let program = file(&self.root.join("egret"));
        let numbers = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let mut found = numbers.filter(|pid: &u32| file(Path::new(&format!("/proc/{pid}/exe"))) == program);
        found.next().expect("a process of the program")
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
    let known = ["./", "etc/", "etc/egret/"];
    for [permissions, owner, path] in folders {
        // Only root can write them: the program's user is another.
        assert!(known.contains(&path.as_str()) && owner == "0/0", "{content:?}");
        assert!(!permissions[4..].contains('w'), "{content:?}");
    }

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
fn image_of_the_same_binary_is_the_same_bytes_twice() {
    let first = Image::build();
    let second = Image::build();
    assert_eq!(first.manifest(), second.manifest());
}

#[test]
fn image_runs_read_only_as_its_user_and_originates_with_a_client_certificate() {
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

    let (entry, container) = (image.words("Entrypoint"), image.container());
    let inside = |arguments: &[&str]| container.command(&[(mounted.path(), CONFIG)], &[&entry[..], arguments].concat());
    image.run(&mut inside(&["check", "/etc/egret/egret.toml"]));

    let log = image.path("egret.log");
    let mut process = Process::spawn("buildah run", inside(&image.words("Cmd")), &log);
    process.wait_for_port(loopback(listens));
    assert_confined(container.pid());
    let admin_address = format!("127.0.0.1:{admin}");
    for (question, answer) in [
        (&["health", "--admin", &admin_address][..], "ready\n"),
        (&["health", "--admin", &admin_address, "--live"], "live\n"),
        (&["health", "--admin", &admin_address, "--upstreams"], "ready\n"),
        (&["wait", "--admin", &admin_address, "--upstreams=certauth"], "ready\n"),
    ] {
        assert_eq!(image.run(&mut inside(question)), answer, "{question:?}");
    }
    let answer = http::get_as(HOST, loopback(listens));
    assert_eq!(answer.status, 200, "{answer:?}\n{}", process.output());
    assert!(answer.body.contains("dn=CN=payments verify=SUCCESS"), "{answer:?}");
    assert_eq!(owner_of_listener(listens), USER, "{}", process.output());

    let drain = http::curl(&["--request", "POST", &format!("http://127.0.0.1:{admin}/drain")]);
    assert_eq!(drain.status, 202, "{drain:?}");
    let status = process.wait(PATIENCE).expect("it ends after a drain");
    assert!(status.success(), "{status}\n{}", process.output());
    let after = attempt(&mut inside(&["health", "--admin", &admin_address]));
    assert_ne!(after.status.code(), Some(0), "nothing answers: {after:?}");
}

#[test]
fn image_without_mounted_roots_trusts_those_of_mozilla_and_no_others() {
    let image = Image::build();
    let pki = Pki::new();
    let (examples, roots) = (root().join("config"), TempDir::new().unwrap());
    fs::copy(pki.root(), roots.path().join("ca-certificates.crt")).unwrap();
    let (entry, container) = (image.words("Entrypoint"), image.container());
    let check = [&entry[..], &["check", "/etc/egret/minimal.toml"]].concat();
    image.run(&mut container.command(&[(&examples, CONFIG)], &check));

    let port = free_port();
    let server = certauth(port, "default_server", HOST, "TLSv1.3", &pki.server(&[HOST]), &pki);
    let _nginx = Nginx::start(&server, &[port]);
    let address = format!("localhost:{port}");
    let explain = [&entry[..], &["explain", &address, "--server-name", HOST]].concat();
    let untrusted = attempt(&mut container.command(&[(&examples, CONFIG)], &explain));
    assert!(String::from_utf8_lossy(&untrusted.stdout).contains("unknown_issuer"), "{untrusted:?}");
    // A place to mount on is made before the root is read-only.
    let container = image.container();
    fs::create_dir_all(container.root.join("etc/ssl/certs")).unwrap();
    let mounted = attempt(&mut container.command(&[(&examples, CONFIG), (roots.path(), "/etc/ssl/certs")], &explain));
    assert!(!String::from_utf8_lossy(&mounted.stdout).contains("unknown_issuer"), "{mounted:?}");
}

/// The image's user, no capability to use or to gain, and a root that cannot be written.
fn assert_confined(pid: u32) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let value = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {key}: {status}")).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let user = USER.to_string();
    for key in ["Uid", "Gid"] {
        assert_eq!(value(key), [user.as_str(); 4].join(" "));
    }
    for key in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(value(key), "0".repeat(16), "{key}");
    }
    let mounts = fs::read_to_string(format!("/proc/{pid}/mounts")).unwrap();
    let read_only = |place: &str| {
        let last = mounts.lines().rfind(|line| line.split(' ').nth(1) == Some(place));
        last.unwrap_or_else(|| panic!("no {place}: {mounts}"))
            .split(' ')
            .nth(3)
            .unwrap()
            .split(',')
            .any(|one| one == "ro")
    };
    assert!(read_only("/") && read_only(CONFIG), "{mounts}");
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
