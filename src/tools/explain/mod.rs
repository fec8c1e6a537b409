//! Live diagnosis of an upstream: originations that tell causes apart, what came back, what is wrong, and the
//! lines that repair it.
//!
//! [`attempt`] says what is tried and [`cause`] what it means: both are pure. [`probe`] and [`plaintext_probe`] are the only
//! parts that touch a socket; no byte of application data leaves them but a [`question`] that was asked for. [`repair`] writes configuration,
//! [`report`] is the whole as plain data, [`text`] shows it to a person.
//!
//! A client certificate is presented only to a server that the configured trust believes, as egret itself does it.

pub(crate) mod attempt;
pub(crate) mod cause;
pub(crate) mod chain;
mod exchange;
pub(crate) mod hello;
pub(crate) mod legacy_hello;
mod notes;
pub(crate) mod plaintext_probe;
pub(crate) mod probe;
pub(crate) mod question;
mod redact;
pub(crate) mod repair;
pub mod report;
mod run;
mod target;
pub(crate) mod text;
mod wire;

pub(crate) use self::redact::redact;
pub(crate) use self::run::{Progress, explain};
pub(crate) use self::target::{Error, Files, Target};
