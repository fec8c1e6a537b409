//! Attempts that a test asks for, in debug builds only: `EGRET_TEST_ATTEMPTS="write:/tmp/x execute:/bin/true call:165"` makes
//! each of them once, on a thread of the runtime, and logs its result.

use std::fs::{self, OpenOptions};
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::process::Command;

use crate::net;

pub(crate) fn make_if_asked() {
    let asked = std::env::var("EGRET_TEST_ATTEMPTS").unwrap_or_default();
    for attempt in asked.split_whitespace() {
        match make(attempt) {
            Ok(()) => tracing::info!(attempt, result = "done", "attempt"),
            Err(error) => tracing::info!(attempt, result = %error, "attempt"),
        }
    }
}

fn make(attempt: &str) -> io::Result<()> {
    let (kind, object) = attempt.split_once(':').unwrap_or((attempt, ""));
    match kind {
        "read" => fs::read(object).map(drop),
        "write" => OpenOptions::new().append(true).open(object).map(drop),
        "create" => OpenOptions::new().write(true).create_new(true).open(object).map(drop),
        "remove" => fs::remove_file(object),
        "folder" => fs::create_dir(object),
        "link" => std::os::unix::fs::symlink("/", object),
        "socket" => UnixListener::bind(object).map(drop),
        "listen" => TcpListener::bind(object).map(drop),
        "connect" => TcpStream::connect(object).map(drop),
        "execute" => Command::new(object).status().map(drop),
        "call" => call(object),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "no such attempt")),
    }
}

/// A number, and arguments behind commas.
fn call(numbers: &str) -> io::Result<()> {
    let numbers = numbers.split(',').map(|number| number.parse().map_err(io::Error::other));
    let numbers = numbers.collect::<io::Result<Vec<_>>>()?;
    net::any_call(&numbers).map(drop)
}
