//! Who did something, and how that is known. Two actors are the same when their names are; how they were identified is
//! kept beside the name, in the events only.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How sure it is that somebody is who the name says, the surest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Level {
    /// Whoever it was gave the name.
    #[default]
    Claimed,
    /// It is the name of the account of the operating system.
    Local,
    /// A signature by a key of that person.
    Ssh,
}

impl Level {
    /// Its word in site files.
    pub fn word(self) -> &'static str {
        match self {
            Self::Claimed => "claimed",
            Self::Local => "local",
            Self::Ssh => "ssh",
        }
    }
}

/// The account of the operating system that said something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its name; behind `sudo`, that of who called it.
    pub user: String,
    /// Its number.
    pub uid: u32,
    /// On which host.
    pub host: String,
}

/// How somebody was identified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "snake_case")]
pub enum How {
    /// By the account of the operating system, whose name it is.
    Local(Account),
    /// By a name that this account gave.
    Claimed(Account),
    /// By a signature.
    Ssh {
        /// The account that handed it in.
        #[serde(flatten)]
        account: Account,
        /// The public key: `ssh-ed25519 AAAA...`.
        key: String,
        /// Its fingerprint, as `ssh-keygen -l` shows it.
        fingerprint: String,
        /// The signature as `ssh-keygen -Y sign` writes it.
        signature: String,
    },
}

impl How {
    /// The account that it came from.
    pub fn account(&self) -> &Account {
        match self {
            Self::Local(account) | Self::Claimed(account) | Self::Ssh { account, .. } => account,
        }
    }
}

/// Who did something. Written as the name alone wherever it is not part of an event.
#[derive(Clone)]
pub struct Actor(Arc<(Box<str>, Option<How>)>);

impl Actor {
    /// Somebody of this name of whom nothing else is known.
    pub fn new(name: impl AsRef<str>) -> Self {
        Self(Arc::new((name.as_ref().into(), None)))
    }

    /// Somebody who was identified like this.
    pub fn identified(name: impl AsRef<str>, how: How) -> Self {
        Self(Arc::new((name.as_ref().into(), Some(how))))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0.0
    }

    /// How it is known who it was; nothing in journals of earlier versions.
    pub fn how(&self) -> Option<&How> {
        self.0.1.as_ref()
    }

    /// How sure that is.
    pub fn level(&self) -> Level {
        match self.how() {
            Some(How::Ssh { .. }) => Level::Ssh,
            Some(How::Local(_)) => Level::Local,
            Some(How::Claimed(_)) | None => Level::Claimed,
        }
    }

    /// The same without a signature: what it signed was something else.
    #[must_use]
    pub fn unsigned(&self) -> Self {
        match self.how() {
            Some(How::Ssh { account, .. }) => Self::identified(self.as_str(), How::Claimed(account.clone())),
            _ => self.clone(),
        }
    }

    /// The names under which this may be somebody: that which was given and that of the account.
    pub fn names(&self) -> Vec<Self> {
        let mut names = vec![Self::new(self.as_str())];
        if let Some(account) = self.how().map(How::account).filter(|account| *account.user != *self.as_str()) {
            names.push(Self::new(&account.user));
        }
        names
    }
}

impl PartialEq for Actor {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Actor {}

impl PartialOrd for Actor {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Actor {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl std::hash::Hash for Actor {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Debug for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Actor({:?}, {:?})", self.as_str(), self.level())
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<&str> for Actor {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl std::borrow::Borrow<str> for Actor {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl Serialize for Actor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Actor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        whole::deserialize(deserializer)
    }
}

/// The form in events: the name alone, or `name` with how it is known.
pub mod whole {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Actor, How};

    #[derive(Serialize)]
    struct Out<'a> {
        name: &'a str,
        #[serde(flatten)]
        how: &'a How,
    }

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum In {
        Name(String),
        Known {
            name: String,
            #[serde(flatten)]
            how: How,
        },
    }

    /// Writes all that is known.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(actor: &Actor, serializer: S) -> Result<S::Ok, S::Error> {
        match actor.how() {
            None => serializer.serialize_str(actor.as_str()),
            Some(how) => Out { name: actor.as_str(), how }.serialize(serializer),
        }
    }

    /// Reads either form.
    ///
    /// # Errors
    /// When it is neither.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Actor, D::Error> {
        Ok(match In::deserialize(deserializer)? {
            In::Name(name) => Actor::new(name),
            In::Known { name, how } => Actor::identified(name, how),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Serialize, Deserialize)]
    struct Word {
        #[serde(with = "whole")]
        by: Actor,
    }

    #[test]
    fn events_keep_how_somebody_is_known_and_others_the_name() {
        let account = Account { user: "ops".into(), uid: 7, host: "h".into() };
        let (key, fingerprint, signature) = ("k".into(), "f".into(), "s".into());
        for how in [
            How::Local(account.clone()),
            How::Claimed(account.clone()),
            How::Ssh { account, key, fingerprint, signature },
        ] {
            let by = Actor::identified("ann", how.clone());
            let text = serde_json::to_string(&Word { by: by.clone() }).expect("is data");
            let again: Word = serde_json::from_str(&text).expect("is read");
            assert_eq!(again.by.how(), Some(&how), "{text}");
            assert_eq!(serde_json::to_string(&by).expect("is data"), "\"ann\"");
            assert_eq!((by.clone(), by.names().len()), (Actor::new("ann"), 2));
        }
        let old: Word = serde_json::from_str(r#"{"by":"ann"}"#).expect("is read");
        assert_eq!((old.by.how(), old.by.level()), (None, Level::Claimed));
        assert_eq!(serde_json::to_string(&old).expect("is data"), r#"{"by":"ann"}"#);
    }
}
