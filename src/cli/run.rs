//! `egret run`, and what it has in common with `egret exec`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{parse_text, variables};
use crate::config::flags::{Flags, from_flags};
use crate::config::formats::LogLevel;
use crate::config::values::{Hardening, LogFormat};
use crate::config::{self, Environment, Loaded, Problems};
use crate::control::snapshot::Rigour;

/// `egret run FILE`, or `egret run --listen ADDRESS --to HOST:PORT`, or `egret run` with variables such as `EGRET_LISTEN`.
#[derive(Debug, Args)]
pub struct Run {
    /// The configuration file.
    #[arg(conflicts_with = "listen")]
    pub file: Option<PathBuf>,
    /// Everything besides the file.
    #[command(flatten)]
    pub options: Options,
}

/// What a proxy is started with, besides a file.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// One tunnel, without a file.
    #[command(flatten)]
    pub(crate) tunnel: Tunnel,
    /// Admin address: metrics, probes, status, reload, drain; with a file, its `[admin]` says that
    #[arg(long, value_name = "ADDRESS", requires = "listen")]
    pub(crate) admin: Option<String>,
    /// Log format: `text` or `json`; overrides the file
    #[arg(long, value_name = "FORMAT", value_parser = parse_text::<LogFormat>)]
    pub log: Option<LogFormat>,
    /// Log level, with levels of modules (`info,egret::pipeline=debug`); overrides the file
    #[arg(long, value_name = "LEVEL", value_parser = parse_level)]
    pub log_level: Option<String>,
    /// Whether egret gives up at its start what it does not need: `on` or `off`; overrides the file
    #[arg(long, value_name = "WORD", value_parser = parse_text::<Hardening>)]
    pub(crate) hardening: Option<Hardening>,
    /// Accept private keys that other users may read, for every identity
    #[arg(long)]
    pub(crate) allow_loose_key_permissions: bool,
    /// Start and reload only if every file that the configuration names can be used
    #[arg(long)]
    pub(crate) strict: bool,
    /// Append the secrets of every TLS session to FILE, for Wireshark; anyone with the file can read the traffic
    #[arg(long, value_name = "FILE")]
    pub key_log: Option<PathBuf>,
}

/// A listener, an upstream, an identity and a trust, without a file.
#[derive(Clone, Debug, Args)]
pub(crate) struct Tunnel {
    /// Address to listen on: `IP:PORT` or `unix:/PATH`
    #[arg(long, value_name = "ADDRESS", requires = "to")]
    pub(crate) listen: Option<String>,
    /// TLS server, or `PROTOCOL://HOST` with a protocol of `--upgrade` (repeatable; connections are spread over all)
    #[arg(long, value_name = "HOST:PORT", requires = "listen")]
    pub(crate) to: Vec<String>,
    /// Client certificate: PEM chain or PKCS#12
    #[arg(long, value_name = "FILE", requires = "listen")]
    pub(crate) cert: Option<String>,
    /// Private key of the certificate [default: in the certificate's file]
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<String>,
    /// File with the password of the private key in its first line
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) password_file: Option<String>,
    /// Name to verify and to send as SNI [default: the server's host]
    #[arg(long, value_name = "NAME", requires = "listen")]
    pub(crate) server_name: Option<String>,
    /// Root certificates, in place of the system's (repeatable)
    #[arg(long, value_name = "FILE|DIR", requires = "listen")]
    pub(crate) trust: Vec<String>,
    /// STARTTLS-style protocol spoken before TLS, such as `postgres` or `smtp`
    #[arg(long, value_name = "PROTOCOL", requires = "listen")]
    pub(crate) upgrade: Option<String>,
    /// Allow clients from this network (repeatable); required unless the address is loopback
    #[arg(long, value_name = "NETWORK", requires = "listen")]
    pub(crate) allow: Vec<String>,
}

impl Options {
    /// The configuration in `file`; without one that of the arguments, and without those that of the environment. Reload
    /// reads it by the same call.
    ///
    /// # Errors
    ///
    /// Every problem of the configuration.
    pub fn load(&self, file: Option<&Path>, environment: Environment<'_>) -> Result<Loaded, Problems> {
        let mut loaded = match file {
            Some(file) => config::load(file, environment)?,
            None if self.tunnel.listen.is_some() => {
                from_flags(&Flags { admin: self.admin.clone(), ..self.tunnel.flags() })?
            }
            None => variables::load(std::env::vars_os())?,
        };
        let config = &mut loaded.config;
        config.log.format = self.log.unwrap_or(config.log.format);
        if let Some(level) = &self.log_level {
            config.log.level.clone_from(level);
        }
        config.runtime.hardening = self.hardening.unwrap_or(config.runtime.hardening);
        for identity in config.identities.values_mut() {
            identity.allow_loose_key_permissions |= self.allow_loose_key_permissions;
        }
        Ok(loaded)
    }

    /// How unusable files are treated, by `--strict`.
    pub fn rigour(&self) -> Rigour {
        if self.strict { Rigour::Strict } else { Rigour::PartByPart }
    }
}

impl Tunnel {
    pub(super) fn flags(&self) -> Flags {
        Flags {
            listen: self.listen.clone().unwrap_or_default(),
            to: self.to.clone(),
            cert: self.cert.clone(),
            key: self.key.clone(),
            password_file: self.password_file.clone(),
            server_name: self.server_name.clone(),
            trust: self.trust.clone(),
            upgrade: self.upgrade.clone(),
            allow: self.allow.clone(),
            admin: None,
        }
    }
}

fn parse_level(text: &str) -> Result<String, String> {
    parse_text::<LogLevel>(text).map(|level| level.0)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::Cli;

    #[test]
    fn run_takes_a_file_or_a_tunnel() {
        let run = |line: &str| Cli::try_parse_from(line.split(' '));
        assert!(run("egret run egret.toml").is_ok());
        assert!(run("egret run --listen 127.0.0.1:1 --to a.example.com:443 --cert c --key k --log json").is_ok());
        for wrong in [
            "egret run --listen 127.0.0.1:1",
            "egret run --to a.example.com:443",
            "egret run x.toml --listen 127.0.0.1:1 --to a.example.com:443",
            "egret run x.toml --server-name a.example.com",
            "egret run x.toml --log xml",
        ] {
            assert!(run(wrong).is_err(), "{wrong}");
        }
    }
}
