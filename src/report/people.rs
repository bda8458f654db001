//! What a run asks of people: which step, who may answer, and the exact command to answer with.

use jiff::Timestamp;
use serde_json::{Value as Json, json};

use super::{deviations, markdown, words};
use crate::event::{Answer, WaitKind};
use crate::ids::{Actor, How, Level, RunId, StepId};
use crate::scheduler::{FieldRule, State, StepView, WaitRule};

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskKind {
    /// An approval.
    Approval,
    /// Work by hand.
    Manual,
    /// Whether an attempt in doubt ran.
    Doubt,
    /// What becomes of a step whose undo failed.
    Undo,
    /// Consent to a deviation.
    Deviation,
}

/// One question to people.
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    /// The step that asks; none: the run does.
    pub step: Option<StepId>,
    /// What is asked.
    pub kind: AskKind,
    /// The question in words.
    pub prompt: String,
    /// Who may answer; nothing: anybody but `exclude`.
    pub allowed: Option<Vec<Actor>>,
    /// Who may not.
    pub exclude: Vec<Actor>,
    /// How many must approve.
    pub quorum: u32,
    /// Whose it is to do.
    pub assignee: Option<Actor>,
    /// Whether a step is to be undone by hand.
    pub is_undo: bool,
    /// Who has approved.
    pub approved: Vec<Actor>,
    /// Since when it is asked.
    pub since: Option<Timestamp>,
    /// When others are asked as well.
    pub escalates_at: Option<Timestamp>,
    /// When the question lapses.
    pub expires_at: Option<Timestamp>,
    /// When people were told of it last.
    pub told_at: Option<Timestamp>,
    /// What people have said to it so far, with their remarks.
    pub said: Vec<(Actor, &'static str, Option<String>)>,
    /// Commands that answer it.
    pub commands: Vec<String>,
}

impl Ask {
    /// A question that anybody may answer, without its words.
    pub(super) fn to_anybody(step: impl Into<Option<StepId>>) -> Self {
        Self {
            step: step.into(),
            kind: AskKind::Doubt,
            prompt: String::new(),
            allowed: None,
            exclude: Vec::new(),
            quorum: 1,
            assignee: None,
            is_undo: false,
            approved: Vec::new(),
            since: None,
            escalates_at: None,
            expires_at: None,
            told_at: None,
            said: Vec::new(),
            commands: Vec::new(),
        }
    }

    /// What asks, in words: the step, or the run.
    pub fn about(&self) -> String {
        deviations::about(self.step.as_ref())
    }

    /// Who is waited for, in a few words.
    pub fn whom(&self) -> String {
        if let Some(assignee) = &self.assignee {
            return assignee.to_string();
        }
        let names = |people: &[Actor]| people.iter().map(Actor::as_str).collect::<Vec<_>>().join(", ");
        let who = match &self.allowed {
            Some(people) if people.is_empty() => "nobody (no person of this site may answer)".to_owned(),
            Some(people) => {
                let open: Vec<_> = people
                    .iter()
                    .filter(|person| !self.exclude.contains(person) && !self.approved.contains(person))
                    .cloned()
                    .collect();
                names(&open)
            }
            None if self.exclude.is_empty() => "anybody".to_owned(),
            None => format!("anybody but {}", names(&self.exclude)),
        };
        let word = if self.kind == AskKind::Deviation { "agreed" } else { "approved" };
        if self.quorum > 1 { format!("{who}; {} of {} {word}", self.approved.len(), self.quorum) } else { who }
    }

    /// The question as lines for a terminal.
    pub fn lines(&self, paint: words::Paint) -> Vec<String> {
        match self.kind {
            AskKind::Manual => markdown::to_lines(&self.prompt, paint),
            AskKind::Approval | AskKind::Doubt | AskKind::Undo | AskKind::Deviation => {
                self.prompt.lines().map(str::to_owned).collect()
            }
        }
    }

