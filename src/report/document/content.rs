//! What the report of a run says, before it has a form: texts and figures that a template puts on a page.
//!
//! `docs/reference/report.md` names every field, since people bring templates of their own. Values are texts as people read them; what programs
//! read is the bundle and `piton audit --json`.

use std::borrow::Cow;
use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use serde_json::Value as Json;

use super::steps::{self, ChangeWords, CheckWords, MoveWords, StepWords};
use super::timeline;
use crate::event::{Answer, Event, Outcome, Record, SkipReason, WaitKind};
use crate::journal::{Proof, RunSummary};
use crate::report::audit::{self, Entry};
use crate::report::status::Run;
use crate::report::{deviations, graph, markdown, people, signed, windows, words};
use crate::scheduler::{State, StepState};

/// Steps beyond which no graph is drawn: nobody could read it.
const GRAPH_STEPS_MAX: usize = 200;
/// Characters of a hash that stand in a table.
const MARK_CHARS: usize = 12;
/// Steps beyond which the graph is left out on paper, where it would be too small to read.
const GRAPH_ON_PAPER_MAX: usize = 25;
/// Characters of a rendered input, output or value.
pub(super) const VALUE_CHARS_MAX: usize = 400;

/// Everything that a report is made from.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// The run.
    pub run: Run<'a>,
    /// Its states behind each amendment, as [`crate::driver::stages`] gives them.
    pub stages: &'a [(u64, State)],
    /// What its record proves.
    pub proof: &'a Proof,
    /// Runs that it started.
    pub children: &'a [RunSummary],
    /// What its commands said.
    pub said: &'a [Said],
    /// The bundle that lies beside the report, and its SHA-256.
    pub bundle: Option<(&'a str, &'a str)>,
    /// When the report is written.
    pub now: Timestamp,
    /// The time zone of its times.
    pub zone: &'a TimeZone,
}

/// What a command of the run said on one stream.
#[derive(Debug, Clone, Serialize)]
pub struct Said {
    /// Place of the record that names it.
    pub seq: u64,
    /// The step.
    pub step: String,
    /// The stream, in words.
    pub stream: String,
    /// SHA-256 of what is kept.
    pub digest: String,
    /// Bytes that were printed.
    pub bytes: u64,
    /// The text, or the beginning of it.
    pub text: String,
    /// What of it is not shown, in words.
    pub left_out: Option<String>,
}

/// The content of a report.
#[derive(Debug, Serialize)]
pub struct Content {
    title: String,
    run: String,
    runbook: String,
    version: String,
    description: Option<String>,
    site: String,
    digest: String,
    piton: String,
    started_by: String,
    started_at: String,
    ended_at: Option<String>,
    length: String,
    outcome: Word,
    note: Option<String>,
    written_at: String,
    zone: String,
    params: Vec<Pair>,
    signed: Vec<String>,
    figures: Vec<Figure>,
    proof: ProofWords,
    deviations: Vec<Told>,
    interruptions: Vec<Told>,
    failures: Vec<Told>,
    windows: Vec<WindowWords>,
    timeline: String,
    graph: Option<String>,
    /// Whether the graph is too large for a sheet of paper.
    graph_is_tall: bool,
    people: Vec<Told>,
    by_hand: Vec<ByHand>,
    changes: Vec<ChangeWords>,
    moves: Vec<MoveWords>,
    checks: Vec<CheckWords>,
    steps: Vec<StepWords>,
    children: Vec<ChildWords>,
    said: Vec<Said>,
    records: Vec<RecordWords>,
    files: Vec<FileWords>,
}

/// A word with the class that colours it: `good`, `bad`, `warn` or `plain`.
#[derive(Debug, Serialize)]
pub(super) struct Word {
    text: String,
    class: &'static str,
}

#[derive(Debug, Serialize)]
struct Pair {
    name: String,
    value: String,
}

#[derive(Debug, Serialize)]
struct Figure {
    value: String,
    label: Cow<'static, str>,
    class: &'static str,
}

#[derive(Debug, Serialize)]
struct ProofWords {
    holds: bool,
    records: u64,
    hash: String,
    sealed: u64,
    keys: Vec<String>,
    pruned: Vec<String>,
    wrong: Vec<String>,
    bundle: Option<Pair>,
}

/// Something that happened: when, where, who, what.
#[derive(Debug, Serialize)]
struct Told {
    at: String,
    seq: Option<u64>,
    step: Option<String>,
    who: Option<String>,
    what: String,
}

/// What somebody was to do by hand.
#[derive(Debug, Serialize)]
struct ByHand {
    at: String,
    seq: u64,
    step: String,
    is_undo: bool,
    /// The instructions as HTML that was made here.
    html: String,
}

