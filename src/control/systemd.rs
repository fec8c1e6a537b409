//! The state that systemd is notified of: ready, reloading, stopping, alive (sd_notify(3), `Type=notify-reload`).
//!
//! Without `NOTIFY_SOCKET` every call does nothing. A thread sends the messages, in the order of the calls: a
//! supervisor that does not read blocks nothing else. A failure is logged and has no other effect.

use std::env;
use std::sync::OnceLock;
use std::time::Duration;

use sd_notify::NotifyState;

use crate::observe::metrics::Registry;
use crate::observe::writer::{Messages, Sink, Writer};

/// Start or reload is over; `status` is the line that `systemctl status` shows. Also after a reload
/// that failed: the running generation serves, and the status line says which.
pub(crate) fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
}

/// A reload has begun; to be followed by [`ready`].
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        // systemd takes the message of a reload only together with the time it was sent.
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "cannot read the monotonic clock, systemd is not notified of the reload"),
    }
}

pub(crate) fn stopping(status: &str) {
    notify(&[NotifyState::Stopping, NotifyState::Status(&one_line(status))]);
}

/// How often to call [`alive`]: half of the supervisor's timeout, as sd_watchdog_enabled(3) recommends. `None`: no
/// watchdog.
pub(crate) fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|wait| !wait.is_zero()).map(|wait| wait / 2)
}

/// The process is alive. Call it where a hang would show, not on a separate thread.
pub(crate) fn alive() {
    // Behind others it would arrive late, and say that the process was alive when it no longer is; and a supervisor
    // that does not read would find nothing else once it reads again.
    if writer().is_some_and(Writer::is_empty) {
        notify(&[NotifyState::Watchdog]);
    }
}

pub(crate) fn count_dropped(registry: &Registry) {
    if let Some(writer) = writer() {
        writer.count_with(registry.counter("egret_notify_dropped_total", &[]));
    }
}

/// Bytes of messages that wait for a supervisor that does not read: about 300 reloads.
const CAPACITY: usize = 64 << 10;

fn notify(states: &[NotifyState<'_>]) {
    if let Some(writer) = writer() {
        let lines: Vec<String> = states.iter().map(ToString::to_string).collect();
        writer.push(lines.join("\n").as_bytes());
    }
}

/// `None`: no supervisor asked for notifications.
fn writer() -> Option<&'static Writer> {
    static WRITER: OnceLock<Option<Writer>> = OnceLock::new();
    let start = || {
        env::var_os("NOTIFY_SOCKET")?;
        Writer::start("notify", CAPACITY, Supervisor::default())
            .inspect_err(|error| tracing::warn!(%error, "no thread to notify systemd"))
            .ok()
    };
    WRITER.get_or_init(start).as_ref()
}

#[derive(Default)]
struct Supervisor {
    is_failing: bool,
}

impl Supervisor {
    fn send(&mut self, message: &[u8]) -> bool {
        let text = String::from_utf8_lossy(message);
        let sent = sd_notify::notify(&[NotifyState::Custom(&text)]);
        let failed = sent.is_err();
        // With a watchdog there is a message every few seconds, and each of them fails.
        match sent {
            Err(error) if !self.is_failing => tracing::warn!(%error, "systemd cannot be notified"),
            Ok(()) if self.is_failing => tracing::info!("systemd is notified again"),
            Ok(()) | Err(_) => {}
        }
        self.is_failing = failed;
        !failed
    }
}

impl Sink for Supervisor {
    fn write(&mut self, messages: &Messages) -> u64 {
        messages.iter().map(|message| u64::from(!self.send(message))).sum()
    }
}

/// The protocol is lines of assignments: a line break in a status would begin another one.
fn one_line(status: &str) -> String {
    status.replace(['\n', '\r'], " ")
}
