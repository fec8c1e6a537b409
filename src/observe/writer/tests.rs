use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;

/// Takes a message only when the test lets it.
struct Reluctant {
    wanted: Receiver<()>,
    taken: Sender<String>,
}

impl Sink for Reluctant {
    fn write(&mut self, messages: &Messages) -> u64 {
        for message in messages.iter() {
            if self.wanted.recv().is_err() {
                return 1;
            }
            // The test may have ended.
            let _ = self.taken.send(String::from_utf8_lossy(message).into_owned());
        }
        0
    }
}

fn reluctant(capacity: usize) -> (Writer, Sender<()>, Receiver<String>) {
    let (want, wanted) = channel();
    let (taken, takes) = channel();
    let writer = Writer::start("test", capacity, Reluctant { wanted, taken }).unwrap();
    (writer, want, takes)
}

fn dropped(writer: &Writer) -> u64 {
    writer.0.0.queue().dropped
}

#[test]
fn a_sink_that_blocks_keeps_nobody_waiting_and_what_finds_no_room_is_counted() {
    let (writer, want, takes) = reluctant(16);
    // Each is a quarter of the room; the first batch is in the thread's hands, whenever it takes it.
    (0..100).for_each(|n| writer.push(format!("{n:04}").as_bytes()));
    let lost = dropped(&writer);
    assert!((92..=96).contains(&lost), "{lost}");
    (lost..100).for_each(|_| want.send(()).unwrap());
    let taken: Vec<String> = (lost..100).map(|_| takes.recv().unwrap()).collect();
    assert!(taken.is_sorted() && taken[0] == "0000", "in order: {taken:?}");
}

#[test]
fn a_message_that_is_larger_than_the_queue_is_dropped_whole() {
    let (writer, want, takes) = reluctant(8);
    writer.push(b"far too large");
    writer.push(b"small");
    want.send(()).unwrap();
    assert_eq!(takes.recv().unwrap(), "small");
    assert_eq!(dropped(&writer), 1);
}

#[test]
fn the_end_waits_for_what_was_handed_over_but_not_for_a_sink_that_blocks() {
    let (writer, want, takes) = reluctant(1024);
    writer.push(b"one");
    finish_all(Duration::from_millis(20));
    assert!(takes.try_recv().is_err(), "it came back although nothing was taken");
    want.send(()).unwrap();
    want.send(()).unwrap();
    writer.push(b"two");
    finish_all(Duration::from_secs(20));
    assert_eq!(takes.try_iter().collect::<Vec<_>>(), ["one", "two"]);
}

#[test]
fn the_thread_ends_with_the_last_writer_and_writes_what_is_left() {
    let (writer, want, takes) = reluctant(1024);
    let other = writer.clone();
    other.push(b"last");
    drop((writer, other));
    want.send(()).unwrap();
    assert_eq!(takes.iter().collect::<Vec<_>>(), ["last"], "and the sink is gone");
}

fn pipe() -> (File, OwnedFd) {
    let (from, to) = rustix::pipe::pipe().unwrap();
    (from.into(), to)
}

fn messages(all: &[&str]) -> Messages {
    let mut messages = Messages::default();
    all.iter().for_each(|message| messages.push(message.as_bytes()));
    messages
}

#[test]
fn a_stream_whose_reader_is_gone_loses_messages_and_goes_on() {
    let (from, to) = pipe();
    let mut stream = Stream::new(to);
    assert_eq!(stream.write(&messages(&["a\n", "b\n"])), 0);
    drop(from);
    assert_eq!(stream.write(&messages(&["c\n", "d\n"])), 2);
    assert!(!stream.is_open());
    let mut full = Stream::new(File::options().write(true).open("/dev/full").unwrap());
    assert_eq!((full.write(&messages(&["a\n"])), full.is_open()), (1, false));
}

#[test]
fn a_stream_that_would_block_is_waited_for() {
    let (mut from, to) = pipe();
    rustix::io::ioctl_fionbio(&to, true).unwrap();
    let mut stream = Stream::new(to);
    let large = "x".repeat(1 << 20);
    let reader = thread::spawn(move || {
        let mut text = String::new();
        from.read_to_string(&mut text).unwrap();
        text
    });
    assert_eq!(stream.write(&messages(&[&large, "end"])), 0);
    drop(stream);
    assert_eq!(reader.join().unwrap(), large + "end");
}

#[test]
fn half_a_message_does_not_run_into_the_next_one() {
    let (mut from, to) = pipe();
    let mut stream = Stream { to, is_torn: true, is_open: false };
    assert_eq!(stream.write(&messages(&["next\n"])), 0);
    drop(stream);
    let mut text = String::new();
    from.read_to_string(&mut text).unwrap();
    assert_eq!(text, "\nnext\n");
}

#[test]
fn messages_that_did_not_go_out_whole_are_lost() {
    let messages = messages(&["ab", "cd", "ef"]);
    assert_eq!([0, 1, 2, 3, 4, 6].map(|written| messages.beyond(written)), [3, 3, 2, 2, 1, 0]);
}
