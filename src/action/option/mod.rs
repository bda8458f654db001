//! `option.set`, `option.unset`, `option.check`: settings in the option stores of a site.
//!
//! Absent is not empty. What was there before is kept, a change that somebody else made in between is never lost, and
//! what was written is read back. Called by the driver.

pub(crate) mod ini;
mod sql;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{Action, Context, Failure, Preview};
use crate::event::{Finding, Outputs};
use crate::spec::actions::{OptionCheck, OptionSet, OptionUnset};

/// Where an option stands in its store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionName {
    /// Application object; empty for stores without objects.
    pub object: String,
    /// Section.
    pub section: String,
    /// Name.
    pub name: String,
}

impl std::fmt::Display for OptionName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.object.is_empty() {
            write!(f, "{} / ", self.object)?;
        }
        write!(f, "{} / {}", self.section, self.name)
    }
}

/// Why a store did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store did not answer; nothing was changed.
    #[error("{0}")]
    Unreachable(String),
    /// The store cannot hold this; nothing was changed.
    #[error("{0}")]
    Refused(String),
    /// Somebody else changed the option in between; nothing was changed.
    #[error("it is {} now: somebody else changed it in between", shown(found.as_deref()))]
    LostUpdate {
        /// What it is now.
        found: Option<String>,
    },
    /// It cannot be told whether the change was made.
    #[error("{0}")]
    Unknown(String),
}

/// A place that keeps options.
#[async_trait]
pub trait OptionStore: Send + Sync {
    /// The value; nothing when the option is absent.
    async fn get(&self, at: &OptionName) -> Result<Option<String>, StoreError>;
    /// Replaces the value, if it is still `expected`, by `new` (absent when nothing); `who` goes into the history.
    async fn replace(
        &self,
        at: &OptionName,
        expected: Option<&str>,
        new: Option<&str>,
        who: &str,
    ) -> Result<(), StoreError>;
    /// Who changed it last, if the store knows.
    async fn last_change(&self, _at: &OptionName) -> Option<String> {
        None
    }
}

/// One option, in one store, that shall have a value or be absent.
struct Change<'a> {
    store: &'a str,
    at: OptionName,
    new: Option<&'a str>,
}

impl Change<'_> {
    fn open(&self, cx: &Context) -> Result<Box<dyn OptionStore>, Failure> {
        open(cx, self.store)
    }

    fn fail(&self, cx: &Context, error: &StoreError) -> Failure {
        let text = cx.masker.text(&format!("option {} of store `{}`: {error}", self.at, self.store));
        match error {
            StoreError::Unreachable(_) => Failure::harmless(text),
            StoreError::Refused(_) | StoreError::LostUpdate { .. } => Failure::permanent(text),
            StoreError::Unknown(_) => Failure::unknown(text),
        }
    }

    async fn get(&self, cx: &Context) -> Result<Option<String>, Failure> {
        self.open(cx)?.get(&self.at).await.map_err(|error| self.fail(cx, &error))
    }

    async fn before(&self, cx: &Context) -> Result<Value, Failure> {
        Ok(json!({ "value": self.get(cx).await? }))
    }

    fn outputs(&self, old: Option<&str>) -> Outputs {
        Outputs::from([("old".to_owned(), json!(old)), ("new".to_owned(), json!(self.new))])
    }

    async fn run(&self, cx: &Context, before: &Value) -> Result<Outputs, Failure> {
        let store = self.open(cx)?;
        let old = before.get("value").and_then(Value::as_str);
        self.replace(cx, store.as_ref(), old, self.new).await?;
        Ok(self.outputs(old))
    }

    /// Writes unless it is so already, then reads back.
    async fn replace(
        &self,
        cx: &Context,
        store: &dyn OptionStore,
        old: Option<&str>,
        new: Option<&str>,
    ) -> Result<(), Failure> {
        let now = store.get(&self.at).await.map_err(|error| self.fail(cx, &error))?;
        if now.as_deref() != new {
            let replaced = store.replace(&self.at, old, new, cx.actor.as_str()).await;
            replaced.map_err(|error| self.fail(cx, &error))?;
        }
        let seen = store.get(&self.at).await;
        let seen = seen.map_err(|error| self.fail(cx, &StoreError::Unknown(error.to_string())))?;
        if seen.as_deref() == new {
            return Ok(());
        }
        let text = format!("it was written, but reads back as {}", shown(seen.as_deref()));
        Err(self.fail(cx, &StoreError::Unknown(text)))
    }

    async fn probe(&self, cx: &Context, before: &Value) -> Finding {
        let old = before.get("value").and_then(Value::as_str);
        match self.get(cx).await {
            Ok(now) if now.as_deref() == self.new => Finding::Done(self.outputs(old)),
            Ok(now) if now.as_deref() == old => Finding::NotDone,
            Ok(_) | Err(_) => Finding::Unknown,
        }
    }

    async fn undo(&self, cx: &Context, before: &Value) -> Result<(), Failure> {
        let store = self.open(cx)?;
        let old = before.get("value").and_then(Value::as_str);
        let now = store.get(&self.at).await.map_err(|error| self.fail(cx, &error))?;
        if now.as_deref() == old {
            return Ok(());
        }
        if now.as_deref() != self.new {
            let who = store.last_change(&self.at).await.map(|who| format!(" ({who})")).unwrap_or_default();
            let text = format!(
                "it is {} now, neither what this step set nor what was there before{who}; it is left alone",
                shown(now.as_deref())
            );
            return Err(self.fail(cx, &StoreError::Refused(text)));
        }
        self.replace(cx, store.as_ref(), self.new, old).await
    }

    async fn preview(&self, cx: &Context) -> Preview {
        match self.get(cx).await {
            Ok(now) if now.as_deref() == self.new => Preview::NoChange(format!("{} is so already", self.at)),
            Ok(now) => {
                let text = format!("{}: {} becomes {}", self.at, shown(now.as_deref()), shown(self.new));
                Preview::WillChange(cx.masker.text(&text))
            }
            Err(failure) => Preview::Unknown(failure.error),
        }
    }
}

