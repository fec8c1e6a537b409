//! `egret exec`: the program runs beside the proxy, and its end is the end of the process.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::Error;
use super::proof::prove_all;
use super::readiness::led_to;
use crate::config::values::{Config, Name};
use crate::control::program::environment::{self, Reached};
use crate::control::program::{self, Children, Command, Forwarded, Launcher, Program, SIGNALLED};
use crate::control::snapshot::Snapshot;
use crate::control::systemd;
use crate::observe::metrics::Registry;
use crate::observe::tasks::{self, Task};

/// The program of `egret exec`, and what it waits for.
#[derive(Clone, Debug)]
pub struct Entrypoint {
    /// What to start.
    pub command: Command,
    /// Upstreams that are proven before the program starts.
    pub wait: Option<Wait>,
}

/// Upstreams that are proven, each by an origination.
#[derive(Clone, Debug)]
pub struct Wait {
    /// Empty: all that a listener leads to.
    pub upstreams: Vec<Name>,
    /// Time for all of them.
    pub limit: Duration,
}

impl Entrypoint {
    /// Finds what refers to nothing in this configuration.
    pub(super) fn check(&self, config: &Config) -> Result<(), Error> {
        let listeners = config.listeners.iter();
        let reached = listeners.map(|spec| Reached { listener: spec.name.clone(), address: (&spec.listen).into() });
        let reached: Vec<Reached> = reached.collect();
        environment::resolve(&self.command.variables, &reached).map_err(Error::Environment)?;
        self.wait.as_ref().map_or(Ok(()), |wait| wait.upstreams(config).map(drop))
    }
}

impl Wait {
    pub(super) fn upstreams(&self, config: &Config) -> Result<Vec<Name>, Error> {
        if let Some(unknown) = self.upstreams.iter().find(|name| !config.upstreams.contains_key(name)) {
            return Err(Error::UnknownUpstream(unknown.clone()));
        }
        if !self.upstreams.is_empty() {
            return Ok(self.upstreams.clone());
        }
        Ok(led_to(config))
    }
}

/// What is caught and adopted from the first moment on, so that nothing that arrives during the start is lost.
pub(super) struct Prepared {
    entrypoint: Entrypoint,
    signals: Forwarded,
    children: Children,
    launcher: Launcher,
}

impl Prepared {
    pub(super) fn new(entrypoint: Entrypoint, launcher: Launcher) -> Result<Self, Error> {
        let signals = Forwarded::new().map_err(Error::Program)?;
        let children = Children::new().map_err(Error::Program)?;
        program::adopt_orphans();
        Ok(Self { entrypoint, signals, children, launcher })
    }

    /// Starts the task that waits for upstreams, starts the program and attends to it.
    pub(super) fn start(
        self,
        snapshot: Arc<ArcSwap<Snapshot>>,
        listeners: Vec<Reached>,
        registry: &Registry,
    ) -> Supervised {
        let (orders, ordered) = watch::channel(Order::Run);
        let (alive, ended) = watch::channel(());
        let registry = registry.clone();
        let task = tokio::spawn(async move {
            let _alive = alive;
            let work = self.run(&snapshot, &listeners, ordered, &registry);
            tasks::once(Task::Program, &registry, work).await.unwrap_or(Err(Error::Panicked))
        });
        Supervised { orders, ended: End(ended), task }
    }

    /// The program's exit code.
    async fn run(
        mut self,
        snapshot: &Arc<ArcSwap<Snapshot>>,
        listeners: &[Reached],
        mut ordered: watch::Receiver<Order>,
        registry: &Registry,
    ) -> Result<u8, Error> {
        if let Some(wait) = &self.entrypoint.wait {
            let upstreams = wait.upstreams(&snapshot.load().config)?;
            tracing::info!(count = upstreams.len(), limit = ?wait.limit, "waiting for upstreams");
            tokio::select! {
                proven = prove_all(snapshot, &upstreams, wait.limit, registry) => {
                    proven.map_err(|missing| Error::Unproven(missing, wait.limit))?;
                }
                signal = self.signals.next_stop() => return Ok(SIGNALLED + signal as u8),
                Ok(()) = ordered.changed() => return Ok(SIGNALLED + libc::SIGTERM as u8),
            }
        }
        let command = &self.entrypoint.command;
        let variables = environment::resolve(&command.variables, listeners).map_err(Error::Environment)?;
        let program = Program::start(command, self.launcher, variables).map_err(Error::Program)?;
        tracing::info!(pid = program.pid().as_raw_nonzero().get(), program = %command.program.display(), "program started");
        systemd::ready("running, the program has started");
        let code = attend(program, &mut self.signals, &mut self.children, ordered).await;
        tracing::info!(code, "program ended");
        tokio::spawn(self.children.reap());
        Ok(code)
    }
}

async fn attend(
    mut program: Program,
    signals: &mut Forwarded,
    children: &mut Children,
    mut ordered: watch::Receiver<Order>,
) -> u8 {
    loop {
        tokio::select! {
            (child, status) = children.next() => if let Some(code) = program.changed(child, status) { return code },
            signal = signals.next() => program.forward(signal),
            Ok(()) = ordered.changed() => match *ordered.borrow_and_update() {
                Order::Run => {}
                Order::Stop => program.stop(),
                Order::Kill => program.kill(),
            },
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Run,
    Stop,
    Kill,
}

/// The running task of a program.
pub(super) struct Supervised {
    orders: watch::Sender<Order>,
    ended: End,
    task: JoinHandle<Result<u8, Error>>,
}

/// Known to all who wait for the end of the program.
#[derive(Clone)]
pub(super) struct End(watch::Receiver<()>);

impl End {
    /// Cancel safe; completes at once if it has ended.
    pub(super) async fn reached(&mut self) {
        while self.0.changed().await.is_ok() {}
    }
}

impl Supervised {
    pub(super) fn handle(&self) -> Handle {
        Handle { orders: self.orders.clone(), ended: self.ended.clone() }
    }

    /// The exit code of a program that has ended.
    pub(super) async fn finish(self) -> Result<u8, Error> {
        self.task.await.unwrap_or(Err(Error::Interrupted))
    }

    /// Ends the program since egret cannot go on: by its stop signal, after `patience` by SIGKILL.
    pub(super) async fn end(mut self, patience: Duration) {
        self.orders.send_replace(Order::Stop);
        if timeout(patience, self.ended.reached()).await.is_err() {
            tracing::warn!("the program does not stop and is killed");
            self.orders.send_replace(Order::Kill);
            self.ended.reached().await;
        }
    }
}

/// For the main loop: asks the program to stop, and sees its end.
pub(super) struct Handle {
    orders: watch::Sender<Order>,
    ended: End,
}

impl Handle {
    pub(super) fn stop(&self) {
        self.orders.send_replace(Order::Stop);
    }

    pub(super) async fn ended(&mut self) {
        self.ended.reached().await;
    }
}
