//! Panics as events of the log: the standard hook would write text between lines of JSON, and wait for the reader of
//! stderr.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{self, PanicHookInfo};
use std::thread;

pub(super) fn log() {
    panic::set_hook(Box::new(report));
}

/// The panic's message: text, unless the payload is of another type.
fn message<'a>(panic: &'a PanicHookInfo<'_>) -> Option<&'a str> {
    let payload = panic.payload();
    payload.downcast_ref::<String>().map(String::as_str).or_else(|| payload.downcast_ref::<&str>().copied())
}

fn report(panic: &PanicHookInfo<'_>) {
    let backtrace = Backtrace::capture();
    let backtrace = matches!(backtrace.status(), BacktraceStatus::Captured).then_some(backtrace);
    tracing::error!(
        thread = thread::current().name(),
        location = panic.location().map(display),
        detail = message(panic),
        backtrace = backtrace.map(display),
        "panicked",
    );
}
