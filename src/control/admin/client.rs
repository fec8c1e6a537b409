//! A question to the admin endpoint of a running egret, by commands that ask one.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Ten thousand upstreams make an outline of some ten megabytes.
const LARGEST: u64 = 64 << 20;

/// A status and a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// Asks `GET path` at `IP:PORT` or `unix:/PATH`; connecting and each read may take `patience`. `token` is shown as a
/// bearer token.
///
/// # Errors
/// Nobody answers there, or not in HTTP.
pub(crate) fn get(address: &str, path: &str, token: Option<&str>, patience: Duration) -> io::Result<Answer> {
    let answer = match address.strip_prefix("unix:") {
        Some(file) => {
            let stream = UnixStream::connect(file)?;
            stream.set_read_timeout(Some(patience))?;
            exchange(stream, "localhost", path, token)?
        }
        None => {
            let socket: SocketAddr = address.parse().map_err(io::Error::other)?;
            let stream = TcpStream::connect_timeout(&socket, patience)?;
            stream.set_read_timeout(Some(patience))?;
            exchange(stream, address, path, token)?
        }
    };
    understand(&answer).ok_or_else(|| {
        let first = answer.lines().next().unwrap_or_default();
        io::Error::other(format!("it answers {first:?}: is this egret?"))
    })
}

fn exchange(mut stream: impl Read + Write, host: &str, path: &str, token: Option<&str>) -> io::Result<String> {
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    // One write: `write!` makes one for each piece, and the second waits for the acknowledgement of the first.
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{token}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(LARGEST).read_to_string(&mut answer)?;
    Ok(answer)
}

fn understand(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some(Answer { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_of_http_is_understood() {
        let answer = understand("HTTP/1.1 503 Service Unavailable\r\na: b\r\n\r\nnot ready\n").expect("an answer");
        assert_eq!((answer.status, answer.body.as_str()), (503, "not ready\n"));
        for other in
            ["", "HTTP/1.1", "HTTP/1.1 \r\n\r\n", "220 mail.example.com\r\n\r\n", "HTTP/1.1 2\u{fc}0 OK\r\n\r\n"]
        {
            assert_eq!(understand(other), None, "{other:?}");
        }
    }
}
