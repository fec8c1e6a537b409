//! A real PostgreSQL that lets in nobody without TLS and a client certificate.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::account::Account;
use super::pki::{Pair, Pki};
use super::process::{Process, run};
use super::{free_port, loopback};

/// A running postgres with the superuser `app`, who has to present a certificate of that name.
pub(crate) struct Postgres {
    // Ended before its folder is removed.
    _process: Process,
    _folder: TempDir,
    pub(crate) port: u16,
}

impl Postgres {
    pub(crate) fn start(pki: &Pki, server: &Pair) -> Self {
        Self::start_at(free_port(), pki, server)
    }

    pub(crate) fn start_at(port: u16, pki: &Pki, server: &Pair) -> Self {
        Self::start_with(port, pki, server, "hostssl all,replication all all cert clientcert=verify-full\n")
    }

    /// One that takes plaintext, for a TLS server before it.
    pub(crate) fn start_plain(pki: &Pki, server: &Pair) -> Self {
        Self::start_with(free_port(), pki, server, "host all all 127.0.0.1/32 trust\n")
    }

    fn start_with(port: u16, pki: &Pki, server: &Pair, access: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let data = folder.path().join("data");
        let account = Account::of("postgres");
        account.own(folder.path());
        run(account
            .command(&programs().join("initdb"))
            .args(["--no-sync", "-U", "app", "-A", "reject", "-D"])
            .arg(&data));
        fs::write(data.join("pg_hba.conf"), access).unwrap();
        for (name, from) in
            [("server.crt", &server.certificate), ("server.key", &server.key), ("root.crt", &pki.root())]
        {
            fs::copy(from, data.join(name)).unwrap();
            account.own(&data.join(name));
        }
        fs::set_permissions(data.join("server.key"), fs::Permissions::from_mode(0o600)).unwrap();
        let mut command = account.command(&programs().join("postgres"));
        command.arg("-D").arg(&data).args(["-p", &port.to_string()]);
        for setting in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "ssl=on",
            "ssl_ca_file=root.crt",
            "fsync=off",
            "max_connections=128",
        ] {
            command.args(["-c", setting]);
        }
        let mut process = Process::spawn("postgres", command, &folder.path().join("postgres.log"));
        process.wait_for_output("database system is ready to accept connections");
        process.wait_for_port(loopback(port));
        Self { _process: process, _folder: folder, port }
    }
}

/// `psql` as user `app` to a port of this machine; it prints rows and nothing else.
pub(crate) fn psql(port: u16, sslmode: &str, query: &str) -> Command {
    let mut command = Command::new("psql");
    command.args(["--no-psqlrc", "--tuples-only", "--no-align", "--command", query]);
    connect(&mut command, port, sslmode);
    command
}

/// `pgbench` the same way.
pub(crate) fn pgbench(port: u16, arguments: &[&str]) -> Command {
    let mut command = Command::new(programs().join("pgbench"));
    command.args(arguments);
    connect(&mut command, port, "disable");
    command
}

fn connect(command: &mut Command, port: u16, sslmode: &str) {
    for (name, value) in [
        ("PGHOST", "127.0.0.1"),
        ("PGPORT", &port.to_string()),
        ("PGUSER", "app"),
        ("PGDATABASE", "postgres"),
        ("PGSSLMODE", sslmode),
        ("PGCONNECT_TIMEOUT", "10"),
    ] {
        command.env(name, value);
    }
}

/// Where Debian keeps the programs of the newest version.
fn programs() -> PathBuf {
    let version = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    let folders = fs::read_dir("/usr/lib/postgresql").expect("tests/run installs postgresql");
    let newest = folders.map(|entry| entry.unwrap().path()).max_by_key(version);
    newest.expect("a version of postgresql").join("bin")
}
