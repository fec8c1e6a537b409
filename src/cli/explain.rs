//! `egret explain`: its arguments, its progress, its output.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{environment, parse_text, print_problems, style_for};
use crate::config::flags::{Flags, from_flags};
use crate::config::formats::{Alpn, ServedName};
use crate::config::values::{Config, Dns, Name, Server};
use crate::config::{self, Problems};
use crate::protocols::Upgrade;
use crate::protocols::answers::AnswerFormat;
use crate::tools::explain::question::{HttpPath, PostgresUser, Question};
use crate::tools::explain::repair::Plan;
use crate::tools::explain::report::Explanation;
use crate::tools::explain::text::Text;
use crate::tools::explain::{self, Files, Progress, Target, redact};

/// `egret explain HOST:PORT`, or `egret explain --config FILE --upstream NAME`.
#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 no cause found, 1 the report could not be written, 2 the arguments or files \
    cannot be used, 3 a cause was found.")]
pub struct Explain {
    /// TLS server
    #[arg(value_name = "HOST:PORT", value_parser = parse_text::<Server>, required_unless_present = "config")]
    pub(crate) server: Option<Server>,
    /// Take an upstream of this configuration file, with its identity, trust and settings
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Upstream of the file [default: the only one]
    #[arg(long, value_name = "NAME", requires = "config")]
    pub(crate) upstream: Option<String>,
    /// TLS settings, without a file.
    #[command(flatten)]
    pub(crate) settings: Settings,
    /// Time limit of one attempt, from connect to the end of the handshake
    #[arg(long, value_name = "DURATION", value_parser = parse_text::<Duration>, default_value = "5s")]
    pub(crate) timeout: Duration,
    /// Send a GET request for this path over the proven connection, and report what the answer shows
    #[arg(long, value_name = "PATH", value_parser = HttpPath::parse)]
    pub(crate) http_get: Option<HttpPath>,
    /// Begin a PostgreSQL session as this user, and report the server's first answer (with `upgrade = "postgres"`)
    #[arg(long, value_name = "USER", value_parser = PostgresUser::parse, conflicts_with = "http_get")]
    pub(crate) postgres_user: Option<PostgresUser>,
    /// Print JSON (docs/explain.schema.json)
    #[arg(long)]
    pub(crate) json: bool,
    /// Show the ClientHello field by field
    #[arg(long)]
    pub(crate) show_hello: bool,
    /// Mask names, addresses, paths and fingerprints in the output
    #[arg(long)]
    pub(crate) redact: bool,
    /// Print progress to standard error even when it is not a terminal
    #[arg(long)]
    pub(crate) progress: bool,
}

/// TLS settings for a server that no configuration describes.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// Name to verify and to send as SNI [default: the server's host]
    #[arg(long, visible_alias = "sni", value_name = "NAME", value_parser = parse_text::<ServedName>, conflicts_with = "config")]
    pub(crate) server_name: Option<ServedName>,
    /// Send no SNI, as nginx does by default
    #[arg(long, conflicts_with = "config")]
    pub(crate) no_sni: bool,
    /// Client certificate: PEM chain or PKCS#12
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    pub(crate) cert: Option<PathBuf>,
    /// Private key of the certificate [default: in the certificate's file]
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,
    /// File with the password of the private key in its first line
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) password_file: Option<PathBuf>,
    /// Root certificates, in place of the system's (repeatable)
    #[arg(long, visible_alias = "trust", value_name = "FILE|DIR", conflicts_with = "config")]
    pub(crate) ca: Vec<PathBuf>,
    /// Revocation list of an authority in --ca (repeatable)
    #[arg(long, value_name = "FILE", requires = "ca")]
    pub(crate) crl: Vec<PathBuf>,
    /// ALPN protocol to offer (repeatable)
    #[arg(long, value_name = "PROTOCOL", value_parser = parse_text::<Alpn>, conflicts_with = "config")]
    pub(crate) alpn: Vec<Alpn>,
    /// STARTTLS-style protocol spoken before TLS, such as `postgres` or `smtp`
    #[arg(long, value_name = "PROTOCOL", value_parser = parse_text::<Upgrade>, conflicts_with = "config")]
    pub(crate) upgrade: Option<Upgrade>,
}

