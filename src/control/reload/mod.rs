//! One reload: read, check, load everything, bind what is new, then one swap. Any failure before the swap
//! leaves the running generation as it is, and says so. An identity or a trust whose files cannot be used is no such
//! failure: it stays as it was, or is unavailable, and the rest goes live.

mod changes;
pub mod watch;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::config::values::{self, Anchors, Config, ExactCertificate, ListenerKey};
use crate::config::{self, Loaded, Problems, Style};
use crate::control::hardening;
use crate::control::program::environment::{Address, Reached};
use crate::control::snapshot::{BuildErrors, Rigour, Snapshot, Wanted};
use crate::net::{self, BindError, Options, Role, Socket, capability};
use crate::observe::logging;
use crate::observe::metrics::{Registry, ReloadMetrics};
use crate::observe::tasks::{self, Failures, Task};
use crate::pipeline::accept::{Listener, Shared};

use changes::Changes;
use watch::Watcher;

pub(crate) type Source = Arc<dyn Fn() -> Result<Loaded, Problems> + Send + Sync>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReloadTrigger {
    Signal,
    Files,
    Admin,
}

impl ReloadTrigger {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Signal => "signal",
            Self::Files => "files",
            Self::Admin => "admin",
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Rejected {
    #[error("{}", .0.render(Style::Plain))]
    Configuration(Problems),
    #[error(transparent)]
    Build(BuildErrors),
    /// The address of a new listener cannot be bound; the text holds no values of variables.
    #[error("{0}")]
    Bind(String),
    #[error("the files could not be read within {} s: a disk hangs", DEADLINE.as_secs())]
    TooLate,
    #[error("the load was interrupted")]
    Interrupted,
}

/// Files are small and a key derivation takes a second: a read that takes this long does not finish. Shorter than the
/// bound of an admin exchange, so that the client still gets an answer.
const DEADLINE: Duration = Duration::from_secs(50);

impl Rejected {
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Configuration(problems) => problems.reason(),
            Self::Build(errors) => errors.reason(),
            Self::Bind(_) => "bind_failed",
            Self::TooLate => "reload_timeout",
            Self::Interrupted => "interrupted",
        }
    }
}

pub(crate) struct Reloader {
    source: Source,
    files: Files,
    log: logging::Handle,
    registry: Registry,
    metrics: ReloadMetrics,
    shared: Shared<ArcSwap<Snapshot>>,
    rigour: Rigour,
    listeners: HashMap<ListenerKey, Running>,
}

pub(crate) struct Files {
    /// The configuration file; none for the one-liner.
    pub(crate) configuration: Option<PathBuf>,
    /// None where the configuration says `watch = false`.
    pub watcher: Option<Watcher>,
    /// The text that paths come from, to show them as they were written.
    written: values::Written,
}

impl Files {
    pub(crate) fn of(configuration: Option<PathBuf>, config: &Config) -> Result<Self, watch::Error> {
        let watcher =
            if config.reload.watch { Some(Watcher::new(named_by(configuration.as_deref(), config))?) } else { None };
        Ok(Self { configuration, watcher, written: config.source.clone() })
    }

    /// Watches the files of `config` from now on: before they are read, so that no change is missed, and even if the
    /// configuration is going to be rejected, since one of them may hold the repair.
    async fn follow(&mut self, config: &Config) {
        self.written = config.source.clone();
        let Some(watcher) = &mut self.watcher else { return };
        if let Err(error) = watcher.set_files(named_by(self.configuration.as_deref(), config)).await {
            tracing::warn!(%error, reason = error.reason(), "changed files may be noticed late or not at all");
        }
    }

    /// Completes when the content of a file differs from what was last read. Cancel safe.
    async fn changed(&mut self) {
        match &mut self.watcher {
            Some(watcher) => {
                let changed = watcher.changed().await;
                let changed = self.written.hide_values(&format!("{changed:?}"));
                tracing::info!(changed, "files changed");
            }
            None => std::future::pending().await,
        }
    }
}

/// A generation that only waits for the swap.
struct Prepared {
    snapshot: Snapshot,
    changes: Changes,
    /// The listeners that are new.
    bound: Vec<Listener>,
}

/// A listener at work; it stops accepting when this is dropped.
struct Running {
    address: String,
    socket: Arc<Socket>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Accepted connections have tasks of their own, but for one that waits for a permit: it is reset, as
        // those are that the kernel has not handed out yet.
        self.task.abort();
    }
}

impl Reloader {
    /// Binds the first generation's listeners and starts to accept.
    ///
    /// # Errors
    /// An address cannot be listened on; nothing accepts then.
    pub(crate) fn start(
        source: Source,
        files: Files,
        log: logging::Handle,
        registry: Registry,
        shared: Shared<ArcSwap<Snapshot>>,
        rigour: Rigour,
    ) -> Result<Self, BindError> {
        let snapshot = shared.snapshot.load_full();
        let metrics = ReloadMetrics::new(&registry);
        let mut reloader = Self { source, files, log, registry, metrics, shared, rigour, listeners: HashMap::new() };
        let bound = snapshot.config.listeners.iter().map(Listener::bind).collect::<Result<_, _>>()?;
        reloader.accept_from(bound);
        snapshot.log_parts();
        snapshot.publish(None, &reloader.registry);
        snapshot.replenish(None);
        reloader.metrics.started(snapshot.generation);
        Ok(reloader)
    }

