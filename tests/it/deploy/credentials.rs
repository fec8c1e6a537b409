//! `LoadCredential=`: the test plays systemd's part, with the units and the configuration of docs/systemd.md.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{XattrFlags, setxattr};
use tempfile::TempDir;

use crate::support::egret::binary;
use crate::support::peer::{Peer, mutual};
use crate::support::pki::{Pair, Pki};
use crate::support::process::{Process, attempt, guarded};
use crate::support::{free_port, loopback, plain, systemd};

/// The service's user; no other account of the machine is used.
const USER: u32 = 65_532;
const HOST: &str = "api.example.com";

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/systemd.md")).unwrap()
}

/// The blocks of this language.
fn blocks(language: &str) -> Vec<String> {
    let page = page();
    let start = format!("\n```{language}\n");
    let found = page.split(&start).skip(1).map(|block| block.split_once("\n```").expect("an end").0.to_owned() + "\n");
    found.collect()
}

/// How systemd lets the user read a credential.
#[derive(Clone, Copy, Debug)]
enum Grant {
    /// The file is the user's.
    Owner,
    /// The file is root's, and an entry of its access list names the user: the list's mask is shown as the group's mode.
    AccessList,
    /// The file is root's, and its group the user's.
    Group,
}

impl Grant {
    fn give(self, path: &Path, mode: u32) {
        let (owner, group, mode) = match self {
            Self::Owner => (USER, USER, mode),
            Self::AccessList => (0, 0, mode),
            Self::Group => (0, USER, mode | (mode >> 3)),
        };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        chown(path, Some(owner), Some(group)).expect("only root plays systemd");
        if matches!(self, Self::AccessList) {
            let name = "system.posix_acl_access";
            setxattr(path, name, &access_list(mode >> 6), XattrFlags::empty())
                .expect("a file system with access lists");
        }
    }
}

/// acl(5) in the form of the extended attribute: version 2, then tag, permissions and id of each entry.
fn access_list(permissions: u32) -> Vec<u8> {
    const NOBODY: u32 = u32::MAX;
    let may = permissions as u16;
    let entries = [(0x01, may, NOBODY), (0x02, may, USER), (0x04, 0, NOBODY), (0x10, may, NOBODY), (0x20, 0, NOBODY)];
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, may, id) in entries {
        let tag: u16 = tag;
        bytes.extend(tag.to_le_bytes().iter().chain(&may.to_le_bytes()).chain(&id.to_le_bytes()));
    }
    bytes
}

/// What `LoadCredential=NAME:PATH` does with the lines of the page; the page's folder of files is `from`.
fn load(from: &Path, to: &Path, grant: Grant) {
    let unit = blocks("ini").concat();
    let lines: Vec<_> = unit.lines().filter_map(|line| line.strip_prefix("LoadCredential=")?.split_once(':')).collect();
    assert_eq!(lines.len(), 2, "{unit}");
    for (name, source) in lines {
        let copy = to.join(name);
        fs::copy(from.join(Path::new(source).file_name().unwrap()), &copy).unwrap();
        grant.give(&copy, 0o400);
    }
    grant.give(to, 0o500);
}

/// The page's configuration with credentials, on this port and with this server.
fn configuration(port: u16, server: &Peer) -> String {
    let text = blocks("toml").into_iter().find(|block| block.contains("CREDENTIALS_DIRECTORY")).expect("an example");
    let changed = [
        ("127.0.0.1:8080".to_owned(), format!("127.0.0.1:{port}")),
        (format!("servers = [\"{HOST}:443\"]"), format!("servers = [\"{}\"]", server.address)),
        ("trust = \"internal\" }".to_owned(), format!("trust = \"internal\", server_name = \"{HOST}\" }}")),
    ];
    changed.iter().fold(text, |text, (old, new)| {
        assert!(text.contains(old), "the page has no {old}");
        text.replace(old, new)
    })
}

#[test]
fn keys_that_systemd_passes_as_credentials_are_presented() {
    for grant in [Grant::Owner, Grant::AccessList, Grant::Group] {
        let pki = Pki::new();
        let Pair { certificate, key, .. } = pki.client("client");
        let server = Peer::echo(mutual(&pki.server(&[HOST]), &pki));
        let folder = TempDir::new().unwrap();
        let path = |name: &str| -> PathBuf { folder.path().join(name) };
        for name in ["pki", "etc", "credentials"] {
            fs::create_dir(path(name)).unwrap();
        }
        // Root's own: the service cannot read them.
        fs::copy(certificate, path("pki/client.crt")).unwrap();
        fs::copy(key, path("pki/client.key")).unwrap();
        fs::set_permissions(path("pki"), fs::Permissions::from_mode(0o700)).unwrap();
        let port = free_port();
        fs::write(path("etc/egret.toml"), configuration(port, &server)).unwrap();
        fs::copy(pki.root(), path("etc/internal-ca.pem")).unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        load(&path("pki"), &path("credentials"), grant);

        let mut command = guarded(Path::new("/usr/bin/setpriv"));
        command.args([format!("--reuid={USER}"), format!("--regid={USER}"), "--clear-groups".into()]);
        command.args(["--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]);
        command.arg(program(&path("egret"))).arg("run").arg(path("etc/egret.toml"));
        command.env("CREDENTIALS_DIRECTORY", path("credentials"));
        let mut process = Process::spawn("egret", command, &path("egret.log"));
        process.wait_for_port(loopback(port));
        assert!(
            crate::lifecycle::echoes(&mut plain::connect(loopback(port))),
            "{grant:?}: the server demands the certificate\n{}",
            process.output()
        );
    }
}

/// A copy that every user may execute: the build's own folder may be closed to others.
fn program(copy: &Path) -> &Path {
    fs::copy(binary(), copy).unwrap();
    copy
}

#[test]
fn without_the_variable_the_configuration_says_which_one_is_missing() {
    let folder = TempDir::new().unwrap();
    let config = folder.path().join("egret.toml");
    let text = blocks("toml").into_iter().find(|block| block.contains("CREDENTIALS_DIRECTORY")).expect("an example");
    fs::write(&config, text).unwrap();
    let output = attempt(Command::new(binary()).arg("check").arg(&config).env_remove("CREDENTIALS_DIRECTORY"));
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("CREDENTIALS_DIRECTORY"), "{said}");
}

#[test]
fn systemd_takes_every_unit_of_the_page() {
    let service = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/egret.service")).unwrap();
    let service = service.replace("/usr/local/bin/egret", binary().to_str().unwrap());
    let named = |unit: String| {
        let name = unit.lines().next().and_then(|line| line.strip_prefix("# ")).expect("the name of the unit");
        (name.to_owned(), unit)
    };
    let mut units: Vec<_> = blocks("ini").into_iter().map(named).collect();
    assert_eq!(units.len(), 3);
    units.push(("egret.service".to_owned(), service));
    assert_eq!(systemd::remarks(&units), Vec::<String>::new());
    // A mistyped key of each would have been said.
    for (_, text) in &mut units {
        *text = text.replace("FileDescriptorName=", "FileDescriptor=").replace("LoadCredential=", "LoadCredentials=");
    }
    assert_eq!(systemd::remarks(&units).len(), 4);
}
