//! `egret trust`: certificates fetched, shown, and watched for their end.

use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};

use super::{environment, parse_text, print_problems, style_for};
use crate::config;
use crate::config::formats::ServedName;
use crate::config::values::Server;
use crate::credentials::certificate::Date;
use crate::credentials::fingerprint::{Sha256, labelled_hex};
use crate::protocols::Upgrade;
use crate::tools::certificates::{expiry, fetch, read, show};

/// What to do with certificates.
#[derive(Debug, Subcommand)]
pub enum Trust {
    /// Fetch a server's chain and, once its fingerprint is confirmed, write the certificate to trust
    Fetch(Fetch),
    /// Show what a certificate file holds (PEM, DER, PKCS#12)
    Show(Show),
    /// List certificates and CRLs by expiry date
    Expiry(Expiry),
}

/// `egret trust fetch HOST:PORT`.
#[derive(Debug, Args)]
pub struct Fetch {
    /// The TLS server.
    #[arg(value_name = "HOST:PORT", value_parser = parse_text::<Server>)]
    pub(crate) server: Server,
    /// Name to send as SNI [default: the server's host]
    #[arg(long, value_name = "NAME", value_parser = parse_text::<ServedName>)]
    pub(crate) server_name: Option<ServedName>,
    /// STARTTLS-style protocol spoken before TLS, such as `postgres` or `smtp`
    #[arg(long, value_name = "PROTOCOL", value_parser = parse_text::<Upgrade>)]
    pub(crate) upgrade: Option<Upgrade>,
    /// Fingerprint of the certificate to trust, obtained by another way than this connection
    #[arg(long, value_name = "sha256:HEX", value_parser = parse_fingerprint)]
    pub(crate) fingerprint: Option<Sha256>,
    /// Write the certificate to FILE [default: only show it]
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Time limit of the whole command
    #[arg(long, value_name = "DURATION", value_parser = parse_text::<Duration>, default_value = "10s")]
    pub(crate) timeout: Duration,
}