    /// The question, or the beginning of it, as one line.
    pub fn line(&self, chars_max: usize) -> String {
        match self.kind {
            AskKind::Manual => words::cut(&markdown::to_line(&self.prompt), chars_max),
            AskKind::Approval | AskKind::Doubt | AskKind::Undo | AskKind::Deviation => {
                words::cut(&self.prompt, chars_max)
            }
        }
    }

    /// Whether this person may answer it and has not.
    pub fn is_open_to(&self, person: &Actor) -> bool {
        let is_theirs = self.assignee.as_ref().is_none_or(|assignee| assignee == person);
        let may = is_theirs && self.allowed.as_ref().is_none_or(|people| people.contains(person));
        may && !self.exclude.contains(person) && !self.approved.contains(person)
    }

    /// What else there is to say about it at that time, each as a line.
    pub fn details(&self, now: Timestamp, zone: &jiff::tz::TimeZone) -> Vec<String> {
        let at = |at: Timestamp| words::day_and_clock(at, zone);
        let mut lines: Vec<String> = self.assignee.iter().map(|name| format!("assigned to {name}")).collect();
        for (by, word, comment) in &self.said {
            let comment = comment.as_ref().map(|comment| format!(": {comment}")).unwrap_or_default();
            lines.push(format!("{word} by {by}{comment}"));
        }
        lines.extend(self.told_at.map(|told| format!("people were told last at {}", at(told))));
        lines.extend(self.escalates_at.map(|more| format!("others are asked as well from {}", at(more))));
        lines.extend(self.expires_at.map(|end| {
            if end > now { format!("until {}", at(end)) } else { format!("the time was over at {}", at(end)) }
        }));
        lines
    }

    /// The machine form.
    pub fn to_json(&self) -> Json {
        json!({
            "step": self.step,
            "kind": match self.kind {
                AskKind::Approval => "approval",
                AskKind::Manual => "manual",
                AskKind::Doubt => "doubt",
                AskKind::Undo => "undo",
                AskKind::Deviation => "deviation",
            },
            "prompt": self.prompt, "allowed": self.allowed, "exclude": self.exclude, "quorum": self.quorum,
            "assignee": self.assignee, "undo": self.is_undo, "approved": self.approved, "since": self.since, "escalates_at": self.escalates_at,
            "expires_at": self.expires_at, "told_at": self.told_at, "commands": self.commands,
            "said": self.said.iter().map(|(by, word, comment)| json!({ "by": by, "word": word, "comment": comment })).collect::<Vec<_>>(),
        })
    }
}

/// How it is known who somebody is, behind the name; nothing for the account itself and for journals of earlier versions.
pub fn known(by: &Actor) -> String {
    match by.how() {
        Some(How::Ssh { fingerprint, .. }) => format!(" (signed by {fingerprint})"),
        Some(How::Claimed(account)) => format!(" (so says {} on {})", account.user, account.host),
        Some(How::Local(_)) | None => String::new(),
    }
}

/// Everything that a run asks of people now: of steps in file order, then what somebody wants against the runbook.
pub fn asks(state: &State, run: &RunId, now: Timestamp) -> Vec<Ask> {
    let steps = state.steps().filter_map(|view| ask(&view, run, now));
    steps.chain(deviations::asks(state, run)).collect()
}

/// What one step asks.
pub fn ask(view: &StepView<'_>, run: &RunId, now: Timestamp) -> Option<Ask> {
    if view.asks_a_person() {
        return Some(doubt(view, run));
    }
    if view.undo_failed() {
        return Some(failed_undo(view, run));
    }
    let rule = view.question().filter(|_| view.is_asked())?;
    Some(Ask {
        kind: match rule.kind {
            WaitKind::Approval => AskKind::Approval,
            WaitKind::Manual => AskKind::Manual,
        },
        prompt: view.prompt().unwrap_or_default().to_owned(),
        allowed: view.who_may_answer(now),
        exclude: rule.exclude.clone(),
        quorum: rule.quorum.max(1),
        assignee: view.assignee().cloned(),
        is_undo: view.undo_waits(),
        approved: view.approved(),
        since: view.asked_at(),
        escalates_at: view.escalates_at().filter(|at| *at > now),
        expires_at: view.expires_at(),
        told_at: view.told_at(),
        said: view.answers().iter().filter_map(|(by, answer, _)| said(by, answer)).collect(),
        commands: commands(view, rule, run),
        ..Ask::to_anybody(view.rule().id.clone())
    })
}

