//! The measured window: work that was done in it, and what it cost.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::account::{self, Cpu};
use crate::arguments::Arguments;

/// Whose time is looked at: `--watch` is the proxy. What others than `--own` and its descendants use of
/// `--processors` is foreign.
pub struct Account {
    proxy: u32,
    own: u32,
    processors: Vec<u32>,
}

impl Account {
    pub fn new(arguments: &Arguments) -> Result<Self> {
        let processors: String = arguments.get("processors")?;
        let processors = processors.split(',').map(str::parse).collect::<Result<_, _>>()?;
        Ok(Self { proxy: arguments.get("watch")?, own: arguments.get("own")?, processors })
    }

    /// How it stands now, with so many units of work done.
    pub fn sample(&self, units: u64) -> Sample {
        Sample {
            at: Instant::now(),
            proxy: account::cpu(self.proxy),
            foreign: account::busy(&self.processors) - account::cpu(self.own).total(),
            units,
        }
    }
}

/// An instant of an account.
pub struct Sample {
    at: Instant,
    proxy: Cpu,
    foreign: f64,
    units: u64,
}

impl Sample {
    /// What happened from this one to `end`.
    pub fn until(&self, end: &Self) -> Value {
        json!({
            "seconds": (end.at - self.at).as_secs_f64(),
            "units": end.units - self.units,
            "failures": 0,
            "user": end.proxy.user - self.proxy.user,
            "system": end.proxy.system - self.proxy.system,
            "foreign": (end.foreign - self.foreign).max(0.0),
        })
    }
}

/// Counts from the first byte on; what lies outside of the window is subtracted.
#[derive(Default)]
pub struct Window {
    units: Cell<u64>,
    failures: Cell<u64>,
    opened: Cell<Option<Instant>>,
    micros: RefCell<Vec<f64>>,
}

impl Window {
    /// Work was done: bytes moved.
    pub fn moved(&self, bytes: usize) {
        self.units.set(self.units.get() + bytes as u64);
    }

    /// A connection or round trip that began at `start` was answered after `latency`.
    pub fn answered(&self, start: Instant, latency: Duration) {
        self.moved(1);
        if self.opened.get().is_some_and(|opened| start >= opened) {
            self.micros.borrow_mut().push(latency.as_secs_f64() * 1e6);
        }
    }

    /// Work failed. The first failure is told.
    pub fn failed(&self, error: &anyhow::Error) {
        if self.failures.replace(self.failures.get() + 1) == 0 {
            eprintln!("load: {error:#}");
        }
    }

    /// Warms up for `--warmup` seconds, then measures for `--seconds`, and prints the figures.
    pub async fn measure(&self, arguments: &Arguments) -> Result<()> {
        let account = Account::new(arguments)?;
        sleep(Duration::from_secs_f64(arguments.get("warmup")?)).await;
        let before = account.sample(self.units.get());
        self.opened.set(Some(before.at));
        sleep(Duration::from_secs_f64(arguments.get("seconds")?)).await;
        self.opened.set(None);
        let mut figures = before.until(&account.sample(self.units.get()));
        let mut micros = self.micros.take();
        micros.sort_unstable_by(f64::total_cmp);
        for (name, part) in [("p50_us", 0.5), ("p99_us", 0.99)] {
            figures[name] = json!(micros.get((micros.len() as f64 * part) as usize));
        }
        figures["failures"] = json!(self.failures.get());
        println!("{figures}");
        Ok(())
    }
}
