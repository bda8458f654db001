//! A fact with its place in the journal.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Event;
use crate::ids::RunId;

/// An event with its place and time in the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The run.
    pub run: RunId,
    /// Place in the run's journal, from 1 without gaps.
    pub seq: u64,
    /// When it was recorded.
    pub at: Timestamp,
    /// Generation of the driver that recorded it; 0 for a person's word from outside a driver.
    pub generation: u64,
    /// The fact.
    pub event: Event,
    /// SHA-256 over the previous hash and this record, in hex.
    pub hash: String,
}
