//! Configuration: text -> values -> live objects.
//!
//! Three stages, each without files and sockets: [`read`] parses every key on its own ([`file::File`] is
//! the file as typed), `resolve` combines the keys ([`values::Config`] is what will run), [`lint()`] warns about
//! what is legal but unwise. The snapshot builds the live objects.
//!
//! Imports inside go downwards: document, flags, lint > load > resolve, schema > file > formats > read > nearest >
//! problems > source.

mod document;
mod edit;
pub(crate) mod file;
pub mod flags;
pub(crate) mod formats;
mod lint;
mod load;
mod nearest;
pub(crate) mod problems;
pub(crate) mod read;
mod resolve;
mod schema;
pub(crate) mod source;
mod terms;
pub mod values;
mod variables;
pub(crate) mod write;

pub use self::document::document;
pub(crate) use self::edit::fit;
pub use self::lint::{Advice, lint};
pub use self::load::{Loaded, Place, load, log_format, parse};
pub(crate) use self::nearest::nearest;
pub use self::problems::{Problem, Problems, Severity, Style};
pub(crate) use self::read::Environment;
pub use self::schema::schema;
pub(crate) use self::source::{Position, Source, Span};