    /// Loads and swaps, or keeps the running generation and returns the reason.
    ///
    /// # Errors
    /// The reason for the rejection; already logged and counted.
    ///
    /// Cancel safe: nothing has changed before the swap, and the swap awaits nothing.
    pub(crate) async fn reload(&mut self, trigger: ReloadTrigger) -> Result<u64, Rejected> {
        let old = self.shared.snapshot.load_full();
        let began = Instant::now();
        let prepared = timeout(DEADLINE, self.prepare(&old)).await;
        match prepared.unwrap_or(Err(Rejected::TooLate)) {
            Ok(prepared) => {
                let loaded = Instant::now();
                let snapshot = self.swap(&old, prepared);
                let (load_ms, swap_ms) = (millis(loaded - began), millis(loaded.elapsed()));
                let generation = snapshot.generation;
                settle(old, snapshot, self.registry.clone()).await;
                self.metrics.accepted(generation);
                let cause = trigger.as_str();
                tracing::info!(cause, generation, load_ms, swap_ms, "running generation {generation}");
                Ok(generation)
            }
            Err(rejected) => {
                self.metrics.rejected();
                tracing::error!(
                    cause = trigger.as_str(),
                    reason = rejected.reason(),
                    detail = %rejected,
                    generation = old.generation,
                    "kept generation {}",
                    old.generation,
                );
                Err(rejected)
            }
        }
    }

    /// Everything that can fail. Files are read on threads that may block: streams go on while a disk hangs.
    async fn prepare(&mut self, old: &Arc<Snapshot>) -> Result<Prepared, Rejected> {
        let source = Arc::clone(&self.source);
        let load = move || {
            let loaded = source().map_err(Rejected::Configuration)?;
            let advice = config::lint(&loaded);
            Ok((loaded, advice))
        };
        let (loaded, advice) = blocking(load).await?;
        self.files.follow(&loaded.config).await;
        for advice in advice {
            tracing::warn!(code = advice.code, "{}", advice.problem.title);
        }
        let registry = self.registry.clone();
        let previous = Arc::clone(old);
        let rigour = self.rigour;
        // Dropped with this future: by a deadline, or a stop that came first.
        let wanted = Arc::new(());
        let asked = Arc::downgrade(&wanted);
        let build = move || {
            let key_log = previous.key_log();
            let is_wanted: Wanted = Arc::new(move || asked.strong_count() > 0);
            let snapshot = Snapshot::build(loaded.config, Some(&previous), &registry, key_log, rigour, &is_wanted);
            let snapshot = snapshot.map_err(Rejected::Build)?;
            snapshot.check_served().map_err(Rejected::Build)?;
            let changes = Changes::between(&previous.config, &snapshot.config);
            Ok((snapshot, changes))
        };
        let (snapshot, changes) = blocking(build).await?;
        drop(wanted);
        let hidden = |error: BindError| Rejected::Bind(snapshot.config.source.hide_values(&explained(&error)));
        let bound = changes.added.iter().map(Listener::bind).collect::<Result<_, _>>().map_err(hidden)?;
        Ok(Prepared { snapshot, changes, bound })
    }

    /// The one swap; nothing here can fail. It keeps a worker from its streams, so what takes longer for more upstreams
    /// is left to [`settle`].
    fn swap(&mut self, old: &Snapshot, prepared: Prepared) -> Arc<Snapshot> {
        let Prepared { snapshot, changes, bound } = prepared;
        self.follow_log_level(&old.config, &snapshot.config);
        changes.warn_of_what_needs_a_restart(&old.config, &snapshot.config);
        changes.follow_modes();
        self.follow_options(&changes);
        let snapshot = Arc::new(snapshot);
        self.shared.snapshot.store(Arc::clone(&snapshot));
        self.shared.swapped.notify_waiters();
        self.accept_from(bound);
        for running in changes.gone.iter().filter_map(|key| self.listeners.remove(key)) {
            tracing::info!(address = running.address, "listener removed");
        }
        snapshot
    }

    /// Completes when a file of the running generation has changed. Cancel safe. A watcher that panics continues with
    /// the next read.
    pub(crate) async fn files_changed(&mut self) {
        let mut failures = Failures::of(Task::Watcher, &self.registry);
        while tasks::caught_in(Task::Watcher, pin!(self.files.changed())).await.is_err() {
            failures.pause("panicked").await;
        }
    }

    /// Ends the preparation of connections: there will be no new streams.
    pub(crate) fn stop(&self) {
        self.shared.snapshot.load().stop();
    }

    pub(crate) fn config(&self) -> Config {
        self.shared.snapshot.load().config.clone()
    }