#[derive(Debug, Serialize)]
struct WindowWords {
    name: String,
    opens: String,
    closes: String,
    opened_at: Option<String>,
    closed_at: Option<String>,
    length: String,
    budget: Option<String>,
    verdict: Word,
    /// Part of the budget that was used, in percent, at most 100.
    used: Option<i64>,
}

#[derive(Debug, Serialize)]
struct ChildWords {
    run: String,
    runbook: String,
    version: String,
    outcome: Word,
}

#[derive(Debug, Serialize)]
struct RecordWords {
    seq: u64,
    at: String,
    who: String,
    what: String,
    class: &'static str,
    details: Vec<String>,
    hash: String,
    /// Enough of the hash to find it.
    mark: String,
    /// What was before it, if nobody drove the run then.
    pause: Option<String>,
}

#[derive(Debug, Serialize)]
struct FileWords {
    path: String,
    digest: String,
    text: String,
}

fn class_of(state: StepState) -> &'static str {
    match state {
        StepState::Succeeded => "good",
        StepState::Failed => "bad",
        StepState::InDoubt | StepState::Waiting | StepState::Undoing | StepState::Undone => "warn",
        StepState::Pending | StepState::Ready | StepState::Running | StepState::Skipped => "plain",
    }
}

/// The word of a step's state.
pub(super) fn state_word(state: StepState) -> Word {
    Word { text: words::for_people(words::state(state)), class: class_of(state) }
}

fn outcome_word(outcome: Option<Outcome>) -> Word {
    let class = match outcome {
        Some(Outcome::Succeeded) => "good",
        Some(Outcome::Failed | Outcome::Stuck) => "bad",
        Some(Outcome::RolledBack | Outcome::Cancelled | Outcome::Waiting) => "warn",
        None => "plain",
    };
    let text = outcome.map_or("is under way, or its driver was interrupted", words::outcome_sentence);
    Word { text: text.to_owned(), class }
}

impl Content {
    /// Gathers what a report says.
    pub fn of(sources: &Sources<'_>) -> Self {
        let Sources { run, proof, now, zone, .. } = *sources;
        let Run { plan, state, records, .. } = run;
        let entries = audit::entries(run, sources.stages);
        let at = |at: Timestamp| words::day_and_clock(at, zone);
        let (started_by, piton) = match records.first().map(|record| &record.event) {
            Some(Event::RunStarted { by, piton, .. }) => (by.to_string(), piton.clone()),
            _ => Default::default(),
        };
        let length = state.started_at().map(|from| words::between(from, state.finished_at().unwrap_or(now)));
        let drawn = plan.steps.len() <= GRAPH_STEPS_MAX;
        let moves = steps::moves(sources);
        Self {
            title: format!("{} {} on {}", plan.name, plan.version, plan.site.site.name),
            run: run.run.to_string(),
            runbook: plan.name.clone(),
            version: plan.version.clone(),
            description: plan.description.as_ref().map(|text| text.trim().to_owned()),
            site: plan.site.site.name.clone(),
            digest: plan.digest.clone(),
            piton,
            started_by,
            started_at: state.started_at().map(at).unwrap_or_default(),
            ended_at: state.finished_at().map(at),
            length: length.map(words::duration).unwrap_or_default(),
            outcome: outcome_word(state.outcome()),
            note: state.note().map(str::to_owned),
            written_at: at(now),
            zone: zone.iana_name().unwrap_or("local time").to_owned(),
            params: plan.params.iter().map(|(name, value)| pair(name, value)).collect(),
            signed: signed::lines(signed::of_records(records)),
            figures: figures(sources, length, &moves),
            proof: proof_words(proof, sources.bundle),
            deviations: deviations_of(state, zone),
            interruptions: entries.iter().filter_map(|entry| interruption(entry, zone)).collect(),
            failures: entries.iter().filter_map(|entry| failure(entry, zone)).collect(),
            windows: window_words(sources),
            timeline: timeline::draw(run, now, zone),
            graph: drawn.then(|| graph::svg::draw("", &plan.steps, Some(&graph::states_of(state)))),
            graph_is_tall: plan.steps.len() > GRAPH_ON_PAPER_MAX,
            people: entries.iter().filter_map(|entry| person(entry, zone)).collect(),
            by_hand: entries.iter().filter_map(|entry| by_hand(entry, zone)).collect(),
            changes: steps::changes(sources),
            moves,
            checks: steps::checks(sources),
            steps: state.steps().map(|view| steps::step(sources, &view)).collect(),
            children: sources.children.iter().map(child).collect(),
            said: sources.said.to_vec(),
            records: entries.into_iter().map(|entry| record(entry, zone)).collect(),
            files: files(records),
        }
    }
}

