//! What `deploy/` promises: an image that holds the program and nothing else, packages, and a unit that systemd takes.

mod credentials;
mod image;
mod package;
mod packaged_crate;
mod unit;
