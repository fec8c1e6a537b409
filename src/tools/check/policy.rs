//! The user's own rules: Rego, evaluated over the resolved configuration.
//!
//! The convention is that of policy tools for configurations: of every package, what the rules `deny` and
//! `violation` yield is forbidden, what `warn` yields is advised against. A result is a sentence, or an object with
//! `msg` and the name of what it is about (`upstream`, `listener`, `identity` or `trust`), which is then underlined.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{Engine, Value};
use serde_json::json;

use super::Finding;
use crate::config::values::Name;
use crate::config::{self, Loaded, Place, Problem, Severity};

/// Rules that cannot be evaluated. Fail closed: such a policy forbids.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the policy {} cannot be read: {source}", file.display())]
    File { file: PathBuf, source: io::Error },
    #[error("the policy {} is not Rego: {why}", file.display())]
    Syntax { file: PathBuf, why: String },
    #[error("the rule {rule} cannot be evaluated: {why}")]
    Evaluation { rule: String, why: String },
    #[error("the policy {} has no rule `deny`, `violation` or `warn`", file.display())]
    NoRule { file: PathBuf },
}

impl Error {
    /// Stable word for scripts.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::File { .. } => "policy_unreadable",
            Self::Syntax { .. } => "policy_invalid",
            Self::Evaluation { .. } => "policy_failed",
            Self::NoRule { .. } => "policy_without_rules",
        }
    }
}

const RULES: [(&str, Severity); 3] =
    [("deny", Severity::Forbidden), ("violation", Severity::Forbidden), ("warn", Severity::Advice("policy-warning"))];

/// Rules end in milliseconds; one that does not end is a mistake.
const LIMIT: Duration = Duration::from_secs(10);

/// What the rules of `files` find in a configuration. `input.config` is the resolved configuration, `input.file` its
/// path, `input.parameters` the parameters of the command line.
///
/// # Errors
///
/// A policy that cannot be read or evaluated.
pub(crate) fn evaluate(
    loaded: &Loaded,
    files: &[PathBuf],
    parameters: &[(String, String)],
) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    if files.is_empty() {
        return Ok(findings);
    }
    let parameters: serde_json::Map<_, _> =
        parameters.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let input = json!({
        "file": loaded.source().origin(),
        "parameters": parameters,
        "config": config::document(&loaded.config),
    });
    let input = Value::from(input);
    for file in files {
        findings.extend(ask(file, &input)?.into_iter().map(|verdict| verdict.finding(loaded)));
    }
    Ok(findings)
}

fn ask(file: &Path, input: &Value) -> Result<Vec<Verdict>, Error> {
    let (mut engine, package) = read(file)?;
    engine.set_input(input.clone());
    engine.set_execution_timer_config(ExecutionTimerConfig { limit: LIMIT, check_interval: CHECKED_EVERY });
    let mut verdicts = Vec::new();
    let mut defined = false;
    for (rule, severity) in RULES {
        let rule = format!("{package}.{rule}");
        match engine.eval_rule(rule.clone()) {
            Ok(Value::Undefined) => defined = true,
            Ok(value) => {
                defined = true;
                verdicts.extend(results(&value).map(|result| Verdict::of(severity, result)));
            }
            // The evaluator has no other way to say that a package lacks a rule.
            Err(error) if error.to_string().contains("not a valid rule path") => {}
            Err(error) => return Err(Error::Evaluation { rule, why: error.to_string() }),
        }
    }
    if defined { Ok(verdicts) } else { Err(Error::NoRule { file: file.into() }) }
}

/// Steps of the evaluator between two checks of the clock: a thousand take far less than a millisecond.
const CHECKED_EVERY: NonZeroU32 = NonZeroU32::new(1000).expect("a thousand is not zero");

/// An engine with the rules of a file, and their package. Rules of version 0, in which most of those at large are
/// written, are taken if they are none of version 1.
fn read(file: &Path) -> Result<(Engine, String), Error> {
    let text = fs::read_to_string(file).map_err(|source| Error::File { file: file.into(), source })?;
    let parse = |version_0: bool| {
        let mut engine = Engine::new();
        engine.set_rego_v0(version_0);
        let added = engine.add_policy(file.display().to_string(), text.clone());
        added.map(|package| (engine, package)).map_err(|error| error.to_string())
    };
    parse(false).or_else(|why| parse(true).map_err(|_| Error::Syntax { file: file.into(), why }))
}

/// What a rule yields: the members of a set or list; anything else that is true is a result by itself.
fn results(value: &Value) -> impl Iterator<Item = &Value> {
    let (set, list, alone) = match value {
        Value::Set(set) => (Some(set.iter()), None, None),
        Value::Array(list) => (None, Some(list.iter()), None),
        Value::Bool(false) => (None, None, None),
        other => (None, None, Some(other)),
    };
    set.into_iter().flatten().chain(list.into_iter().flatten()).chain(alone)
}

struct Verdict {
    severity: Severity,
    message: String,
    about: Option<(&'static str, Name)>,
}

/// Keys of a result that name its subject.
const ABOUT: [&str; 4] = ["upstream", "listener", "identity", "trust"];

impl Verdict {
    fn of(severity: Severity, result: &Value) -> Self {
        let text = |key: &str| result[key].as_string().ok().map(|text| text.to_string());
        let about = ABOUT.iter().find_map(|kind| Some((*kind, Name::new(text(kind)?))));
        let message = match result {
            Value::String(message) => message.to_string(),
            _ => text("msg").unwrap_or_else(|| result.to_string()),
        };
        Self { severity, message, about }
    }

    fn finding(self, loaded: &Loaded) -> Finding {
        let place = self.about.as_ref().map(|(kind, name)| match *kind {
            "upstream" => Place::Upstream(name),
            "listener" => Place::Listener(name),
            "identity" => Place::Identity(name),
            _ => Place::Trust(name),
        });
        let repair = "change the configuration so that the rule holds, or the rule";
        let problem = match place.and_then(|place| loaded.locate(place)) {
            Some(span) => Problem::new(span, self.message, "against the policy", repair),
            None => Problem::of_file(self.message, repair),
        };
        Finding { severity: self.severity, problem }
    }
}
