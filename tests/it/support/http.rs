//! curl, the client that everybody has.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::process::attempt;

/// What curl got.
#[derive(Debug)]
pub(crate) struct Answer {
    /// curl's exit code: 0 if there was an answer at all.
    pub(crate) exit: i32,
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// `curl http://ADDRESS/`
pub(crate) fn get(address: SocketAddr) -> Answer {
    curl(&[&format!("http://{address}/")])
}

/// `curl http://HOST/` with the connection made to `address`: a server behind TLS that chooses by SNI wants
/// to see the same name in the request.
pub(crate) fn get_as(host: &str, address: SocketAddr) -> Answer {
    curl(&["--connect-to", &format!("::{address}"), &format!("http://{host}/")])
}

/// A request to the admin socket.
pub(crate) fn admin(socket: &Path, method: &str, path: &str) -> Answer {
    let socket = socket.to_str().unwrap();
    curl(&["--unix-socket", socket, "--request", method, &format!("http://localhost{path}")])
}

/// curl with these arguments besides those that every call gets.
pub(crate) fn curl(arguments: &[&str]) -> Answer {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "30", "--noproxy", "*"]);
    command.args(["--write-out", "\n%{http_code}"]).args(arguments);
    let output = attempt(&mut command);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').unwrap_or(("", "0"));
    Answer { exit: output.status.code().unwrap_or(-1), status: status.parse().unwrap_or(0), body: body.to_owned() }
}
