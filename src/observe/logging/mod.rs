//! The log: lines to stderr, for people or for machines. A thread of its own writes them: nothing waits for a reader.

pub(crate) mod flood;
mod journal;
mod json;
mod panics;
mod stderr;
mod text;

use std::env;
use std::io::{self, IsTerminal};
use std::time::Duration;

use tracing::Subscriber;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::config::values::{Log, LogFormat};
use crate::observe::metrics;
use crate::observe::writer::Writer;

/// Starts the log of this process, to stderr; panics are logged from then on. A second call is an error and changes
/// nothing.
pub fn init(log: &Log) -> Result<Handle, Error> {
    let colours = io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let (subscriber, handle) = subscriber(log, colours, stderr()?)?;
    subscriber.try_init().map_err(|_| Error::AlreadyStarted)?;
    panics::log();
    Ok(handle)
}

/// The stderr of this process: writes go to the log's thread, and never wait.
pub fn stderr() -> Result<Stderr, Error> {
    let is_journal = journal::reads_stderr();
    stderr::writer().map(|writer| Stderr { writer, is_journal })
}

/// Includes the lines that were dropped before this call.
pub(crate) fn count_dropped(registry: &metrics::Registry) {
    // Without its thread there is no log, and `init` has reported that.
    if let Ok(stderr) = stderr::writer() {
        stderr.count_with(registry.counter("egret_log_dropped_total", &[]));
    }
}

/// Rounded to whole microseconds, the precision of the clocks in question.
pub(crate) fn seconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e6
}

pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e3
}

/// See [`stderr`]. Each write is one message, and so is each event.
pub struct Stderr {
    writer: Writer,
    is_journal: bool,
}

impl io::Write for &Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes one event, with its priority where the journal reads.
pub struct EventWriter<'a> {
    stderr: &'a Stderr,
    priority: Option<&'static str>,
}

impl io::Write for EventWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.priority {
            Some(priority) => self.stderr.writer.push(&[priority.as_bytes(), bytes].concat()),
            None => self.stderr.writer.push(bytes),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = EventWriter<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        EventWriter { stderr: self, priority: None }
    }

    fn make_writer_for(&'a self, metadata: &tracing::Metadata<'_>) -> Self::Writer {
        let priority = self.is_journal.then(|| journal::priority(*metadata.level()));
        EventWriter { stderr: self, priority }
    }
}

/// A log that is not installed as that of the process; for tests, with `tracing::subscriber::with_default`.
pub(crate) fn subscriber<W>(log: &Log, colours: bool, to: W) -> Result<(impl Subscriber + Send + Sync, Handle), Error>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(parse(&log.level)?);
    let lines: Box<dyn Layer<Filtered> + Send + Sync> = match log.format {
        LogFormat::Text => Box::new(layer(to).event_format(text::Text).with_ansi(colours)),
        LogFormat::Json => Box::new(layer(to).event_format(json::Json).with_ansi(false)),
    };
    Ok((Registry::default().with(filter).with(lines), Handle(handle)))
}

/// Formats events only: an error of the layer itself would be printed to stderr by the library.
fn layer<W>(to: W) -> fmt::Layer<Filtered, fmt::format::DefaultFields, fmt::format::Format, W>
where
    W: for<'a> MakeWriter<'a> + 'static,
{
    fmt::layer().with_writer(to).log_internal_errors(false)
}

type Filtered = tracing_subscriber::layer::Layered<reload::Layer<EnvFilter, Registry>, Registry>;

/// Changes the level of a running log.
#[derive(Clone, Debug)]
pub struct Handle(reload::Handle<EnvFilter, Registry>);

impl Handle {
    /// Replaces the filter; on an error the former one stays.
    pub(crate) fn set_level(&self, level: &str) -> Result<(), Error> {
        self.0.reload(parse(level)?).map_err(|_| Error::Ended)
    }
}

/// Why the log cannot be started or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter cannot be parsed.
    #[error(
        "log level {level:?}: {why} (a level is error, warn, info, debug, trace or off; a part of the program gets its own by target=level)"
    )]
    Level {
        /// What was asked for.
        level: String,
        /// What is wrong with it.
        why: String,
    },
    /// A log was started before.
    #[error("the log of this process has been started before")]
    AlreadyStarted,
    /// The system gave no thread to write the log.
    #[error("no thread for the log: {0}")]
    Thread(String),
    /// The log to change is gone.
    #[error("the log has ended")]
    Ended,
}

