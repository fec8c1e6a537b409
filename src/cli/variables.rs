//! A configuration by variables of the environment alone: one for each flag of a tunnel, by the flags' own declaration.
//!
//! `EGRET_LISTEN`, `EGRET_TO` ... are one tunnel, `EGRET_TUNNEL_DB_LISTEN` ... the tunnel `db`. A list is separated by
//! commas. An empty variable counts as not set.

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::{ArgAction, Args as _, FromArgMatches as _};

use super::run::Tunnel;
use crate::config::flags::{self, Flags, from_variables, variable};
use crate::config::read::Text as _;
use crate::config::values::Hardening;
use crate::config::{Loaded, Problem, Problems, nearest};

const PREFIX: &str = "EGRET_";
const TUNNEL: &str = "EGRET_TUNNEL_";
/// The variable of `--admin`, which is of the process and not of a tunnel.
const ADMIN: &str = "EGRET_ADMIN";

/// The variable of `--hardening`, of the process too.
const HARDENING: &str = "EGRET_HARDENING";

/// A flag of a tunnel as a variable.
struct Setting {
    flag: String,
    /// The end of its name.
    word: String,
    is_list: bool,
}

/// Every flag of a tunnel.
fn settings() -> Vec<Setting> {
    let declared = Tunnel::augment_args(clap::Command::new("tunnel"));
    let setting = |argument: &clap::Arg| {
        let flag = argument.get_long()?.to_owned();
        let word = variable("", &flag);
        Some(Setting { flag, word, is_list: matches!(argument.get_action(), ArgAction::Append) })
    };
    declared.get_arguments().filter_map(setting).collect()
}

/// The configuration that the variables describe.
///
/// # Errors
/// Everything that is wrong with them, by their names.
pub(super) fn load(variables: impl Iterator<Item = (OsString, OsString)>) -> Result<Loaded, Problems> {
    let mut found = Found::default();
    let settings = settings();
    let mut admin = None;
    let mut hardening = None;
    for (name, value) in variables {
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
        match value.to_str() {
            Some("") => {}
            Some(value) if name == ADMIN => admin = Some(value.to_owned()),
            Some(value) if name == HARDENING => match Hardening::parse(value) {
                Ok(word) => hardening = Some(word),
                Err(_) => {
                    found.problem(format!("the variable {name} is neither `on` nor `off`"), "set it to one of them")
                }
            },
            Some(value) => found.add(&settings, name, value),
            None => found.problem(format!("the variable {name} is not UTF-8"), "set it to UTF-8 text"),
        }
    }
    let (mut tunnels, problems) = found.tunnels();
    // Which tunnel it is given to makes no difference.
    if let Some(first) = tunnels.iter_mut().find(|tunnel| tunnel.prefix == PREFIX || admin.is_some()) {
        first.flags.admin = admin;
    }
    let mut loaded = from_variables(&tunnels, problems)?;
    loaded.config.runtime.hardening = hardening.unwrap_or(loaded.config.runtime.hardening);
    Ok(loaded)
}

#[derive(Default)]
struct Found {
    /// The arguments of each tunnel, by the beginning of its variables.
    tunnels: BTreeMap<String, Vec<String>>,
    problems: Vec<Problem>,
}

impl Found {
    fn problem(&mut self, title: String, repair: impl Into<String>) {
        self.problems.push(Problem::of_file(title, repair));
    }

    fn add(&mut self, settings: &[Setting], name: &str, value: &str) {
        let words = || settings.iter().map(|setting| setting.word.as_str());
        let Some((prefix, setting)) = understand(settings, name) else {
            let (prefix, word) = match name.strip_prefix(TUNNEL) {
                Some(rest) if !is_of_a_service(rest) => (TUNNEL, rest.rsplit_once('_').map_or(rest, |(_, word)| word)),
                Some(_) => return,
                None => (PREFIX, &name[PREFIX.len()..]),
            };
            let meant = nearest(word, words());
            if prefix == TUNNEL || meant.is_some() {
                let all =
                    || format!("the variables of a tunnel end in one of {}", words().collect::<Vec<_>>().join(", "));
                self.problem(
                    format!("the variable {name} is unknown"),
                    match (meant, prefix) {
                        (Some(meant), PREFIX) => format!("did you mean {PREFIX}{meant}?"),
                        (Some(meant), _) => format!("did you mean {meant} at its end?"),
                        (None, _) => all(),
                    },
                );
            }
            return;
        };
        let arguments = self.tunnels.entry(prefix).or_default();
        let values = if setting.is_list { value.split(',').map(str::trim).collect() } else { vec![value] };
        arguments.extend(
            values.into_iter().filter(|value| !value.is_empty()).map(|value| format!("--{}={value}", setting.flag)),
        );
    }

