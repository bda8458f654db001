//! Telling people that a step waits for them, through the hook of the step or of the site.
//!
//! A message that does not get through changes nothing but what is recorded of it. Called for `Command::Tell`.

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::session::{Done, Session, Undoing, Work};
use super::{attempt, scope};
use crate::action::Failure;
use crate::action::build::Part;
use crate::event::{Event, Occasion, WaitKind};
use crate::ids::StepId;
use crate::spec::runbook::Undo;

/// How long it may take to tell people.
const PATIENCE: Duration = Duration::from_secs(30);

impl Session {
    /// Tells people in a task.
    pub(super) fn tell(&mut self, id: StepId, occasion: Occasion) {
        let message = self.message(&id, occasion);
        let cancel = self.occupy(&id, Work::Tell);
        let of_undo = self.state.step(&id).is_some_and(|view| view.undo_waits());
        let (plan, step, mut cx) = if of_undo {
            let Undoing { plan, step, cx } = self.context_of_undo(&id, 1, cancel.clone());
            (plan, step, cx)
        } else {
            let step = self.planned(&id);
            let cx = self.context(&step, 1, cancel.clone());
            (self.plan.clone(), step, cx)
        };
        let gathered = scope::gather(&plan, &self.state, &step, &self.facts, &cx.fences);
        let secrets = self.secrets.clone();
        let planned = step.clone();
        self.launch_and_go_on(&planned, async move {
            let work = async {
                let scope = gathered.with_secrets(&plan, &secrets).await?;
                cx.masker = secrets.masker();
                let asks = match step.undo.as_deref() {
                    Some(Undo::Action(undo)) if of_undo => undo,
                    _ => &step.action,
                };
                let (action, _) = attempt::make(&plan, asks, &scope, &cx, Part::Action)?;
                action.tell(&cx, &message).await
            };
            tokio::pin!(work);
            let result = tokio::select! {
                result = &mut work => result,
                () = tokio::time::sleep(PATIENCE) => {
                    cancel.cancel();
                    // What it started is ended before anything else is said of it.
                    let _ = tokio::time::timeout(PATIENCE, work).await;
                    Err(Failure::harmless(format!("it took longer than {}s", PATIENCE.as_secs())))
                }
            };
            Done::Told(id, occasion, result)
        });
    }

    /// What came of it, unless people have answered meanwhile.
    pub(super) fn told(&mut self, step: StepId, occasion: Occasion, result: Result<bool, Failure>) {
        let masker = self.masker();
        let (sent, error) = match result {
            Ok(sent) => (sent, None),
            Err(failure) => (true, Some(masker.text(&failure.error))),
        };
        self.adopt_if_legal(Event::PeopleTold { step, occasion, sent, error });
    }

    fn message(&mut self, id: &StepId, occasion: Occasion) -> Json {
        let now = self.options.clock.now();
        let (plan, run) = (&self.plan, &self.run);
        let view = self.state.step(id).expect("the scheduler names steps of the run only");
        let rule = view.question();
        let what = match rule.map(|rule| rule.kind) {
            Some(WaitKind::Manual) if view.undo_waits() => "somebody to undo it by hand",
            Some(WaitKind::Manual) => "work by hand",
            Some(WaitKind::Approval) | None => "an approval",
        };
        let again = match occasion {
            Occasion::Asked => "",
            Occasion::Reminded => "still ",
            Occasion::Escalated => "now also for others, since nobody answered in time, ",
        };
        let prompt = view.prompt().unwrap_or_default();
        let site = &plan.site.site.name;
        let text = format!(
            "{} on {site}, run {run}, step {id}: waits {again}for {what}: {prompt}\npiton show {run}",
            plan.name
        );
        json!({
            "text": text, "occasion": occasion, "run": run, "runbook": plan.name, "version": plan.version, "site": site,
            "step": id, "kind": rule.map(|rule| rule.kind), "prompt": prompt, "allowed": view.who_may_answer(now),
            "exclude": rule.map(|rule| &rule.exclude), "quorum": rule.map(|rule| rule.quorum),
            "approved": view.approved(), "since": view.asked_at(), "expires_at": view.expires_at(),
            "escalates_at": view.escalates_at(), "assignee": view.assignee(), "undo": view.undo_waits(), "digest": plan.digest,
        })
    }
}
