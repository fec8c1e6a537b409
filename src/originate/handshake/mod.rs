//! The TLS handshake with an upstream: its end is a verified stream, or a failure with class, facts and repair.

mod error;
mod first_bytes;
mod repair;

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::{AlertDescription, ClientConfig, HandshakeKind, ProtocolVersion};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use self::error::Broken;
pub use self::error::{Cause, Error, Flight, late_refusal};
pub use self::first_bytes::{Plaintext, plaintext};
pub use self::repair::late_repair;
pub use crate::originate::negotiated::Negotiated;
use crate::originate::observe::Observed;
use crate::originate::origin::Origin;
use crate::originate::resumption::{Resumption, View};
use crate::tls;
use crate::tls::handshake::Established;

/// Speaks TLS with `endpoint` as `origin` says, on a stream where TLS begins with the next byte. The caller
/// bounds the time; dropping the future drops the stream.
///
/// The client's last flight may still be unsent: it leaves with the first bytes of the stream.
///
/// # Errors
/// The server is not believed (it got the alert that says so), does not believe us, or the handshake broke.
pub async fn handshake(
    tcp: TcpStream,
    endpoint: SocketAddr,
    origin: &Origin,
) -> Result<(Established, Negotiated), Error> {
    let observed = Arc::new(Observed::default());
    let (config, view) = origin.for_handshake(endpoint, &observed);
    let done = observed.during(shake(tcp, config, origin, &observed, view.as_deref())).await;
    done.map_err(|broken| Error::new(broken, observed.take(), origin, endpoint))
}

async fn shake(
    mut tcp: TcpStream,
    config: Arc<ClientConfig>,
    origin: &Origin,
    observed: &Observed,
    view: Option<&View>,
) -> Result<(Established, Negotiated), Broken> {
    let wants_alpn = !config.alpn_protocols.is_empty();
    let mut session = UnbufferedClientConnection::new(config, origin.server_name().clone()).map_err(Broken::Tls)?;
    let rest = match tls::handshake::handshake(&mut tcp, &mut session).await {
        Ok(rest) => rest,
        Err(failed) => {
            part(tcp).await;
            return Err(Broken::of(failed, observed));
        }
    };
    let negotiated = negotiated(&session, view, observed);
    let established = tls::handshake::establish_for(origin.kernel(), tcp, session, rest).map_err(Broken::Tls)?;
    if wants_alpn && negotiated.alpn.is_none() {
        established.leave(AlertDescription::NoApplicationProtocol).await;
        return Err(Broken::NoAlpn);
    }
    Ok((established, negotiated))
}

/// Closes a stream whose last bytes are an alert. What the server has sent meanwhile is read first: a socket
/// that is closed with unread bytes resets, and a reset may overtake the alert.
async fn part(mut tcp: TcpStream) {
    let _ = tcp.shutdown().await;
    let mut unread = [0; 4096];
    // A flight of a handshake has some KiB; who sends more than this is not waiting for an alert.
    for _ in 0..32 {
        if !matches!(tcp.try_read(&mut unread), Ok(1..)) {
            break;
        }
    }
}

fn negotiated(session: &UnbufferedClientConnection, view: Option<&View>, observed: &Observed) -> Negotiated {
    let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
    let facts = observed.take();
    Negotiated {
        version: match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "TLSv1.3",
        },
        suite: session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or("unknown"),
        group: session.negotiated_key_exchange_group().and_then(|group| group.name().as_str()).unwrap_or("none"),
        alpn: session.alpn_protocol().map(<[u8]>::to_vec),
        resumed: view.map_or(Resumption::Off, |view| view.outcome(resumed)),
        server: if resumed { view.and_then(View::inherited_server) } else { facts.server() },
        would_fail: if resumed { view.and_then(View::inherited_refusal) } else { facts.refusal },
        client_certificate: facts.request,
    }
}
