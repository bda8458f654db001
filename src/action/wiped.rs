//! Text and values that may hold a secret, on their way through this process: never printed, and wiped when they are dropped.
//!
//! What they are handed to (the kernel, a client library, a template engine) has its own copies, which are not reached from here.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

/// A text that may hold a secret. Written only into the line to the holder of a command.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Wiped(Zeroizing<String>);

impl From<String> for Wiped {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl From<&str> for Wiped {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl Deref for Wiped {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<OsStr> for Wiped {
    fn as_ref(&self) -> &OsStr {
        OsStr::new(self.0.as_str())
    }
}

impl fmt::Debug for Wiped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wiped(***)")
    }
}

impl Serialize for Wiped {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

impl<'de> Deserialize<'de> for Wiped {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

/// Variables of a command.
pub(crate) fn wiped(variables: BTreeMap<String, String>) -> BTreeMap<String, Wiped> {
    variables.into_iter().map(|(name, value)| (name, value.into())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn it_does_not_print_and_travels_as_text() {
        let text = Wiped::from("hunter2");
        assert_eq!((format!("{text:?}").as_str(), &*text), ("Wiped(***)", "hunter2"));
        let again: Wiped = serde_json::from_value(json!(text)).expect("a text");
        assert_eq!(again, text);
    }
}
