//! The cryptography alone, in memory: what no proxy of this design can undercut.

use std::hint::black_box;
use std::sync::Arc;

use anyhow::{Result, ensure};
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustix::time::{ClockId, clock_gettime};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ServerConfig, ServerConnection};
use serde_json::json;

use crate::arguments::Arguments;
use crate::certificates::ORIGIN;
use crate::tls;

/// Prints one JSON object: seconds of CPU time per GiB sealed, microseconds per handshake of a client.
pub fn print(arguments: &Arguments) -> Result<()> {
    let server = Arc::new(tls::server(arguments)?); // with --tickets true
    let full = Arc::new(tls::client(arguments, false)?);
    let resumed = Arc::new(tls::client(arguments, true)?);
    handshake(&resumed, &server)?; // fills the store
    ensure!(handshake(&full, &server)?.1 == HandshakeKind::Full, "the full handshake was not one");
    ensure!(handshake(&resumed, &server)?.1 == HandshakeKind::Resumed, "the server did not resume");
    let [full, resumed] = [full, resumed].map(|client| best(|| Ok(handshake(&client, &server)?.0)));
    println!("{}", json!({ "seal_s_gib": seal()?, "full_us": full? * 1e6, "resumed_us": resumed? * 1e6 }));
    Ok(())
}

/// CPU seconds of this thread.
fn now() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Spans of which the quickest counts: whatever disturbs only adds.
const SPANS: u32 = 10;
/// CPU seconds of a span.
const SPAN: f64 = 0.03;

/// Mean seconds that `work` says it took, in the best span.
fn best(mut work: impl FnMut() -> Result<f64>) -> Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..SPANS {
        let (start, mut spent, mut count) = (now(), 0.0, 0);
        while now() - start < SPAN {
            spent += work()?;
            count += 1;
        }
        best = best.min(spent / f64::from(count));
    }
    Ok(best)
}

/// AES-128-GCM over full records, in place.
fn seal() -> Result<f64> {
    const RECORD: usize = 16 << 10;
    const BATCH: usize = 64; // so that reading the clock is nothing
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &[7; 16])?);
    let mut record = vec![0; RECORD];
    let batch = best(|| {
        let start = now();
        for _ in 0..BATCH {
            // The same nonce again and again: nothing of this is ever sent.
            let nonce = Nonce::assume_unique_for_key([0; 12]);
            let tag = key.seal_in_place_separate_tag(nonce, Aad::from([0; 5]), &mut record)?;
            black_box(tag.as_ref());
        }
        Ok(now() - start)
    })?;
    Ok(batch / (BATCH * RECORD) as f64 * f64::from(1 << 30))
}

/// A handshake without a network: the client's own seconds, and what kind it was.
fn handshake(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Result<(f64, HandshakeKind)> {
    let mut server = ServerConnection::new(Arc::clone(server))?;
    let start = now();
    let mut client = ClientConnection::new(Arc::clone(client), ORIGIN.try_into()?)?;
    let mut spent = now() - start;
    while client.is_handshaking() || server.is_handshaking() || server.wants_write() {
        let (mut there, mut back) = (Vec::new(), Vec::new());
        let start = now();
        while client.wants_write() {
            client.write_tls(&mut there)?;
        }
        spent += now() - start;
        let mut unread = &there[..];
        while !unread.is_empty() {
            server.read_tls(&mut unread)?;
            server.process_new_packets()?;
        }
        while server.wants_write() {
            server.write_tls(&mut back)?;
        }
        let start = now();
        let mut unread = &back[..];
        while !unread.is_empty() {
            client.read_tls(&mut unread)?;
            client.process_new_packets()?;
        }
        spent += now() - start;
    }
    Ok((spent, client.handshake_kind().unwrap_or(HandshakeKind::Full)))
}
