use std::io;
use std::time::Duration;

use rustls::AlertDescription;

use crate::tls::session::Renegotiation;

/// The result of a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Bytes of the client that the upstream's socket took.
    pub sent: u64,
    /// Bytes of the upstream that the client's socket took.
    pub received: u64,
    /// From the start of the relay to the first byte of the upstream. `None`: it sent none.
    pub first_byte: Option<Duration>,
    /// What carried the bytes.
    pub(crate) carrier: Carrier,
    /// Why it is over.
    pub ended: Ended,
}

/// What carried the bytes of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// Records of TLS, sealed and opened in user space.
    Records,
    /// Records of TLS, sealed and opened by the kernel.
    Kernel,
    /// The kernel sealed, user space opened.
    KernelSend,
    /// User space sealed, the kernel opened.
    KernelReceive,
    /// Bytes passed through unchanged, through buffers.
    Copied,
    /// Bytes passed through unchanged, at least some of them through pipes of the kernel.
    Spliced,
}

impl Carrier {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Records => "records",
            Self::Kernel => "kernel",
            Self::KernelSend => "kernel_send",
            Self::KernelReceive => "kernel_receive",
            Self::Copied => "copied",
            Self::Spliced => "spliced",
        }
    }
}

/// Why a stream is over. Only `Finished` is clean: after any other end both sides see a reset.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Ended {
    /// Both sides have ended their direction, and each end was passed on.
    Finished,
    /// No byte in either direction for the idle limit.
    Idle,
    /// The stream has reached its greatest age.
    Lifetime,
    /// One direction had ended, and no byte came in the other for the half-closed limit.
    HalfClosed,
    /// The drain deadline has passed.
    Drained,
    /// The server's address was removed from DNS, and its streams are to end then.
    Removed,
    /// A reload has brought a trust under which the server is revoked or not believed.
    Distrusted,
    /// The upstream's FIN came without close_notify while the client still waited, or amid a record: the end of its
    /// data may be missing (RFC 8446 section 6.1).
    Truncated,
    /// The upstream's connection was reset.
    UpstreamReset,
    /// The client's connection was reset.
    DownstreamReset,
    /// The upstream sent a fatal alert.
    UpstreamAlert(AlertDescription),
    /// The upstream asked for a renegotiation, which is declined, and ended the stream.
    RenegotiationDeclined,
    /// The upstream broke the protocol of TLS (a record that does not decrypt, a message that must not
    /// come). It was sent an alert.
    UpstreamTls(rustls::Error),
    /// The key towards the upstream has encrypted as much as it may, and TLS 1.2 knows no other (RFC 8446 section 5.5).
    KeyUsageLimit,
    /// Keys had to be changed, and the kernel that makes the records takes no new ones.
    KernelKeyUpdate,
    /// Any other failure of the upstream's socket.
    UpstreamIo(io::ErrorKind),
    /// Any other failure of the client's socket.
    DownstreamIo(io::ErrorKind),
}

impl Ended {
    /// The word for logs and metrics, of a fixed set.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Idle => "idle_timeout",
            Self::Lifetime => "lifetime",
            Self::HalfClosed => "half_closed_timeout",
            Self::Drained => "drained",
            Self::Removed => "removed",
            Self::Distrusted => "server_distrusted",
            Self::Truncated => "upstream_truncated",
            Self::UpstreamReset => "upstream_reset",
            Self::DownstreamReset => "downstream_reset",
            Self::UpstreamAlert(_) => "upstream_alert",
            Self::RenegotiationDeclined => "renegotiation_declined",
            Self::UpstreamTls(_) => "upstream_tls_error",
            Self::KeyUsageLimit => "key_usage_limit",
            Self::KernelKeyUpdate => "kernel_tls_key_update",
            Self::UpstreamIo(_) => "upstream_io",
            Self::DownstreamIo(_) => "downstream_io",
        }
    }

    /// The alert that the upstream sent. In TLS 1.3 a server judges the client's certificate after the
    /// client's handshake is over, so its refusal may arrive here.
    pub fn alert(&self) -> Option<AlertDescription> {
        match self {
            Self::UpstreamAlert(alert) => Some(*alert),
            _ => None,
        }
    }

    /// Where the upstream broke TLS.
    pub fn tls_error(&self) -> Option<&rustls::Error> {
        match self {
            Self::UpstreamTls(error) => Some(error),
            _ => None,
        }
    }

    pub(super) fn from_upstream(error: &io::Error) -> Self {
        if is_reset(error) { Self::UpstreamReset } else { Self::UpstreamIo(error.kind()) }
    }

    pub(super) fn from_downstream(error: &io::Error) -> Self {
        if is_reset(error) { Self::DownstreamReset } else { Self::DownstreamIo(error.kind()) }
    }

    /// The end for an error of rustls, or of the record layer in rustls' terms.
    pub fn from_tls(error: rustls::Error) -> Self {
        match error {
            rustls::Error::AlertReceived(alert) => Self::UpstreamAlert(alert),
            error => Self::UpstreamTls(error),
        }
    }

    /// This end of a stream whose server may have asked for a renegotiation: OpenSSL's server answers the warning with
    /// a fatal alert, others close or reset. After more data, only alerts about renegotiation count.
    pub(super) fn after(self, renegotiation: Renegotiation) -> Self {
        use AlertDescription::{HandshakeFailure, NoRenegotiation};
        match (&self, renegotiation) {
            (Self::UpstreamAlert(HandshakeFailure | NoRenegotiation), Renegotiation::Asked | Renegotiation::GoneOn)
            | (Self::UpstreamAlert(_) | Self::Truncated | Self::UpstreamReset, Renegotiation::Asked) => {
                Self::RenegotiationDeclined
            }
            _ => self,
        }
    }

    pub(super) fn is_downstream(&self) -> bool {
        matches!(self, Self::DownstreamReset | Self::DownstreamIo(_))
    }

    /// The upstream's connection is gone: it takes nothing, and what it has sent before is all in the socket.
    pub(super) fn upstream_is_gone(&self) -> bool {
        matches!(self, Self::UpstreamReset | Self::UpstreamIo(_))
    }

    /// Whether bytes that were read are still delivered after this end: to the upstream, to the client.
    pub(super) fn owes(&self) -> [bool; 2] {
        let no_more = self.upstream_is_gone() || matches!(self, Self::UpstreamAlert(_) | Self::UpstreamTls(_));
        [!no_more, !self.is_downstream()]
    }

    /// This end, or a later one that explains why the upstream is gone.
    pub(super) fn explained_by(self, later: Self) -> Self {
        match later {
            Self::UpstreamAlert(_) | Self::UpstreamTls(_) if self.upstream_is_gone() => later,
            _ => self,
        }
    }
}

/// The error kinds that Linux reports after an RST, in whichever call comes first.
fn is_reset(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};
    matches!(error.kind(), ConnectionReset | BrokenPipe | ConnectionAborted | NotConnected)
}
