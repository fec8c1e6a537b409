//! Warm connections: a new stream costs no handshake, and nobody notices the ones that die.

mod bounds;
mod burst;
mod hand_over;
mod idle_limit;
mod outages;
mod postgres;
mod refused;
mod reload;
pub(crate) mod support;
mod visible;
