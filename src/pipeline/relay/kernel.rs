//! Directions whose records the kernel makes: handing them over, and reporting keys and errors.

use std::io;
use std::task::{Context, Poll, ready};

use rustls::{AlertDescription, ContentType};
use tokio::net::TcpStream;

use super::outcome::{Carrier, Ended};
use crate::net::Duplex;
use crate::net::kernel_tls::{self, Direction};
use crate::tls::record::Fault;
use crate::tls::session::{Control, Session};

/// Attaches kernel TLS to a socket before a direction is handed over. On an error all stays in user space.
pub(super) fn attach(session: &mut Session, upstream: &TcpStream) {
    if session.shows()
        && let Err(error) = kernel_tls::attach(upstream)
    {
        tracing::debug!(%error, "the kernel does not take a connection");
        session.handed_over(Direction::Send, false);
        session.handed_over(Direction::Receive, false);
    }
}

/// Hands a direction over if requested. To be called between two of its records, when nothing of it is held in user
/// space. If the kernel will not, it stays in user space.
pub(super) fn hand_over(session: &mut Session, direction: Direction, upstream: &impl Duplex) {
    let Some(info) = session.key_info(direction) else { return };
    let taken = kernel_tls::set_key(upstream, direction, info.bytes());
    if let Err(error) = &taken {
        tracing::debug!(%error, ?direction, "the kernel does not take a direction");
    }
    session.handed_over(direction, taken.is_ok());
}

/// Gives the kernel the new key of a direction, if there is one. To be called after the key update record.
pub(super) fn renew(session: &mut Session, direction: Direction, upstream: &impl Duplex) -> Result<(), Ended> {
    let Some(info) = session.renewed(direction) else { return Ok(()) };
    kernel_tls::set_key(upstream, direction, info.bytes()).map_err(|_| Ended::KernelKeyUpdate)
}

/// Ready when the socket has taken the record. An alert waits for those before it to have reached TCP, so that
/// it can follow them at once.
pub(super) fn poll_send_record(
    cx: &mut Context<'_>,
    upstream: &impl Duplex,
    control: &Control,
) -> Poll<io::Result<()>> {
    loop {
        if control.kind == ContentType::Alert {
            ready!(kernel_tls::poll_drained(cx, upstream))?;
        }
        match send_record(upstream, control) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(upstream.poll_write_ready(cx))?,
            done => return Poll::Ready(done),
        }
    }
}

pub(super) fn send_record(upstream: &impl Duplex, control: &Control) -> io::Result<()> {
    kernel_tls::try_send_record(upstream, control.kind.into(), control.body())
}

/// The end that an error of receiving means, and the alert that the server is owed: the kernel reports a bad record by
/// its error, and sends no alert.
pub(super) fn refused(error: &io::Error) -> (Ended, Option<AlertDescription>) {
    let fault = match error.raw_os_error() {
        Some(libc::EBADMSG) => Fault::BadRecordMac,
        Some(libc::EMSGSIZE) => Fault::RecordOverflow,
        Some(libc::EINVAL) => Fault::DecodeError,
        _ => return (Ended::from_upstream(error), None),
    };
    let error = crate::tls::session::Error::from(fault);
    (Ended::from_tls(error.into_rustls()), Some(fault.alert()))
}

pub(super) fn carrier(session: &Session) -> Carrier {
    match (session.in_kernel(Direction::Send), session.in_kernel(Direction::Receive)) {
        (false, false) => Carrier::Records,
        (true, true) => Carrier::Kernel,
        (true, false) => Carrier::KernelSend,
        (false, true) => Carrier::KernelReceive,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_of_a_record_is_the_class_and_the_alert_of_our_own() {
        let of = |code| refused(&io::Error::from_raw_os_error(code));
        let tls = |error| Ended::UpstreamTls(error);
        assert_eq!(of(libc::EBADMSG), (tls(rustls::Error::DecryptError), Some(AlertDescription::BadRecordMac)));
        let oversized = tls(rustls::Error::PeerSentOversizedRecord);
        assert_eq!(of(libc::EMSGSIZE), (oversized, Some(AlertDescription::RecordOverflow)));
        assert_eq!(of(libc::EINVAL).1, Some(AlertDescription::DecodeError));
        assert_eq!(of(libc::ECONNRESET), (Ended::UpstreamReset, None));
        assert_eq!(of(libc::ETIMEDOUT), (Ended::UpstreamIo(io::ErrorKind::TimedOut), None));
    }
}
