//! The random generator of the cryptographic library. Before its first bytes it seeds itself from the jitter of the
//! processor's timing, which takes 20 to 40 ms of a processor: a thread of its own does that while the program starts.

use std::sync::Once;
use std::thread;

use rustls::crypto::aws_lc_rs;
use tokio::sync::SetOnce;

static BEGUN: Once = Once::new();
static SEEDED: SetOnce<()> = SetOnce::const_new();

/// Begins to seed the generator, once in a process, and returns at once.
pub fn begin_seeding() {
    BEGUN.call_once(|| {
        let started = thread::Builder::new().name("seeding".to_owned()).spawn(|| {
            let _done = Seeded;
            // A generator that fails will fail in the handshake, which reports it.
            let _ = aws_lc_rs::default_provider().secure_random.fill(&mut [0; 32]);
        });
        if started.is_err() {
            // The first handshake seeds it.
            drop(Seeded);
        }
    });
}

/// Waits until the generator is seeded, so that no worker waits in its first draw. Cancel safe.
pub(crate) async fn seeded() {
    begin_seeding();
    SEEDED.wait().await;
}

/// Its drop ends the waiting, after a panic too.
struct Seeded;

impl Drop for Seeded {
    fn drop(&mut self) {
        // Set only here, and once: `BEGUN`.
        let _ = SEEDED.set(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wait_begins_the_seeding_and_ends_however_often_it_is_asked_for() {
        seeded().await;
        begin_seeding();
        seeded().await;
        assert!(SEEDED.initialized());
    }
}
