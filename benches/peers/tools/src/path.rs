//! A path with a round-trip time: what leaves through a TUN device comes back from it, half of that time later and
//! with its two addresses exchanged. Whoever connects to the far address of the device reaches the near one, and each
//! packet, those that set up a connection included, takes its time.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::arguments::Arguments;

/// A packet, and when it is to arrive.
type OnItsWay = (Instant, Vec<u8>);

/// Larger than what a device with the usual 1,500 bytes gives.
const PACKET: usize = 4096;

/// Carries the packets of the device that is the standard input, each for half of `--micros`.
pub fn carry(arguments: &Arguments) -> Result<()> {
    let half = Duration::from_micros(arguments.get::<u64>("micros")?) / 2;
    // Sleep ends 50 us late by default. Threads inherit this; where it is forbidden, the path is so much longer,
    // which the load measures.
    let _ = fs::write("/proc/self/timerslack_ns", "1");
    let device = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let (sender, receiver) = channel();
    let far = device.try_clone()?;
    thread::spawn(move || arrive(&far, &receiver));
    depart(device, half, &sender)
}

fn depart(mut device: File, half: Duration, sender: &Sender<OnItsWay>) -> Result<()> {
    let mut packet = vec![0; PACKET];
    loop {
        let length = device.read(&mut packet).context("the device")?;
        // IPv6 looks for routers on every device that comes up.
        if length < 20 || packet[0] >> 4 != 4 {
            continue;
        }
        // Source and destination. Their sum, and with it every checksum, stays the same.
        let (source, destination) = packet[12..20].split_at_mut(4);
        source.swap_with_slice(destination);
        sender.send((Instant::now() + half, packet[..length].to_vec())).context("the far end is gone")?;
    }
}

fn arrive(mut device: &File, receiver: &Receiver<OnItsWay>) -> Result<()> {
    for (due, packet) in receiver {
        sleep(due.saturating_duration_since(Instant::now()));
        device.write_all(&packet).context("the device")?;
    }
    Ok(())
}
