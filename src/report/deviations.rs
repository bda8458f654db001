//! Deviations in words: what people did, or want to do, against the runbook.

use super::people::{Ask, AskKind};
use super::words;
use crate::event::{Budget, Consent, Departure, Outputs};
use crate::ids::{Actor, Level, RunId, StepId};
use crate::scheduler::{Deviation, DeviationRule, Override, Proposal, State, StepState};

/// A deviation in words.
pub fn deviation(deviation: &Deviation) -> String {
    let Deviation { what, step, extended, by, agreed, reason, .. } = deviation;
    let it = about(step.as_ref());
    let what = match (what, extended) {
        (Override::Extended, Some((budget, was))) => {
            let (now, was) = amounts(budget, *was);
            format!("{} was extended from {was} to {now}", budget_words(budget, step.as_ref()))
        }
        (Override::Extended, None) => format!("{it} was given more than the runbook allows"),
        (Override::Skipped, _) => format!("{it} was skipped"),
        (Override::Forced, _) => format!("{it} was started, although it was to be passed over,"),
        (Override::MarkedDone, _) => format!("{it} was declared done"),
        (Override::Amended, _) => "the runbook of the run was changed".to_owned(),
        (Override::RanAgain, _) => {
            format!("{it} was run again, although it is not safe to repeat and has no undo,")
        }
        (Override::LeftDone, _) => format!("{it} was not undone but left as it is"),
    };
    let agreed = match agreed.as_slice() {
        [] => String::new(),
        people => format!(" (agreed by {})", names(people)),
    };
    format!("deviation: {what} by {by}{agreed}: {reason}")
}

fn names(people: &[Actor]) -> String {
    people.iter().map(Actor::as_str).collect::<Vec<_>>().join(", ")
}

/// A step, or the run, in words.
pub fn about(step: Option<&StepId>) -> String {
    step.map_or_else(|| "the run".to_owned(), |step| format!("`{step}`"))
}

/// A budget in words.
fn budget_words(budget: &Budget, step: Option<&StepId>) -> String {
    let step = about(step);
    match budget {
        Budget::Run { .. } => "the time of the run".to_owned(),
        Budget::Timeout { .. } => format!("the time of an attempt of {step}"),
        Budget::Attempts { .. } => format!("the attempts of {step}"),
        Budget::Window { name, .. } => format!("the time of window {name}"),
    }
}

/// How much is wanted, and how much there was.
fn amounts(budget: &Budget, was: i64) -> (String, String) {
    match budget {
        Budget::Run { ms } | Budget::Timeout { ms } | Budget::Window { ms, .. } => {
            (words::duration(*ms), words::duration(was))
        }
        Budget::Attempts { count } => (count.to_string(), was.to_string()),
    }
}

/// What somebody wants, as the end of a sentence that begins with the name: `wants it skipped`.
pub fn wanted(what: &Departure) -> String {
    match what {
        Departure::Skip => "wants it skipped".to_owned(),
        Departure::Force => "wants it started, although it was passed over".to_owned(),
        Departure::Done { outputs } => {
            let outputs = shown(outputs);
            format!("wants it to count as done{outputs}")
        }
        Departure::Leave => "wants it left as it is, although its undo failed".to_owned(),
        Departure::Extend(budget) => {
            let (to, _) = amounts(budget, 0);
            let what = match budget {
                Budget::Run { .. } => "the time of the run".to_owned(),
                Budget::Timeout { .. } => "the time of an attempt".to_owned(),
                Budget::Attempts { .. } => "its attempts".to_owned(),
                Budget::Window { name, .. } => format!("the time of window {name}"),
            };
            format!("wants {what} extended to {to}")
        }
        Departure::Amend { digest, steps } => {
            let steps = steps.iter().map(super::diff::entry).collect::<Vec<_>>().join("; ");
            let steps = if steps.is_empty() { steps } else { format!(" ({steps})") };
            format!("wants to go on with plan {digest}{steps}")
        }
    }
}

fn shown(outputs: &Outputs) -> String {
    let shown = words::outputs(outputs);
    if shown.is_empty() { shown } else { format!(" ({shown})") }
}

/// A word about a deviation and the state that it brings.
pub fn consent(answer: &Consent) -> (StepState, String) {
    let with = |what: &str, comment: &Option<String>| match comment {
        Some(comment) => format!("{what} (\"{comment}\")"),
        None => what.to_owned(),
    };
    match answer {
        Consent::Agreed { comment } => (StepState::Succeeded, with("deviation agreed to", comment)),
        Consent::Retracted { comment } => (StepState::Waiting, with("consent to a deviation taken back", comment)),
        Consent::Denied { comment } => (StepState::Failed, with("deviation denied", comment)),
    }
}

/// What waits for people's consent.
pub fn asks(state: &State, run: &RunId) -> Vec<Ask> {
    state.proposals().map(|(step, proposal, rule)| ask(step, proposal, rule, run)).collect()
}

fn ask(step: Option<StepId>, proposal: &Proposal, rule: Option<&DeviationRule>, run: &RunId) -> Ask {
    let Proposal { what, by, reason, at, expires_at, voices } = proposal;
    let place = step.as_ref().map(|step| format!(" {}", words::shell(step.as_str()))).unwrap_or_default();
    let sign = if rule.is_some_and(|rule| rule.identity == Level::Ssh) { " --sign KEY" } else { "" };
    let commands = vec![
        format!("piton agree {run}{place}{sign}"),
        format!("piton agree {run}{place} --deny --comment 'why not'{sign}"),
    ];
    Ask {
        kind: AskKind::Deviation,
        prompt: format!("{by} {}: {reason}", wanted(what)),
        allowed: rule.and_then(|rule| rule.allowed.clone()),
        exclude: rule.map(|rule| rule.exclude.clone()).unwrap_or_default(),
        quorum: rule.map_or(1, |rule| rule.quorum),
        approved: voices.clone(),
        since: Some(*at),
        expires_at: *expires_at,
        commands,
        ..Ask::to_anybody(step)
    }
}
