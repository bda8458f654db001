//! A run as it is watched: the state folded from the facts that arrived, of the run itself and of the runs that its
//! steps started. Plain lines and the live terminal both show what this holds.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use crate::action::{Progress, size};
use crate::event::Record;
use crate::ids::{RunId, StepId};
use crate::report::{Fact, Subject};
use crate::scheduler::State;

/// What is known of a run and its child runs.
#[derive(Debug)]
pub struct Watch {
    /// What is watched.
    pub subject: Subject,
    states: BTreeMap<RunId, Arc<State>>,
    progress: BTreeMap<(RunId, StepId), Progress>,
}

impl Watch {
    /// Nothing is known yet.
    pub fn new(subject: Subject) -> Self {
        Self { subject, states: BTreeMap::new(), progress: BTreeMap::new() }
    }

    /// Takes in a fact; gives the record back if it is news.
    pub fn take<'f>(&mut self, fact: &'f Fact) -> Option<&'f Record> {
        match fact {
            Fact::Recorded { record, state: Some(state) } => {
                self.states.insert(record.run.clone(), Arc::clone(state));
                is_untouched(state).then_some(record)
            }
            Fact::Recorded { record, state: None } => {
                let state = Arc::make_mut(self.states.get_mut(&record.run)?);
                // What the driver recorded is legal; a record that this copy refuses is shown all the same.
                let _ = state.apply(&record.event, record.at);
                Some(record)
            }
            Fact::Progress { run, step, progress } => {
                self.progress.insert((run.clone(), step.clone()), progress.clone());
                None
            }
            Fact::Notice { .. } | Fact::Ended { .. } => None,
        }
    }

    /// Whether a fact is no record and says in words what was not said of its step before.
    pub fn is_said_anew(&self, fact: &Fact) -> bool {
        let Fact::Progress { run, step, progress } = fact else { return false };
        let before = self.progress.get(&(run.clone(), step.clone()));
        progress.is_words() && before.is_none_or(|before| before.what != progress.what)
    }

    /// The state of the watched run.
    pub fn state(&self) -> Option<&State> {
        self.states.get(&self.subject.run).map(Arc::as_ref)
    }

    /// The state of any run of the stream.
    pub fn state_of(&self, run: &RunId) -> Option<&State> {
        self.states.get(run).map(Arc::as_ref)
    }

    /// Runs that steps of this one started, with their states.
    pub fn children(&self) -> impl Iterator<Item = (&RunId, &State)> {
        self.states.iter().filter(|(run, _)| **run != self.subject.run).map(|(run, state)| (run, &**state))
    }

    /// How far a step of a run has come.
    pub fn progress(&self, run: &RunId, step: &StepId) -> Option<&Progress> {
        self.progress.get(&(run.clone(), step.clone()))
    }

    /// A step as the watcher names it: with the steps that started its run in front.
    pub fn label(&self, run: &RunId, step: &str) -> String {
        let inside = run.as_str().strip_prefix(self.subject.run.as_str()).unwrap_or("").trim_start_matches('.');
        if inside.is_empty() { step.to_owned() } else { format!("{}/{step}", inside.replace('.', "/")) }
    }
}

/// Whether nothing has happened to a run but its start. A run that is taken up again is shown from there on only.
pub fn is_untouched(state: &State) -> bool {
    state.outcome().is_none() && state.steps().all(|step| step.started_at().is_none() && step.skip_reason().is_none())
}

/// Progress in a few words: `WFM_PERF 120000 of 500000, 8.1k/s, 46.0s left`.
pub fn progress_words(progress: &Progress) -> String {
    let mut text = format!("{} {}", progress.what, progress.done);
    if let Some(total) = progress.total {
        let _ = write!(text, " of {}{total}", if progress.is_estimate { "about " } else { "" });
    }
    if progress.per_second >= 0.05 {
        let _ = write!(text, ", {}/s", amount(progress.per_second));
        if let Some(bytes) = progress.bytes_per_second.filter(|bytes| *bytes >= 1.0) {
            #[expect(clippy::cast_sign_loss, clippy::cast_possible_truncation, reason = "a speed for people")]
            let _ = write!(text, ", {}/s", size::words(bytes as u64));
        }
    }
    if let Some(left) = left(progress) {
        let ms = i64::try_from(left.as_secs()).unwrap_or(i64::MAX).saturating_mul(1_000);
        let _ = write!(text, ", {} left", super::words::duration(ms));
    }
    text
}

/// How long it still takes: as the action says, else at its speed.
pub fn left(progress: &Progress) -> Option<Duration> {
    let rest = progress.total?.saturating_sub(progress.done);
    #[expect(clippy::cast_precision_loss, reason = "an estimate for people")]
    let at_speed = || Duration::try_from_secs_f64(rest as f64 / progress.per_second).ok().filter(|_| rest > 0);
    progress.left.or_else(at_speed).filter(|_| progress.per_second >= 0.05)
}

fn amount(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{:.1}M", v / 1e6),
        v if v >= 1e3 => format!("{:.1}k", v / 1e3),
        v if v >= 10.0 => format!("{v:.0}"),
        v => format!("{v:.1}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_says_speed_and_time_left() {
        let copy = Progress {
            what: "WFM_PERF".into(),
            done: 120_000,
            total: Some(500_000),
            per_second: 8_123.0,
            ..Progress::default()
        };
        assert_eq!(progress_words(&copy), "WFM_PERF 120000 of 500000, 8.1k/s, 46.0s left");
        let first_of_many =
            Progress { is_estimate: true, bytes_per_second: Some(1.25e6), left: Some(Duration::from_mins(2)), ..copy };
        assert_eq!(progress_words(&first_of_many), "WFM_PERF 120000 of about 500000, 8.1k/s, 1.2 MB/s, 2m00s left");
        let unknown = Progress { what: "rows".into(), done: 5, ..Progress::default() };
        assert_eq!(progress_words(&unknown), "rows 5");
    }
}
