//! `tests/run NAME` installs what the tests of that name need, and nothing else.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::support::process::attempt;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The packages for these arguments, as `tests/run` prints them.
fn needs(arguments: &[&str]) -> BTreeSet<String> {
    let output = attempt(Command::new(root().join("tests/run")).current_dir(root()).arg("--needs").args(arguments));
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_theme_gets_the_servers_that_its_tests_start() {
    for (theme, packages) in [
        ("databases", &["postgresql", "postgresql-client", "redis-server", "redis-tools", "curl"][..]),
        ("interop", &["nginx", "libnginx-mod-stream", "caddy", "gnutls-bin", "openssl"]),
        ("starved", &["iproute2", "redis-server"]),
        ("deploy", &["buildah", "systemd", "nginx"]),
        ("mysql", &["mariadb-server", "mariadb-client", "python3-pip"]),
        ("check", &["python3-jsonschema"]),
        ("protocols", &["postfix", "dovecot-imapd", "slapd", "ldap-utils", "prosody", "vsftpd", "python3"]),
        ("kubernetes", &["npm", "python3-venv"]),
    ] {
        let listed = needs(&[&format!("{theme}::")]);
        let missing: Vec<_> = packages.iter().filter(|package| !listed.contains(**package)).collect();
        assert!(missing.is_empty(), "{theme} lacks {missing:?}");
    }
    let pool = needs(&["pool::"]);
    assert!(pool.contains("postgresql") && !pool.contains("nginx") && !pool.contains("buildah"), "{pool:?}");
}

#[test]
fn a_name_without_servers_installs_none() {
    for arguments in [&["config::"][..], &["docs::"], &["--lib"], &["--lib", "tls::records"], &["relay::"]] {
        assert_eq!(needs(arguments), BTreeSet::from(["gcc", "util-linux"].map(str::to_owned)), "{arguments:?}");
    }
    assert!(needs(&["a_validator_finds"]).contains("python3-jsonschema"), "a test is found by its name alone");
    assert!(needs(&[]).len() > 10, "without a name everything is needed");
}
