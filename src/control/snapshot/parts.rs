//! Identities and trusts of a generation: each is loaded by itself, and fails by itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;

use super::{BuildError, BuildErrors, Rigour, Snapshot, Wanted};
use crate::config::values::{self, Config, Name};
use crate::control::disk::{PATIENCE, Running};
use crate::credentials::certificate::Date;
use crate::credentials::identity::Identity;
use crate::credentials::inventory::{self, Lifetime, LifetimeKind, Validity};
use crate::credentials::part::{Broken, Fault, Part, PartKind};
use crate::credentials::trust::{self, Trust};

fn default_trust() -> Name {
    Name::new(trust::DEFAULT_NAME)
}

/// The configured trusts, and the default one if any upstream leaves its trust open.
fn with_default_trust(config: &Config) -> BTreeMap<Name, values::Trust> {
    let mut trusts = config.trusts.clone();
    if config.upstreams.values().any(|upstream| !upstream.passthrough && upstream.tls.trust.is_none()) {
        trusts.insert(default_trust(), values::Trust::default());
    }
    trusts
}

type Parts<T> = BTreeMap<Name, Part<T>>;

/// The parts that are being loaded, over all generations.
#[derive(Clone)]
pub(super) struct Loading {
    identities: Arc<Running<(Name, values::Identity)>>,
    trusts: Arc<Running<(Name, values::Trust)>>,
}

impl Loading {
    pub(super) fn new() -> Self {
        Self { identities: Running::new(PATIENCE), trusts: Running::new(PATIENCE) }
    }

    /// Both kinds at the same time: a disk that hangs delays the load once. None once the load is no longer wanted.
    pub(super) fn both(
        &self,
        config: &Config,
        previous: Option<&Snapshot>,
        rigour: Rigour,
        is_wanted: &Wanted,
    ) -> Option<(Parts<Identity>, Parts<Trust>)> {
        thread::scope(|scope| {
            let identities = scope.spawn(|| self.identities(config, previous, rigour, is_wanted));
            let trusts = self.trusts(config, previous, is_wanted);
            let identities = identities.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            Some((identities?, trusts?))
        })
    }

    fn identities(
        &self,
        config: &Config,
        previous: Option<&Snapshot>,
        rigour: Rigour,
        is_wanted: &Wanted,
    ) -> Option<Parts<Identity>> {
        let written = config.source.clone();
        let load = move |(name, spec): &(Name, values::Identity)| {
            let loaded = Identity::load(spec).and_then(|identity| match rigour {
                Rigour::Strict => identity.check_period(Date::now()).map(|()| identity),
                Rigour::PartByPart => Ok(identity),
            });
            loaded.map_err(|error| Fault::of_identity(name, &error, &written))
        };
        let specs = config.identities.clone();
        let previous = previous.map(Snapshot::identities);
        each(&self.identities, PartKind::Identity, specs, previous, is_wanted, load)
    }

    fn trusts(&self, config: &Config, previous: Option<&Snapshot>, is_wanted: &Wanted) -> Option<Parts<Trust>> {
        let written = config.source.clone();
        let load = move |(name, spec): &(Name, values::Trust)| {
            Trust::load(name, spec).map_err(|error| Fault::of_trust(name, &error, &written))
        };
        let specs = with_default_trust(config);
        let previous = previous.map(Snapshot::trusts);
        each(&self.trusts, PartKind::Trust, specs, previous, is_wanted, load)
    }
}

fn each<S: Clone + PartialEq + Send + Sync + 'static, T: Send + 'static>(
    running: &Arc<Running<(Name, S)>>,
    kind: PartKind,
    specs: BTreeMap<Name, S>,
    previous: Option<&Parts<T>>,
    is_wanted: &Wanted,
    load: impl Fn(&(Name, S)) -> Result<T, Fault> + Send + Sync + 'static,
) -> Option<Parts<T>> {
    let names: Vec<Name> = specs.keys().cloned().collect();
    let asked = Arc::clone(is_wanted);
    // Once the load is no longer wanted, the rest is not tried, and missing results do not matter.
    let loaded = running.each(specs.into_iter().collect(), move |spec| asked().then(|| load(spec)));
    let part = |(name, loaded): (Name, Option<Option<Result<T, Fault>>>)| {
        let loaded = loaded.unwrap_or_else(|| Some(Err(Fault::too_late(kind, &name, PATIENCE))))?;
        let before = previous.and_then(|previous| previous.get(&name));
        let part = Part::after(loaded, before, Date::now());
        Some((name, part))
    };
    names.into_iter().zip(loaded).map(part).collect()
}

