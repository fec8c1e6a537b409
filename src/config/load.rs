//! From a text to a configuration: read, then resolve; the problems of both are reported together.

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use toml::de::DeTable;

use crate::config::file::File;
use crate::config::problems::{Problem, Problems};
use crate::config::read::{Environment, Given, Named, Reader, Text};
use crate::config::resolve::resolve;
use crate::config::source::{Source, Span};
use crate::config::values::{Config, LogFormat, Name, Written};

/// A configuration that passed, with the text it came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What will run.
    pub config: Config,
    pub(super) file: File,
    source: Arc<Source>,
}

/// A part of a configuration that something can be wrong with although its text is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// The table of an identity.
    Identity(&'a Name),
    /// The table of a trust.
    Trust(&'a Name),
    /// The table of an upstream.
    Upstream(&'a Name),
    /// The address of a listener.
    Listener(&'a Name),
    /// An admin address, by its place in the list.
    Admin(usize),
}

impl Loaded {
    /// The text it came from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Problems that were found after the text was read (a key file that cannot be opened, say), for the same report.
    pub(crate) fn problems(&self, list: Vec<Problem>) -> Problems {
        Problems::new(Arc::clone(&self.source), list)
    }

    /// Where a part stands in the text.
    pub fn locate(&self, place: Place<'_>) -> Option<Span> {
        fn table<T>(tables: &Given<Named<T>>, name: &Name) -> Option<Span> {
            tables.value()?.get(name).map(|(key, _)| key.at.clone())
        }
        match place {
            Place::Identity(name) => table(&self.file.identities, name),
            Place::Trust(name) => table(&self.file.trust, name),
            Place::Upstream(name) => table(&self.file.upstreams, name),
            Place::Listener(name) => {
                // All sections of a loaded file could be read, so both lists go in step.
                let at = self.config.listeners.iter().position(|listener| listener.name == *name)?;
                self.file.listeners.value()?.get(at)?.value()?.listen.span().cloned()
            }
            Place::Admin(at) => self.file.admin.value()?.0.get(at)?.value()?.listen.span().cloned(),
        }
    }
}

/// The largest file that is read. The largest we could think of (ten thousand listeners) has two megabytes.
const LARGEST: u64 = 8 << 20;

/// Reads a file. Variables of `${NAME}` come from `environment`.
///
/// # Errors
/// Everything that is wrong with the file, as far as it can be known without touching another file or a socket.
pub fn load(path: &Path, environment: Environment<'_>) -> Result<Loaded, Problems> {
    let origin = path.display().to_string();
    let whole = |title: String, repair: &str| {
        Problems::new(Arc::new(Source::new(&origin, "")), vec![Problem::of_file(title, repair)])
    };
    let bytes = read_file(path)
        .map_err(|error| whole(format!("the file cannot be read: {error}"), "check its path and permissions"))?;
    if bytes.len() as u64 > LARGEST {
        let title = format!("the file is larger than {} MiB", LARGEST >> 20);
        return Err(whole(title, "is it a configuration of egret?"));
    }
    match String::from_utf8(bytes) {
        Ok(text) => parse(&origin, &text, environment),
        Err(error) => Err(not_utf8(&origin, &error)),
    }
}

/// The bytes of a file, one more than [`LARGEST`] at most.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn not_utf8(origin: &str, error: &std::string::FromUtf8Error) -> Problems {
    let valid = error.utf8_error().valid_up_to();
    let text = String::from_utf8_lossy(error.as_bytes());
    let problem = Problem::new(
        valid..valid + char::REPLACEMENT_CHARACTER.len_utf8(),
        "the file is not UTF-8",
        "not UTF-8",
        "save the file as UTF-8",
    );
    Problems::new(Arc::new(Source::new(origin, &text)), vec![problem])
}

/// The format of the log in a file that cannot be used for something else in it; `None` if it names none.
pub fn log_format(source: &Source) -> Option<LogFormat> {
    let (table, _) = DeTable::parse_recoverable(source.text());
    let log = table.get_ref().get("log")?.get_ref().as_table()?;
    LogFormat::parse(log.get("format")?.get_ref().as_str()?).ok()
}

/// Understands a text. Relative paths in it start at the folder of `origin`; no file is touched.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(origin: &str, text: &str, environment: Environment<'_>) -> Result<Loaded, Problems> {
    let source = Source::new(origin, text);
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut reader = Reader::new(&source, environment);
    let file = File::read_table(table.get_ref(), table.span(), &mut reader);
    let (problems, variables) = reader.finish();
    let source = Arc::new(source.with_variables(variables));
    if errors.is_empty() {
        return finish(source, file, problems);
    }
    let mut syntax = syntax_problems(&source, &errors);
    // The text before the first error was read as it was meant; the text after it may be misread.
    let first = syntax.iter().filter_map(|problem| problem.span.as_ref()).map(|span| span.start).min();
    let sure = |problem: &Problem| problem.span.as_ref().is_some_and(|span| Some(span.end) < first);
    syntax.extend(problems.into_iter().filter(sure));
    Err(Problems::new(source, syntax))
}

pub(super) fn finish(source: Arc<Source>, file: File, mut problems: Vec<Problem>) -> Result<Loaded, Problems> {
    let written = Written(Some(Arc::clone(&source)));
    let config = Config { source: written, ..resolve(&file, source.folder(), &mut problems) };
    if problems.is_empty() { Ok(Loaded { config, file, source }) } else { Err(Problems::new(source, problems)) }
}

/// The errors of TOML's grammar, the first of each line: more of a line are echoes of it.
fn syntax_problems(source: &Source, errors: &[toml::de::Error]) -> Vec<Problem> {
    let mut problems: Vec<Problem> = errors.iter().map(syntax_problem).collect();
    problems.sort_by_key(|problem| problem.span.as_ref().map(|span| span.start));
    problems.dedup_by_key(|problem| problem.span.as_ref().map(|span| source.position(span.start).line));
    problems
}

fn syntax_problem(error: &toml::de::Error) -> Problem {
    let message = error.message();
    let repair = SYNTAX_REPAIRS.iter().find(|(word, _)| message.contains(word)).map_or(
        "a line of TOML is `key = value` (strings in double quotes), `[table]`, `[[list of tables]]` or `# comment`",
        |(_, repair)| repair,
    );
    let span = error.span().unwrap_or(0..0);
    Problem::new(span, format!("this is not TOML: {message}"), "here", repair)
}

/// Repairs of common slips, by a word of the parser's message.
const SYNTAX_REPAIRS: [(&str, &str); 6] = [
    ("duplicate key", "keep one of them"),
    ("must be quoted", "put the value into double quotes"),
    ("unclosed table", "close it with `]`"),
    ("unclosed array", "close it with `]`"),
    ("basic string", "close the string with `\"`; inside, write `\\\\` for a backslash"),
    ("between array elements", "put a comma between the elements"),
];
