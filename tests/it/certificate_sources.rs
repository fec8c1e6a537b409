//! docs/certificate-sources.md: its configurations, with the files written and renewed as each source does it.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use tempfile::TempDir;

use crate::support::egret::binary;
use crate::support::nginx::{Nginx, certauth};
use crate::support::pki::{Pki, replace};
use crate::support::process::{Process, guarded};
use crate::support::{eventually, free_port, http, loopback, systemd};

const HOST: &str = "api.example.com";

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/certificate-sources.md")).unwrap()
}

/// The blocks of a section in this language.
fn blocks(section: &str, language: &str) -> Vec<String> {
    let page = page();
    let after = page.split_once(&format!("\n## {section}\n")).expect("the section").1;
    let section = after.split("\n## ").next().expect("a first part");
    let start = format!("\n```{language}\n");
    let found = section.split(&start).skip(1);
    found.map(|block| block.split_once("\n```").expect("an end").0.to_owned() + "\n").collect()
}

/// What a source writes: the first time, and at each renewal.
type Writes = fn(&Path, &Pki, &str);

/// As `step ca certificate` and `step ca renew`: the key stays, and the certificate's file is opened, emptied and written.
fn step(folder: &Path, pki: &Pki, name: &str) {
    let key = folder.join("client.key");
    if !key.exists() {
        fs::copy(pki.client(name).key, &key).unwrap();
    }
    let chain = pki.renewed(&key, name);
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(folder.join("client.crt")).unwrap();
    let (first, rest) = chain.as_bytes().split_at(chain.len() / 2);
    file.write_all(first).unwrap();
    file.write_all(rest).unwrap();
}

/// As the template of Vault's agent: key, certificate and issuer in one file, put in place by a rename.
fn vault(folder: &Path, pki: &Pki, name: &str) {
    let client = pki.client(name);
    let [key, chain] = [client.key, client.certificate].map(|path| fs::read_to_string(path).unwrap());
    replace(&folder.join("client.pem"), &format!("{key}\n{chain}\n"), 0o600);
}

#[test]
fn renewed_files_of_each_source_are_presented_without_a_hook() {
    for (section, writes) in [("step-ca", step as Writes), ("Vault agent", vault)] {
        let pki = Pki::new();
        let port = free_port();
        let server = certauth(port, "default_server", HOST, "TLSv1.3", &pki.server(&[HOST]), &pki);
        let _nginx = Nginx::start(&server, &[port]);
        let folder = TempDir::new().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        writes(folder.path(), &pki, "first");
        fs::copy(pki.root(), folder.path().join("root.crt")).unwrap();

        let [text] = &blocks(section, "toml")[..] else { panic!("one configuration in {section}") };
        let own = free_port();
        let config = [
            ("/var/lib/egret".to_owned(), folder.path().display().to_string()),
            ("127.0.0.1:8080".to_owned(), format!("127.0.0.1:{own}")),
            (format!("{HOST}:443"), format!("localhost:{port}")),
            ("trust = \"internal\" }".to_owned(), format!("trust = \"internal\", server_name = \"{HOST}\" }}")),
        ]
        .iter()
        .fold(text.clone(), |text, (old, new)| {
            assert!(text.contains(old), "{section}: no {old}");
            text.replace(old, new)
        });
        let path = folder.path().join("egret.toml");
        fs::write(&path, config).unwrap();
        let mut command = guarded(binary());
        command.arg("run").arg(&path);
        let mut egret = Process::spawn("egret", command, &folder.path().join("log"));
        egret.wait_for_port(loopback(own));
        let seen = || http::get_as(HOST, loopback(own)).body;
        assert!(seen().contains("dn=CN=first verify=SUCCESS"), "{section}: {}\n{}", seen(), egret.output());
        for name in ["second", "third"] {
            writes(folder.path(), &pki, name);
            eventually("the new certificate to be presented", || {
                seen().contains(&format!("dn=CN={name} verify=SUCCESS")).then_some(())
            });
        }
    }
}

#[test]
fn systemd_takes_the_units_of_the_page() {
    let named = |unit: String| {
        let name =
            unit.lines().next().and_then(|line| line.rsplit('/').next()).expect("the name of the unit").to_owned();
        // The program is not installed here.
        (name, unit.replace("/usr/bin/step", "/bin/true"))
    };
    let mut units: Vec<_> = blocks("step-ca", "ini").into_iter().map(named).collect();
    assert_eq!(units.len(), 2);
    assert_eq!(systemd::remarks(&units), Vec::<String>::new());
    for (_, text) in &mut units {
        *text = text.replace("ExecCondition=", "ExecConditions=").replace("Persistent=", "Persist=");
    }
    assert_eq!(systemd::remarks(&units).len(), 2);
}
