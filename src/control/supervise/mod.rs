//! Starts and stops everything: a list of starts, one loop of causes, and the end.

mod admin_thread;
mod budget;
mod descriptors;
mod endpoints;
mod entrypoint;
mod heartbeat;
mod proof;
mod readiness;
mod requests;
mod status;
mod trim;

use std::io;
use std::mem;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustix::process::{Resource, Rlimit};
use tokio::sync::{Notify, Semaphore};

use crate::config::values::{Admin, Config, Name};
use crate::config::{Loaded, Place, Problem};
use crate::control::admin::{Kept, Swapped};
use crate::control::hardening::{self, Hardening};
use crate::control::program::{self, Launcher, environment};
use crate::control::reload::watch;
use crate::control::reload::{Files, ReloadTrigger, Reloader, Source};
use crate::control::signals::{self, Signal, Signals};
use crate::control::snapshot::{self, BuildError, BuildErrors, Rigour, Snapshot};
use crate::control::systemd;
use crate::credentials::part::PartKind;
use crate::drain::{self, Drain, Drained};
use crate::memory::Shares;
use crate::net::{self, BindError, SpareDescriptors, capability};
use crate::observe::logging;
use crate::observe::metrics::Registry;
use crate::observe::tasks::{self, Task};
use crate::pipeline::accept::{Bound, Shared};
use crate::pipeline::admit;
use crate::pipeline::originate::key_log::KeyLogFile;
use admin_thread::AdminThread;
pub use entrypoint::{Entrypoint, Wait};
use entrypoint::{Prepared, Supervised};
use requests::{Asked, Requests, Stop, System};
use status::StatusView;
use trim::Trim;

/// What to run.
pub struct Start {
    /// Reads the configuration, now and at every reload.
    pub source: Source,
    /// The configuration file, if there is one: it is watched.
    pub file: Option<PathBuf>,
    /// The first configuration.
    pub config: Config,
    /// The running log, whose level a reload may change.
    pub log: logging::Handle,
    /// Where the secrets of sessions are written, for Wireshark.
    pub key_log: Option<Arc<KeyLogFile>>,
    /// What a file that cannot be used does, now and at every reload.
    pub rigour: Rigour,
    /// The program of `egret exec`, and the process that becomes it.
    pub entrypoint: Option<(Entrypoint, Launcher)>,
    /// What the process has given up.
    pub hardening: Hardening,
}

/// Why the process did not start or had to end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file that the configuration names cannot be used.
    #[error(transparent)]
    Build(BuildErrors),
    /// An address cannot be bound.
    #[error(transparent)]
    Bind(BindError),
    /// The admin endpoint's `allow_users` has a user that this machine does not have.
    #[error("admin: {0}")]
    Admin(admit::Error),
    /// The system gave no thread for the admin endpoint.
    #[error("no thread for the admin endpoint: {0}")]
    AdminThread(io::Error),
    /// Signals cannot be received.
    #[error(transparent)]
    Signals(signals::Error),
    /// Files cannot be watched.
    #[error(transparent)]
    Watch(watch::Error),
    /// The thread that built the first generation ended early.
    #[error("the start was interrupted")]
    Interrupted,
    /// A task without which the process cannot go on panicked; the log has the place.
    #[error("the process ends after a panic of its main loop")]
    Panicked,
    /// The program of `egret exec` cannot be started.
    #[error(transparent)]
    Program(program::Error),
    /// A variable of the program's environment refers to nothing.
    #[error(transparent)]
    Environment(environment::Error),
    /// An upstream to wait for is not in the configuration.
    #[error("--wait-upstreams: there is no upstream {0}")]
    UnknownUpstream(Name),
    /// Upstreams for which no origination succeeded in time.
    #[error("not proven within {} s: {}; the program was not started", .1.as_secs_f64(), list(.0))]
    Unproven(Vec<Name>, Duration),
}

fn list(names: &[Name]) -> String {
    names.iter().map(Name::as_str).collect::<Vec<_>>().join(", ")
}

