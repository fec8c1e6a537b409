//! The shelf against a model that is plain lists, and under threads.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::{Bounds, Reservation, Shelf};

fn endpoint(of: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, of], 443))
}

#[derive(Clone, Debug)]
enum Act {
    Reserve,
    /// Fills the oldest reserved place, for this endpoint and time.
    Put(u8, u64),
    GiveUp,
    Take(u8),
    Expire,
    Retire(u8),
    Inspect(u32),
    Bound(usize),
    Wait(u64),
    Close,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => Just(Act::Reserve),
        8 => (0u8..3, 1u64..20).prop_map(|(of, long)| Act::Put(of, long)),
        1 => Just(Act::GiveUp),
        6 => (0u8..3).prop_map(Act::Take),
        2 => Just(Act::Expire),
        1 => (0u8..3).prop_map(Act::Retire),
        1 => (2u32..5).prop_map(Act::Inspect),
        1 => (0usize..6).prop_map(Act::Bound),
        4 => (1u64..10).prop_map(Act::Wait),
        1 => Just(Act::Close),
    ]
}

/// What the shelf should do: entries in the order in which they were put.
#[derive(Default)]
struct Model {
    entries: Vec<(u8, Instant, u32)>,
    closed: bool,
}

impl Model {
    fn take(&mut self, of: u8, now: Instant) -> Option<u32> {
        let at = self.entries.iter().rposition(|(on, until, _)| *on == of && *until > now)?;
        Some(self.entries.remove(at).2)
    }

    fn remove(&mut self, goes: impl Fn(&(u8, Instant, u32)) -> bool) -> HashSet<u32> {
        let gone = self.entries.iter().filter(|entry| goes(entry)).map(|entry| entry.2).collect();
        self.entries.retain(|entry| !goes(entry));
        gone
    }
}

const MOST: usize = 4;
const EVERYWHERE: usize = 5;

proptest! {
    #[test]
    fn each_comes_out_once_newest_first_and_bounds_hold(acts in prop::collection::vec(act(), 1..120)) {
        let everywhere = Arc::new(Semaphore::new(EVERYWHERE));
        // Another origin's shelf under the same bound of the process: it holds two from the start.
        let other = Arc::new(Shelf::<u32>::default());
        let bounds = |most| Bounds { most, everywhere: Arc::clone(&everywhere) };
        prop_assert!(other.bound(bounds(9)).is_empty());
        for item in [9_001, 9_002] {
            let until = Instant::now() + Duration::from_secs(9);
            prop_assert!(other.reserve().expect("a place").put(endpoint(0), item, until).is_ok());
        }
        let shelf = Arc::new(Shelf::<u32>::default());
        prop_assert!(shelf.reserve().is_none(), "a shelf without bounds holds nothing");
        prop_assert!(shelf.bound(bounds(MOST)).is_empty());
        let mut model = Model::default();
        let mut most = MOST;
        let mut places: Vec<Reservation<u32>> = Vec::new();
        let mut now = Instant::now();
        let mut next = 0;
        for act in acts {
            match act {
                Act::Reserve => match shelf.reserve() {
                    Some(place) => places.push(place),
                    None => prop_assert!(
                        model.closed
                            || model.entries.len() + places.len() >= most
                            || model.entries.len() + places.len() + 2 >= EVERYWHERE
                    ),
                },
                Act::Put(..) if places.is_empty() => {}
                Act::Put(of, long) => {
                    let fits = !model.closed && model.entries.len() + places.len() <= most;
                    let until = now + Duration::from_secs(long);
                    let put = places.remove(0).put(endpoint(of), next, until);
                    prop_assert_eq!(put, if fits { Ok(()) } else { Err(next) });
                    if fits {
                        model.entries.push((of, until, next));
                    }
                    next += 1;
                }
                Act::GiveUp => drop(places.pop()),
                Act::Take(of) => prop_assert_eq!(shelf.take(endpoint(of), now), model.take(of, now)),
                Act::Expire => {
                    let gone: HashSet<u32> = shelf.expire(now).into_iter().collect();
                    prop_assert_eq!(gone, model.remove(|(_, until, _)| *until <= now));
                }
                Act::Retire(of) => {
                    let gone: HashSet<u32> = shelf.keep_only(|on| on != endpoint(of)).into_iter().collect();
                    prop_assert_eq!(gone, model.remove(|(on, ..)| *on == of));
                }
                Act::Inspect(by) => {
                    let gone = shelf.inspect(|item| (*item % by == 0).then_some(()));
                    let gone: HashSet<u32> = gone.into_iter().map(|(item, ())| item).collect();
                    prop_assert_eq!(gone, model.remove(|(.., item)| item % by == 0));
                }
                Act::Bound(to) => {
                    most = to;
                    let gone = shelf.bound(bounds(most));
                    let excess = model.entries.len().saturating_sub(most);
                    let oldest: Vec<u32> = model.entries.drain(..excess).map(|entry| entry.2).collect();
                    prop_assert_eq!(gone, oldest);
                }
                Act::Wait(long) => now += Duration::from_secs(long),
                Act::Close => {
                    let gone: HashSet<u32> = shelf.close().into_iter().collect();
                    prop_assert_eq!(gone, model.remove(|_| true));
                    model.closed = true;
                }
            }
            prop_assert_eq!(shelf.idle(), model.entries.len());
            prop_assert_eq!(shelf.held(), model.entries.len() + places.len());
            prop_assert!(shelf.idle() <= most);
            prop_assert_eq!(everywhere.available_permits(), EVERYWHERE - 2 - model.entries.len() - places.len());
            prop_assert_eq!(shelf.next_expiry(), model.entries.iter().map(|entry| entry.1).min());
            prop_assert_eq!(other.idle(), 2);
        }
        drop((shelf, places));
        prop_assert_eq!(everywhere.available_permits(), EVERYWHERE - 2);
    }
}

