//! A case: a server that is broken, how it is asked about, what the answer has to be, and what mends it.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::egret::{Egret, binary, listener};
use crate::support::free_port;
use crate::support::plain;
use crate::support::process::attempt;

pub(super) const HOST: &str = "server.example.com";
pub(super) const REQUEST: &[u8] = b"GET / HTTP/1.0\r\n\r\n";

/// One server and what is said of it.
pub(super) struct Case {
    /// For whoever reads a failure of the test.
    pub(super) what: &'static str,
    /// Those of `egret explain`, as one would type them.
    pub(super) arguments: Vec<String>,
    /// The word of the first cause.
    pub(super) cause: &'static str,
    /// Its class; empty: the same word.
    pub(super) reason: &'static str,
    pub(super) mended: Mended,
}

/// What becomes of the repair.
pub(super) enum Mended {
    /// Pasted, with these files in place of those that it names, egret carries a stream.
    By(Vec<(&'static str, PathBuf)>),
    /// No configuration of egret mends it: it is said what is to be done.
    Elsewhere,
}

impl Case {
    pub(super) fn new(what: &'static str, arguments: &[&str], cause: &'static str) -> Self {
        let arguments = arguments.iter().map(ToString::to_string).collect();
        Self { what, arguments, cause, reason: "", mended: Mended::Elsewhere }
    }

    pub(super) fn class(self, reason: &'static str) -> Self {
        Self { reason, ..self }
    }

    /// The server never answers: an attempt may take so long only.
    pub(super) fn impatient(mut self) -> Self {
        self.arguments.extend(["--timeout", "800ms"].map(str::to_owned));
        self
    }

    /// The repair works as it is.
    pub(super) fn mended(self) -> Self {
        self.mended_with(&[])
    }

    /// The repair works with these files in place of those that it names.
    pub(super) fn mended_with(self, files: &[(&'static str, &Path)]) -> Self {
        let files = files.iter().map(|(name, path)| (*name, path.to_path_buf())).collect();
        Self { mended: Mended::By(files), ..self }
    }

    fn run(&self) -> Result<(), String> {
        let explained = explain(&self.arguments);
        let wrong = |what: &str| Err(format!("{}: {what}\n{}", self.what, explained.text()));
        if explained.code != 3 || explained.cause() != self.cause {
            return wrong(&format!("the cause is not {}", self.cause));
        }
        let reason = if self.reason.is_empty() { self.cause } else { self.reason };
        if explained.report["causes"][0]["reason"] != reason {
            return wrong(&format!("the class is not {reason}"));
        }
        match &self.mended {
            Mended::Elsewhere if explained.advice().is_empty() => wrong("nothing is said about what to do"),
            Mended::Elsewhere => Ok(()),
            Mended::By(files) => match explained.egret(files) {
                None => wrong("there is no repair"),
                Some(repair) => serves(&repair).or_else(|log| wrong(&format!("the repair does not work:\n{log}"))),
            },
        }
    }
}

/// Runs all cases, several at once; fails with all that is wrong.
pub(super) fn run(cases: Vec<Case>) {
    let (wrong, next) = (Mutex::new(Vec::new()), Mutex::new(cases.iter()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let Some(case) = next.lock().unwrap().next() else { return };
                    wrong.lock().unwrap().extend(case.run().err());
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of {} cases:\n\n{}", wrong.len(), cases.len(), wrong.join("\n\n"));
}

/// What `egret explain` said.
pub(super) struct Explained {
    pub(super) code: i32,
    pub(super) report: Value,
    pub(super) stderr: String,
}

/// Asks.
pub(super) fn explain(arguments: &[impl AsRef<std::ffi::OsStr>]) -> Explained {
    explain_with(arguments, &[])
}

/// The same with variables of the environment.
pub(super) fn explain_with(arguments: &[impl AsRef<std::ffi::OsStr>], variables: &[(&str, &Path)]) -> Explained {
    let mut command = Command::new(binary());
    command.arg("explain").args(arguments).arg("--json");
    command.envs(variables.iter().copied());
    let output = attempt(&mut command);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let mut json: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{command:?}: {error}\n{}{stderr}", String::from_utf8_lossy(&output.stdout)));
    assert_eq!(json["version"], 1);
    Explained { code: output.status.code().unwrap_or(-1), report: json["reports"][0].take(), stderr }
}

impl Explained {
    pub(super) fn cause(&self) -> &str {
        self.report["causes"][0]["cause"].as_str().unwrap_or("nothing")
    }

    pub(super) fn notes(&self) -> Vec<&str> {
        self.report["notes"].as_array().unwrap().iter().map(|note| note["note"].as_str().unwrap()).collect()
    }

    pub(super) fn attempt(&self, word: &str) -> &Value {
        let attempts = self.report["attempts"].as_array().unwrap();
        attempts.iter().find(|attempt| attempt["attempt"] == word).unwrap_or(&Value::Null)
    }

    fn advice(&self) -> &[Value] {
        self.report["repair"]["advice"].as_array().unwrap()
    }

    /// egret's repair with other files than those it names.
    pub(super) fn egret(&self, files: &[(&str, PathBuf)]) -> Option<String> {
        let text = self.report["repair"]["egret"].as_str()?.to_owned();
        Some(files.iter().fold(text, |text, (name, path)| {
            assert!(text.contains(&format!("\"{name}\"")), "the repair does not name {name}:\n{text}");
            text.replace(&format!("\"{name}\""), &format!("{path:?}"))
        }))
    }

    /// nginx's repair likewise.
    pub(super) fn nginx(&self, files: &[(&str, &Path)]) -> String {
        let text = self.report["repair"]["nginx"].as_str().unwrap_or_else(|| panic!("no directives: {}", self.text()));
        files.iter().fold(text.to_owned(), |text, (name, path)| {
            assert!(text.contains(&format!(" {name};")), "the repair does not name {name}:\n{text}");
            text.replace(&format!(" {name};"), &format!(" {};", path.display()))
        })
    }

    pub(super) fn text(&self) -> String {
        format!("exit {}\n{:#}\n{}", self.code, self.report, self.stderr)
    }
}

/// egret with these tables and a listener to `backend` carries a stream both ways; else what it logged.
pub(super) fn serves(tables: &str) -> Result<(), String> {
    let egret = Egret::start(&format!("{tables}\n{}", listener("plain", free_port(), "backend")));
    match answers(egret.address("plain")) {
        true => Ok(()),
        false => Err(format!("{tables}\n{}", egret.log_text())),
    }
}

/// Whether a byte comes back for a request.
pub(super) fn answers(address: std::net::SocketAddr) -> bool {
    let mut tcp = plain::connect(address);
    tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    tcp.write_all(REQUEST).is_ok() && matches!(tcp.read(&mut [0; 64]), Ok(1..))
}

/// A configuration file with one upstream, `backend`.
pub(super) fn config(folder: &TempDir, name: &str, tables: &str) -> String {
    let file = folder.path().join(name);
    fs::write(&file, format!("{tables}\n{}", listener("plain", 1, "backend"))).unwrap();
    file.display().to_string()
}