impl Error {
    /// The class, for the log.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Build(errors) => errors.reason(),
            Self::Bind(_) => "bind_failed",
            Self::Admin(error) => error.reason(),
            Self::AdminThread(_) => "admin_without_thread",
            Self::Signals(error) => error.reason(),
            Self::Watch(error) => error.reason(),
            Self::Interrupted => "interrupted",
            Self::Panicked => "panicked",
            Self::Program(error) => error.reason(),
            Self::Environment(error) => error.reason(),
            Self::UnknownUpstream(_) => "unknown_upstream",
            Self::Unproven(..) => "wait_timeout",
        }
    }

    /// Whether the cause is the configuration, or a file it names.
    pub fn is_of_configuration(&self) -> bool {
        matches!(self, Self::Build(_) | Self::Admin(_))
    }

    /// The exit code of `egret exec`, by the custom of timeout(1), env(1) and shells.
    pub fn exec_code(&self) -> u8 {
        match self {
            Self::Unproven(..) => 124,
            Self::Program(program::Error::NotExecutable { .. }) => 126,
            Self::Program(program::Error::NotFound { .. }) => 127,
            _ => EXEC_FAILED,
        }
    }
}

/// The exit code of `egret exec` if egret itself fails: a program rarely has this one.
pub const EXEC_FAILED: u8 = 125;

/// How the process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// On request, after a drain.
    Drained,
    /// By a second signal, without waiting.
    Quit,
    /// With the program of `egret exec`, whose exit code this is.
    Program(u8),
}

/// Runs until a request to stop. Everything is loaded and bound before the first connection is accepted.
///
/// # Errors
/// Why it could not start; nothing is bound then. Once it runs, only a signal or `POST /drain` ends it.
pub async fn run(start: Start) -> Result<Ended, Error> {
    let signals = Signals::new().map_err(Error::Signals)?;
    run_under(signals, start).await
}

/// Like [`run`], with signals that were caught before: for callers that have something to clean up. A stop that was
/// requested meanwhile takes effect.
///
/// # Errors
/// Those of [`run`].
pub(crate) async fn run_under(mut signals: Signals, start: Start) -> Result<Ended, Error> {
    let Start { source, file, config, log, key_log, rigour, entrypoint, hardening } = start;
    let program = entrypoint.map(|(entrypoint, launcher)| prepare(entrypoint, launcher, &config)).transpose()?;
    forbid_core_dumps();
    let descriptors = descriptors::raise_limit();
    let registry = Registry::new();
    logging::count_dropped(&registry);
    systemd::count_dropped(&registry);
    key_log.iter().for_each(|key_log| key_log.count_dropped(&registry));
    let shares = budget::share_out(&config);
    let (files, snapshot) = tokio::select! {
        loaded = first_generation(file, config, &registry, key_log, rigour) => loaded?,
        stop = stop_asked(&mut signals) => return Ok(stopped_early(stop, program.is_some())),
    };
    let (bound, bound_by) = connections(&snapshot, descriptors, shares);
    let (drain, streams) = drain::channel();
    let shared = Shared {
        snapshot: Arc::new(ArcSwap::new(snapshot)),
        permits: Arc::new(Semaphore::new(bound.min(Semaphore::MAX_PERMITS))),
        bound: bound_by,
        swapped: Arc::new(Notify::new()),
        streams,
    };
    let config = shared.snapshot.load().config.clone();

    let admin = AdminThread::bind(&config)?;
    let snapshot = Arc::clone(&shared.snapshot);
    let (status, orders) =
        StatusView::new(Arc::clone(&snapshot), registry.clone(), bound, Arc::clone(&shared.permits), hardening);
    let status = Arc::new(status);
    let trim = Trim::new(bound, Arc::clone(&shared.permits));
    let reloader = Reloader::start(source, files, log, registry.clone(), shared, rigour).map_err(Error::Bind)?;
    net::warn_of_unclaimed_sockets();
    let (no_admin, admin_ends) = drain::channel();
    admin.map(|admin| admin.start(Arc::clone(&status), &registry, admin_ends)).transpose()?;
    status.set_ready(true);
    let program = program.map(|program| program.start(snapshot, reloader.reached(), &registry));
    let system = match &program {
        Some(program) => System::Program(program.handle()),
        None => {
            systemd::ready(&running(1, reloader.troubled().len()));
            System::Signals(signals)
        }
    };
    tokio::spawn(hardening::calls::log_refused());
    #[cfg(debug_assertions)]
    tokio::task::spawn_blocking(hardening::attempts::make_if_asked);
    let running = Running { requests: Requests::new(system, orders, registry, trim), reloader };
    let ended = tasks::caught_in(Task::Main, pin!(running.until_stopped(&status, drain))).await;
    let ended = with_program(program, ended.map_err(|_| Error::Panicked), config.drain_timeout).await;
    match ended {
        Ok(Ended::Quit) => no_admin.stop(),
        // The client that asked for the drain has yet to get its answer.
        _ => drop(no_admin.drain(ADMIN_GRACE).await),
    }
    ended
}

