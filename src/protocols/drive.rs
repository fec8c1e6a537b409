//! Runs a plaintext exchange over a connection.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::exchange::{Exchange, Step};

/// Bytes: a usual ClientHello with a post-quantum key share, the longest first message of peers.
const ROOM: usize = 2048;

/// A server sends its error and closes; longer than this is not waited for the close.
const REASON: Duration = Duration::from_secs(1);

/// Takes every step of an exchange. Exactly the bytes that it asks for are read: bytes that an attacker on the path
/// adds behind a server's agreement stay in the socket, where TLS takes them for a record and refuses them. They can
/// never be read as data of the protected stream (CVE-2021-23222: clients had a read buffer here).
///
/// Has no deadline of its own. Not cancel safe: bytes that were read are lost with the future.
///
/// # Errors
/// The peer refused, closed, or its connection failed.
pub async fn drive<E, S>(exchange: &mut E, stream: &mut S) -> Result<E::Outcome, Error<E::Refusal>>
where
    E: Exchange + ?Sized,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut input = BytesMut::new();
    let mut answered = false;
    loop {
        match exchange.step(&mut input) {
            Step::Read(most) => {
                input.reserve(most.min(ROOM));
                if stream.take(most as u64).read_buf(&mut input).await.map_err(Error::Io)? == 0 {
                    return Err(Error::Closed { answered });
                }
            }
            Step::Send(bytes) => {
                answered = true;
                stream.write_all(&bytes).await.map_err(Error::Io)?;
            }
            Step::ReadReason(most) => read_reason(stream, most, &mut input).await,
            Step::Done(outcome) => return Ok(outcome),
            Step::Refuse(refusal) => return Err(Error::Refused(refusal)),
        }
    }
}

/// A timeout or an error ends the text; what came before is shown.
async fn read_reason(stream: &mut (impl AsyncRead + Unpin), most: usize, input: &mut BytesMut) {
    let mut reason = stream.take(most as u64);
    let read = async { while reason.read_buf(input).await.is_ok_and(|read| read > 0) {} };
    let _ = timeout(REASON, read).await;
}

/// Why an exchange did not come to its end.
#[derive(Debug)]
pub enum Error<R> {
    /// The peer does not take part.
    Refused(R),
    /// The peer closed before the exchange was complete.
    Closed {
        /// Whether egret had sent something before.
        answered: bool,
    },
    /// The connection failed.
    Io(io::Error),
}
