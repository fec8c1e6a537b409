//! Looks at a server that does not answer as TLS servers do: does it speak first, which protocol is it, and what
//! would it choose if offered what egret does not offer?
//!
//! Nothing here is application data: silence, requests for TLS, and a ClientHello.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::credentials::certificate::clean;
use crate::pipeline::originate::handshake::{Plaintext, plaintext};
use crate::pipeline::originate::upgrade::{nothing_more, upgrade};
use crate::protocols::Upgrade;
use crate::tools::explain::legacy_hello::{self, Answer};

/// Sent by a server before any request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Greeting {
    pub(crate) guess: Plaintext,
    /// Its first line, if that is text.
    pub(crate) text: Option<String>,
}

/// A server that speaks first does so within a round trip; one that looks the client's name up takes longer.
const LISTEN: Duration = Duration::from_millis(1_500);

/// Sends nothing and waits for a greeting.
pub(crate) async fn listen(endpoint: SocketAddr, limit: Duration) -> Option<Greeting> {
    let mut tcp = timeout(limit, TcpStream::connect(endpoint)).await.ok()?.ok()?;
    let mut bytes = [0; 256];
    let read = timeout(limit.min(LISTEN), tcp.read(&mut bytes)).await.ok()?.ok().filter(|read| *read > 0)?;
    let bytes = &bytes[..read];
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii_end();
    let is_text = !line.iter().any(u8::is_ascii_control);
    let text = is_text.then(|| clean(&String::from_utf8_lossy(line)));
    Some(Greeting { guess: plaintext(bytes)?, text })
}

/// Requests TLS in every protocol whose servers wait for their clients, but the configured one; returns the first in
/// which the server agrees or declines. Other servers greet, and are recognised by that.
pub(crate) async fn ask_for_tls(
    endpoint: SocketAddr,
    name: &str,
    configured: Option<Upgrade>,
    limit: Duration,
) -> Option<Upgrade> {
    let asked = Upgrade::all().filter(|protocol| protocol.waits_for_client() && Some(*protocol) != configured);
    for protocol in asked {
        if timeout(limit, answers_in(protocol, endpoint, name)).await.unwrap_or(false) {
            return Some(protocol);
        }
    }
    None
}

/// Whether the answer is of this protocol and nothing follows it: answers of other protocols are longer.
async fn answers_in(protocol: Upgrade, endpoint: SocketAddr, name: &str) -> bool {
    let Ok(mut tcp) = TcpStream::connect(endpoint).await else { return false };
    match upgrade(protocol, &mut tcp, name).await {
        Ok(_) => true,
        Err(error) => error.is_no() && nothing_more(&tcp).is_ok(),
    }
}

/// Offers every version, suite and group that ever existed, and reads the server's choice.
pub(crate) async fn offer_everything(
    endpoint: SocketAddr,
    server_name: Option<&str>,
    limit: Duration,
) -> Option<Answer> {
    let asked = async {
        let mut tcp = TcpStream::connect(endpoint).await.ok()?;
        tcp.write_all(&legacy_hello::hello(server_name)).await.ok()?;
        let mut received = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let read = tcp.read(&mut buffer).await.ok()?;
            received.extend_from_slice(&buffer[..read]);
            match legacy_hello::read(&received) {
                legacy_hello::Read::Answer(answer) => return Some(answer),
                legacy_hello::Read::More if read > 0 && received.len() < MOST => {}
                legacy_hello::Read::More | legacy_hello::Read::Nothing => return legacy_hello::so_far(&received),
            }
        }
    };
    timeout(limit, asked).await.ok()?
}

/// Bound of a server's first flight: chains, its largest part, have some KiB.
const MOST: usize = 128 << 10;