/// Whether an attempt ran.
fn doubt(view: &StepView<'_>, run: &RunId) -> Ask {
    let word = words::shell(view.rule().id.as_str());
    let command = |flag: &str| format!("piton decide {run} {word} --{flag} --reason 'how you know'");
    let started = view.started_at().map(|at| format!(" at {at}")).unwrap_or_default();
    let error = view.error().map(|error| format!(" ({})", words::cut(error, 160))).unwrap_or_default();
    let attempt = view.attempts();
    Ask {
        prompt: format!(
            "attempt {attempt} started{started} and its result is unknown{error}; look at the system: did it do its work?"
        ),
        kind: AskKind::Doubt,
        since: view.started_at(),
        commands: vec![command("ran"), command("not-ran")],
        ..Ask::to_anybody(view.rule().id.clone())
    }
}

/// What becomes of a step whose undo failed.
fn failed_undo(view: &StepView<'_>, run: &RunId) -> Ask {
    let word = words::shell(view.rule().id.as_str());
    let error = view.error().map(|error| format!(": {}", words::cut(error, 200))).unwrap_or_default();
    Ask {
        prompt: format!("{error}; mend the cause and resume, which tries it again, or say what was done instead")
            .trim_start_matches(": ")
            .to_owned(),
        kind: AskKind::Undo,
        since: view.started_at(),
        commands: vec![
            format!("piton resume {run}"),
            format!("piton decide {run} {word} --undone --reason 'what you did by hand'"),
            format!("piton decide {run} {word} --leave --reason 'why it may stay'"),
        ],
        ..Ask::to_anybody(view.rule().id.clone())
    }
}

/// The commands that answer a question.
fn commands(view: &StepView<'_>, rule: &WaitRule, run: &RunId) -> Vec<String> {
    let word = words::shell(view.rule().id.as_str());
    let sign = if rule.identity == Level::Ssh { " --sign KEY" } else { "" };
    let reject = |why: &str| format!("piton approve {run} {word} --reject --comment '{why}'{sign}");
    match rule.kind {
        WaitKind::Approval => vec![format!("piton approve {run} {word}{sign}"), reject("why not")],
        WaitKind::Manual => {
            let mut commands = vec![format!("piton answer {run} {word}{}{sign}", form_flags(rule))];
            commands.extend(view.undo_waits().then(|| reject("why it cannot be undone")));
            let hand_over = || format!("piton assign {run} {word} --to NAME --reason 'why'{sign}");
            commands.extend(view.assignee().map(|_| hand_over()));
            commands
        }
    }
}

/// A word that was said to a question that is still open, with its remark.
fn said(by: &Actor, answer: &Answer) -> Option<(Actor, &'static str, Option<String>)> {
    let comment = match answer {
        Answer::Approved { comment } | Answer::Withdrawn { comment } | Answer::Rejected { comment } => comment,
        Answer::Completed { .. }
        | Answer::Ran { .. }
        | Answer::NotRan { .. }
        | Answer::Undone { .. }
        | Answer::Left { .. } => return None,
    };
    Some((by.clone(), answer.word(), comment.clone()))
}

fn form_flags(rule: &WaitRule) -> String {
    let field = |field: &FieldRule| {
        let value = if field.values.is_empty() { field.word().to_uppercase() } else { field.values.join("|") };
        let flag = format!("--set {}", words::shell(&format!("{}={value}", field.name)));
        if field.optional { format!(" [{flag}]") } else { format!(" {flag}") }
    };
    let mut flags: String = rule.form.iter().map(field).collect();
    if rule.wants_evidence {
        flags.push_str(" --evidence FILE");
    }
    flags
}
