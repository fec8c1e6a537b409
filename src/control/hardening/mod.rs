//! What the process gives up at its start, so that code of a stranger that runs inside egret can do little: on by default,
//! each measure as far as the kernel has it.
//!
//! A measure that a valid reload could meet is a fault, so each is about what no reload needs. Everything is set on the first
//! thread before there is another, and inherited by all.

#[cfg(debug_assertions)]
pub(crate) mod attempts;

pub(crate) mod calls;
mod files;
mod ports;

use std::env;
use std::fmt::Display;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{CapabilitySet, set_no_new_privs};
use serde_json::{Map, Value, json};

use crate::config::values;
use crate::config::values::ListenAddress;
use crate::config::values::{Config, KernelTls};
use crate::net::capability;
use files::Restrictions;
pub(crate) use files::forbids_socket;
use landlock::{BitFlags, Scope};
use ports::Ports;

/// What is in force, and what this machine does not have.
#[derive(Debug)]
pub struct Hardening {
    asked: values::Hardening,
    measures: Vec<Measure>,
}

/// How egret was started.
#[derive(Clone, Copy, Debug)]
pub struct Launched {
    /// Whether a reload may bring another configuration: there is a file.
    pub can_change: bool,
    /// Whether there is a program beside it, which gets signals.
    pub has_program: bool,
}

#[derive(Debug)]
struct Measure {
    name: &'static str,
    /// Why it is not in force.
    missing: Option<String>,
}

impl Measure {
    fn of<E: Display>(name: &'static str, result: Result<(), E>) -> Self {
        Self { name, missing: result.err().map(|why| why.to_string()) }
    }
}

impl Hardening {
    /// Nothing is given up.
    pub fn off() -> Self {
        Self { asked: values::Hardening::Off, measures: Vec::new() }
    }

    /// Gives up what `config` allows. To be called on the first thread, while there is no other.
    pub fn enter(config: &Config, launch: Launched) -> Self {
        if config.runtime.hardening == values::Hardening::Off {
            return Self::off();
        }
        let mut measures = vec![
            Measure::of("no_new_privileges", set_no_new_privs(true)),
            Measure::of("not_dumpable", set_dumpable_behavior(DumpableBehavior::NotDumpable)),
            Measure::of("capabilities", capability::lower(capability::FOR_LATER, in_use(config))),
        ];
        let restricted = files::restrict(&restrictions(config, launch)).into_iter();
        measures.extend(restricted.map(|(name, result)| Measure::of(name, result)));
        // Last: the calls above are not among those that it leaves for later.
        measures.push(Measure::of("system_calls", calls::restrict()));
        Self { asked: values::Hardening::On, measures }
    }

    /// One line.
    pub fn log(&self) {
        let in_force = self.in_force().collect::<Vec<_>>().join(", ");
        let missing: Vec<_> = self.missing().map(|(name, why)| format!("{name}: {why}")).collect();
        match (self.asked, &missing[..]) {
            (values::Hardening::Off, _) => tracing::info!("hardening is off"),
            (values::Hardening::On, []) => tracing::info!(in_force, "hardened"),
            (values::Hardening::On, _) => tracing::info!(in_force, missing = missing.join("; "), "hardened"),
        }
    }

    pub(crate) fn status(&self) -> Value {
        let missing: Map<_, _> = self.missing().map(|(name, why)| (name.to_owned(), json!(why))).collect();
        json!({ "in_force": self.in_force().collect::<Vec<_>>(), "missing": missing })
    }

    fn in_force(&self) -> impl Iterator<Item = &'static str> {
        self.measures.iter().filter(|measure| measure.missing.is_none()).map(|measure| measure.name)
    }

    fn missing(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.measures.iter().filter_map(|measure| Some((measure.name, measure.missing.as_deref()?)))
    }
}

fn restrictions(config: &Config, launch: Launched) -> Restrictions {
    let listeners = config.listeners.iter().map(|listener| &listener.listen);
    let sockets = listeners.chain(config.admin.iter().map(|admin| &admin.listen));
    let folder = |address: &ListenAddress| match address {
        ListenAddress::Unix { path, .. } => path
            .parent()
            .map(|folder| if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder.to_owned() }),
        ListenAddress::Tcp(_) => None,
    };
    Restrictions {
        sockets: sockets.filter_map(folder).chain(files::runtime_folders()).collect(),
        ports: (!launch.can_change).then(|| Ports::of(config)),
        scopes: scopes(launch),
    }
}

/// Signals to other processes, and abstract Unix sockets of other processes: `egret exec` sends the former, and a supervisor may
/// have one of the latter.
fn scopes(launch: Launched) -> BitFlags<Scope> {
    let supervisor = env::var_os("NOTIFY_SOCKET").is_some_and(|socket| socket.as_bytes().first() == Some(&b'@'));
    let mut scopes = BitFlags::empty();
    if !launch.has_program {
        scopes |= Scope::Signal;
    }
    if !supervisor {
        scopes |= Scope::AbstractUnixSocket;
    }
    scopes
}

/// CAP_NET_ADMIN, where sockets may be given a congestion control that is not open to all, or the kernel may have to load its
/// module for TLS: both happen with any connection.
fn in_use(config: &Config) -> CapabilitySet {
    let upstreams = config.upstreams.values().map(|upstream| &upstream.tcp);
    let mut tcp = config.listeners.iter().map(|listener| &listener.tcp).chain(upstreams);
    match config.runtime.kernel_tls != KernelTls::Off || tcp.any(|tcp| tcp.congestion.is_some()) {
        true => CapabilitySet::NET_ADMIN,
        false => CapabilitySet::empty(),
    }
}