impl Error {
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Level { .. } => "log_level_invalid",
            Self::AlreadyStarted => "log_already_started",
            Self::Thread(_) => "log_without_thread",
            Self::Ended => "log_ended",
        }
    }
}

fn parse(level: &str) -> Result<EnvFilter, Error> {
    let wrong = |why: String| Error::Level { level: level.to_owned(), why };
    // EnvFilter takes a word it does not know for the name of a module: `inof` would log nothing at
    // all, and silently. A module without a level is not worth that.
    for word in level.split(',').map(str::trim) {
        let plain = word.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | ':' | '-'));
        let level = word.parse::<tracing::level_filters::LevelFilter>();
        if word.is_empty() || plain && level.is_err() {
            return Err(wrong(format!("{word:?} is not a level")));
        }
    }
    EnvFilter::try_new(level).map_err(|error| wrong(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Lines {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, level: &str, what: impl FnOnce(&Handle)) -> String {
        let lines = Lines::default();
        let to = lines.clone();
        let log = Log { format, level: level.into() };
        let (subscriber, handle) = subscriber(&log, false, move || to.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || what(&handle));
        lines.text()
    }

    #[test]
    fn json_is_one_object_a_line_with_fields_at_the_top() {
        let text = logged(LogFormat::Json, "info", |_| {
            let facts = serde_json::json!({ "names": "dns:\"x\"" });
            tracing::info!(listener = "a\nb", %facts, sent = 3, detail = %r#"{"of": "a peer"}"#, "connection ended");
            tracing::debug!("not asked for");
        });
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["listener"], "a\nb");
        assert_eq!(line["message"], "connection ended");
        assert_eq!((&line["level"], &line["sent"]), (&"INFO".into(), &3.into()));
        // Facts are nested JSON; text of a peer stays text.
        assert_eq!(line["facts"]["names"], "dns:\"x\"", "{text}");
        assert_eq!(line["detail"], r#"{"of": "a peer"}"#);
        assert!(line["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')), "{text}");
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn text_keeps_one_line_an_event_whatever_a_field_holds() {
        let hostile = "a\r\nb\u{1b}[31m\u{202e}\u{2028}c";
        for text in [
            logged(LogFormat::Text, "info", |_| tracing::info!(name = hostile, "ended")),
            logged(LogFormat::Text, "info", |_| tracing::info!(name = %hostile, "ended")),
            logged(LogFormat::Text, "info", |_| tracing::info!(name = ?[hostile], "ended")),
            logged(LogFormat::Text, "info", |_| tracing::info!("ended {hostile}")),
        ] {
            assert!(text.contains("a\\r\\nb\\u{1b}[31m\\u{202e}\\u{2028}c"), "{text:?}");
            assert!(!text.trim_end().chars().any(crate::escape::is_invisible), "{text:?}");
        }
    }

    #[test]
    fn a_repair_can_be_read_back_from_its_line() {
        let repair = "[trust.x]\nroots = [\"C:\\\\new\\\\roots.pem\"]";
        for text in [
            logged(LogFormat::Text, "info", |_| tracing::info!(%repair, "origination failed")),
            logged(LogFormat::Text, "info", |_| tracing::info!(repair, "origination failed")),
        ] {
            let (_, encoded) = text.trim_end().split_once("repair=").unwrap();
            let output = std::process::Command::new("printf").args(["%b", encoded]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), repair, "{text}");
        }
    }

    #[test]
    fn times_have_whole_microseconds() {
        let taken = Duration::from_nanos(49_069_765);
        assert_eq!((milliseconds(taken).to_string(), seconds(taken).to_string()), ("49.069".into(), "0.049069".into()));
    }

    #[test]
    fn the_level_of_a_running_log_changes() {
        let text = logged(LogFormat::Text, "warn", |handle| {
            tracing::info!("before");
            handle.set_level("info").unwrap();
            tracing::info!("after");
            handle.set_level("inof").unwrap_err();
            tracing::info!("still");
        });
        assert!(!text.contains("before") && text.contains("after") && text.contains("still"), "{text}");
    }

    #[test]
    fn a_level_that_means_nothing_is_an_error_and_not_silence() {
        for level in ["inof", "egret", "info,hyper", "egret=loud", ""] {
            assert_eq!(parse(level).unwrap_err().reason(), "log_level_invalid", "{level}");
        }
        for level in ["info", "WARN", "off", "info,egret::relay=trace", "egret=debug,hyper=off"] {
            parse(level).unwrap();
        }
    }
}
