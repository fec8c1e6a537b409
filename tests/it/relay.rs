//! What the relay promises, over real sockets.

mod bytes_arrive;
mod ends;
mod limits;
mod passing;
mod stage;
