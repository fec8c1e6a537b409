//! Real clients that speak no TLS and real servers that demand it, in protocols that begin in plaintext. The configurations
//! are the examples of `config/`.

mod database;
mod directory;
mod faults;
mod files;
mod mail;
mod news;
mod presence;
mod strangers;
mod stunnel;

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::egret::Egret;
use crate::support::pki::{Pair, Pki};
use crate::support::process::run;
use crate::support::{eventually, free_port};

/// An example of `config/` with the servers, files and addresses of a test in place of its own.
struct Example(String);

impl Example {
    fn read(file: &str) -> Self {
        Self(fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(file)).unwrap())
    }

    /// The example has to hold `from`: a test that replaces nothing would not use it.
    fn with(self, from: &str, to: &str) -> Self {
        assert!(self.0.contains(from), "{from} is not in the example:\n{}", self.0);
        Self(self.0.replace(from, to))
    }

    /// The files of an identity and of a trust, by the names that they have in the example.
    fn files(self, identity: &str, client: &Pair, trust: &str, pki: &Pki) -> Self {
        self.with(&format!("certs/{identity}.crt"), &client.certificate.display().to_string())
            .with(&format!("certs/{identity}.key"), &client.key.display().to_string())
            .with(&format!("certs/{trust}.pem"), &pki.root().display().to_string())
    }

    /// A server of the example becomes this port on loopback, and keeps its name.
    fn server(self, server: &str, port: u16) -> Self {
        let (host, _) = server.split_once(':').unwrap_or((server, ""));
        let named = self.with(&format!("{server:?}"), &format!("\"127.0.0.1:{port}\""));
        let lines = named.0.lines().map(|line| {
            let lacks_name = line.starts_with("tls = ") && !line.contains("server_name");
            if lacks_name { line.replace(" }", &format!(", server_name = {host:?} }}")) } else { line.to_owned() }
        });
        Self(lines.collect::<Vec<_>>().join("\n"))
    }

    fn listener(self, address: &str) -> Self {
        self.with(&format!("{address:?}"), &format!("\"127.0.0.1:{}\"", free_port()))
    }

    /// Connections are kept ready, or made for each client.
    fn pooled(self, pooled: bool) -> Self {
        if pooled { self.with("upgrade = ", "pool = { min_idle = 1 }\nupgrade = ") } else { self }
    }

    /// Starts, and waits until each pool has a connection.
    fn start(&self) -> Egret {
        let egret = Egret::start(&self.0);
        let pools = self.0.matches("pool = {").count();
        eventually("a warm connection in each pool", || {
            (egret.metrics().sum("egret_pool_warm", &[]) >= pools as f64).then_some(())
        });
        egret
    }
}

/// A program in Python, with its standard library.
fn python(program: &str, arguments: &[&str]) -> String {
    run(&mut python_command(program, arguments))
}

fn python_command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-W", "ignore", "-c", program]).args(arguments);
    command
}

/// The log's line of a client's stream, which came out of the pool or did not.
fn served(egret: &Egret, listener: &str, pooled: bool) -> Value {
    let line = egret.wait_for_log(&format!("the connection of {listener}"), |line| {
        line["message"] == "connection" && line["listener"] == listener
    });
    assert_eq!(line["pooled"], pooled, "{line}");
    line
}
