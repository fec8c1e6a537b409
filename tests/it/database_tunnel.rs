//! docs/database-tunnel.md: its commands and its configuration, against a real PostgreSQL.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::support::egret::binary;
use crate::support::free_port;
use crate::support::pki::Pki;
use crate::support::postgres::Postgres;
use crate::support::process::{Process, attempt, guarded};

/// The page in a folder with its files; the server is on a port of this machine, egret on another.
struct Page {
    folder: TempDir,
    text: String,
    _server: Postgres,
}

impl Page {
    fn new() -> Self {
        let pki = Pki::new();
        let server = Postgres::start(&pki, &pki.server(&["localhost"]));
        let folder = TempDir::new().unwrap();
        let client = pki.client("app");
        for (from, name) in [(client.certificate, "app.crt"), (client.key, "app.key"), (pki.root(), "database-ca.pem")]
        {
            fs::copy(from, folder.path().join(name)).unwrap();
        }
        let mut text =
            fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/database-tunnel.md")).unwrap();
        let (port, own) = (server.port, free_port());
        for (old, new) in [
            ("postgres://db.example.com", format!("postgres://localhost:{port}")),
            ("db.example.com:5432", format!("localhost:{port}")),
            ("127.0.0.1:5432", format!("127.0.0.1:{own}")),
            ("host=127.0.0.1 port=5432", format!("host=127.0.0.1 port={own}")),
            ("/run/egret", folder.path().display().to_string()),
        ] {
            assert!(text.contains(old), "the page has no {old}");
            text = text.replace(old, &new);
        }
        let config =
            text.split_once("\n```toml\n").and_then(|(_, rest)| rest.split_once("\n```")).expect("an example").0;
        fs::write(folder.path().join("egret.toml"), config).unwrap();
        Self { folder, text, _server: server }
    }

    /// The one command of the page that begins so.
    fn command(&self, start: &str) -> Command {
        let mut found =
            self.text.lines().filter_map(|line| line.strip_prefix("    ")).filter(|line| line.starts_with(start));
        let line = found.next().unwrap_or_else(|| panic!("the page has no {start}"));
        assert!(found.next().is_none(), "two of {start}");
        let mut command = guarded(Path::new("/bin/sh"));
        let egret = binary().parent().unwrap().display();
        // The shell becomes the command, which then gets the signals.
        command.args(["-c", &format!("PATH={egret}:$PATH; exec {line}")]).current_dir(self.folder.path());
        command
    }

    fn succeeds(&self, start: &str) -> String {
        let output = attempt(&mut self.command(start));
        assert!(output.status.success(), "{start}: {output:?}");
        text(&output)
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn commands_of_the_page_reach_a_database_that_demands_a_certificate() {
    let page = Page::new();
    let log = page.folder.path().join("log");
    let explained = page.succeeds("egret explain");
    assert!(explained.contains("ok  TLSv1.3"), "{explained}");

    let mut tunnel = Process::spawn("egret", page.command("egret run --listen"), &log);
    tunnel.wait_for_output("listening");
    assert!(page.succeeds("psql \"host=127.0.0.1").contains("through egret"));
    drop(tunnel);

    page.succeeds("egret check egret.toml");
    let _service = Process::spawn("egret", page.command("egret run egret.toml"), &log);
    page.succeeds("egret wait");
    assert!(page.succeeds("psql \"host=/").contains("by the socket"));
}
