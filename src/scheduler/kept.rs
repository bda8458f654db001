//! What the state keeps of each step but seldom looks at, in few bytes: a run may have 100,000 steps. A JSON value takes as many as
//! its text, where a map of one entry takes a thousand otherwise; a time takes eight.

use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A value as compact JSON; null takes no memory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Kept(Option<Box<str>>);

impl Kept {
    /// Keeps a value.
    pub(super) fn new<T: Serialize>(value: &T) -> Self {
        let text = serde_json::to_string(value).expect("what an event holds is JSON");
        Self(Some(text).filter(|text| text != "null").map(String::into_boxed_str))
    }

    /// Whether it is null.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The value; `None` for null.
    pub(super) fn get<T: DeserializeOwned>(&self) -> Option<T> {
        self.0.as_ref().map(|text| serde_json::from_str(text).expect("it was written by `new` from the same type"))
    }
}

/// A time to the millisecond, as records have it, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeptTime(i64);

impl KeptTime {
    /// No time.
    pub(super) const NONE: Self = Self(i64::MIN);

    /// Keeps a time.
    pub(super) fn new(at: Timestamp) -> Self {
        Self(at.as_millisecond())
    }

    /// The time.
    pub(super) fn get(self) -> Option<Timestamp> {
        Some(self).filter(|time| *time != Self::NONE).and_then(|time| Timestamp::from_millisecond(time.0).ok())
    }
}
