//! Configuration: text -> values -> live things.
//!
//! Three stages, each without files and sockets: [`read`] understands every key on its own ([`file::File`] is
//! what was typed), `resolve` says what the keys mean together ([`values::Config`] is what will run), [`lint()`]
//! says what is legal but unwise. The live things are built by the snapshot.
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
pub mod values;
mod variables;
pub(crate) mod write;

pub use self::document::document;
pub(crate) use self::edit::fit;
pub use self::lint::{Advice, lint};
pub use self::load::{Loaded, Place, load, log_format, parse};
pub use self::problems::{Problem, Problems, Severity, Style};
pub(crate) use self::read::Environment;
pub use self::schema::schema;
pub(crate) use self::source::{Position, Source, Span};
