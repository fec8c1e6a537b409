//! `egret import`: its arguments, its output.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use ipnet::IpNet;

use super::{Verdict, print_problems, style_for};
use crate::config::{Severity, Style};
use crate::tools::import::files::Disk;
use crate::tools::import::findings::Weight;
use crate::tools::import::nginx::include::Error;
use crate::tools::import::{Imported, Options, nginx, stunnel};

/// `egret import nginx FILE`, `egret import stunnel FILE`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 a configuration was written, 2 none was (the file cannot be read, or nothing in \
    it can be carried), 3 with --strict: written, but a function or a protection is lost (an error is reported), 1 it could not be written."
)]
pub struct Import {
    /// From what.
    #[command(subcommand)]
    pub(crate) from: From,
}

/// From what.
#[derive(Debug, Subcommand)]
pub(crate) enum From {
    /// From nginx: `stream` and `http`, whatever goes out by TLS.
    Nginx(Reading),
    /// From stunnel: services with `client = yes`.
    Stunnel(Reading),
}

/// What is read, and how it is reported.
#[derive(Debug, Args)]
pub(crate) struct Reading {
    /// The main configuration file; includes are looked for from its folder.
    pub(crate) file: PathBuf,
    /// Read included files below this folder only; default: the folder of FILE.
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Write the configuration there in place of standard output.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Keep what the other program does, even if unsafe: no SNI, no verification, open to all, ends without
    /// close_notify, loose key permissions.
    #[arg(long)]
    pub(crate) faithful: bool,
    /// Allow clients from this network on listeners that were open to all (repeatable); default: listen on loopback.
    #[arg(long, value_name = "NETWORK")]
    pub(crate) allow: Vec<IpNet>,
    /// Mask hosts, addresses, paths and secrets in everything that is printed, and in the configuration.
    #[arg(long)]
    pub(crate) redact: bool,
    /// Exit 3 if a function or a protection is lost.
    #[arg(long)]
    pub(crate) strict: bool,
    /// Report as text on standard error, or as one JSON object with everything on standard output.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// The form of the report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

impl Import {
    /// Imports and reports. Returns the exit code.
    ///
    /// # Errors
    /// Those of writing.
    pub fn run(&self, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<u8> {
        let (reading, imported) = match &self.from {
            From::Nginx(reading) => (reading, nginx::import(&reading.disk(), &reading.file, &reading.options()?)),
            From::Stunnel(reading) => (reading, stunnel::import(&reading.disk(), &reading.file, &reading.options()?)),
        };
        match imported {
            Ok(imported) => reading.print(&imported, out, err),
            Err(error) => {
                writeln!(err, "egret: {error}")?;
                if let (Error::Syntax(source, problem), false) = (&error, reading.redact) {
                    writeln!(err, "\n{}", problem.render(source, Severity::Error, style_for(&io::stderr())))?;
                }
                Ok(Verdict::Bad.code())
            }
        }
    }
}

impl Reading {
    fn disk(&self) -> Disk {
        Disk::below(self.root.as_deref().or_else(|| self.file.parent()).unwrap_or_else(|| Path::new("")))
    }

    fn options(&self) -> io::Result<Options> {
        Ok(Options {
            faithful: self.faithful,
            allow: self.allow.clone(),
            base: if self.redact { PathBuf::new() } else { self.base()? },
            redact: self.redact,
        })
    }

    /// Prefix by which relative paths mean the same in the new file; empty if it lies in the folder of the old one.
    fn base(&self) -> io::Result<PathBuf> {
        let folder = |file: &Path| {
            let path = std::path::absolute(file)?;
            Ok::<_, io::Error>(path.parent().map(Path::to_path_buf).unwrap_or_default())
        };
        let old = folder(&self.file)?;
        match &self.output {
            Some(output) if folder(output)? == old => Ok(PathBuf::new()),
            _ => Ok(old),
        }
    }

    fn print(&self, imported: &Imported, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<u8> {
        if let Some(problems) = &imported.broken {
            print_problems(problems, err, Style::Plain)?;
            writeln!(err, "egret: the importer made a mistake here, please report it")?;
            return Ok(1);
        }
        if let (Some(path), Some(config)) = (&self.output, &imported.config) {
            fs::write(path, config)?;
        }
        match self.format {
            Format::Json => writeln!(out, "{:#}", imported.report.to_json(imported.config.as_deref()))?,
            Format::Text => {
                err.write_all(imported.render(style_for(&io::stderr())).as_bytes())?;
                if let (None, Some(config)) = (&self.output, &imported.config) {
                    out.write_all(config.as_bytes())?;
                }
            }
        }
        if imported.config.is_none() {
            writeln!(err, "egret: nothing in it can be carried over, so nothing was written")?;
            return Ok(Verdict::Bad.code());
        }
        let lost = imported.report.count(Weight::Error) > 0;
        Ok(if self.strict && lost { LOST } else { Verdict::Good.code() })
    }
}

/// The exit code of `--strict` when egret cannot do something.
const LOST: u8 = 3;
