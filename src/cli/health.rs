//! `egret health` and `egret wait`: a running egret is asked, for probes and jobs without a shell or curl.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;

use super::parse_text;
use crate::control::admin::client;

/// The process to ask, and what about.
#[derive(Debug, Args)]
struct Asked {
    /// Admin address of the running process: `IP:PORT` or `unix:/PATH`
    #[arg(long, value_name = "ADDRESS", env = "EGRET_ADMIN", default_value = "127.0.0.1:9465")]
    admin: String,
    /// File with the bearer token of the admin address
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Ask whether egret has reached these upstreams itself [default: all that a listener leads to]
    #[arg(long, value_name = "NAME,...", num_args = 0..=1, require_equals = true, value_delimiter = ',')]
    upstreams: Option<Vec<String>>,
}

/// `egret health`.
#[derive(Debug, Args)]
pub struct Health {
    #[command(flatten)]
    asked: Asked,
    /// Ask whether its worker threads make progress, and not whether it is ready
    #[arg(long, conflicts_with = "upstreams")]
    live: bool,
}

/// `egret wait`.
#[derive(Debug, Args)]
pub struct WaitReady {
    #[command(flatten)]
    asked: Asked,
    /// Exit with 1 if it is not ready within this time
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_text::<Duration>)]
    timeout: Duration,
}

/// A process that answers does so within a second; one that is stopped does not answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two questions of a wait.
const PAUSE: Duration = Duration::from_millis(200);

impl Asked {
    fn path(&self) -> String {
        match &self.upstreams {
            None => "/readyz".to_owned(),
            Some(names) => format!("/readyz?upstreams={}", names.join(",")),
        }
    }

    /// The answer as one line; as error if it is not the one that is hoped for.
    fn ask(&self, path: &str) -> Result<String, String> {
        let read = |file: &PathBuf| fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()));
        let token = self.token_file.as_ref().map(read).transpose()?;
        let answer = client::get(&self.admin, path, token.as_deref().map(str::trim), PATIENCE);
        let answer = answer.map_err(|error| format!("the admin address {}: {error}", self.admin))?;
        let lines: Vec<_> = answer.body.lines().map(str::trim).collect();
        if answer.status == 200 { Ok(lines.join("; ")) } else { Err(lines.join("; ")) }
    }
}

impl Health {
    /// Prints one line. Exit code: 0 healthy, 1 not, or there is no answer.
    ///
    /// # Errors
    /// Those of writing.
    pub fn run(&self, out: &mut dyn Write) -> io::Result<u8> {
        let path = if self.live { "/livez".to_owned() } else { self.asked.path() };
        match self.asked.ask(&path) {
            Ok(line) => writeln!(out, "{line}").map(|()| 0),
            Err(line) => writeln!(out, "{line}").map(|()| 1),
        }
    }
}

impl WaitReady {
    /// Returns once the process is ready, with exit code 0; or prints why it is not, with 1.
    ///
    /// # Errors
    /// Those of writing.
    pub fn run(&self, out: &mut dyn Write) -> io::Result<u8> {
        let began = Instant::now();
        loop {
            let line = match self.asked.ask(&self.asked.path()) {
                Ok(line) => return writeln!(out, "{line}").map(|()| 0),
                Err(line) => line,
            };
            if began.elapsed() + PAUSE > self.timeout {
                writeln!(out, "not ready within {} s: {line}", self.timeout.as_secs_f64())?;
                return Ok(1);
            }
            sleep(PAUSE);
        }
    }
}
