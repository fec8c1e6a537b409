//! Certificates in files and on servers, told to people: what a file holds, what a configuration uses and for how
//! long, what a server presents and which part of it to believe.

pub(crate) mod expiry;
pub(crate) mod fetch;
pub(crate) mod read;
pub(crate) mod show;
