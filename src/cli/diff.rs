//! `egret diff`: what a reload would touch.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::{Verdict, print_problems, style_for};
use crate::config::{self, Environment, Problem};
use crate::control::reload_fingerprint::outline;
use crate::control::snapshot::{self, Rigour, Snapshot};
use crate::observe::metrics::Registry;
use crate::tools::check::diff::diff;

/// `egret diff OLD NEW`, or `egret diff --admin ADDRESS NEW`.
#[derive(Debug, Args)]
pub struct Diff {
    /// Configuration that is running
    #[arg(required_unless_present = "admin")]
    pub(crate) old: Option<PathBuf>,
    /// Configuration to compare it with
    #[arg(required_unless_present = "admin")]
    pub(crate) new: Option<PathBuf>,
    /// Compare with the running process at this admin address, in place of OLD
    #[arg(long, value_name = "ADDRESS|unix:/PATH")]
    pub(crate) admin: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug)]
enum Trouble {
    /// From the command line or the running process.
    Words(String),
    Problems(Box<config::Problems>),
}

impl Diff {
    /// Prints what a reload would change. Returns the exit code: 0 no change, 1 changes, 2 a configuration cannot be
    /// read.
    ///
    /// # Errors
    ///
    /// Those of writing.
    pub fn run(&self, environment: Environment<'_>, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<u8> {
        let diff = match self.sides(environment) {
            Ok((old, new)) => diff(&old, &new),
            Err(Trouble::Words(words)) => {
                writeln!(err, "egret: {words}")?;
                return Ok(Verdict::Bad.code());
            }
            Err(Trouble::Problems(problems)) => {
                print_problems(&problems, err, style_for(&io::stderr()))?;
                return Ok(Verdict::Bad.code());
            }
        };
        if self.json {
            writeln!(out, "{:#}", diff.to_json())?
        } else {
            write!(out, "{diff}")?
        }
        Ok(u8::from(!diff.is_empty()))
    }

    fn sides(&self, environment: Environment<'_>) -> Result<(Value, Value), Trouble> {
        match (&self.admin, &self.old, &self.new) {
            (Some(address), Some(new), None) => Ok((running(address)?, of_file(new, environment)?)),
            (None, Some(old), Some(new)) => Ok((of_file(old, environment)?, of_file(new, environment)?)),
            _ => {
                Err(Trouble::Words("name two files; or one, and the --admin address of the running process".to_owned()))
            }
        }
    }
}

fn of_file(path: &Path, environment: Environment<'_>) -> Result<Value, Trouble> {
    let problems = |problems| Trouble::Problems(Box::new(problems));
    let loaded = config::load(path, environment).map_err(problems)?;
    match Snapshot::build(
        loaded.config.clone(),
        None,
        &Registry::silent(),
        None,
        Rigour::PartByPart,
        &snapshot::always(),
    ) {
        Ok(snapshot) => Ok(outline(&snapshot)),
        Err(errors) => {
            let list = errors.iter().map(|error| Problem::of_file(error.to_string(), error.repair())).collect();
            Err(problems(loaded.problems(list)))
        }
    }
}

/// The admin endpoint answers an outline in milliseconds; a stopped process does not answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Ten thousand upstreams make some ten megabytes.
const LARGEST: u64 = 64 << 20;

fn running(address: &str) -> Result<Value, Trouble> {
    let words = |error: io::Error| Trouble::Words(format!("the admin address {address}: {error}"));
    let answer = ask(address).map_err(words)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if !head.starts_with("HTTP/1.1 200 ") {
        let first = head.lines().next().unwrap_or_default();
        return Err(Trouble::Words(format!("the admin address {address} answers {first:?}: is this egret?")));
    }
    serde_json::from_str(body).map_err(|error| words(io::Error::other(error)))
}

fn ask(address: &str) -> io::Result<String> {
    match address.strip_prefix("unix:") {
        Some(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            exchange(stream, "localhost")
        }
        None => {
            let socket: SocketAddr = address.parse().map_err(io::Error::other)?;
            let stream = TcpStream::connect_timeout(&socket, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            exchange(stream, address)
        }
    }
}

fn exchange(mut stream: impl Read + Write, host: &str) -> io::Result<String> {
    // One write: `write!` makes one for each piece, and the second waits for the acknowledgement of the first.
    let request = format!("GET /outline HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(LARGEST).read_to_string(&mut answer)?;
    Ok(answer)
}