#[derive(Debug)]
enum Refused {
    Problems(Problems),
    /// An identity, trust or server that the file or the arguments name.
    Target(explain::Error),
    /// A question in another protocol than the upstream's.
    Question(&'static str),
}

/// Exit code for "something is wrong with the server".
const WRONG: u8 = 3;
/// Exit code for "the arguments or files cannot be used".
const UNUSABLE: u8 = 2;

impl Explain {
    /// Prints the explanation and returns the exit code.
    ///
    /// # Errors
    ///
    /// Those of writing.
    pub async fn run(&self, out: &mut dyn Write, err: &mut (dyn Write + Send)) -> io::Result<u8> {
        let targets = match self.targets() {
            Ok(targets) => targets,
            Err(Refused::Problems(problems)) => {
                print_problems(&problems, err, style_for(&io::stderr()))?;
                return Ok(UNUSABLE);
            }
            Err(Refused::Target(error)) => {
                writeln!(err, "egret: {error}")?;
                return Ok(UNUSABLE);
            }
            Err(Refused::Question(error)) => {
                writeln!(err, "egret: {error}")?;
                return Ok(UNUSABLE);
            }
        };
        let watched = self.progress || io::stderr().is_terminal();
        let mut explanation = Explanation { version: 1, reports: Vec::new() };
        for target in &targets {
            let mut report_progress = |progress: Progress<'_>| {
                if watched {
                    // Progress that cannot be shown is no reason to stop.
                    let _ = writeln!(err, "egret: {}", in_words(progress));
                }
            };
            explanation.reports.push(explain::explain(target, &mut report_progress).await);
        }
        let code = if explanation.has_causes() { WRONG } else { 0 };
        if self.redact {
            explanation = redact(&explanation);
        }
        if self.json {
            let json = serde_json::to_string_pretty(&explanation).map_err(io::Error::other)?;
            writeln!(out, "{json}")?;
        } else {
            explanation.reports.iter().try_for_each(|report| writeln!(out, "{}", Text(report)))?;
        }
        Ok(code)
    }

    fn targets(&self) -> Result<Vec<Target>, Refused> {
        let (plan, dns) = match &self.config {
            Some(file) => {
                let loaded = config::load(file, &environment).map_err(Refused::Problems)?;
                let Config { dns, .. } = &loaded.config;
                let plan = Plan::of_config(&loaded.config, self.upstream.as_deref()).map_err(Refused::Target)?;
                (plan, dns.clone())
            }
            None => {
                let server = self.server.as_ref().expect("required without a configuration file");
                self.settings.plan(server).map_err(Refused::Problems)?
            }
        };
        let question = self.question(plan.upstream.upgrade)?;
        let files = Files::load(&plan).map_err(Refused::Target)?;
        // A server that is named beside a configuration is the one that is meant.
        let servers = match &self.server {
            Some(server) => vec![server.clone()],
            None => plan.upstream.servers.clone(),
        };
        let targets = servers.into_iter().map(|server| {
            let target = files.target(&plan, server, dns.clone(), self.timeout);
            Target { show_hello: self.show_hello, question: question.clone(), ..target }
        });
        Ok(targets.collect())
    }

    fn question(&self, upgrade: Option<Upgrade>) -> Result<Option<Question>, Refused> {
        let is_postgres = upgrade.is_some_and(|protocol| protocol.answer == Some(AnswerFormat::POSTGRES));
        match (&self.http_get, &self.postgres_user) {
            (Some(_), _) if is_postgres => Err(Refused::Question(
                "--http-get: the upstream speaks PostgreSQL (`upgrade = \"postgres\"`); take --postgres-user",
            )),
            (_, Some(_)) if !is_postgres => Err(Refused::Question(
                "--postgres-user: needs --upgrade postgres, or an upstream with `upgrade = \"postgres\"`",
            )),
            (Some(path), _) => Ok(Some(Question::Http(path.clone()))),
            (_, Some(user)) => Ok(Some(Question::Postgres(user.clone()))),
            (None, None) => Ok(None),
        }
    }
}

/// Name of the upstream in a printed repair.
const NAME: &str = "backend";

impl Settings {
    /// The upstream of these arguments, by the checks and defaults of `egret run`.
    fn plan(&self, server: &Server) -> Result<(Plan, Dns), Problems> {
        let path = |path: &PathBuf| path.display().to_string();
        let flags = Flags {
            // Nobody listens.
            listen: "127.0.0.1:1".to_owned(),
            to: vec![server.to_string()],
            cert: self.cert.as_ref().map(path),
            key: self.key.as_ref().map(path),
            password_file: self.password_file.as_ref().map(path),
            trust: self.ca.iter().map(path).collect(),
            ..Flags::default()
        };
        let mut config = from_flags(&flags)?.config;
        let (_, mut upstream) = config.upstreams.pop_first().expect("arguments make one upstream");
        upstream.upgrade = self.upgrade;
        upstream.tls.server_name = self.server_name.as_ref().map(|name| name.0.clone());
        upstream.tls.settings.sni = !self.no_sni;
        upstream.tls.settings.alpn = self.alpn.iter().map(|protocol| protocol.0.clone()).collect();
        upstream.tls = upstream.tls.speaking_before(self.upgrade);
        upstream.tls.identity = upstream.tls.identity.map(|_| Name::new(NAME));
        upstream.tls.trust = upstream.tls.trust.map(|_| Name::new(NAME));
        let identity = config.identities.pop_first().map(|(_, identity)| identity);
        let mut trust = config.trusts.pop_first().map(|(_, trust)| trust);
        trust.iter_mut().for_each(|trust| trust.crls.clone_from(&self.crl));
        let plan = Plan { name: Name::new(NAME), upstream, identity, trust, is_part: false };
        Ok((plan, config.dns))
    }
}

fn in_words(progress: Progress<'_>) -> String {
    match progress {
        Progress::LookUp(name) => format!("looking up {name}"),
        Progress::Try(kind, address) => format!("trying {address}, {}", kind.title()),
        Progress::ProbePlaintext(address) => format!("looking at what {address} says without TLS"),
    }
}