    fn tunnels(mut self) -> (Vec<flags::Tunnel>, Vec<Problem>) {
        let mut tunnels = Vec::new();
        for (prefix, arguments) in std::mem::take(&mut self.tunnels) {
            let has = |flag: &str| arguments.iter().any(|argument| argument.starts_with(flag));
            let missing: Vec<_> = ["--listen=", "--to="].into_iter().filter(|flag| !has(flag)).collect();
            for flag in &missing {
                let name = variable(&prefix, flag.trim_end_matches('='));
                self.problem(
                    format!("the variable {name} is not set"),
                    "a tunnel needs an address to listen on and a server",
                );
            }
            let name = prefix.strip_prefix(TUNNEL).map(|name| name.trim_end_matches('_').to_ascii_lowercase());
            match parse(&arguments) {
                Some(flags) if missing.is_empty() => tunnels.push(flags::Tunnel { name, prefix, flags }),
                Some(_) => {}
                None if missing.is_empty() => {
                    let words = ["KEY", "PASSWORD_FILE"].map(|word| format!("{prefix}{word}")).join(" or ");
                    self.problem(format!("{words} is set without {prefix}CERT"), "set all of them, or none");
                }
                None => {}
            }
        }
        (tunnels, self.problems)
    }
}

/// The beginning of the variables of its tunnel, and the setting.
fn understand<'a>(settings: &'a [Setting], name: &str) -> Option<(String, &'a Setting)> {
    let Some(rest) = name.strip_prefix(TUNNEL) else {
        let word = name.strip_prefix(PREFIX)?;
        return settings.iter().find(|setting| setting.word == word).map(|setting| (PREFIX.to_owned(), setting));
    };
    let ends_so = |setting: &&Setting| {
        let tunnel = rest.strip_suffix(&setting.word).and_then(|rest| rest.strip_suffix('_'));
        tunnel.is_some_and(|tunnel| !tunnel.is_empty())
    };
    // PASSWORD_FILE before FILE, if there ever is such a flag.
    let setting = settings.iter().filter(ends_so).max_by_key(|setting| setting.word.len())?;
    Some((name[..name.len() - setting.word.len()].to_owned(), setting))
}

/// Kubernetes gives each container such variables for a Service, which may be called `egret-tunnel-db`.
fn is_of_a_service(rest: &str) -> bool {
    ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT"].iter().any(|word| rest.contains(word))
}

