//! Live diagnosis of an upstream: originations that tell causes apart, what came back, what is wrong, and the
//! lines that mend it.
//!
//! [`attempt`] says what is tried and [`cause`] what it means: both are pure. [`probe`] and [`look`] are the only
//! parts that touch a socket; no byte of application data leaves them. [`repair`] writes configuration,
//! [`report`] is the whole as plain data, [`text`] shows it to a person.
//!
//! A client certificate is presented only to a server that the configured trust believes, as egret itself does it.

pub mod attempt;
pub mod cause;
pub mod chain;
pub mod hello;
pub mod look;
mod notes;
pub mod probe;
mod redact;
pub mod repair;
pub mod report;
mod run;
mod target;
pub mod text;
pub mod wide;

pub use self::redact::redact;
pub use self::run::{Progress, explain};
pub use self::target::{Error, Files, Target};
