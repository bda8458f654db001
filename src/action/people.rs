//! `approval` and `manual`: people do the work, so the driver never runs these; it only renders what they are asked.

use std::path::Path;

use async_trait::async_trait;
use secrecy::ExposeSecret;
use serde_json::Value;

use super::http::Prepared;
use super::process::{self, CommandLine};
use super::{Action, Context, Failure, Preview};
use crate::event::Outputs;
use crate::site::{HookSite, SecretSource};
use crate::spec::actions::{Approval, Hook, Manual};

const NOT_RUN: &str = "people answer this step; it does not run by itself";

/// Tells people through the hook of the step, or else of the site; false if there is neither.
async fn tell(own: Option<&Hook>, cx: &Context, message: &Value) -> Result<bool, Failure> {
    match (own, &cx.site.site.notify) {
        (Some(Hook { command: Some(argv), .. }), _) => command(argv, &cx.base, cx, message).await,
        (Some(Hook { webhook: Some(url), .. }), _) => webhook(url.expose(), cx, message).await,
        (_, Some(HookSite { command: Some(argv), .. })) => command(argv, &cx.site.base, cx, message).await,
        (_, Some(HookSite { webhook: Some(url), .. })) => webhook(url, cx, message).await,
        (_, Some(HookSite { secret: Some(name), .. })) => {
            let unknown = || Failure::permanent(format!("the site has no secret `{}`", name.value));
            let source: &SecretSource = cx.site.site.secrets.get(&name.value).ok_or_else(unknown)?;
            let url = cx.secrets.fetch(&name.value, source, &cx.site.base).await?;
            webhook(url.expose_secret(), &Context { masker: cx.secrets.masker(), ..cx.clone() }, message).await
        }
        (_, Some(HookSite { command: None, webhook: None, secret: None }) | None) => Ok(false),
    }
}

async fn command(argv: &[String], base: &Path, cx: &Context, message: &Value) -> Result<bool, Failure> {
    let line = CommandLine { stdin: Some(message.to_string().into()), ..CommandLine::new(argv, base) };
    let ended = process::run(&line, &cx.cancel, &cx.masker).await;
    let ended = ended.map_err(|error| Failure::harmless(error.to_string()))?;
    if ended.status.success() && !ended.cancelled {
        return Ok(true);
    }
    Err(Failure::harmless(format!("`{}`: {}", cx.masker.text(line.program()), ended.describe())))
}

async fn webhook(url: &str, cx: &Context, message: &Value) -> Result<bool, Failure> {
    let answer = Prepared::new(cx, "POST", url)?.with(|request| request.json(message)).send(cx).await?;
    if answer.status.is_success() { Ok(true) } else { Err(Failure::harmless(cx.masker.text(&answer.describe()))) }
}

#[async_trait]
impl Action for Approval {
    async fn run(&self, _cx: &Context, _before: &Value) -> Result<Outputs, Failure> {
        Err(Failure::permanent(NOT_RUN))
    }

    async fn tell(&self, cx: &Context, message: &Value) -> Result<bool, Failure> {
        tell(self.notify.as_ref(), cx, message).await
    }

    async fn preview(&self, _cx: &Context) -> Preview {
        let who = if self.groups.is_empty() { "anybody".to_owned() } else { self.groups.join(", ") };
        Preview::NoChange(format!("waits for {} approval(s) by {who}", self.quorum))
    }
}

#[async_trait]
impl Action for Manual {
    async fn run(&self, _cx: &Context, _before: &Value) -> Result<Outputs, Failure> {
        Err(Failure::permanent(NOT_RUN))
    }

    async fn tell(&self, cx: &Context, message: &Value) -> Result<bool, Failure> {
        tell(self.notify.as_ref(), cx, message).await
    }

    async fn preview(&self, _cx: &Context) -> Preview {
        Preview::Unknown("a person does it by hand".into())
    }
}