/// `egret trust show FILE`.
#[derive(Debug, Args)]
pub struct Show {
    /// The file.
    pub(crate) file: PathBuf,
    /// File with the password of the PKCS#12 file in its first line
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `egret trust expiry FILE`.
#[derive(Debug, Args)]
pub struct Expiry {
    /// The configuration file.
    pub(crate) file: PathBuf,
    /// Exit 1 if anything expires within DAYS [default: when a third of its life is left, at
    /// most 30 days]
    #[arg(long, value_name = "DAYS")]
    pub(crate) within: Option<u32>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Done, or nothing to report.
const DONE: u8 = 0;
/// Not confirmed, or something expires soon.
const HELD: u8 = 1;
/// It could not be done.
const TROUBLE: u8 = 2;

impl Trust {
    /// Runs the command and returns the exit code. Answers to questions are read from `input`.
    ///
    /// # Errors
    /// Those of reading and writing.
    pub async fn run(&self, input: &mut dyn BufRead, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<u8> {
        match self {
            Self::Fetch(fetch) => fetch.run(input, out, err).await,
            Self::Show(show) => show.run(out, err),
            Self::Expiry(expiry) => expiry.run(out, err),
        }
    }
}

impl Show {
    fn run(&self, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<u8> {
        match read::items(&self.file, self.password_file.as_deref()) {
            Ok(items) if self.json => writeln!(out, "{:#}", show::json(&items))?,
            Ok(items) => write!(out, "{}", show::text(&items, Date::now()))?,
            Err(error) => {
                writeln!(err, "egret: {error} ({})", error.reason())?;
                return Ok(TROUBLE);
            }
        }
        Ok(DONE)
    }
}

impl Expiry {
    fn run(&self, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<u8> {
        let loaded = match config::load(&self.file, &environment) {
            Ok(loaded) => loaded,
            Err(problems) => {
                print_problems(&problems, err, style_for(&io::stderr()))?;
                return Ok(TROUBLE);
            }
        };
        let lifetimes = match expiry::lifetimes(&loaded.config) {
            Ok(lifetimes) => lifetimes,
            Err(error) => {
                writeln!(err, "egret: {error} ({})", error.reason)?;
                return Ok(TROUBLE);
            }
        };
        let now = Date::now();
        match self.json {
            true => writeln!(out, "{:#}", expiry::json(&lifetimes, now))?,
            false => write!(out, "{}", expiry::text(&lifetimes, now))?,
        }
        Ok(if expiry::any_within(&lifetimes, now, self.within) { HELD } else { DONE })
    }
}

impl Fetch {
    async fn run(&self, input: &mut dyn BufRead, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<u8> {
        let wanted = fetch::Wanted {
            server: self.server.clone(),
            server_name: match &self.server_name {
                Some(name) => name.0.clone(),
                None => self.server.host.server_name(),
            },
            upgrade: self.upgrade,
            timeout: self.timeout,
        };
        let chain = match fetch::chain(&wanted).await {
            Ok(chain) => chain,
            Err(error) => {
                writeln!(err, "egret: {error} ({})", error.reason())?;
                return Ok(TROUBLE);
            }
        };
        writeln!(out, "{} presents, leaf first:\n", self.server)?;
        write!(out, "{}", show::text(&chain, Date::now()))?;
        let Some(pick) = fetch::pick(&chain, self.fingerprint.as_ref()) else {
            writeln!(err, "egret: no certificate of this chain has that fingerprint: nothing is written")?;
            return Ok(HELD);
        };
        writeln!(out, "to believe: {}\n    {}", pick.facts.subject, labelled_hex(&pick.facts.sha256))?;
        let Some(file) = &self.output else {
            writeln!(
                out,
                "    compare this fingerprint with what the server's owner says; --output FILE then writes it"
            )?;
            return Ok(DONE);
        };
        if self.fingerprint.is_none() && !first_use(&self.server, input, out)? {
            writeln!(
                err,
                "egret: not confirmed: nothing is written; --fingerprint sha256:HEX confirms it without a question"
            )?;
            return Ok(HELD);
        }
        if let Err(error) = write_new(file, &fetch::pem(pick.facts, pick.der)) {
            writeln!(err, "egret: {}: {error}", file.display())?;
            return Ok(TROUBLE);
        }
        write!(out, "written to {}\n\n{}", file.display(), fetch::configuration(&pick, &file.display().to_string()))?;
        Ok(DONE)
    }
}

/// Trust on first use, named as such: an attacker who is on the path right now would be trusted for good.
fn first_use(server: &Server, input: &mut dyn BufRead, out: &mut dyn Write) -> io::Result<bool> {
    writeln!(
        out,
        "\nThis is trust on first use: nobody has vouched for this certificate. Whoever answers for {server} right\n\
         now will be believed from now on. Compare the fingerprint with what the server's owner says."
    )?;
    write!(out, "Believe it? Type yes: ")?;
    out.flush()?;
    let mut answer = String::new();
    input.read_line(&mut answer)?;
    writeln!(out)?;
    Ok(answer.trim() == "yes")
}

/// An existing file is not overwritten: it may be a trust in use.
fn write_new(file: &Path, text: &str) -> io::Result<()> {
    std::fs::File::create_new(file)?.write_all(text.as_bytes())
}

fn parse_fingerprint(text: &str) -> Result<Sha256, String> {
    let hex: String = text.strip_prefix("sha256:").unwrap_or(text).replace(':', "").to_ascii_lowercase();
    let digit = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..hex.len()).step_by(2).map(digit).collect();
    let digest = bytes.and_then(|bytes| Sha256::try_from(bytes).ok());
    digest.ok_or_else(|| "write \"sha256:\" and 64 hexadecimal digits".to_owned())
}
