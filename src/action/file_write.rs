//! `file.write`: a file that appears whole or not at all, and can be taken back.
//!
//! What was there before is copied into Piton's state folder, readable by its owner only, so that its content (which may
//! hold secrets) never gets into the journal. Called by the driver.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Action, Context, Failure, Preview, durable};
use crate::config::rights::own_folder;
use crate::event::{Finding, Outputs};
use crate::spec::actions::FileWrite;

/// Only the owner may read the copy of what was there.
const COPY_MODE: u32 = 0o600;

/// What was there before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Before {
    /// SHA-256 of the content; nothing when there was no file.
    sha256: Option<String>,
    /// Its permissions.
    mode: Option<u32>,
    /// The copy of it, in Piton's state folder.
    copy: Option<PathBuf>,
}

#[async_trait]
impl Action for FileWrite {
    async fn before(&self, cx: &Context) -> Result<Value, Failure> {
        let path = self.place(cx);
        let fail = |error: std::io::Error| Failure::harmless(format!("`{}`: {error}", path.display()));
        let Some(content) = durable::read(&path).map_err(fail)? else {
            return Ok(json!(Before { sha256: None, mode: None, copy: None }));
        };
        let run = durable::file_name(cx.run.as_str());
        let folder = PathBuf::from("before").join(run);
        let copy = folder.join(format!("{}.{}", durable::file_name(cx.step.as_str()), cx.attempt));
        own_folder(&cx.state_dir.join(&folder)).map_err(fail)?;
        durable::replace(&cx.state_dir.join(&copy), &content, Some(COPY_MODE)).map_err(fail)?;
        let mode = mode_of(&path).map_err(fail)?;
        Ok(json!(Before { sha256: Some(sha256(&content)), mode: Some(mode), copy: Some(copy) }))
    }

    async fn run(&self, cx: &Context, _before: &Value) -> Result<Outputs, Failure> {
        let path = self.place(cx);
        let mode = self.mode()?;
        durable::replace(&path, self.content.expose().as_bytes(), mode).map_err(|error| {
            let text = format!("`{}`: {error}", path.display());
            // Up to the rename nothing has changed, and a rename either is or is not.
            match self.is_there(&path) {
                Ok(false) => Failure::harmless(text),
                Ok(true) | Err(_) => Failure::unknown(text),
            }
        })?;
        Ok(self.outputs(&path))
    }

    async fn probe(&self, cx: &Context, before: &Value) -> Finding {
        let path = self.place(cx);
        let Ok(now) = durable::read(&path) else { return Finding::Unknown };
        let now = now.as_deref().map(sha256);
        if now.as_ref() == Some(&self.sha256()) {
            // The content is there before the mode could differ: both come with one rename.
            return Finding::Done(self.outputs(&path));
        }
        match parse(before) {
            Some(before) if before.sha256 == now => Finding::NotDone,
            Some(_) | None => Finding::Unknown,
        }
    }

    async fn undo(&self, cx: &Context, before: &Value) -> Result<(), Failure> {
        let path = self.place(cx);
        let fail = |error: &dyn std::fmt::Display| Failure::harmless(format!("`{}`: {error}", path.display()));
        let before = parse(before).ok_or_else(|| Failure::permanent("what was there before is not known"))?;
        let now = durable::read(&path).map_err(|error| fail(&error))?;
        let now = now.as_deref().map(sha256);
        let mode_is_back = before.mode.is_none() || mode_of(&path).ok() == before.mode;
        if now == before.sha256 && mode_is_back {
            return Ok(());
        }
        if now.as_ref() != Some(&self.sha256()) && now != before.sha256 {
            let text = "it was changed after this step wrote it; it is left alone";
            return Err(Failure::permanent(format!("`{}`: {text}", path.display())));
        }
        let Some(copy) = &before.copy else {
            return durable::remove(&path).map_err(|error| fail(&error));
        };
        let copy = cx.state_dir.join(copy);
        let content = std::fs::read(&copy).map_err(|error| fail(&format!("its copy `{}`: {error}", copy.display())))?;
        if Some(sha256(&content)) != before.sha256 {
            return Err(Failure::permanent(format!("the copy `{}` is not what was there before", copy.display())));
        }
        durable::replace(&path, &content, before.mode).map_err(|error| fail(&error))
    }

    async fn preview(&self, cx: &Context) -> Preview {
        let path = self.place(cx);
        let shown = path.display();
        match durable::read(&path) {
            Ok(None) => Preview::WillChange(format!("creates `{shown}`")),
            Ok(Some(content)) if content == self.content.expose().as_bytes() => {
                Preview::NoChange(format!("`{shown}` has this content already"))
            }
            Ok(Some(_)) => Preview::WillChange(format!("replaces `{shown}`")),
            Err(error) => Preview::Unknown(format!("`{shown}`: {error}")),
        }
    }
}

