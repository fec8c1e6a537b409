//! What `deploy/` promises: an image that holds the program and nothing else, packages, and a unit that systemd takes.

mod image;
mod package;
mod unit;
