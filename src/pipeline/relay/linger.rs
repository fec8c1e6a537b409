use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::Mechanism;
use super::outcome::Ended;
use super::sides::Sides;

/// How long a stream that is over is kept, so that what was read before its end arrives before the reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bound {
    /// Without a byte that a peer has acknowledged.
    silence: Duration,
    /// At most.
    total: Duration,
}

/// The upstream has ended the stream and the client has not: it is as any half-closed stream, so its limit of silence
/// applies. 4 MiB, the most that Linux lets a socket hold (`net.ipv4.tcp_wmem`), take ten minutes at 56 kbit/s.
const LONGEST: Duration = Duration::from_secs(600);
/// egret has ended the stream: nginx's `lingering_timeout` and `lingering_time`.
const OURS: Bound = Bound { silence: Duration::from_secs(5), total: Duration::from_secs(30) };
/// A connection was reset, and its reset is to reach the other side soon: twice the first retransmission timeout of TCP
/// (RFC 6298 section 2), so that one lost segment does not cost the rest.
const RESET: Bound = Bound { silence: Duration::from_secs(2), total: Duration::from_secs(30) };
/// The deadline of the drain has passed: the process ends `drain::FORCED_GRACE` (5 s) later, whatever is left.
const DRAINED: Bound = Bound { silence: Duration::from_secs(3), total: Duration::from_secs(3) };

/// Between two checks of what was acknowledged: no event reports it. From a round trip of a local network to a time
/// that is short for a distant client.
const PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(64));

impl Bound {
    fn of(ended: &Ended, silence: Duration) -> Self {
        match ended {
            Ended::Truncated | Ended::UpstreamAlert(_) | Ended::UpstreamTls(_) => Self { silence, total: LONGEST },
            _ if ended.is_downstream() || ended.upstream_is_gone() => RESET,
            Ended::Drained | Ended::Removed | Ended::Distrusted => DRAINED,
            _ => OURS,
        }
    }
}

/// After a clean end, waits for the server's FIN. Else delivers what was read before the end, and waits until it is acknowledged or the bound has passed: a reset destroys
/// what the socket still holds. Returns the end, or one that was read meanwhile and explains it.
///
/// # Cancel safety
///
/// A dropped call leaves the rest undelivered.
pub(super) async fn linger<'a>(
    stream: &mut impl Mechanism<'a>,
    sides: &Sides,
    mut ended: Ended,
    silence: Duration,
    mut forced: Pin<&mut impl Future<Output = Ended>>,
) -> Ended {
    if ended == Ended::Finished {
        sides.await_fin().await;
        return ended;
    }
    let bound = Bound::of(&ended, silence);
    let mut owed = ended.owes();
    let mut moved = Instant::now();
    let mut deadline = moved + bound.total;
    let mut flushed = false;
    let mut may_force = bound != DRAINED;
    let mut before = None;
    let mut pause = PAUSE.0;
    loop {
        if !flushed && let Ok(explained) = timeout(pause, poll_fn(|cx| stream.poll_flush(cx, sides, &ended))).await {
            flushed = true;
            if let Some(later) = explained {
                owed = [owed[0] && later.owes()[0], owed[1] && later.owes()[1]];
                ended = ended.explained_by(later);
            }
        }
        let left = sides.unacknowledged();
        if flushed && !owed.iter().zip(left).any(|(owed, left)| *owed && left > 0) {
            return ended;
        }
        let state = Some((left, stream.accounts().map(|account| account.moved())));
        let now = Instant::now();
        if state != before {
            before = state;
            moved = now;
            pause = PAUSE.0;
        }
        if may_force && poll_fn(|cx| Poll::Ready(forced.as_mut().poll(cx).is_ready())).await {
            deadline = deadline.min(now + DRAINED.total);
            may_force = false;
        }
        // The client must not wait for its reset because the server takes no more.
        let waits = left[1] > 0 || stream.holds()[1];
        let silence = if waits { bound.silence } else { bound.silence.min(OURS.silence) };
        let until = deadline.min(moved + silence);
        if now >= until {
            return ended;
        }
        if flushed {
            sleep(pause.min(until - now)).await;
        }
        pause = (pause * 2).min(PAUSE.1);
    }
}