impl FileWrite {
    fn place(&self, cx: &Context) -> PathBuf {
        cx.base.join(&self.path)
    }

    fn sha256(&self) -> String {
        sha256(self.content.expose().as_bytes())
    }

    fn is_there(&self, path: &Path) -> std::io::Result<bool> {
        Ok(durable::read(path)?.as_deref() == Some(self.content.expose().as_bytes()))
    }

    fn mode(&self) -> Result<Option<u32>, Failure> {
        let Some(text) = &self.mode else { return Ok(None) };
        match u32::from_str_radix(text.trim_start_matches("0o"), 8) {
            Ok(mode) if mode <= 0o7777 => Ok(Some(mode)),
            Ok(_) | Err(_) => Err(Failure::permanent(format!("`{text}` is no mode; write octal digits like `0644`"))),
        }
    }

    fn outputs(&self, path: &Path) -> Outputs {
        Outputs::from([
            ("path".to_owned(), json!(path.display().to_string())),
            ("sha256".to_owned(), json!(self.sha256())),
        ])
    }
}

fn parse(before: &Value) -> Option<Before> {
    serde_json::from_value(before.clone()).ok()
}

fn mode_of(path: &Path) -> std::io::Result<u32> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(std::fs::metadata(path)?.permissions().mode() & 0o7777)
}

fn sha256(content: &[u8]) -> String {
    hex::encode(Sha256::digest(content))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::testing::Place;
    use super::*;
    use crate::event::Effect;
    use crate::spec::values::SecretText;

    fn write(content: &str, mode: Option<&str>) -> FileWrite {
        FileWrite { path: "conf".into(), content: SecretText::new(content.into()), mode: mode.map(Into::into) }
    }

    #[tokio::test]
    async fn a_new_file_is_taken_away_again() {
        let place = Place::new();
        let action = write("new", Some("0640"));
        let before = action.before(&place.cx).await.expect("looks");
        assert_eq!(action.probe(&place.cx, &before).await, Finding::NotDone);
        assert_eq!(
            action.preview(&place.cx).await,
            Preview::WillChange(format!("creates `{}`", place.path("conf").display()))
        );
        let outputs = action.run(&place.cx, &before).await.expect("written");
        assert_eq!(outputs["sha256"], json!(sha256(b"new")));
        assert_eq!(mode_of(&place.path("conf")).expect("there"), 0o640);
        assert_eq!(action.probe(&place.cx, &before).await, Finding::Done(outputs));
        action.undo(&place.cx, &before).await.expect("undone");
        action.undo(&place.cx, &before).await.expect("safe to repeat");
        assert!(!place.path("conf").exists());
    }

    #[tokio::test]
    async fn an_old_file_comes_back_with_its_mode_and_stays_out_of_the_journal() {
        let place = Place::new();
        durable::replace(&place.path("conf"), b"old \xFF secret", Some(0o600)).expect("written");
        let action = write("new", Some("0644"));
        let before = action.before(&place.cx).await.expect("looks");
        assert!(!before.to_string().contains("secret"));
        action.run(&place.cx, &before).await.expect("written");
        action.undo(&place.cx, &before).await.expect("undone");
        assert_eq!(fs::read(place.path("conf")).expect("there"), b"old \xFF secret");
        assert_eq!(mode_of(&place.path("conf")).expect("there"), 0o600);
    }

    #[tokio::test]
    async fn a_later_change_is_left_alone() {
        let place = Place::new();
        let action = write("new", None);
        let before = action.before(&place.cx).await.expect("looks");
        action.run(&place.cx, &before).await.expect("written");
        fs::write(place.path("conf"), "theirs").expect("written");
        assert_eq!(action.probe(&place.cx, &before).await, Finding::Unknown);
        let failure = action.undo(&place.cx, &before).await.expect_err("not ours");
        assert!(failure.error.contains("left alone"), "{failure}");
        assert_eq!(fs::read_to_string(place.path("conf")).expect("there"), "theirs");
    }

    #[tokio::test]
    async fn a_missing_folder_and_a_bad_mode_change_nothing() {
        let place = Place::new();
        let mut action = write("new", Some("rw"));
        let failure = action.run(&place.cx, &Value::Null).await.expect_err("no mode");
        assert_eq!((failure.effect, failure.retryable), (Effect::None, false));
        action.mode = None;
        action.path = "missing/conf".into();
        let failure = action.run(&place.cx, &Value::Null).await.expect_err("no folder");
        assert_eq!(failure.effect, Effect::None);
    }
}
