//! What the relay promises, over real sockets.

mod bytes_arrive;
mod ends;
mod limits;
mod lingering;
mod orders;
mod parting;
mod passing;
mod resets;
mod stage;
mod urgent;