/// By the declaration of the flags. `None`: they contradict it.
fn parse(arguments: &[String]) -> Option<Flags> {
    let command = Tunnel::augment_args(clap::Command::new("tunnel").no_binary_name(true));
    let matches = command.try_get_matches_from(arguments).ok()?;
    Tunnel::from_arg_matches(&matches).ok().map(|tunnel| tunnel.flags())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(variables: &[(&str, &str)]) -> Result<Loaded, Problems> {
        load(variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))))
    }

    #[test]
    fn variables_mean_the_same_as_their_flags() {
        let by_variables = loaded(&[
            ("EGRET_LISTEN", "127.0.0.1:1"),
            ("EGRET_TO", "a.example.com:443, b.example.com:443"),
            ("EGRET_CERT", "c.pem"),
            ("EGRET_KEY", "k.pem"),
            ("EGRET_PASSWORD_FILE", "p"),
            ("EGRET_SERVER_NAME", "x.example.com"),
            ("EGRET_TRUST", "ca.pem,roots.d"),
            ("EGRET_UPGRADE", "postgres"),
            ("EGRET_ALLOW", ""),
            ("EGRET_ADMIN", "127.0.0.1:2"),
            ("EGRET_HARDENING", "off"),
            ("EGRET_SERVICE_HOST", "192.0.2.1"),
            ("EGRET_PORT", "tcp://192.0.2.1:1"),
            ("HOME", "/"),
        ]);
        let flags = Flags {
            listen: "127.0.0.1:1".into(),
            to: vec!["a.example.com:443".into(), "b.example.com:443".into()],
            cert: Some("c.pem".into()),
            key: Some("k.pem".into()),
            password_file: Some("p".into()),
            server_name: Some("x.example.com".into()),
            trust: vec!["ca.pem".into(), "roots.d".into()],
            upgrade: Some("postgres".into()),
            allow: Vec::new(),
            admin: Some("127.0.0.1:2".into()),
        };
        let mut by_flags = flags::from_flags(&flags).unwrap_or_else(|problems| panic!("{problems}"));
        by_flags.config.runtime.hardening = Hardening::Off;
        assert_eq!(by_variables.unwrap_or_else(|problems| panic!("{problems}")).config, by_flags.config);
    }

    #[test]
    fn several_tunnels_have_names() {
        let loaded = loaded(&[
            ("EGRET_TUNNEL_DB_LISTEN", "127.0.0.1:1"),
            ("EGRET_TUNNEL_DB_TO", "db.example.com:5432"),
            ("EGRET_TUNNEL_DB_CERT", "c.pem"),
            ("EGRET_TUNNEL_MY_CACHE_LISTEN", "127.0.0.1:2"),
            ("EGRET_TUNNEL_MY_CACHE_TO", "cache.example.com:6380"),
            ("EGRET_TUNNEL_DB_SERVICE_PORT", "1"),
            ("EGRET_TUNNEL_DB_PORT_5432_TCP_ADDR", "192.0.2.1"),
        ]);
        let config = loaded.unwrap_or_else(|problems| panic!("{problems}")).config;
        let names: Vec<_> = config.listeners.iter().map(|listener| listener.name.to_string()).collect();
        assert_eq!(names, ["db", "my_cache"]);
        assert_eq!(config.upstreams.keys().map(ToString::to_string).collect::<Vec<_>>(), ["db", "my_cache"]);
        assert_eq!(config.identities.keys().map(ToString::to_string).collect::<Vec<_>>(), ["db"]);
    }

    #[test]
    fn mistakes_name_the_variable_and_show_no_value() {
        let secret = "-----BEGIN PRIVATE KEY----- hunter2";
        for (variables, named) in [
            (&[("EGRET_LISTEN", "127.0.0.1:1")][..], "EGRET_TO is not set"),
            (&[("EGRET_TUNNEL_DB_TO", "a.example.com:1")], "EGRET_TUNNEL_DB_LISTEN is not set"),
            (&[("EGRET_LISTEN", secret), ("EGRET_TO", "a.example.com:1")], "EGRET_LISTEN"),
            (&[("EGRET_LISTEN", "127.0.0.1:1"), ("EGRET_TO", secret)], "EGRET_TO"),
            (&[("EGRET_TUNNEL_DB_LISTEN", "127.0.0.1:1"), ("EGRET_TUNNEL_DB_TO", secret)], "EGRET_TUNNEL_DB_TO"),
            (&[("EGRET_LISTN", secret)], "EGRET_LISTN is unknown"),
            (&[("EGRET_HARDENING", secret)], "EGRET_HARDENING is neither"),
            (&[("EGRET_TUNNEL_DB_PASSWORD", secret)], "EGRET_TUNNEL_DB_PASSWORD is unknown"),
            (&[("EGRET_TUNNEL_LISTEN", secret)], "EGRET_TUNNEL_LISTEN is unknown"),
            (&[("EGRET_LISTEN", "127.0.0.1:1"), ("EGRET_TO", "a.example.com:1"), ("EGRET_KEY", secret)], "EGRET_CERT"),
            (&[("EGRET_SERVICE_HOST", "192.0.2.1")], "EGRET_LISTEN"),
        ] {
            let problems = loaded(variables).map(|_| ()).expect_err(named).to_string();
            assert!(problems.contains(named), "{named}: {problems}");
            assert!(!problems.contains("hunter2") && !problems.contains("BEGIN"), "{problems}");
        }
    }

    #[test]
    fn every_variable_is_documented() {
        let page = include_str!("../../docs/entrypoint.md");
        for setting in settings() {
            let row = format!("| `{PREFIX}{}` | `--{}` |", setting.word, setting.flag);
            assert!(page.contains(&row), "docs/entrypoint.md has no row {row}");
        }
    }
}
