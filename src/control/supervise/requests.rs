//! Requests by signals and the admin endpoint, and the work that is due on a timer meanwhile.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::entrypoint::Handle;
use super::trim::Trim;
use crate::control::admin::{Kept, Swapped};
use crate::control::reload::ReloadTrigger;
use crate::control::signals::{self, Signal, Signals};
use crate::control::systemd;
use crate::observe::metrics::Registry;

pub(super) type Answer = oneshot::Sender<Result<Swapped, Kept>>;

#[derive(Clone)]
pub(super) struct Orders {
    /// One reload after the other.
    pub(super) reloads: mpsc::Sender<Answer>,
    /// To drain. Not in the queue of reloads, which may be full or wait for a disk.
    pub(super) drain: Arc<Notify>,
}

pub(super) struct Ordered {
    reloads: mpsc::Receiver<Answer>,
    drain: Arc<Notify>,
}

/// Reloads of the admin endpoint that may wait; it serves few connections at once.
const RELOADS: usize = 16;

pub(super) fn orders() -> (Orders, Ordered) {
    let (sender, receiver) = mpsc::channel(RELOADS);
    let drain = Arc::new(Notify::new());
    (Orders { reloads: sender, drain: Arc::clone(&drain) }, Ordered { reloads: receiver, drain })
}

pub(super) enum Asked {
    Reload(ReloadTrigger, Option<Answer>),
    Drain,
    Quit,
}

pub(super) enum Stop {
    Drain,
    Quit,
}

/// Who asks egret to stop: signals; or, in `egret exec`, the end of the program, which gets the signals.
pub(super) enum System {
    Signals(Signals),
    Program(Handle),
}

impl System {
    /// Cancel safe.
    async fn next(&mut self) -> Signal {
        match self {
            Self::Signals(signals) => signals.next().await,
            Self::Program(program) => {
                program.ended().await;
                // As a supervisor asks.
                Signal::Drain(signals::Stop::Term)
            }
        }
    }

    /// An order of the admin endpoint to drain. False: the program has to end first, since it may need its streams for
    /// that.
    fn drains_now(&self) -> bool {
        match self {
            Self::Signals(_) => true,
            Self::Program(program) => {
                program.stop();
                false
            }
        }
    }
}

/// All sources of requests except changed files.
pub(super) struct Requests {
    system: System,
    ordered: Ordered,
    /// SIGHUP came during a reload, which may have read the files before they were changed.
    hangup: bool,
    registry: Registry,
    trim: Trim,
    upkeep: Interval,
    alive: Interval,
}

/// Histograms hold what was recorded until they are folded; at a thousand connections a second, five seconds
/// are some 300 KiB.
const UPKEEP: Duration = Duration::from_secs(5);

impl Requests {
    pub(super) fn new(system: System, ordered: Ordered, registry: Registry, trim: Trim) -> Self {
        let mut upkeep = interval(UPKEEP);
        let mut alive = interval(systemd::watchdog_interval().unwrap_or(UPKEEP));
        upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { system, ordered, hangup: false, registry, trim, upkeep, alive }
    }

    /// The next thing that is asked for. Cancel safe.
    pub(super) async fn next(&mut self) -> Asked {
        loop {
            if std::mem::take(&mut self.hangup) {
                return Asked::Reload(ReloadTrigger::Signal, None);
            }
            tokio::select! {
                signal = self.system.next() => match signal {
                    Signal::Reload => self.hangup = true,
                    Signal::Drain(_) => return Asked::Drain,
                    Signal::Quit => return Asked::Quit,
                },
                () = self.ordered.drain.notified() => if self.system.drains_now() { return Asked::Drain },
                Some(answer) = self.ordered.reloads.recv() => return Asked::Reload(ReloadTrigger::Admin, Some(answer)),
                _ = self.upkeep.tick() => self.keep_up(),
                () = self.trim.when_quiet() => {}
                _ = self.alive.tick() => systemd::alive(),
            }
        }
    }

    /// With ten thousand upstreams there are 60,000 histograms: on a thread that may block, as streams wait for a worker.
    fn keep_up(&self) {
        let registry = self.registry.clone();
        tokio::task::spawn_blocking(move || registry.upkeep());
    }

    /// The next request to stop; requests to reload wait. Cancel safe.
    pub(super) async fn stop(&mut self) -> Stop {
        loop {
            tokio::select! {
                signal = self.system.next() => match signal {
                    Signal::Reload => self.hangup = true,
                    Signal::Drain(_) => return Stop::Drain,
                    Signal::Quit => return Stop::Quit,
                },
                () = self.ordered.drain.notified() => if self.system.drains_now() { return Stop::Drain },
                _ = self.upkeep.tick() => self.keep_up(),
                () = self.trim.when_quiet() => {}
                _ = self.alive.tick() => systemd::alive(),
            }
        }
    }

    /// For the drain: requests that wait for a reload get their answer, and no new one is accepted.
    pub(super) fn into_signals(self) -> Result<Signals, signals::Error> {
        match self.system {
            System::Signals(signals) => Ok(signals),
            // Those that came before its end were the program's.
            System::Program(_) => Signals::new(),
        }
    }
}
