//! A line of the log as text: time, level, message, then the fields of the event in their order. One line an event,
//! whatever a field holds.

use std::fmt::{self, Debug, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::escape;

/// Fields that are pasted into a shell: their backslashes are doubled as well, so that `printf %b` restores every
/// character.
const ENCODED: [&str; 1] = ["repair"];

pub(super) struct Text;

impl<S, N> FormatEvent<S, N> for Text
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = Line { text: String::with_capacity(USUAL), colours: writer.has_ansi_escapes() };
        line.dimmed(|text| SystemTime.format_time(&mut Writer::new(text)))?;
        line.level(event.metadata().level())?;
        event.record(&mut line);
        line.text.push('\n');
        writer.write_str(&line.text)
    }
}

/// Bytes: the line `connection` fits.
const USUAL: usize = 1024;

struct Line {
    text: String,
    colours: bool,
}

impl Line {
    fn dimmed(&mut self, write: impl FnOnce(&mut String) -> fmt::Result) -> fmt::Result {
        self.coloured("\u{1b}[2m", write)
    }

    fn coloured(&mut self, colour: &str, write: impl FnOnce(&mut String) -> fmt::Result) -> fmt::Result {
        if !self.colours {
            return write(&mut self.text);
        }
        self.text.push_str(colour);
        write(&mut self.text)?;
        self.text.push_str("\u{1b}[0m");
        Ok(())
    }

    fn level(&mut self, level: &Level) -> fmt::Result {
        let colour = match *level {
            Level::ERROR => "\u{1b}[31m",
            Level::WARN => "\u{1b}[33m",
            Level::INFO => "\u{1b}[32m",
            Level::DEBUG => "\u{1b}[34m",
            Level::TRACE => "\u{1b}[35m",
        };
        self.text.push(' ');
        self.coloured(colour, |text| write!(text, "{level:>5}"))
    }

    fn name(&mut self, field: &Field) {
        self.text.push(' ');
        if field.name() != "message" {
            let named = self.dimmed(|text| write!(text, "{}=", field.name()));
            named.expect("a string takes any text");
        }
    }

    fn value(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let mut visible = Visible { text: &mut self.text, is_encoded: ENCODED.contains(&field.name()) };
        visible.write_fmt(value).expect("a string takes any text");
    }
}

struct Visible<'a> {
    text: &'a mut String,
    is_encoded: bool,
}

impl fmt::Write for Visible<'_> {
    fn write_str(&mut self, value: &str) -> fmt::Result {
        if !self.is_encoded && escape::is_plain(value) {
            self.text.push_str(value);
            return Ok(());
        }
        for letter in value.chars() {
            if self.is_encoded && letter == '\\' {
                self.text.push('\\');
            }
            escape::push(self.text, letter);
        }
        Ok(())
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.name(field);
        if field.name() == "message" || ENCODED.contains(&field.name()) {
            return self.value(field, format_args!("{value}"));
        }
        self.value(field, format_args!("{value:?}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.name(field);
        self.value(field, format_args!("{value:?}"));
    }
}
