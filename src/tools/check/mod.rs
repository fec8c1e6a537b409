//! Findings about a configuration before it runs: problems, warnings, violations of the user's own rules.
//!
//! Problems come from the text and from building what it names; advice from the text ([`config::lint`]) and from
//! the certificates that it names ([`files`]); violations from the user's own rules ([`policy`]).

pub(crate) mod diff;
pub(crate) mod files;
pub(crate) mod format;
#[cfg_attr(not(feature = "policy"), path = "no_policy.rs")]
pub(crate) mod policy;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{self, Environment, Loaded, Problem, Severity, Source};
use crate::credentials::certificate::Date;

/// Checks the files that a configuration names and returns their problems; binds nothing.
pub type FileCheck<'a> = &'a dyn Fn(&Loaded) -> Vec<Problem>;

#[derive(Clone, Debug)]
pub(crate) struct Scope {
    pub(crate) now: Date,
    /// Certificates that expire within this many seconds are reported; `None`: by the share of their life that is left.
    pub(crate) expires_within: Option<i64>,
    pub(crate) policies: Vec<PathBuf>,
    /// `input.parameters` of the rules.
    pub(crate) parameters: Vec<(String, String)>,
}

/// In the order of the text.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    source: Arc<Source>,
    findings: Vec<Finding>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) severity: Severity,
    pub(crate) problem: Problem,
}

/// Reads a configuration and everything it names. Blocks on the file system.
///
/// # Errors
///
/// A policy that cannot be evaluated. Problems of the configuration are findings, not errors.
pub(crate) fn check(
    path: &Path,
    environment: Environment<'_>,
    files: FileCheck<'_>,
    scope: &Scope,
) -> Result<Found, policy::Error> {
    let loaded = match config::load(path, environment) {
        Ok(loaded) => loaded,
        Err(problems) => {
            let findings = problems.iter().map(|problem| Finding::error(problem.clone())).collect();
            return Ok(Found { source: Arc::new(problems.source().clone()), findings });
        }
    };
    let mut findings: Vec<Finding> = files(&loaded).into_iter().map(Finding::error).collect();
    findings.extend(config::lint(&loaded).into_iter().map(Finding::from));
    findings.extend(files::advise(&loaded, scope.now, scope.expires_within).into_iter().map(Finding::from));
    findings.extend(policy::evaluate(&loaded, &scope.policies, &scope.parameters)?);
    let source = loaded.source();
    let mut findings: Vec<Finding> = findings.into_iter().map(|finding| finding.without_values(source)).collect();
    findings.sort_by_key(|finding| {
        (finding.problem.span.as_ref().map(|span| (span.start, span.end)), finding.severity.is_error())
    });
    findings.dedup();
    Ok(Found { source: Arc::new(loaded.source().clone()), findings })
}

impl Found {
    /// With `strict`, warnings count as well.
    pub(crate) fn is_good(&self, strict: bool) -> bool {
        let is_bad = |severity: Severity| severity.is_error() || strict && severity.is_warning();
        !self.findings.iter().any(|finding| is_bad(finding.severity))
    }

    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    pub(crate) fn findings(&self) -> &[Finding] {
        &self.findings
    }
}

impl Finding {
    fn error(problem: Problem) -> Self {
        Self { severity: Severity::Error, problem }
    }

    fn without_values(self, source: &Source) -> Self {
        Self { problem: self.problem.without_values(source), ..self }
    }
}

impl From<config::Advice> for Finding {
    fn from(advice: config::Advice) -> Self {
        Self { severity: advice.severity(), problem: advice.problem }
    }
}
