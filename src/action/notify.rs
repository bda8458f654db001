//! `notify.webhook` and `notify.command`: telling someone. A message that does not get through never fails a run unless
//! it is `required`; then it is an ordinary failure.
//!
//! Called by the driver.

use async_trait::async_trait;
use serde_json::{Value, json};

use super::http::Prepared;
use super::process::{self, CommandLine};
use super::{Action, Context, Failure, Preview};
use crate::event::{Finding, Outputs};
use crate::spec::actions::{NotifyCommand, NotifyWebhook};

/// The outputs `delivered` and `error`; a failure only when the message is required.
fn told(result: Result<(), Failure>, required: bool) -> Result<Outputs, Failure> {
    let error = match result {
        Ok(()) => Value::Null,
        Err(failure) if required => return Err(failure),
        Err(failure) => {
            tracing::warn!(error = failure.error, "notification not delivered");
            Value::from(failure.error)
        }
    };
    Ok(Outputs::from([("delivered".to_owned(), json!(error.is_null())), ("error".to_owned(), error)]))
}

#[async_trait]
impl Action for NotifyWebhook {
    async fn run(&self, cx: &Context, _before: &Value) -> Result<Outputs, Failure> {
        told(self.send(cx).await, self.required)
    }

    /// Being told twice is better than not at all.
    async fn probe(&self, _cx: &Context, _before: &Value) -> Finding {
        Finding::NotDone
    }

    async fn preview(&self, _cx: &Context) -> Preview {
        Preview::WillChange("sends a message".into())
    }
}

impl NotifyWebhook {
    async fn send(&self, cx: &Context) -> Result<(), Failure> {
        let body = match (&self.json, &self.text) {
            (Some(json), _) => json.clone(),
            (None, text) => json!({ "text": text.as_deref().unwrap_or_default() }),
        };
        let answer = Prepared::new(cx, "POST", self.url.expose())?.with(|request| request.json(&body)).send(cx).await?;
        if answer.status.is_success() {
            return Ok(());
        }
        Err(Failure::unknown(cx.masker.text(&answer.describe())))
    }
}

#[async_trait]
impl Action for NotifyCommand {
    async fn run(&self, cx: &Context, _before: &Value) -> Result<Outputs, Failure> {
        told(self.send(cx).await, self.required)
    }

    /// Being told twice is better than not at all.
    async fn probe(&self, _cx: &Context, _before: &Value) -> Finding {
        Finding::NotDone
    }

    async fn preview(&self, _cx: &Context) -> Preview {
        Preview::WillChange("sends a message".into())
    }
}

impl NotifyCommand {
    async fn send(&self, cx: &Context) -> Result<(), Failure> {
        if self.argv.is_empty() {
            return Err(Failure::permanent("`argv` is empty: there is nothing to run"));
        }
        let mut line = CommandLine::new(&self.argv, &cx.base);
        cx.unchanged_program(None, line.program())?;
        line.stdin = self.stdin.as_deref().map(Into::into);
        let finished = process::run(&line, &cx.cancel, &cx.masker).await;
        let finished = finished.map_err(|error| Failure::harmless(error.to_string()))?;
        if finished.status.success() && !finished.cancelled {
            return Ok(());
        }
        Err(Failure::unknown(format!("`{}`: {}", cx.masker.text(line.program()), finished.describe())))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Place, serve};
    use super::*;
    use crate::spec::values::SecretText;

    fn hook(url: &str) -> NotifyWebhook {
        let url = SecretText::new(url.into());
        NotifyWebhook { url, text: Some("done".into()), json: None, required: false }
    }

    #[tokio::test]
    async fn a_hook_gets_the_text() {
        let place = Place::new();
        let (url, mut seen) = serve("HTTP/1.1 204 No Content\r\n\r\n").await;
        let outputs = hook(&url).run(&place.cx, &Value::Null).await.expect("sent");
        assert_eq!((&outputs["delivered"], &outputs["error"]), (&json!(true), &Value::Null));
        assert!(seen.recv().await.expect("a request").ends_with("{\"text\":\"done\"}"));
    }

    #[tokio::test]
    async fn only_a_required_message_fails() {
        let place = Place::new();
        let (url, _seen) = serve("HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n").await;
        let mut hook = hook(&url);
        let outputs = hook.run(&place.cx, &Value::Null).await.expect("not required");
        assert_eq!(outputs["delivered"], json!(false));
        assert!(outputs["error"].as_str().expect("text").contains("answered 500"));
        hook.required = true;
        hook.run(&place.cx, &Value::Null).await.expect_err("required");

        let argv = |code: &str| vec!["sh".into(), "-c".into(), format!("cat > told; exit {code}")];
        let mut command = NotifyCommand { argv: argv("0"), stdin: Some("done".into()), required: true };
        command.run(&place.cx, &Value::Null).await.expect("told");
        assert_eq!(std::fs::read_to_string(place.path("told")).expect("written"), "done");
        command.argv = argv("1");
        command.run(&place.cx, &Value::Null).await.expect_err("required");
        command.required = false;
        let outputs = command.run(&place.cx, &Value::Null).await.expect("not required");
        assert_eq!(outputs["delivered"], json!(false));
    }
}