fn prepare(entrypoint: Entrypoint, launcher: Launcher, config: &Config) -> Result<Prepared, Error> {
    entrypoint.check(config)?;
    Prepared::new(entrypoint, launcher)
}

/// A stop before there was anything to drain.
fn stopped_early(stop: signals::Stop, has_program: bool) -> Ended {
    if has_program { Ended::Program(program::SIGNALLED + stop.number()) } else { Ended::Drained }
}

/// The end of the process as its program makes it. If egret cannot go on, the program has to end.
async fn with_program(
    program: Option<Supervised>,
    ended: Result<Ended, Error>,
    patience: Duration,
) -> Result<Ended, Error> {
    match (program, ended) {
        (None, ended) => ended,
        (Some(program), Ok(_)) => program.finish().await.map(Ended::Program),
        (Some(program), Err(error)) => {
            tracing::error!(reason = error.reason(), "egret cannot go on, and stops the program");
            program.end(patience).await;
            Err(error)
        }
    }
}

fn connections(snapshot: &Snapshot, descriptors: u64, shares: Option<Shares>) -> (usize, Bound) {
    let limits = &snapshot.config.limits;
    let Config { admin, listeners, .. } = &snapshot.config;
    let held =
        snapshot.warm_descriptors() + admin.len() * SpareDescriptors::HELD + descriptors::held_by(listeners.len());
    let by_files = descriptors::connections(limits, descriptors, held);
    let bound = budget::connections(shares, limits, by_files);
    let bound_by = match limits.max_connections {
        _ if bound < by_files => Bound::Memory,
        Some(asked) if asked == bound => Bound::Configured,
        _ => Bound::OpenFiles,
    };
    (bound, bound_by)
}

/// The admin endpoint ends by itself within this time: it bounds the answers that are under way.
const ADMIN_GRACE: Duration = Duration::from_secs(3);

struct Running {
    requests: Requests,
    reloader: Reloader,
}

impl Running {
    async fn until_stopped(mut self, status: &StatusView, drain: Drain) -> Ended {
        loop {
            let (trigger, answer) = match self.asked().await {
                Asked::Reload(trigger, answer) => (trigger, answer),
                Asked::Drain => break,
                Asked::Quit => return Ended::Quit,
            };
            // A reload waits for disks: a request to stop meanwhile does not.
            let result = tokio::select! {
                result = reload(&mut self.reloader, trigger) => result,
                asked = self.requests.stop() => match asked {
                    Stop::Drain => break,
                    Stop::Quit => return Ended::Quit,
                },
            };
            // The client may be gone by now; the reload was done all the same.
            drop(answer.map(|answer| answer.send(result)));
        }
        self.drain(status, drain).await
    }

    async fn asked(&mut self) -> Asked {
        // One future for the whole wait: each beginning of it reads all files.
        tokio::select! {
            asked = self.requests.next() => asked,
            () = self.reloader.files_changed() => Asked::Reload(ReloadTrigger::Files, None),
        }
    }

    async fn drain(self, status: &StatusView, drain: Drain) -> Ended {
        let Self { requests, reloader } = self;
        status.set_ready(false);
        let deadline = reloader.config().drain_timeout;
        systemd::stopping("draining");
        tracing::info!(?deadline, "draining");
        // The listeners go, and with them their watches: what is left are streams.
        reloader.stop();
        drop(reloader);
        let signals = requests.into_signals();
        tokio::select! {
            drained = drain.drain(deadline) => {
                match drained {
                    Drained::Finished => tracing::info!("drained: every stream finished"),
                    Drained::Forced { held } | Drained::Stuck { held } => {
                        tracing::warn!(streams = held, "drained: the deadline came, streams were reset");
                    }
                }
                Ended::Drained
            }
            () = quit(signals) => {
                tracing::warn!("ended at once by a second signal");
                Ended::Quit
            }
        }
    }
}