/// Two threads put, three remove in their ways; every number that was put comes out in one place.
#[test]
fn under_threads_nothing_is_taken_twice_and_nothing_is_lost() {
    const EACH: u32 = 500;
    let everywhere = Arc::new(Semaphore::new(6));
    let shelf = Arc::new(Shelf::<u32>::default());
    assert!(shelf.bound(Bounds { most: 8, everywhere: Arc::clone(&everywhere) }).is_empty());
    let now = Instant::now();
    let putting = AtomicU32::new(2);
    let put = |numbers: std::ops::Range<u32>| {
        for number in numbers {
            let place = loop {
                match shelf.reserve() {
                    Some(place) => break place,
                    None => std::thread::yield_now(),
                }
            };
            assert!(shelf.held() <= 6);
            let until = now + Duration::from_secs(u64::from(number % 2));
            place.put(endpoint((number % 3) as u8), number, until).expect("a promised place");
        }
        putting.fetch_sub(1, Ordering::Relaxed);
        Vec::new()
    };
    let remove = |some: &dyn Fn() -> Vec<u32>| {
        let mut out = Vec::new();
        while putting.load(Ordering::Relaxed) > 0 {
            out.extend(some());
        }
        out
    };
    let mut out: Vec<u32> = std::thread::scope(|scope| {
        let threads = [
            scope.spawn(|| put(0..EACH)),
            scope.spawn(|| put(EACH..2 * EACH)),
            scope.spawn(|| remove(&|| (0..3).filter_map(|of| shelf.take(endpoint(of), now)).collect())),
            scope.spawn(|| remove(&|| shelf.expire(now))),
            scope.spawn(|| {
                remove(&|| shelf.inspect(|item| (*item % 5 == 0).then_some(())).into_iter().map(|(n, ())| n).collect())
            }),
        ];
        threads.into_iter().flat_map(|thread| thread.join().expect("no thread fails")).collect()
    });
    out.extend(shelf.close());
    out.sort_unstable();
    assert_eq!(out, (0..2 * EACH).collect::<Vec<_>>());
    assert_eq!(everywhere.available_permits(), 6);
}

/// However the race between a reload and a handshake goes, nothing stays on a closed shelf.
#[test]
fn what_is_made_while_the_shelf_is_closed_does_not_get_onto_it() {
    for _ in 0..300 {
        let shelf = Arc::new(Shelf::<u32>::default());
        drop(shelf.bound(Bounds { most: 4, everywhere: Arc::new(Semaphore::new(4)) }));
        let place = shelf.reserve().expect("a place");
        let (back, closed) = std::thread::scope(|scope| {
            let put = scope.spawn(|| place.put(endpoint(1), 7, Instant::now() + Duration::from_secs(9)).err());
            let closed = shelf.close();
            (put.join().expect("no thread fails"), closed)
        });
        assert!(back.is_some() != (closed == [7]), "{back:?} {closed:?}");
        assert_eq!((shelf.held(), shelf.take(endpoint(1), Instant::now())), (0, None));
        assert!(shelf.reserve().is_none());
    }
}
