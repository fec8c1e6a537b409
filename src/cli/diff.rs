//! `egret diff`: what a reload would touch.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::{Verdict, print_problems, style_for};
use crate::config::{self, Environment, Problem};
use crate::control::admin::client;
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

fn running(address: &str) -> Result<Value, Trouble> {
    let words = |error: io::Error| Trouble::Words(format!("the admin address {address}: {error}"));
    let answer = client::get(address, "/outline", None, PATIENCE).map_err(words)?;
    if answer.status != 200 {
        let first = answer.body.lines().next().unwrap_or_default();
        return Err(Trouble::Words(format!("the admin address {address} answers {}: {first}", answer.status)));
    }
    serde_json::from_str(&answer.body).map_err(|error| words(io::Error::other(error)))
}