async fn reload(reloader: &mut Reloader, trigger: ReloadTrigger) -> Result<Swapped, Kept> {
    systemd::reloading();
    let result = reloader.reload(trigger).await;
    systemd::ready(&match &result {
        Ok(generation) => running(*generation, reloader.troubled().len()),
        Err(rejected) => format!("kept generation {}: {}", reloader.generation(), rejected.reason()),
    });
    let generation = result.map_err(|rejected| Kept::Rejected(rejected.to_string()))?;
    Ok(Swapped { generation, troubled: reloader.troubled() })
}

fn running(generation: u64, troubled: usize) -> String {
    match troubled {
        0 => format!("running generation {generation}"),
        some => format!("running generation {generation}; files that cannot be used: {some}, see the log"),
    }
}

async fn quit(signals: Result<Signals, signals::Error>) {
    match signals {
        Ok(mut signals) => while signals.next().await != Signal::Quit {},
        Err(error) => {
            tracing::warn!(reason = error.reason(), %error, "signals do not shorten the drain");
            std::future::pending().await
        }
    }
}

async fn stop_asked(signals: &mut Signals) -> signals::Stop {
    loop {
        if let Signal::Drain(stop) = signals.next().await {
            return stop;
        }
    }
}

/// Begins to watch the files and reads them, on a thread that may block: on a disk that hangs, signals are heard.
async fn first_generation(
    file: Option<PathBuf>,
    config: Config,
    registry: &Registry,
    key_log: Option<Arc<KeyLogFile>>,
    rigour: Rigour,
) -> Result<(Files, Arc<Snapshot>), Error> {
    let registry = registry.clone();
    let build = move || {
        let files = Files::of(file, &config).map_err(Error::Watch)?;
        let _raised = capability::raise();
        let snapshot =
            Snapshot::build(config, None, &registry, key_log, rigour, &snapshot::always()).map_err(Error::Build)?;
        snapshot.check_served().map_err(Error::Build)?;
        Ok((files, Arc::new(snapshot)))
    };
    tokio::task::spawn_blocking(build).await.map_err(|_| Error::Interrupted)?
}

/// Keys are in memory: no crash may write them to a disk. The limit is one byte, less than any dump needs, and not
/// zero: a program that takes the place of the file (core(5)) gets the memory whatever the limit, and only a limit of 1
/// makes the kernel start none.
fn forbid_core_dumps() {
    // A hard limit of 0 allows no 1; it is as good.
    let limit = rustix::process::getrlimit(Resource::Core).maximum.map_or(1, |hard| hard.min(1));
    let one = Rlimit { current: Some(limit), maximum: Some(limit) };
    if let Err(error) = rustix::process::setrlimit(Resource::Core, one) {
        tracing::warn!(%error, "cannot forbid core dumps: a crash may write keys to a disk");
    }
}

/// What is wrong with the files that a configuration names, placed in its text: for `egret check`, which
/// binds nothing.
pub fn check_files(loaded: &Loaded) -> Vec<Problem> {
    match Snapshot::build(loaded.config.clone(), None, &Registry::silent(), None, Rigour::Strict, &snapshot::always()) {
        Ok(snapshot) => {
            // The process ends soon, and its memory with it: taking ten thousand upstreams apart takes a tenth of all.
            mem::forget(snapshot);
            Vec::new()
        }
        Err(errors) => errors.iter().map(|error| problem(loaded, error)).collect(),
    }
}

fn problem(loaded: &Loaded, error: &BuildError) -> Problem {
    let place = match error {
        BuildError::Part(broken) => Some(match broken.fault.kind {
            PartKind::Identity => Place::Identity(&broken.fault.name),
            PartKind::Trust => Place::Trust(&broken.fault.name),
        }),
        BuildError::Upstream(name, _) => Some(Place::Upstream(name)),
        BuildError::Listener(name, _) => Some(Place::Listener(name)),
        BuildError::Token(path, _) => {
            let has_it = |admin: &Admin| admin.token_file.as_ref() == Some(path);
            loaded.config.admin.iter().position(has_it).map(Place::Admin)
        }
        BuildError::Dns(_) | BuildError::NothingServed => None,
    };
    match place.and_then(|place| loaded.locate(place)) {
        Some(span) => Problem::new(span, error.to_string(), error.reason(), error.repair()),
        None => Problem::of_file(error.to_string(), error.repair()),
    }
}
