//! The pause of a listener after an error of accept(2).

use std::io;
use std::time::Duration;

use tokio::time::sleep;

/// Pauses after errors, mostly for want of descriptors: a while has to pass before the next accept can succeed. An
/// error never ends a listener.
pub(crate) struct AcceptBackoff {
    pause: Duration,
}

/// The pauses of Go's net/http.
const SHORTEST: Duration = Duration::from_millis(5);
const LONGEST: Duration = Duration::from_secs(1);

impl AcceptBackoff {
    pub(crate) fn new() -> Self {
        Self { pause: SHORTEST }
    }

    /// Passes on what was accepted. After an error it reports the error with the pause, pauses, and returns `None`; the
    /// next pause is twice as long. The error of one connection is dropped with that connection.
    pub(crate) async fn accepted<T>(
        &mut self,
        accepted: io::Result<T>,
        report: impl FnOnce(&io::Error, Duration),
    ) -> Option<T> {
        match accepted {
            Ok(accepted) => {
                self.pause = SHORTEST;
                return Some(accepted);
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                report(&error, self.pause);
                sleep(self.pause).await;
                self.pause = (self.pause * 2).min(LONGEST);
            }
        }
        None
    }
}

/// Errors that accept(2) passes on from one connection which died in the queue (accept(2), "Error handling").
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionReset, HostUnreachable, Interrupted, NetworkDown, NetworkUnreachable,
    };
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | HostUnreachable | Interrupted | NetworkDown | NetworkUnreachable
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_double_to_a_bound_and_begin_anew_after_a_success() {
        let mut backoff = AcceptBackoff::new();
        let mut pauses = Vec::new();
        for accepted in [Err(24), Err(24), Err(103), Err(24), Ok(()), Err(24)] {
            let accepted = accepted.map_err(io::Error::from_raw_os_error);
            backoff.accepted(accepted, |_, pause| pauses.push(pause.as_millis())).await;
        }
        assert_eq!(pauses, [5, 10, 20, 5], "ECONNABORTED (103) is of one connection");
        for _ in 0..10 {
            backoff.accepted(Err::<(), _>(io::Error::from_raw_os_error(24)), |_, _| {}).await;
        }
        assert_eq!(backoff.pause, LONGEST);
    }
}