fn pair(name: &str, value: &Json) -> Pair {
    Pair { name: name.to_owned(), value: words::short(value, VALUE_CHARS_MAX) }
}

fn proof_words(proof: &Proof, bundle: Option<(&str, &str)>) -> ProofWords {
    ProofWords {
        holds: proof.holds(),
        records: proof.records,
        hash: proof.hash.clone(),
        sealed: proof.sealed,
        keys: proof.keys.iter().cloned().collect(),
        pruned: proof.pruned.iter().map(ToString::to_string).collect(),
        wrong: proof.wrong.iter().map(ToString::to_string).collect(),
        bundle: bundle.map(|(name, digest)| Pair { name: name.to_owned(), value: digest.to_owned() }),
    }
}

fn figures(sources: &Sources<'_>, length: Option<i64>, moves: &[MoveWords]) -> Vec<Figure> {
    let Sources { run: Run { plan, state, .. }, now, proof, .. } = *sources;
    let counted = |wanted: StepState| state.steps().filter(|view| view.state() == wanted).count();
    let rows: u64 = moves.iter().flat_map(|one| [&one.inserted, &one.updated]).filter_map(Json::as_u64).sum();
    let mut measured = windows::measure(plan, state);
    measured.retain(|window| window.budget_ms.is_some());
    let over = measured.iter().filter(|window| window.is_over_budget(now)).count();
    let mut figures = vec![
        Figure {
            value: length.map(words::duration).unwrap_or_default(),
            label: "from start to end".into(),
            class: "plain",
        },
        Figure {
            value: format!("{} of {}", counted(StepState::Succeeded), state.steps().count()),
            label: match counted(StepState::Skipped) {
                0 => "steps succeeded".into(),
                skipped => format!("steps succeeded, {skipped} skipped").into(),
            },
            class: if counted(StepState::Failed) > 0 { "bad" } else { "plain" },
        },
    ];
    if !moves.is_empty() {
        figures.push(Figure { value: rows.to_string(), label: "rows inserted or updated".into(), class: "plain" });
    }
    if !measured.is_empty() {
        figures.push(Figure {
            value: format!("{} of {}", measured.len() - over, measured.len()),
            label: "windows within budget".into(),
            class: if over > 0 { "bad" } else { "good" },
        });
    }
    let count = state.deviations().len();
    let class = if count > 0 { "warn" } else { "good" };
    figures.push(Figure { value: count.to_string(), label: "deviations".into(), class });
    let class = if proof.holds() { "good" } else { "bad" };
    figures.push(Figure { value: proof.records.to_string(), label: "records verified".into(), class });
    figures
}

fn deviations_of(state: &State, zone: &TimeZone) -> Vec<Told> {
    let told = |deviation: &crate::scheduler::Deviation| Told {
        at: words::day_and_clock(deviation.at, zone),
        seq: None,
        step: deviation.step.as_ref().map(ToString::to_string),
        who: Some(deviation.by.to_string()),
        what: deviations::deviation(deviation).trim_start_matches("deviation: ").to_owned(),
    };
    state.deviations().iter().map(told).collect()
}

fn told(entry: &Entry<'_>, zone: &TimeZone, who: Option<String>, what: String) -> Told {
    Told {
        at: words::day_and_clock(entry.record.at, zone),
        seq: Some(entry.record.seq),
        step: entry.record.event.step().map(ToString::to_string),
        who,
        what,
    }
}

fn interruption(entry: &Entry<'_>, zone: &TimeZone) -> Option<Told> {
    let pause = entry.pause.as_ref().filter(|pause| !pause.rested)?;
    Some(told(entry, zone, None, pause.text.clone()))
}

fn failure(entry: &Entry<'_>, zone: &TimeZone) -> Option<Told> {
    let failed = matches!(
        entry.record.event,
        Event::AttemptFailed { .. } | Event::UndoFailed { .. } | Event::StepExpired { .. }
    );
    failed.then(|| told(entry, zone, None, entry.line.text.clone()))
}

/// What a person did.
fn person(entry: &Entry<'_>, zone: &TimeZone) -> Option<Told> {
    let who = match &entry.record.event {
        Event::RunStarted { by, .. }
        | Event::RunResumed { by, .. }
        | Event::RunAmended { by, .. }
        | Event::SkipRequested { by, .. }
        | Event::CancelRequested { by, .. }
        | Event::RollbackRequested { by, .. }
        | Event::StepSkipped { reason: SkipReason::Person { by, .. }, .. } => {
            format!("{by}{}", people::known(by))
        }
        // Their texts say it.
        Event::StepAnswered { by, .. }
        | Event::StepAssigned { by, .. }
        | Event::WordRefused { by, .. }
        | Event::DeviationRequested { by, .. }
        | Event::DeviationAnswered { by, .. } => by.to_string(),
        _ => return None,
    };
    let mut what = entry.line.text.clone();
    if let Event::StepAnswered { answer: Answer::Completed { evidence, .. }, .. } = &entry.record.event {
        for (name, digest) in evidence {
            let _ = write!(what, "; {name}: SHA-256 {digest}");
        }
    }
    Some(told(entry, zone, Some(who), what))
}

