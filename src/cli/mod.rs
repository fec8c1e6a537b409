//! Arguments and output, nothing else: what was asked for, and how the answer is printed.

mod diff;
mod exec;
mod explain;
mod generate;
mod health;
mod import;
mod run;
mod trust;
mod variables;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

pub use self::diff::Diff;
pub use self::exec::Exec;
pub use self::generate::{Completions, ManualPages};
pub use self::health::{Health, WaitReady};
pub(crate) use self::import::Import;
pub use self::run::{Options, Run};
pub use self::trust::Trust;

use clap::{Args, Parser, Subcommand};

pub use self::explain::Explain;
use crate::config::read::Text;
use crate::config::{self, Advice, Environment, Loaded, Problems, Style};
use crate::control::supervise::EXEC_FAILED;
use crate::credentials::certificate::Date;
use crate::tools::check::format::{self, Format};
use crate::tools::check::{self, FileCheck, Scope};

/// Layer-4 proxy that gives verified mutual TLS to programs that do not speak it: plain TCP in, TLS out
#[derive(Debug, Parser)]
#[command(name = "egret", version, about)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands of `egret`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the proxy, from a configuration file or from arguments
    Run(Box<Run>),
    /// Run the proxy beside a program, whose end is the end of both: as a container's entrypoint
    Exec(Box<Exec>),
    /// Ask a running egret whether it is ready: one line and an exit code, for probes
    Health(Health),
    /// Wait until a running egret is ready, for init containers and jobs
    Wait(WaitReady),
    /// Check a configuration file and the files it names, without listening
    Check(Check),
    /// Show what a reload would change: listeners, identities, sessions, pooled connections
    Diff(Diff),
    /// Fetch, show and list certificates
    #[command(subcommand)]
    Trust(Trust),
    /// Diagnose a TLS server and print the configuration that fixes it
    Explain(Box<Explain>),
    /// Convert another proxy's configuration and report its problems
    Import(Import),
    /// Print the JSON schema of the configuration file
    Schema,
    /// Print a completion script for a shell
    Completions(Completions),
    /// Write the manual pages
    Man(ManualPages),
    #[cfg(feature = "demo")]
    /// Run a demonstration: a server that asks for client certificates, and egret in front of it
    Demo,
}

/// `egret check FILE`.
#[derive(Debug, Args)]
pub struct Check {
    /// The configuration file.
    pub(crate) file: PathBuf,
    /// Treat warnings as errors (exit 2)
    #[arg(long)]
    pub(crate) strict: bool,
    /// Report format: `text` goes to standard error, the others to standard output
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// The same as `--format json`.
    #[arg(long, conflicts_with = "format")]
    pub(crate) json: bool,
    /// Warn about certificates that expire within DAYS [default: when a third of their life is left,
    /// at most 30 days]
    #[arg(long, value_name = "DAYS")]
    pub(crate) expires_within: Option<u32>,
    /// File of Rego rules that the resolved configuration must meet (repeatable)
    #[arg(long, value_name = "FILE.rego")]
    pub(crate) policy: Vec<PathBuf>,
    /// Value that the rules see as `input.parameters.NAME` (repeatable)
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_parameter, requires = "policy")]
    pub(crate) policy_parameter: Vec<(String, String)>,
}

/// Result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Exit code 0.
    Good,
    /// Exit code 2: something is wrong with the configuration.
    Bad,
}

impl Verdict {
    /// The exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Good => 0,
            Self::Bad => 2,
        }
    }
}

/// The variables of this process.
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

impl Check {
    /// Checks a file and reports what it found: as text on `err`, in the other formats on `out`.
    ///
    /// # Errors
    /// Those of writing.
    pub fn run(
        &self,
        environment: Environment<'_>,
        files: FileCheck<'_>,
        out: &mut dyn Write,
        err: &mut dyn Write,
    ) -> io::Result<Verdict> {
        let found = match check::check(&self.file, environment, files, &self.scope()) {
            Ok(found) => found,
            Err(error) => {
                writeln!(err, "egret: {error} ({})", error.reason())?;
                return Ok(Verdict::Bad);
            }
        };
        match if self.json { Format::Json } else { self.format } {
            Format::Text => write!(err, "{}", format::text(&found, style_for(&io::stderr())))?,
            Format::Json => writeln!(out, "{:#}", format::json(&found))?,
            Format::Sarif => writeln!(out, "{:#}", format::sarif(&found))?,
            Format::Github => write!(out, "{}", format::github(&found))?,
        }
        Ok(if found.is_good(self.strict) { Verdict::Good } else { Verdict::Bad })
    }

