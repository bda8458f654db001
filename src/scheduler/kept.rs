//! A JSON value in as few bytes as its text: a map of one entry takes a thousand otherwise, and a run may have 100,000
//! steps. Called by the state for what it keeps of each step but seldom looks at.

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