    /// Where each listener can be reached, with the port that the kernel chose where the configuration says 0.
    pub(crate) fn reached(&self) -> Vec<Reached> {
        let config = self.config();
        let bound = |spec: &values::Listener| self.listeners.get(&spec.key())?.socket.tcp_address();
        let address = |spec: &values::Listener| bound(spec).map_or_else(|| (&spec.listen).into(), Address::Tcp);
        config.listeners.iter().map(|spec| Reached { listener: spec.name.clone(), address: address(spec) }).collect()
    }

    /// A line for each identity and trust of the running generation whose files cannot be used.
    pub(crate) fn troubled(&self) -> Vec<String> {
        self.shared.snapshot.load().troubled().map(|part| part.to_string()).collect()
    }

    pub(crate) fn generation(&self) -> u64 {
        self.shared.snapshot.load().generation
    }

    fn follow_log_level(&self, old: &Config, new: &Config) {
        if old.log.level != new.log.level
            && let Err(error) = self.log.set_level(&new.log.level)
        {
            tracing::warn!(%error, reason = error.reason(), "the log's level stays");
        }
    }

    /// New connections of listeners that stay get the options of the new generation.
    fn follow_options(&self, changes: &Changes) {
        for (spec, _) in changes.kept.iter().filter(|(spec, before)| spec.tcp != before.tcp) {
            let Some(running) = self.listeners.get(&spec.key()) else { continue };
            let options = Options::of_or_warn(&spec.tcp, Role::Listen, &spec.name);
            if let Err(error) = running.socket.set(&options) {
                tracing::warn!(listener = %spec.name, %error, "some options of the socket stay");
            }
        }
    }

    fn accept_from(&mut self, bound: Vec<Listener>) {
        for listener in bound {
            let key = listener.key().clone();
            let address = listener.local_address();
            let socket = listener.socket();
            tracing::info!(listener = %listener.name(&self.shared), address, "listening");
            let task = tokio::spawn(listener.run(self.shared.clone(), self.registry.clone()));
            self.listeners.insert(key, Running { address, socket, task });
        }
    }
}

/// To a tenth of a millisecond, as a swap takes a few.
fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e4).round() / 10.0
}

/// What follows from a swap, and the end of the old generation. With ten thousand upstreams it takes longer than a round
/// trip may; new streams are on the new generation all the while. Goes on to its end even if this future is dropped.
async fn settle(old: Arc<Snapshot>, snapshot: Arc<Snapshot>, registry: Registry) {
    let work = move || {
        snapshot.log_parts();
        snapshot.publish(Some(&old), &registry);
        snapshot.replenish(Some(&old));
        drop(old);
        // Two generations were in memory: with 10,000 upstreams, 200 MiB of what the allocator holds are free now.
        net::trim_heap();
    };
    if beside(work).await.is_none() {
        tracing::error!(reason = Rejected::Interrupted.reason(), "what follows from the swap was not finished");
    }
}

fn explained(error: &BindError) -> String {
    let needs_restart = error.forbidden_socket().is_some_and(hardening::forbids_socket);
    let why = match needs_restart {
        true => {
            "; no listener had a socket in this folder when egret was started, and hardening forbids new files elsewhere: \
                 restart egret"
        }
        false => "",
    };
    format!("{error}{why}")
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Rejected> + Send + 'static,
) -> Result<T, Rejected> {
    let work = || {
        let _raised = capability::raise();
        work()
    };
    beside(work).await.unwrap_or(Err(Rejected::Interrupted))
}

/// Of a thread that yields to the streams, nice(2): where they use a whole processor it gets a tenth of it (sched(7)), so that
/// a key derivation of a second still ends before [`DEADLINE`].
const NICE: i32 = 10;

/// Runs `work` on a thread of its own, with less of the processor than the workers have; threads that it starts inherit
/// that. `None`: it panicked, or there is no thread to be had.
async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let runtime = Handle::current();
    let (done, result) = oneshot::channel();
    let run = move || {
        // Of this thread alone, as Linux has it (setpriority(2)).
        let _ = rustix::process::setpriority_process(None, NICE);
        let _inside = runtime.enter();
        let _ = done.send(work());
    };
    thread::Builder::new().name("reload".to_owned()).spawn(run).ok()?;
    result.await.ok()
}

fn named_by(file: Option<&Path>, config: &Config) -> Vec<PathBuf> {
    let identities = config.identities.values().flat_map(|identity| {
        let values::Identity { certificate, private_key, password_file, .. } = identity;
        [Some(certificate.clone()), private_key.clone(), password_file.clone()].into_iter().flatten()
    });
    let trusts = config.trusts.values().flat_map(|trust| {
        let anchors = match &trust.anchors {
            Anchors::Roots { paths, .. } => paths.clone(),
            Anchors::Certificate(ExactCertificate::File(path)) => vec![path.clone()],
            Anchors::Certificate(ExactCertificate::Sha256(_)) | Anchors::PinsOnly => Vec::new(),
        };
        anchors.into_iter().chain(trust.crls.iter().cloned()).chain(trust.candidate_roots.iter().cloned())
    });
    let tokens = config.admin.iter().filter_map(|admin| admin.token_file.clone());
    file.map(Path::to_owned).into_iter().chain(identities).chain(trusts).chain(tokens).collect()
}