    fn scope(&self) -> Scope {
        Scope {
            now: Date::now(),
            expires_within: self.expires_within.map(|days| i64::from(days) * 24 * 60 * 60),
            policies: self.policy.clone(),
            parameters: self.policy_parameter.clone(),
        }
    }
}

/// Prints warnings as text.
///
/// # Errors
///
/// Those of writing.
pub fn print_advice(loaded: &Loaded, advice: &[Advice], err: &mut dyn Write, style: Style) -> io::Result<()> {
    advice.iter().try_for_each(|one| writeln!(err, "{}\n", one.render(loaded, style)))
}

/// Prints problems, and their number, as text.
///
/// # Errors
///
/// Those of writing.
pub fn print_problems(problems: &Problems, err: &mut dyn Write, style: Style) -> io::Result<()> {
    let noun = if problems.count() == 1 { "problem" } else { "problems" };
    writeln!(err, "{}\n", problems.render(style))?;
    writeln!(err, "egret: {} {noun} in {}", problems.count(), problems.source().origin())
}

/// Logs warnings.
pub fn log_advice(loaded: &Loaded, advice: &[Advice]) {
    for one in advice {
        let place = one.problem.span.as_ref().map(|span| loaded.source().position(span.start));
        tracing::warn!(
            code = one.code,
            file = loaded.source().origin(),
            line = place.map(|place| place.line),
            column = place.map(|place| place.column),
            detail = one.problem.label,
            repair = one.problem.repair,
            "{}",
            one.problem.title,
        );
    }
}

/// Logs problems.
pub fn log_problems(problems: &Problems) {
    for problem in problems.shown() {
        let place = problem.span.as_ref().map(|span| problems.source().position(span.start));
        tracing::error!(
            reason = problems.reason(),
            file = problems.source().origin(),
            line = place.map(|place| place.line),
            column = place.map(|place| place.column),
            detail = problem.label,
            repair = problem.repair,
            "{}",
            problem.title,
        );
    }
    tracing::error!(reason = problems.reason(), problems = problems.count(), "the configuration cannot be used");
}

/// Whether these arguments, which do not parse as a whole, ask `egret run` or `egret exec` for a log in JSON.
pub fn asks_for_json(arguments: impl Iterator<Item = OsString>) -> bool {
    // What follows `--` are arguments of a program.
    let arguments: Vec<_> = arguments.skip(1).take_while(|argument| argument != "--").collect();
    let logs = arguments.first().is_some_and(|command| command == "run" || command == "exec");
    let has_pair = arguments.windows(2).any(|pair| pair[0] == "--log" && pair[1] == "json");
    logs && (has_pair || arguments.iter().any(|argument| argument == "--log=json"))
}

/// The exit code for arguments that cannot be used. That of `egret exec` is none that its program is likely to have.
pub fn usage_code(mut arguments: impl Iterator<Item = OsString>) -> u8 {
    if arguments.nth(1).is_some_and(|command| command == "exec") { EXEC_FAILED } else { Verdict::Bad.code() }
}

/// Colours for terminals, unless `NO_COLOR` is set (no-color.org).
pub fn style_for(stream: &impl IsTerminal) -> Style {
    let colourless = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if stream.is_terminal() && !colourless { Style::Coloured } else { Style::Plain }
}

/// Prints the JSON schema of the configuration file.
///
/// # Errors
/// Those of writing.
pub fn print_schema(out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{:#}", config::schema())
}

fn parse_text<T: Text>(text: &str) -> Result<T, String> {
    T::parse(text).map_err(|fault| format!("{}; {}", fault.title, fault.repair))
}

fn parse_parameter(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Cli::command().debug_assert();
    }
}
