//! Newtypes for every identity, so that a run can never be taken for a step.
//!
//! Ids are names that a person can read and type; they are what stands on disk, never an index. A copy shares the text.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

mod actor;

pub use actor::{Account, Actor, How, Level, whole};

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Wraps a name that was checked where it was read.
            pub fn new(name: impl AsRef<str>) -> Self {
                Self(name.as_ref().into())
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer).map(Self::new)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self::new(name)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name! {
    /// One execution of a runbook, for instance `20261122-7kq2vx`.
    RunId
}
name! {
    /// A step of a plan: the id the author wrote, with `[key]` behind it for an item of a `foreach`.
    StepId
}
name! {
    /// A named thing of the real world that only one run may hold.
    LockName
}
name! {
    /// A named fact about a site that a run established.
    Milestone
}

/// The alphabet of run ids: no vowels (no words by accident), no characters that look alike.
const ID_ALPHABET: &[u8] = b"23456789bcdfghjkmnpqrstvwxyz";

impl RunId {
    /// Makes a fresh id from the date and six random characters.
    pub fn fresh(now: jiff::Timestamp, random: &mut impl FnMut(usize) -> usize) -> Self {
        let day = now.strftime("%Y%m%d").to_string();
        let tail: String = (0..6).map(|_| char::from(ID_ALPHABET[random(ID_ALPHABET.len())])).collect();
        Self::new(format!("{day}-{tail}"))
    }

    /// Whether this is `first`, or was started by a step of it, or by one of a run that was, and so on: such runs are named after the run and its step.
    pub fn is_of(&self, first: &Self) -> bool {
        self.0.strip_prefix(&*first.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }
}

/// Whether `text` is a legal step id: `[a-z][a-z0-9_-]*`.
pub fn is_step_id(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn step_ids_follow_the_contract() {
        for good in ["a", "stop-65", "a_b", "x9"] {
            assert!(is_step_id(good), "{good}");
        }
        for bad in ["", "9a", "-a", "A", "a b", "ä", "a.b"] {
            assert!(!is_step_id(bad), "{bad}");
        }
    }

    #[test]
    fn a_fresh_run_id_is_the_day_and_six_characters() {
        let mut next = 0;
        let id = RunId::fresh(jiff::Timestamp::UNIX_EPOCH, &mut |bound| {
            next += 1;
            next % bound
        });
        assert_eq!(id.as_str(), "19700101-345678");
    }
}