/// What a question for work by hand said.
fn by_hand(entry: &Entry<'_>, zone: &TimeZone) -> Option<ByHand> {
    let (step, prompt, is_undo) = match &entry.record.event {
        Event::StepWaiting { step, wait: WaitKind::Manual, prompt, .. } => (step, prompt, false),
        Event::UndoWaiting { step, prompt, .. } => (step, prompt, true),
        _ => return None,
    };
    Some(ByHand {
        at: words::day_and_clock(entry.record.at, zone),
        seq: entry.record.seq,
        step: step.to_string(),
        is_undo,
        html: markdown::to_html(prompt),
    })
}

fn window_words(sources: &Sources<'_>) -> Vec<WindowWords> {
    let Sources { run: Run { plan, state, .. }, now, zone, .. } = *sources;
    let one = |window: windows::Measured| {
        let length = window.length_ms(now);
        let over = window.is_over_budget(now);
        let verdict = match (window.progress, window.budget_ms) {
            (windows::Progress::NotOpened, _) => Word { text: "not opened".into(), class: "plain" },
            (windows::Progress::Open, _) => Word { text: "still open".into(), class: "warn" },
            (windows::Progress::WentBack(_), _) => Word { text: "closed by the way back".into(), class: "warn" },
            (windows::Progress::Closed(_), None) => Word { text: "measured".into(), class: "plain" },
            (windows::Progress::Closed(_), Some(_)) if over => Word { text: "over budget".into(), class: "bad" },
            (windows::Progress::Closed(_), Some(_)) => Word { text: "within budget".into(), class: "good" },
        };
        let used = window.budget_ms.zip(length).map(|(budget, length)| match budget {
            0 => {
                if length > 0 {
                    100
                } else {
                    0
                }
            }
            budget => (length.saturating_mul(100) / budget).clamp(0, 100),
        });
        WindowWords {
            opened_at: window.opened_at.map(|at| words::day_and_clock(at, zone)),
            closed_at: window.closed_at.map(|at| words::day_and_clock(at, zone)),
            length: length.map(words::duration).unwrap_or_default(),
            budget: window.budget_ms.map(words::duration),
            name: window.name,
            opens: window.opens,
            closes: window.closes,
            verdict,
            used,
        }
    };
    windows::measure(plan, state).into_iter().map(one).collect()
}

fn child(summary: &RunSummary) -> ChildWords {
    ChildWords {
        run: summary.run.to_string(),
        runbook: summary.runbook.clone(),
        version: summary.version.clone(),
        outcome: outcome_word(summary.outcome),
    }
}

fn record(entry: Entry<'_>, zone: &TimeZone) -> RecordWords {
    let Entry { record, pause, line, details } = entry;
    RecordWords {
        seq: record.seq,
        at: words::day_and_clock(record.at, zone),
        who: line.who,
        what: line.text,
        class: line.state.map_or("plain", class_of),
        details,
        hash: record.hash.clone(),
        mark: record.hash.chars().take(MARK_CHARS).collect(),
        pause: pause.map(|pause| pause.text),
    }
}

/// Runbook, site and what they use, as they were: of the start, and of each amendment.
fn files(records: &[Record]) -> Vec<FileWords> {
    let mut files: Vec<FileWords> = Vec::new();
    for record in records {
        let (Event::RunStarted { source, .. } | Event::RunAmended { source, .. }) = &record.event else { continue };
        let text = |name: &str| source.get(name).and_then(Json::as_str).unwrap_or_default();
        let main = [("runbook_path", "runbook"), ("site_path", "site")];
        let main = main.map(|(path, name)| (text(path).to_owned(), text(name).to_owned()));
        let used = source.get("files").and_then(Json::as_object).into_iter().flatten();
        let used = used.map(|(path, text)| (path.clone(), text.as_str().unwrap_or_default().to_owned()));
        for (path, text) in main.into_iter().chain(used).filter(|(_, text)| !text.is_empty()) {
            let digest = crate::plan::sha256_hex(text.as_bytes());
            if !files.iter().any(|file| file.path == path && file.digest == digest) {
                files.push(FileWords { path, digest, text });
            }
        }
    }
    files
}
