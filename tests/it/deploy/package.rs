//! The packages: the same bytes twice, installed as dpkg and rpm do it, with a bill of materials, and the program in them
//! runs.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::egret::listener;
use crate::support::peer::{Peer, anonymous};
use crate::support::pki::Pki;
use crate::support::process::{Process, attempt, guarded, run};
use crate::support::{free_port, loopback, plain, systemd};

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
    assert_eq!(sums[0].lines().count(), 4, "{}", sums[0]);
    let check = |folder: &Path| run(Command::new("sha256sum").args(["--check", "SHA256SUMS"]).current_dir(folder));
    check(folders[0]);

    let tarball = the_one(second.path(), ".tar.gz");
    run(Command::new("tar").arg("-C").arg(second.path()).arg("-xzf").arg(&tarball));
    let top = tarball.to_str().unwrap().strip_suffix(".tar.gz").unwrap();
    assert!(run(Command::new(format!("{top}/bin/egret")).arg("--version")).starts_with("egret "));
    // Each file has its sum, as a reader of the unpacked folder checks it.
    let checked = check(Path::new(top));
    for file in [
        "bin/egret",
        "share/man/man1/egret-run.1",
        "share/completions/egret.bash",
        "share/doc/docs/configuration.md",
        "share/doc/egret.cdx.json",
        "share/systemd/egret.service",
    ] {
        assert!(checked.contains(&format!("./{file}: OK\n")), "{file}: {checked}");
    }
    let listed = run(Command::new("find").arg(top).args(["-type", "f"]));
    assert_eq!(checked.lines().count() + 1, listed.lines().count(), "every file but the sums themselves");
}

/// Name and version of each crate that `cargo tree` lists with these edges.
fn tree(edges: &str) -> BTreeSet<(String, String)> {
    let mut command = Command::new(env!("CARGO"));
    command.args(["tree", "--locked", "--prefix", "none", "--edges", edges]);
    let listed = run(command.current_dir(env!("CARGO_MANIFEST_DIR")));
    let crates = listed.lines().filter(|line| !line.is_empty()).map(|line| {
        let mut words = line.split(' ');
        let name = words.next().expect("a name").to_owned();
        (name, words.next().expect("a version").trim_start_matches('v').to_owned())
    });
    crates.collect()
}

#[test]
fn bill_of_materials_lists_what_the_binary_is_made_of_and_nothing_else() {
    let text = fs::read_to_string(the_one(made(), ".cdx.json")).unwrap();
    let bill: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&bill["bomFormat"], &bill["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
    assert_eq!(bill["metadata"]["component"]["name"], "egret");
    let lock = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock")).unwrap();
    let mut listed = BTreeSet::new();
    let mut references = BTreeSet::from([bill["metadata"]["component"]["bom-ref"].as_str().unwrap()]);
    for component in bill["components"].as_array().unwrap() {
        let field = |key: &str| component[key].as_str().unwrap_or_else(|| panic!("no {key}: {component}"));
        let (name, version) = (field("name"), field("version"));
        assert_eq!(field("purl"), format!("pkg:cargo/{name}@{version}"));
        let sum = component["hashes"][0]["content"].as_str().unwrap_or_else(|| panic!("no sum: {component}"));
        let entry = format!("name = \"{name}\"\nversion = \"{version}\"\n");
        let locked = lock.split_once(&entry).unwrap_or_else(|| panic!("{name} {version} is not locked")).1;
        assert_eq!(locked.split_once("checksum = \"").unwrap().1.split('"').next(), Some(sum), "{name} {version}");
        assert!(component["licenses"][0]["expression"].is_string(), "{component}");
        references.insert(field("bom-ref"));
        listed.insert((name.to_owned(), version.to_owned()));
    }
    let mut linked = tree("normal");
    linked.retain(|(name, _)| name != "egret");
    assert_eq!(listed, linked);
    assert!(tree("normal,build,dev").len() > linked.len() + 10, "what only tests need was not left out");
    for dependency in bill["dependencies"].as_array().unwrap() {
        let needed = dependency["dependsOn"].as_array().unwrap().iter().chain([&dependency["ref"]]);
        for one in needed {
            assert!(references.contains(one.as_str().unwrap()), "{one} is no component");
        }
    }
    assert!(!text.contains(env!("CARGO_MANIFEST_DIR")), "where it was built is in it");
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
    assert_eq!(systemd::remarks(&[("egret.service".to_owned(), verified.clone())]), Vec::<String>::new());
    assert!(systemd::is_sandboxed(&verified));
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

/// A root of its own with the book-keeping of rpm, and the user that `%pre` makes where it can run.
fn rpm(root: &Path, arguments: &[&str]) -> Output {
    let etc = root.join("etc");
    if !etc.exists() {
        fs::create_dir(&etc).unwrap();
        fs::write(etc.join("passwd"), "root:x:0:0::/:/bin/sh\negret:x:700:700::/:/usr/sbin/nologin\n").unwrap();
        fs::write(etc.join("group"), "root:x:0:\negret:x:700:\n").unwrap();
    }
    // Debian's rpm keeps its own book-keeping in the home folder.
    attempt(Command::new("rpm").arg("--root").arg(root).args(["--dbpath", "/var/lib/rpm"]).args(arguments))
}

#[test]
fn rpm_installs_verifies_keeps_changed_configuration_and_has_the_program_of_the_debian_package() {
    let package = the_one(made(), ".rpm");
    let package = package.to_str().unwrap();
    let root = TempDir::new().unwrap();
    let path = |inside: &str| root.path().join(inside);
    // In a root without a shell no scriptlet can run.
    let succeeds = |arguments: &[&str]| {
        let output = rpm(root.path(), arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    succeeds(&["--install", "--nodeps", "--noscripts", package]);
    assert_eq!(succeeds(&["--verify", "--nodeps", "egret"]), "");

    let config = path("etc/egret/egret.toml");
    let metadata = fs::metadata(&config).unwrap();
    assert_eq!((metadata.uid(), metadata.gid(), metadata.permissions().mode() & 0o777), (0, 700, 0o640));
    let unit = fs::read_to_string(path("usr/lib/systemd/system/egret.service")).unwrap();
    let program = path("usr/bin/egret");
    let verified = unit.replace("/usr/bin/egret", program.to_str().unwrap());
    assert_eq!(systemd::remarks(&[("egret.service".to_owned(), verified.clone())]), Vec::<String>::new());
    assert!(systemd::is_sandboxed(&verified));
    run(Command::new(&program).arg("check").arg(path("usr/share/doc/egret/config/minimal.toml")));
    let debian = System::new();
    debian.dpkg(&["--install", the_one(made(), ".deb").to_str().unwrap()]);
    assert!(fs::read(&program).unwrap() == fs::read(debian.path("usr/bin/egret")).unwrap(), "another program");

    let scripts = succeeds(&["--query", "--scripts", "egret"]);
    for words in ["useradd --system --gid egret", "systemctl disable --now egret", "systemctl try-restart egret"] {
        assert!(scripts.contains(words), "{scripts}");
    }
    fs::write(&config, "# changed\n").unwrap();
    assert!(rpm(root.path(), &["--verify", "--nodeps", "egret"]).stdout.starts_with(b"S.5"), "a change is noticed");
    succeeds(&["--erase", "--noscripts", "egret"]);
    assert!(!program.exists() && !config.exists());
    assert_eq!(fs::read_to_string(path("etc/egret/egret.toml.rpmsave")).unwrap(), "# changed\n");
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
