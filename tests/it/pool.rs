//! Warm connections: a new stream costs no handshake, and nobody notices the ones that die.

mod hand_over;
mod support;