/// The option store of the site.
fn open(cx: &Context, name: &str) -> Result<Box<dyn OptionStore>, Failure> {
    let store = cx.site.site.options.get(name);
    let store = store.ok_or_else(|| Failure::permanent(format!("the site has no option store `{name}`")))?;
    match (&store.ini, &store.sql) {
        (Some(file), _) => Ok(Box::new(ini::IniFile::new(cx, file))),
        (None, Some(table)) => Ok(Box::new(sql::SqlTable::new(&cx.databases, table))),
        (None, None) => Err(Failure::permanent(format!("option store `{name}` has no kind"))),
    }
}

fn shown(value: Option<&str>) -> String {
    value.map_or_else(|| "absent".to_owned(), |value| format!("`{value}`"))
}

macro_rules! changes {
    ($($action:ty, $new:expr;)*) => {$(
        impl $action {
            fn change(&self) -> Change<'_> {
                let new: fn(&$action) -> Option<&str> = $new;
                let (object, section, name) = (self.object.clone(), self.section.clone(), self.name.clone());
                Change { store: &self.store, at: OptionName { object, section, name }, new: new(self) }
            }
        }

        #[async_trait]
        impl Action for $action {
            async fn before(&self, cx: &Context) -> Result<Value, Failure> {
                self.change().before(cx).await
            }

            async fn run(&self, cx: &Context, before: &Value) -> Result<Outputs, Failure> {
                self.change().run(cx, before).await
            }

            async fn probe(&self, cx: &Context, before: &Value) -> Finding {
                self.change().probe(cx, before).await
            }

            async fn undo(&self, cx: &Context, before: &Value) -> Result<(), Failure> {
                self.change().undo(cx, before).await
            }

            async fn preview(&self, cx: &Context) -> Preview {
                self.change().preview(cx).await
            }
        }
    )*};
}

changes! {
    OptionSet, |set| Some(&set.value);
    OptionUnset, |_| None;
}

#[async_trait]
impl Action for OptionCheck {
    async fn run(&self, cx: &Context, _before: &Value) -> Result<Outputs, Failure> {
        let (object, section, name) = (self.object.clone(), self.section.clone(), self.name.clone());
        let look = Change { store: &self.store, at: OptionName { object, section, name }, new: self.value.as_deref() };
        let now = look.get(cx).await?;
        if now == self.value {
            return Ok(Outputs::from([("value".to_owned(), json!(now))]));
        }
        let text = format!(
            "option {} of store `{}` is {}, not {}",
            look.at,
            self.store,
            shown(now.as_deref()),
            shown(self.value.as_deref())
        );
        Err(Failure::harmless(cx.masker.text(&text)))
    }

    async fn probe(&self, _cx: &Context, _before: &Value) -> Finding {
        Finding::NotDone
    }

    async fn preview(&self, _cx: &Context) -> Preview {
        Preview::NoChange("only looks".into())
    }
}

#[cfg(test)]
mod tests;
