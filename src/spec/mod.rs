//! The runbook language: YAML text to typed values, every value that a message may name with its place.
//!
//! Knows what an author may write; knows nothing of sites, of graphs or of running anything. All mistakes of a file are
//! reported at once as [`problem::Problems`].

pub mod actions;
pub mod case;
mod declare;
pub mod decode;
pub mod deviations;
mod mend;
pub mod problem;
pub mod reference;
pub mod retention;
pub mod rules;
pub mod runbook;
mod syntax;
pub mod values;
pub mod yaml;
