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
use crate::support::nginx::Nginx;
use crate::support::plain;
use crate::support::process::attempt;
use crate::support::{free_port, loopback};

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
    pub(super) nginx: Directives,
}

/// What becomes of the repair.
pub(super) enum Mended {
    /// Pasted, with these files in place of those that it names, egret carries a stream.
    By(Files),
    /// No configuration of egret mends it: it is said what is to be done.
    Elsewhere,
}

/// What becomes of nginx's directives.
pub(super) enum Directives {
    /// Whatever becomes of egret's tables, with the same files.
    Likewise,
    /// Pasted, with these files in place of those that they name, nginx carries a stream.
    With(Files),
    /// There are none, and the advice says why in these words.
    None(&'static str),
}

type Files = Vec<File>;

/// The name of a file in a repair, and the file to take in its place.
type File = (&'static str, PathBuf);

fn owned(files: &[(&'static str, &Path)]) -> Files {
    files.iter().map(|(name, path)| (*name, path.to_path_buf())).collect()
}

impl Case {
    pub(super) fn new(what: &'static str, arguments: &[&str], cause: &'static str) -> Self {
        let arguments = arguments.iter().map(ToString::to_string).collect();
        Self { what, arguments, cause, reason: "", mended: Mended::Elsewhere, nginx: Directives::Likewise }
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
        Self { mended: Mended::By(owned(files)), ..self }
    }

    /// nginx's directives need other files than egret's tables.
    pub(super) fn nginx_with(self, files: &[(&'static str, &Path)]) -> Self {
        Self { nginx: Directives::With(owned(files)), ..self }
    }

    /// nginx cannot do it, and the advice says so.
    pub(super) fn not_in_nginx(self, advice: &'static str) -> Self {
        Self { nginx: Directives::None(advice), ..self }
    }

    /// Gives the directives for nginx: they are tried in one nginx for all cases.
    fn run(&self) -> Result<Option<Pasted>, String> {
        let explained = explain(&self.arguments);
        let wrong = |what: &str| Err(format!("{}: {what}\n{}", self.what, explained.text()));
        if explained.code != 3 || explained.cause() != self.cause {
            return wrong(&format!("the cause is not {}", self.cause));
        }
        let reason = if self.reason.is_empty() { self.cause } else { self.reason };
        if explained.report["causes"][0]["reason"] != reason {
            return wrong(&format!("the class is not {reason}"));
        }
        let files = match &self.mended {
            Mended::Elsewhere if explained.advice().is_empty() => return wrong("nothing is said about what to do"),
            Mended::Elsewhere => return explained.has_no_directives("").map(|()| None).or_else(|what| wrong(&what)),
            Mended::By(files) => files,
        };
        let Some(repair) = explained.egret(files) else { return wrong("there is no repair") };
        if let Err(log) = serves(&repair) {
            return wrong(&format!("the repair does not work:\n{log}"));
        }
        self.nginx.of(self.what, &explained, files).or_else(|what| wrong(&what))
    }
}

impl Directives {
    /// What is to be pasted, with these files if they do for egret; an error if it is not as it should be.
    pub(super) fn of(&self, what: &str, explained: &Explained, files: &[File]) -> Result<Option<Pasted>, String> {
        let files = match self {
            Self::Likewise => files,
            Self::With(files) => files,
            Self::None(why) => return explained.has_no_directives(why).map(|()| None),
        };
        Ok(Some(Pasted { what: what.to_owned(), directives: explained.nginx(files) }))
    }
}

/// Runs all cases, several at once; fails with all that is wrong. Gives how many of them nginx mends too.
pub(super) fn run(cases: Vec<Case>) -> usize {
    let (wrong, next) = (Mutex::new(Vec::new()), Mutex::new(cases.iter()));
    let pasted = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let Some(case) = next.lock().unwrap().next() else { return };
                    match case.run() {
                        Ok(directives) => pasted.lock().unwrap().extend(directives),
                        Err(what) => wrong.lock().unwrap().push(what),
                    }
                }
            });
        }
    });
    let (mut wrong, pasted) = (wrong.into_inner().unwrap(), pasted.into_inner().unwrap());
    wrong.extend(fail_in_nginx(&pasted));
    assert!(wrong.is_empty(), "{} of {} cases:\n\n{}", wrong.len(), cases.len(), wrong.join("\n\n"));
    pasted.len()
}

/// Directives to be pasted into a `server { }` of nginx.
pub(super) struct Pasted {
    pub(super) what: String,
    pub(super) directives: String,
}

/// One nginx with a server of each: which of them carry no stream both ways, and what it logged.
pub(super) fn fail_in_nginx(pasted: &[Pasted]) -> Vec<String> {
    if pasted.is_empty() {
        return Vec::new();
    }
    let ports: Vec<u16> = pasted.iter().map(|_| free_port()).collect();
    let server = |(one, port): (&Pasted, &u16)| format!("server {{ listen 127.0.0.1:{port};\n{}}}\n", one.directives);
    let servers: String = pasted.iter().zip(&ports).map(server).collect();
    let nginx = Nginx::start_stream(&servers, &ports);
    let failed = pasted.iter().zip(ports).filter(|(_, port)| !answers(loopback(*port)));
    let wrong = |(one, port): (&Pasted, u16)| {
        let (log, port) = (nginx.errors(), format!("127.0.0.1:{port}"));
        let log: Vec<&str> = log.lines().filter(|line| line.contains(&port)).collect();
        format!("{}: not in nginx:\n{}{}", one.what, one.directives, log.join("\n"))
    };
    failed.map(wrong).collect()
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
    pub(super) fn nginx(&self, files: &[(&str, PathBuf)]) -> String {
        let text = self.report["repair"]["nginx"].as_str().unwrap_or_else(|| panic!("no directives: {}", self.text()));
        files.iter().fold(text.to_owned(), |text, (name, path)| {
            assert!(text.contains(&format!(" {name};")), "the repair does not name {name}:\n{text}");
            text.replace(&format!(" {name};"), &format!(" {};", path.display()))
        })
    }

    /// There is nothing to paste into nginx, and the advice says why in these words.
    pub(super) fn has_no_directives(&self, why: &str) -> Result<(), String> {
        let said = self.advice().iter().any(|advice| advice.as_str().is_some_and(|advice| advice.contains(why)));
        match self.report["repair"]["nginx"].as_str() {
            Some(_) => Err("there are directives for nginx".into()),
            None if !said => Err(format!("the advice does not say {why:?}")),
            None => Ok(()),
        }
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
