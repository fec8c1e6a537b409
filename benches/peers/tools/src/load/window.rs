//! The measured window: work that was done in it, and what it cost.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;
use tokio::time::sleep;

use crate::account::{self, Cpu};
use crate::arguments::Arguments;

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

    /// Warms up for `--warmup` seconds, then looks at `--watch` (the proxy) for `--seconds`. What others than
    /// `--own` and its descendants use of `--processors` meanwhile is foreign.
    pub async fn measure(&self, arguments: &Arguments) -> Result<()> {
        let (proxy, own): (u32, u32) = (arguments.get("watch")?, arguments.get("own")?);
        let processors: String = arguments.get("processors")?;
        let processors = processors.split(',').map(str::parse).collect::<Result<Vec<u32>, _>>()?;
        let sample = || Sample {
            at: Instant::now(),
            proxy: account::cpu(proxy),
            foreign: account::busy(&processors) - account::cpu(own).total(),
            units: self.units.get(),
        };
        sleep(Duration::from_secs_f64(arguments.get("warmup")?)).await;
        let before = sample();
        self.opened.set(Some(before.at));
        sleep(Duration::from_secs_f64(arguments.get("seconds")?)).await;
        self.opened.set(None);
        self.print(&before, &sample());
        Ok(())
    }

    fn print(&self, before: &Sample, after: &Sample) {
        let mut micros = self.micros.take();
        micros.sort_unstable_by(f64::total_cmp);
        let quantile = |part: f64| micros.get((micros.len() as f64 * part) as usize);
        println!(
            "{}",
            json!({
                "seconds": (after.at - before.at).as_secs_f64(),
                "units": after.units - before.units,
                "failures": self.failures.get(),
                "user": after.proxy.user - before.proxy.user,
                "system": after.proxy.system - before.proxy.system,
                "foreign": (after.foreign - before.foreign).max(0.0),
                "p50_us": quantile(0.5),
                "p99_us": quantile(0.99),
            })
        );
    }
}

struct Sample {
    at: Instant,
    proxy: Cpu,
    foreign: f64,
    units: u64,
}
