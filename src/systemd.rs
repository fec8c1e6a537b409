//! What systemd is told: ready, reloading, stopping, alive (sd_notify(3), `Type=notify-reload`).
//!
//! Every call does nothing where no supervisor listens, that is without `NOTIFY_SOCKET`. A failure to
//! tell is logged and has no other effect: no stream ends because a supervisor is deaf.

use std::time::Duration;

use sd_notify::NotifyState;

/// Start or reload is over; `status` is the line that `systemctl status` shows. Also after a reload
/// that failed: the running generation serves, and the status line says which.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
}

/// A reload has begun; to be followed by [`ready`].
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        // systemd takes the message of a reload only together with the time it was sent.
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "cannot read the monotonic clock, systemd is not told of the reload"),
    }
}

/// A drain has begun; `status` is the line that `systemctl status` shows.
pub fn stopping(status: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(&one_line(status))]);
}

/// How often [`alive`] has to be called: half of what the supervisor waits, as sd_watchdog_enabled(3)
/// recommends. `None`: nobody waits.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|wait| !wait.is_zero()).map(|wait| wait / 2)
}

/// The process is alive. To be called from where a hang would show, not from a thread of its own.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd cannot be told");
    }
}

/// The protocol is lines of assignments: a line break in a status would begin another one.
fn one_line(status: &str) -> String {
    status.replace(['\n', '\r'], " ")
}
