//! Configuration: text -> values -> live things.
pub mod values;
