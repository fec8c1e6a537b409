//! `egret explain` against servers that are broken in one way each, and against servers that are not.

mod answers;
mod certificates;
mod connections;
mod handshakes;
mod healthy;
mod house;
mod output;
mod plaintext;
mod stage;
