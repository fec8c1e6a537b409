//! What `deploy/` promises: an image that holds the program and nothing else, and a unit that systemd takes.

mod image;
mod unit;
