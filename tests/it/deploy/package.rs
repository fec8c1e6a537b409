//! The Debian package and the tarball: the same bytes twice, installed as dpkg does it, and the program in them runs.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use tempfile::TempDir;

use crate::support::egret::listener;
use crate::support::peer::{Peer, anonymous};
use crate::support::pki::Pki;
use crate::support::process::{Process, guarded, run};
use crate::support::{free_port, loopback, plain};

const HOST: &str = "server.example.com";

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)
}

/// The packages, made of the binary that the image has too.
fn packages(folder: &Path) {
    let built = run(guarded(script("build")).args(["--binary-only", "image-test"]));
    let binary = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(built.lines().find(|line| line.ends_with("/egret")).expect("the path of the binary"));
    run(guarded(script("package")).arg("--binary").arg(binary).arg(folder));
}

/// Made once for all tests.
fn made() -> &'static Path {
    static MADE: LazyLock<TempDir> = LazyLock::new(|| {
        let folder = TempDir::new().unwrap();
        packages(folder.path());
        folder
    });
    MADE.path()
}

fn the_one(folder: &Path, ending: &str) -> PathBuf {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = paths.filter(|path| path.to_str().unwrap().ends_with(ending)).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

/// A system of its own that has nothing but dpkg's book-keeping.
struct System(TempDir);

impl System {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        for inside in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "etc"] {
            fs::create_dir_all(folder.path().join(inside)).unwrap();
        }
        fs::write(folder.path().join("var/lib/dpkg/status"), "").unwrap();
        Self(folder)
    }

    fn path(&self, inside: &str) -> PathBuf {
        self.0.path().join(inside)
    }

    fn dpkg(&self, arguments: &[&str]) -> String {
        let root = format!("--root={}", self.0.path().display());
        run(Command::new("dpkg").args([&root, "--force-script-chrootless", "--force-confold"]).args(arguments))
    }

    /// User and group of the installed package.
    fn user(&self) -> (u32, u32) {
        let users = fs::read_to_string(self.path("etc/passwd")).unwrap();
        let line = users.lines().find(|line| line.starts_with("egret:")).expect("the user of the unit");
        let mut numbers = line.split(':').skip(2).map(|number| number.parse().unwrap());
        (numbers.next().unwrap(), numbers.next().unwrap())
    }
}

#[test]
fn packages_are_the_same_bytes_twice_and_their_sums_are_right() {
    let second = TempDir::new().unwrap();
    packages(second.path());
    let folders = [made(), second.path()];
    let sums = folders.map(|folder| fs::read_to_string(folder.join("SHA256SUMS")).unwrap());
    assert_eq!(sums[0], sums[1]);
    assert_eq!(sums[0].lines().count(), 2, "{}", sums[0]);
    run(Command::new("sha256sum").arg("--check").arg("SHA256SUMS").current_dir(folders[0]));

    let tarball = the_one(second.path(), ".tar.gz");
    run(Command::new("tar").arg("-C").arg(second.path()).arg("-xzf").arg(&tarball));
    let top = tarball.to_str().unwrap().strip_suffix(".tar.gz").unwrap();
    assert!(run(Command::new(format!("{top}/bin/egret")).arg("--version")).starts_with("egret "));
    for file in ["share/man/man1/egret-run.1", "share/completions/egret.bash", "share/doc/docs/configuration.md"] {
        assert!(Path::new(top).join(file).is_file(), "{file}");
    }
}

#[test]
fn debian_package_installs_keeps_changed_configuration_and_purges() {
    let package = the_one(made(), ".deb");
    let package = package.to_str().unwrap();
    let system = System::new();
    system.dpkg(&["--install", package]);

    let (user, group) = system.user();
    let config = system.path("etc/egret/egret.toml");
    let metadata = fs::metadata(&config).unwrap();
    assert_eq!((metadata.uid(), metadata.gid(), metadata.permissions().mode() & 0o777), (0, group, 0o640));
    assert_ne!(user, 0);
    let unit = fs::read_to_string(system.path("usr/lib/systemd/system/egret.service")).unwrap();
    assert!(
        unit.starts_with("[Unit]") && unit.contains("ExecStart=/usr/bin/egret run /etc/egret/egret.toml"),
        "{unit}"
    );
    let program = system.path("usr/bin/egret");
    let verified = unit.replace("/usr/bin/egret", program.to_str().unwrap());
    assert_eq!(super::unit::remarks(&verified), Vec::<String>::new());
    run(Command::new("gzip").arg("--test").arg(system.path("usr/share/man/man1/egret.1.gz")));
    run(Command::new(&program).arg("check").arg(system.path("usr/share/doc/egret/config/minimal.toml")));

    fs::write(&config, "# changed\n").unwrap();
    system.dpkg(&["--install", package]);
    assert_eq!(fs::read_to_string(&config).unwrap(), "# changed\n", "an upgrade keeps it");
    system.dpkg(&["--remove", "egret"]);
    assert!(config.exists() && !program.exists());
    system.dpkg(&["--purge", "egret"]);
    assert!(!config.exists());
}

#[test]
fn installed_program_serves_as_the_user_of_the_unit() {
    let system = System::new();
    system.dpkg(&["--install", the_one(made(), ".deb").to_str().unwrap()]);
    let (user, group) = system.user();

    let pki = Pki::new();
    let peer = Peer::echo(anonymous(&pki.server(&[HOST])));
    let port = free_port();
    let tls = format!("tls = {{ trust = \"internal\", server_name = \"{HOST}\" }}");
    let upstream = format!("[upstreams.echo]\nservers = [\"{}\"]\n{tls}\n", peer.address);
    fs::copy(pki.root(), system.path("etc/egret/root.pem")).unwrap();
    let trust = "[trust.internal]\nroots = [\"root.pem\"]\n";
    fs::write(system.path("etc/egret/egret.toml"), format!("{trust}{upstream}{}", listener("echo", port, "echo")))
        .unwrap();
    // The folder of a test is closed to others.
    fs::set_permissions(system.path(""), fs::Permissions::from_mode(0o755)).unwrap();

    let mut command = guarded(Path::new("/usr/bin/setpriv"));
    command.arg(format!("--reuid={user}")).arg(format!("--regid={group}")).arg("--clear-groups").arg("--no-new-privs");
    command.arg(system.path("usr/bin/egret")).arg("run").arg(system.path("etc/egret/egret.toml"));
    let mut process = Process::spawn("egret", command, &system.path("egret.log"));
    process.wait_for_port(loopback(port));
    assert!(crate::lifecycle::echoes(&mut plain::connect(loopback(port))), "{}", process.output());
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    assert!(status.contains(&format!("Uid:\t{user}\t")), "{status}");
}
