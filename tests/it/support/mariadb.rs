//! A real MariaDB that lets in users with a client certificate only.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::account::Account;
use super::pki::{Pair, Pki};
use super::process::{Process, run};
use super::{free_port, loopback};

/// A running mariadbd with the database `shop`. Its users have the password `secret`: `app` and `ed` (`client_ed25519`)
/// need any certificate, `named` and `stranger` one with the subject CN=app and CN=stranger.
pub(crate) struct MariaDb {
    // Ended before its folder is removed.
    _process: Process,
    folder: TempDir,
    pub(crate) port: u16,
}

const USERS: &str = "
    create user app@'%' identified by 'secret' require x509;
    create user named@'%' identified by 'secret' require subject '/CN=app';
    create user stranger@'%' identified by 'secret' require subject '/CN=stranger';
    create user ed@'%' identified via ed25519 using password('secret') require x509;
    grant all on *.* to app@'%', named@'%', stranger@'%', ed@'%';
    create database shop;";

impl MariaDb {
    pub(crate) fn start(pki: &Pki, server: &Pair) -> Self {
        Self::start_with(pki, server, &[])
    }

    /// `settings` are further options of mariadbd.
    pub(crate) fn start_with(pki: &Pki, server: &Pair, settings: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let account = Account::of("mysql");
        account.own(folder.path());
        let path = |name: &str| folder.path().join(name);
        run(account
            .command(Path::new("mariadb-install-db"))
            // Two of them at once disturb each other in one folder.
            .env("TMPDIR", folder.path())
            .args(["--no-defaults", "--skip-test-db", "--auth-root-authentication-method=normal"])
            .arg(format!("--datadir={}", path("data").display())));
        for (name, from) in
            [("server.crt", &server.certificate), ("server.key", &server.key), ("root.crt", &pki.root())]
        {
            fs::copy(from, path(name)).unwrap();
            fs::set_permissions(path(name), fs::Permissions::from_mode(0o600)).unwrap();
            account.own(&path(name));
        }
        let port = free_port();
        let mut command = account.command(Path::new("mariadbd"));
        command.env("TMPDIR", folder.path());
        let options = [("datadir", "data"), ("socket", "socket"), ("pid-file", "pid")];
        let certificates = [("ssl-ca", "root.crt"), ("ssl-cert", "server.crt"), ("ssl-key", "server.key")];
        command.arg("--no-defaults");
        command.args(
            [options, certificates].concat().iter().map(|(name, file)| format!("--{name}={}", path(file).display())),
        );
        command.args([&format!("--port={port}"), "--bind-address=127.0.0.1", "--plugin-load-add=auth_ed25519"]);
        // Connections of this machine have no name, as those of most networks.
        command.args(["--skip-name-resolve", "--local-infile=1", "--innodb-flush-log-at-trx-commit=0"]).args(settings);
        let mut process = Process::spawn("mariadbd", command, &path("log"));
        process.wait_for_output("ready for connections");
        process.wait_for_port(loopback(port));
        let database = Self { _process: process, folder, port };
        database.as_root(USERS);
        database
    }

    /// Runs statements without egret, and returns the rows.
    pub(crate) fn as_root(&self, statements: &str) -> String {
        let mut command = Command::new("mariadb");
        command.args(["--no-defaults", "--batch", "--skip-column-names", "--user=root", "--execute", statements]);
        run(command.arg("--socket").arg(self.folder.path().join("socket")))
    }
}

/// The client as `user` to a port of this machine, without TLS.
pub(crate) fn mariadb(port: u16, user: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("mariadb");
    command.args(["--no-defaults", "--batch", "--skip-column-names", "--host=127.0.0.1", "--password=secret"]);
    command.args([format!("--port={port}"), format!("--user={user}")]).args(arguments);
    command
}

/// Python with PyMySQL and MySQL's own connector. `PORT` is in the program's environment.
pub(crate) fn python(port: u16, program: &str) -> Command {
    let mut command = Command::new("python3");
    command.args(["-c", program]).env("PORT", port.to_string());
    command.env("PYTHONPATH", concat!(env!("CARGO_MANIFEST_DIR"), "/target/python"));
    command
}
