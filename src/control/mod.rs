//! The life of the process: what runs, and how it is replaced, watched and ended.
//!
//! | file | idea |
//! | --- | --- |
//! | [`snapshot`] | one immutable generation of everything built from the configuration |
//! | [`supervise`] | starts and stops everything |
//! | [`reload`] | replaces one generation by the next; watches the files |
//! | [`reload_fingerprint`] | what a reload compares |
//! | [`hardening`] | gives up at the start what the process does not need |
//! | [`disk`] | reads from disks that may hang |
//! | [`program`] | the program of `egret exec`: started, signalled, reaped |
//! | [`admin`] | the HTTP endpoint: metrics, health, status, reload, drain |
//! | [`signals`], [`systemd`] | requests by the system, and reports to it |

pub mod admin;
pub(crate) mod disk;
pub mod hardening;
pub mod program;
pub mod reload;
pub(crate) mod reload_fingerprint;
pub mod signals;
pub mod snapshot;
pub mod supervise;
pub(crate) mod systemd;
