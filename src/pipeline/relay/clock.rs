use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::outcome::Ended;
use crate::config::values::StreamLimits;

/// The time limits of one stream. A chunk stores an instant; the timer is moved only when it fires too
/// early, so a busy stream touches it once per limit and not once per read.
pub(super) struct Clock {
    idle: Option<Duration>,
    half_closed: Duration,
    born: Instant,
    dies: Option<Instant>,
    /// When a byte moved last, or a direction ended.
    moved: Instant,
    is_half_closed: bool,
    /// The waker of the set alarm; `None` when a limit may be nearer than it was set for.
    armed: Option<Waker>,
}

/// For a timer without a limit; it is not even polled.
const NEVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

impl Clock {
    pub(super) fn new(limits: &StreamLimits, now: Instant) -> Self {
        Self {
            idle: limits.idle,
            half_closed: limits.half_closed,
            born: now,
            dies: limits.lifetime.and_then(|lifetime| now.checked_add(lifetime)),
            moved: now,
            is_half_closed: false,
            armed: None,
        }
    }

    /// The timer to be given to `poll_expired`.
    pub(super) fn alarm(&self) -> Sleep {
        sleep_until(self.due().map_or(self.born + NEVER, |(at, _)| at))
    }

    pub(super) fn born(&self) -> Instant {
        self.born
    }

    /// The limit of silence of a half-closed stream.
    pub(super) fn silence(&self) -> Duration {
        self.idle.map_or(self.half_closed, |idle| idle.min(self.half_closed))
    }

    pub(super) fn touch(&mut self, now: Instant) {
        self.moved = now;
    }

    /// Whether one direction has ended. The half-closed limit runs from when this is first said.
    pub(super) fn half_closed(&mut self, is_half_closed: bool) {
        if is_half_closed && !self.is_half_closed {
            self.is_half_closed = true;
            self.moved = Instant::now();
            self.armed = None;
        }
    }

    /// Whether the alarm is set, for `waker`, and cannot have rung yet. A byte that moved puts limits off and
    /// brings none nearer, so there is then nothing to poll: timers never ring early.
    pub(super) fn is_armed(&self, now: Instant, waker: &Waker, alarm: &Sleep) -> bool {
        now < alarm.deadline() && self.armed.as_ref().is_some_and(|armed| armed.will_wake(waker))
    }

    pub(super) fn poll_expired(&mut self, cx: &mut Context<'_>, mut alarm: Pin<&mut Sleep>) -> Poll<Ended> {
        match &mut self.armed {
            Some(armed) => armed.clone_from(cx.waker()),
            None => self.armed = Some(cx.waker().clone()),
        }
        let Some((at, ended)) = self.due() else { return Poll::Pending };
        if alarm.deadline() > at {
            alarm.as_mut().reset(at);
        }
        loop {
            ready!(alarm.as_mut().poll(cx));
            if Instant::now() >= at {
                return Poll::Ready(ended);
            }
            alarm.as_mut().reset(at);
        }
    }

    /// The limit that is reached first if no byte moves.
    fn due(&self) -> Option<(Instant, Ended)> {
        let idle = self.idle.and_then(|idle| Some((self.moved.checked_add(idle)?, Ended::Idle)));
        let half_closed = self.is_half_closed.then_some(self.half_closed);
        let half_closed = half_closed.and_then(|limit| Some((self.moved.checked_add(limit)?, Ended::HalfClosed)));
        let dies = self.dies.map(|at| (at, Ended::Lifetime));
        [idle, half_closed, dies].into_iter().flatten().min_by_key(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::values::Eof;

    const SECOND: Duration = Duration::from_secs(1);

    fn clock(idle: Option<u32>, lifetime: Option<u32>, half_closed: u32) -> Clock {
        let limits = StreamLimits {
            idle: idle.map(|n| n * SECOND),
            lifetime: lifetime.map(|n| n * SECOND),
            half_closed: half_closed * SECOND,
            eof: Eof::Strict,
        };
        Clock::new(&limits, Instant::now())
    }

    /// The end of a stream in which a byte moves every second, `bytes` times.
    async fn run(mut clock: Clock, bytes: u32, half: bool) -> (u64, Ended) {
        clock.half_closed(half);
        let mut alarm = std::pin::pin!(clock.alarm());
        for _ in 0..bytes {
            let tick = std::future::poll_fn(|cx| clock.poll_expired(cx, alarm.as_mut()));
            if let Ok(ended) = tokio::time::timeout(SECOND, tick).await {
                return (clock.born.elapsed().as_secs(), ended);
            }
            clock.touch(Instant::now());
        }
        let ended = std::future::poll_fn(|cx| clock.poll_expired(cx, alarm.as_mut())).await;
        (clock.born.elapsed().as_secs(), ended)
    }

    #[tokio::test(start_paused = true)]
    async fn every_byte_puts_the_idle_limit_off() {
        assert_eq!(run(clock(Some(5), None, 60), 0, false).await, (5, Ended::Idle));
        assert_eq!(run(clock(Some(5), None, 60), 7, false).await, (12, Ended::Idle));
    }

    #[tokio::test(start_paused = true)]
    async fn no_byte_puts_the_lifetime_off() {
        assert_eq!(run(clock(Some(5), Some(9), 60), 100, false).await, (9, Ended::Lifetime));
        assert_eq!(run(clock(None, Some(9), 60), 0, false).await, (9, Ended::Lifetime));
    }

    #[tokio::test(start_paused = true)]
    async fn half_closed_limit_counts_from_the_last_byte_of_a_half_closed_stream() {
        assert_eq!(run(clock(Some(100), None, 3), 0, true).await, (3, Ended::HalfClosed));
        assert_eq!(run(clock(None, None, 3), 4, true).await, (7, Ended::HalfClosed));
        assert_eq!(run(clock(Some(2), None, 3), 0, true).await, (2, Ended::Idle));
    }

    #[test]
    fn nothing_is_due_without_limits() {
        assert_eq!(clock(None, None, 3).due(), None);
    }
}
