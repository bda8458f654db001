//! The secrets of a run: each fetched once, when it is first needed, and hidden from then on, also in what a panic says.
//!
//! Owned here: who knows which secrets, and which of them are too short to be hidden well. Called by the driver for templates, and
//! by the databases of a site for their addresses.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, TryLockError, Weak};

use secrecy::{ExposeSecret, SecretString};

use super::Failure;
use super::mask::{Masker, is_short};
use crate::site::SecretSource;

/// What is in the place of every secret in a run on mocked actions.
const MADE_UP: &str = "made-up secret";

/// Secrets of a run.
pub struct Secrets {
    fetched: tokio::sync::Mutex<BTreeMap<Key, SecretString>>,
    known: Arc<Mutex<Known>>,
    is_made_up: bool,
}

/// What makes a secret the one that was fetched before: an amendment may bring another source under the same name, and another
/// folder makes another file of the same relative path.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    name: String,
    source: String,
    base: PathBuf,
}

/// Secrets that must be hidden, and what hides all of them: made once for each that is new, since it costs milliseconds.
#[derive(Default)]
struct Known {
    secrets: Vec<SecretString>,
    masker: Option<Masker>,
    /// Names of those that are too short, until they are told.
    short: Vec<String>,
}

impl Known {
    fn add(&mut self, secret: &str) {
        if !secret.is_empty() && self.secrets.iter().all(|known| known.expose_secret() != secret) {
            self.secrets.push(SecretString::from(Box::<str>::from(secret)));
            self.masker = None;
        }
    }

    fn masker(&mut self) -> Masker {
        let Self { secrets, masker, .. } = self;
        masker.get_or_insert_with(|| Masker::new(secrets.iter().map(ExposeSecret::expose_secret))).clone()
    }
}

/// What every run of this process knows.
static OF_PROCESS: Mutex<Vec<Weak<Mutex<Known>>>> = Mutex::new(Vec::new());

impl Default for Secrets {
    fn default() -> Self {
        Self::new(false)
    }
}

impl Secrets {
    fn new(is_made_up: bool) -> Self {
        let known = Arc::<Mutex<Known>>::default();
        let mut all = OF_PROCESS.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(&known));
        Self { fetched: tokio::sync::Mutex::default(), known, is_made_up }
    }

    /// A word in the place of every secret that could be asked for; for runs on mocked actions.
    pub fn made_up() -> Self {
        Self::new(true)
    }

    /// The secret `name`; `base` is where relative files of its source start.
    ///
    /// # Errors
    /// When it cannot be had.
    pub async fn fetch(&self, name: &str, source: &SecretSource, base: &Path) -> Result<SecretString, Failure> {
        if self.is_made_up {
            return Ok(SecretString::from(MADE_UP));
        }
        let mut fetched = self.fetched.lock().await;
        let key = Key { name: name.to_owned(), source: format!("{source:?}"), base: base.to_owned() };
        if let Some(value) = fetched.get(&key) {
            return Ok(value.clone());
        }
        let value = source.fetch(name, base).await.map_err(|error| Failure::harmless(error.to_string()))?;
        self.hide(value.expose_secret());
        if is_short(value.expose_secret()) {
            self.known().short.push(name.to_owned());
        }
        fetched.insert(key, value.clone());
        Ok(value)
    }

    /// Hides a text from now on: a secret, or a part of one that may stand by itself.
    pub fn hide(&self, secret: &str) {
        self.known().add(secret);
    }

    /// Hides every secret that was fetched so far.
    pub fn masker(&self) -> Masker {
        self.known().masker()
    }

    /// Names of secrets that were fetched and are too short to be hidden well; each is told once.
    pub fn take_short(&self) -> Vec<String> {
        std::mem::take(&mut self.known().short)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A text of this process without the secrets of any of its runs; nothing if it cannot be told now what they are, as when the thread
/// that panics is just hiding one.
pub fn without_secrets(text: &str) -> Option<String> {
    let all = match OF_PROCESS.try_lock() {
        Ok(all) => all,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => return None,
    };
    let mut text = text.to_owned();
    for known in all.iter().filter_map(Weak::upgrade) {
        let masker = match known.try_lock() {
            Ok(mut known) => known.masker(),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().masker(),
            Err(TryLockError::WouldBlock) => return None,
        };
        text = masker.text(&text);
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_file(path: &Path) -> SecretSource {
        SecretSource { env: None, file: Some(path.display().to_string()), command: Vec::new() }
    }

    #[tokio::test]
    async fn a_secret_is_fetched_once_and_hidden_wherever_it_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        std::fs::write(&path, "hunter2\n").expect("written");
        let secrets = Secrets::default();
        assert_eq!(secrets.masker().text("hunter2"), "hunter2");
        let first = secrets.fetch("a", &of_file(&path), folder.path()).await.expect("is there");
        assert_eq!(first.expose_secret(), "hunter2");
        std::fs::write(&path, "another").expect("written");
        let again = secrets.fetch("a", &of_file(&path), folder.path()).await.expect("is known");
        assert_eq!(again.expose_secret(), "hunter2");
        // Another source under the same name is another secret.
        let other = folder.path().join("other");
        std::fs::write(&other, "pa55word").expect("written");
        let moved = secrets.fetch("a", &of_file(&other), folder.path()).await.expect("is there");
        assert_eq!(moved.expose_secret(), "pa55word");
        assert_eq!(secrets.masker().text("hunter2 pa55word"), "*** ***");
        assert_eq!(without_secrets("of all runs: hunter2").as_deref(), Some("of all runs: ***"));
        assert_eq!(secrets.take_short(), Vec::<String>::new());
        std::fs::write(&other, "ab").expect("written");
        secrets.fetch("tiny", &of_file(&other), folder.path()).await.expect("is there");
        assert_eq!(secrets.take_short(), ["tiny"]);
        assert_eq!(secrets.take_short(), Vec::<String>::new(), "it was told");
        drop(secrets);
        assert_eq!(without_secrets("pa55word").as_deref(), Some("pa55word"), "nobody knows it any more");
    }

    #[tokio::test]
    async fn a_relative_file_in_another_folder_is_another_secret() {
        let (here, there) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let secrets = Secrets::default();
        for (folder, text) in [(&here, "hunter2"), (&there, "pa55word")] {
            std::fs::write(folder.path().join("secret"), text).expect("written");
            let fetched = secrets.fetch("a", &of_file(Path::new("secret")), folder.path()).await.expect("is there");
            assert_eq!(fetched.expose_secret(), text);
        }
    }

    #[test]
    fn whoever_holds_the_secrets_while_it_panics_says_nothing() {
        let secrets = Secrets::default();
        secrets.hide("hunter2");
        let held = secrets.known();
        assert_eq!(without_secrets("hunter2"), None);
        drop(held);
        assert_eq!(without_secrets("hunter2").as_deref(), Some("***"));
    }
}
