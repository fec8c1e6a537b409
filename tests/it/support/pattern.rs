//! Bytes that cannot be mistaken for other bytes, and their digest.

use aws_lc_rs::digest::{Context, SHA256};

/// An endless stream of bytes that depends on its seed and on how it is cut: a block of noise, copied from
/// another place for each piece, and the number of the piece. Copying keeps it fast without optimisation.
pub(crate) struct Pattern {
    noise: Vec<u8>,
    pieces: u64,
}

const NOISE: usize = 1 << 17;

impl Pattern {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut noise = vec![0; NOISE];
        random.fill(&mut noise);
        Self { noise, pieces: 0 }
    }

    /// The next bytes.
    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for piece in bytes.chunks_mut(NOISE / 2) {
            // Steps of a prime: no two pieces that follow each other look alike.
            let from = (self.pieces.wrapping_mul(7919) % (NOISE as u64 / 2)) as usize;
            piece.copy_from_slice(&self.noise[from..from + piece.len()]);
            let number = self.pieces.to_le_bytes();
            let stamp = piece.len().min(number.len());
            piece[..stamp].copy_from_slice(&number[..stamp]);
            self.pieces += 1;
        }
    }
}

/// SHA-256 of what is put in, in hex.
pub(crate) struct Digest {
    context: Context,
    pub(crate) length: u64,
}

impl Digest {
    pub(crate) fn new() -> Self {
        Self { context: Context::new(&SHA256), length: 0 }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
        self.length += bytes.len() as u64;
    }

    pub(crate) fn hex(self) -> String {
        self.context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
