//! Commands for people: nothing in here is needed to serve a connection.
//!
//! | file | command |
//! | --- | --- |
//! | [`check`] | `egret check`, `egret diff`: mistakes, advice, what a reload would touch |
//! | [`explain`] | `egret explain`: why a server cannot be reached, and what repairs it |
//! | [`import`] | `egret import`: configurations of other proxies |
//! | [`certificates`] | `egret trust`: fetch, show, expiry |
//! | `demo` | `egret demo`: all of it without set-up |

pub(crate) mod certificates;
pub mod check;
#[cfg(feature = "demo")]
pub mod demo;
pub mod explain;
pub mod import;
