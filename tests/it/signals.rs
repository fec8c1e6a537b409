//! Signals to the process of the tests itself; one test, since they are shared by all of it.

use std::time::Duration;

use egret::control::signals::{Signal, Signals, Stop};
use rustix::process::{self, Signal as Unix};
use tokio::time::timeout;

async fn next(signals: &mut Signals) -> Signal {
    timeout(Duration::from_secs(20), signals.next()).await.expect("the signal arrives")
}

#[tokio::test]
async fn hangup_reloads_the_first_stop_drains_and_the_second_quits() {
    let mut signals = Signals::new().unwrap();
    let send = |signal| process::kill_process(process::getpid(), signal).unwrap();
    send(Unix::HUP);
    assert_eq!(next(&mut signals).await, Signal::Reload);
    send(Unix::TERM);
    assert_eq!(next(&mut signals).await, Signal::Drain(Stop::Term));
    send(Unix::HUP);
    assert_eq!(next(&mut signals).await, Signal::Reload);
    send(Unix::INT);
    assert_eq!(next(&mut signals).await, Signal::Quit);

    let mut of_a_person = Signals::new().unwrap();
    send(Unix::INT);
    assert_eq!(next(&mut of_a_person).await, Signal::Drain(Stop::Int));
}