pub(super) fn errors(identities: &Parts<Identity>, trusts: &Parts<Trust>) -> Vec<BuildError> {
    let broken = identities.values().filter_map(Part::broken).chain(trusts.values().filter_map(Part::broken));
    broken.map(|broken| BuildError::Part(Arc::clone(broken))).collect()
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Troubled<'a> {
    /// `kept` or `unavailable`.
    pub(crate) state: &'static str,
    pub(crate) broken: &'a Broken,
}

impl std::fmt::Display for Troubled<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { state, broken: Broken { fault, since } } = self;
        write!(f, "{state} since {since}: {fault} ({})", fault.reason)
    }
}

impl Snapshot {
    pub(crate) fn troubled(&self) -> impl Iterator<Item = Troubled<'_>> {
        let identities = self.identities.values().map(|part| (part.state(), part.broken()));
        let trusts = self.trusts.values().map(|part| (part.state(), part.broken()));
        identities.chain(trusts).filter_map(|(state, broken)| Some(Troubled { state, broken: broken? }))
    }

    /// Every part with its state: kind, name, state.
    pub(crate) fn states(&self) -> impl Iterator<Item = (&'static str, &Name, &'static str)> {
        let identities = self.identities.iter().map(|(name, part)| ("identity", name, part.state()));
        identities.chain(self.trusts.iter().map(|(name, part)| ("trust", name, part.state())))
    }

    pub(crate) fn inventory(&self) -> Vec<Lifetime> {
        let identities = self.identities.iter().filter_map(|(name, part)| Some((name, part.usable()?)));
        let identities = identities.flat_map(|(name, identity)| inventory::of_identity(name, identity));
        let trusts = self.trusts.values().filter_map(Part::usable);
        identities.chain(trusts.flat_map(|trust| inventory::of_trust(trust))).collect()
    }

    /// No upstream lacks what it needs. A part that nothing uses may be unavailable.
    pub(crate) fn is_whole(&self) -> bool {
        self.upstreams.values().all(|upstream| upstream.lacks().is_none())
    }

    /// A generation that could serve no client is not run: it would look alive, and no supervisor would restart it.
    ///
    /// # Errors
    /// Every upstream that a listener leads to lacks its identity or its trust; with the parts that are unavailable.
    pub fn check_served(&self) -> Result<(), BuildErrors> {
        let mut used = self.config.listeners.iter().flat_map(|listener| listener.destination.upstreams());
        if used.any(|name| self.upstreams[name].lacks().is_none()) {
            return Ok(());
        }
        let parts = self.upstreams.values().filter_map(|upstream| upstream.lacks());
        let mut errors: Vec<&Arc<Broken>> = parts.collect();
        errors.sort_by_key(|broken| (broken.fault.kind, &broken.fault.name));
        errors.dedup_by_key(|broken| (broken.fault.kind, &broken.fault.name));
        let errors = errors.into_iter().map(|broken| BuildError::Part(Arc::clone(broken)));
        let errors = errors.chain([BuildError::NothingServed]).collect();
        Err(BuildErrors::new(errors, self.config.source.clone()))
    }

    /// Logs the fault of each part, and the upstreams that it affects. Each load logs known faults again.
    pub(crate) fn log_parts(&self) {
        self.log_lifetimes();
        for Troubled { state, broken: Broken { fault, since } } in self.troubled() {
            let upstreams = self.users_of(fault);
            let Fault { kind, name, reason, .. } = fault;
            let kind = kind.as_str();
            match state {
                "kept" => tracing::warn!(
                    kind, %name, reason, detail = %fault, %since, upstreams,
                    "the files cannot be used: the last good state stays in force"
                ),
                _ => tracing::error!(
                    kind, %name, reason, detail = %fault, %since, upstreams,
                    "the files cannot be used: the upstreams that need them are unavailable"
                ),
            }
        }
        for (name, identity) in self.identities.iter().filter_map(|(name, part)| Some((name, part.usable()?))) {
            if let Err(error) = identity.check_period(Date::now()) {
                let Fault { kind, name, reason, detail } = Fault::of_identity(name, &error, &self.config.source);
                tracing::warn!(
                    kind = kind.as_str(), %name, reason, detail,
                    "our certificate is out of its period: it is presented all the same, and the server judges"
                );
            }
        }
    }

    /// Logs a line for each kind, part and state with something that is not valid or expires soon: in a bundle of roots
    /// several expire in the same year.
    fn log_lifetimes(&self) {
        let now = Date::now();
        let mut found: BTreeMap<(LifetimeKind, Name, Validity), Vec<Lifetime>> = BTreeMap::new();
        for one in self.inventory() {
            found.entry((one.kind, one.name.clone(), one.validity(now))).or_default().push(one);
        }
        // Our certificates that are out of their period have a line of their own.
        let ours = |kind, state| kind == LifetimeKind::Identity && state != Validity::EndsSoon;
        for ((kind, name, state), all) in found {
            if state == Validity::Valid || ours(kind, state) {
                continue;
            }
            let Lifetime { subject, not_before, not_after, .. } = &all[0];
            let not_after = not_after.map(|end| end.to_string());
            tracing::warn!(
                kind = kind.as_str(), %name, state = state.as_str(), count = all.len(), subject, %not_before, not_after,
                "certificates or lists are out of their period, or will be soon"
            );
        }
    }

    fn users_of(&self, fault: &Fault) -> String {
        let uses = |spec: &values::Upstream| match fault.kind {
            PartKind::Identity => spec.tls.identity.as_ref() == Some(&fault.name),
            PartKind::Trust => trust_of(spec) == fault.name,
        };
        let users = self.config.upstreams.iter().filter(|(_, spec)| !spec.passthrough && uses(spec));
        users.map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(" ")
    }

    pub(super) fn lacking(&self, spec: &values::Upstream) -> Option<&Arc<Broken>> {
        if spec.passthrough {
            return None;
        }
        let identity = spec.tls.identity.as_ref().map(|name| &self.identities[name]);
        identity.and_then(unavailable).or_else(|| unavailable(&self.trusts[&trust_of(spec)]))
    }

    pub(super) fn usable(&self, spec: &values::Upstream) -> (Option<&Arc<Identity>>, &Arc<Trust>) {
        let why = "an upstream that lacks a part has no origin";
        let identity = spec.tls.identity.as_ref().map(|name| self.identities[name].usable().expect(why));
        (identity, self.trusts[&trust_of(spec)].usable().expect(why))
    }
}

fn trust_of(spec: &values::Upstream) -> Name {
    spec.tls.trust.clone().unwrap_or_else(default_trust)
}

fn unavailable<T>(part: &Part<T>) -> Option<&Arc<Broken>> {
    part.broken().filter(|_| part.usable().is_none())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_load_that_is_not_wanted_any_more_reads_nothing_further() {
        let names = ["a", "b", "c", "d"];
        let specs: BTreeMap<Name, ()> = names.iter().map(|name| (Name::new(*name), ())).collect();
        for (most, wanted) in [(0, 0), (1, 1), (3, 3), (4, 4), (9, 4)] {
            let read = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&read);
            let one = move |_: &(Name, ())| {
                counted.fetch_add(1, Ordering::Relaxed);
                Ok(())
            };
            let asked = Arc::clone(&read);
            let is_wanted: Wanted = Arc::new(move || asked.load(Ordering::Relaxed) < most);
            let loaded = each(&Running::new(PATIENCE), PartKind::Trust, specs.clone(), None, &is_wanted, one);
            assert_eq!(read.load(Ordering::Relaxed), wanted);
            assert_eq!(loaded.map(|parts| parts.len()), (most >= 4).then_some(4), "{most}");
        }
    }
}
