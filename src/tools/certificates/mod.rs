//! Certificates in files and on servers, told to people: what a file holds, what a configuration uses and for how
//! long, what a server presents and which part of it to believe.

pub mod expiry;
pub mod fetch;
pub mod read;
pub mod show;

pub use self::read::Error;
