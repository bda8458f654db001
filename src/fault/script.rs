//! Faults said beforehand: a list of points and what goes wrong there, in code or as a line of text.
//!
//! The text is that of the hidden setting `PITON_FAULT`, for tests of the whole program:
//! `crash-after-append=17`, `fail-before-act=copy#2`, `delay-before-act=copy:500ms`, separated by commas.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{Fault, Faults, Point};
use crate::action::build::Part;
use crate::event::Effect;
use crate::ids::StepId;
use crate::spec::values::Millis;
use crate::transfer::ChunkMoment;

/// Where a fault strikes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trigger {
    /// Before this part of the step acts; in every attempt if none is named.
    BeforeAct(StepId, Option<u32>, Part),
    /// After it acted.
    AfterAct(StepId, Option<u32>, Part),
    /// At this moment of the chunk of this number, from 1.
    Chunk(ChunkMoment, u64),
    /// Before the driver's append of this number, from 1.
    BeforeAppend(u64),
    /// After it.
    AfterAppend(u64),
}

impl Trigger {
    fn fits(&self, point: &Point<'_>) -> bool {
        let same = |(step, attempt, part): (&StepId, &Option<u32>, &Part), at: (&StepId, u32, Part)| {
            step == at.0 && attempt.is_none_or(|attempt| attempt == at.1) && *part == at.2
        };
        match (self, point) {
            (Self::BeforeAct(id, number, of), Point::BeforeAct { step, attempt, part })
            | (Self::AfterAct(id, number, of), Point::AfterAct { step, attempt, part }) => {
                same((id, number, of), (step, *attempt, *part))
            }
            (Self::BeforeAppend(wanted), Point::BeforeAppend { number, .. })
            | (Self::AfterAppend(wanted), Point::AfterAppend { number, .. }) => wanted == number,
            (Self::Chunk(wanted, nth), Point::Chunk { moment, number }) => wanted == moment && nth == number,
            _ => false,
        }
    }
}

/// A fault and where it strikes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Where.
    pub at: Trigger,
    /// What.
    pub fault: Fault,
}

/// A list of faults. A crash and a stop strike once; everything else each time.
#[derive(Debug, Default)]
pub struct Script {
    sets: Vec<(Set, AtomicBool)>,
}

/// A text that names no faults.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{part}` is no fault: {why}; write for instance `crash-after-append=17` or `fail-before-act=STEP#1`")]
pub struct FaultError {
    part: String,
    why: &'static str,
}

impl Script {
    /// These faults.
    pub fn new(sets: impl IntoIterator<Item = Set>) -> Self {
        Self { sets: sets.into_iter().map(|set| (set, AtomicBool::new(false))).collect() }
    }

    /// The faults of a line of text.
    ///
    /// # Errors
    /// When a part of it names no fault or no place.
    pub fn parse(text: &str) -> Result<Self, FaultError> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        Ok(Self::new(parts.map(one).collect::<Result<Vec<_>, _>>()?))
    }
}

impl Faults for Script {
    fn at(&self, point: &Point<'_>) -> Option<Fault> {
        let mut found = self.sets.iter().filter(|(set, _)| set.at.fits(point));
        found.find_map(|(set, struck)| {
            let again = struck.swap(true, Ordering::SeqCst);
            (!again || !matches!(set.fault, Fault::Crash | Fault::Stop)).then_some(set.fault)
        })
    }
}

/// One fault: `WHAT-WHEN-WHERE=NUMBER` or `WHAT-WHEN-WHERE=STEP#ATTEMPT`, with `:TIME` behind a delay.
fn one(part: &str) -> Result<Set, FaultError> {
    let wrong = |why| FaultError { part: part.to_owned(), why };
    let (what, place) = part.split_once('=').ok_or_else(|| wrong("it says no place"))?;
    let (what, place, time) = match what.strip_prefix("delay-") {
        Some(rest) => {
            let (place, time) = place.rsplit_once(':').ok_or_else(|| wrong("a delay says its time behind a colon"))?;
            (rest, place, Some(Millis::parse(time).ok_or_else(|| wrong("its time is no duration"))?))
        }
        None => (what, place, None),
    };
    let fail = |effect| Fault::Fail { effect, retryable: true };
    let (fault, place_word) = if let Some(time) = time {
        (Fault::Delay(time.duration()), what)
    } else if let Some(rest) = what.strip_prefix("crash-") {
        (Fault::Crash, rest)
    } else if let Some(rest) = what.strip_prefix("stop-") {
        (Fault::Stop, rest)
    } else if let Some(rest) = what.strip_prefix("fail-") {
        (fail(if rest.starts_with("before-") { Effect::None } else { Effect::Unknown }), rest)
    } else if let Some(rest) = what.strip_prefix("repeat-") {
        (Fault::Repeat, rest)
    } else if let Some(rest) = what.strip_prefix("disk-full-") {
        (Fault::DiskFull, rest)
    } else if let Some(rest) = what.strip_prefix("conflict-") {
        (Fault::Conflict, rest)
    } else if let Some(rest) = what.strip_prefix("lost-answer-") {
        (Fault::LostAnswer, rest)
    } else {
        return Err(wrong("it names nothing that can go wrong"));
    };
    let at = trigger(place_word, place).ok_or_else(|| wrong("it names no point of a run"))?;
    let of_append = matches!(at, Trigger::BeforeAppend(_) | Trigger::AfterAppend(_));
    let of_act = matches!(at, Trigger::BeforeAct(..) | Trigger::AfterAct(..));
    let fits = match fault {
        Fault::Crash | Fault::Stop | Fault::Delay(_) => true,
        Fault::Fail { .. } | Fault::Repeat => of_act,
        Fault::DiskFull => matches!(at, Trigger::BeforeAppend(_)),
        Fault::Conflict | Fault::LostAnswer => of_append,
    };
    if fits { Ok(Set { at, fault }) } else { Err(wrong("this cannot happen there")) }
}

fn trigger(word: &str, place: &str) -> Option<Trigger> {
    let (before, what) = match (word.strip_prefix("before-"), word.strip_prefix("after-")) {
        (Some(what), _) => (true, what),
        (_, Some(what)) => (false, what),
        (None, None) => return None,
    };
    let number = || place.parse().ok().filter(|number: &u64| *number > 0);
    let moment = match (before, what) {
        (true, "read") => Some(ChunkMoment::BeforeRead),
        (true, "commit") => Some(ChunkMoment::BeforeCommit),
        (false, "commit") => Some(ChunkMoment::AfterCommit),
        _ => None,
    };
    if let Some(moment) = moment {
        return Some(Trigger::Chunk(moment, number()?));
    }
    if what == "append" {
        let number = number()?;
        return Some(if before { Trigger::BeforeAppend(number) } else { Trigger::AfterAppend(number) });
    }
    let part = match what {
        "act" => Part::Action,
        "verify" => Part::Verify,
        "undo" => Part::Undo,
        _ => return None,
    };
    let (step, attempt) = match place.split_once('#') {
        Some((step, attempt)) => (step, Some(attempt.parse().ok()?)),
        None => (place, None),
    };
    let step = StepId::new(step);
    Some(if before { Trigger::BeforeAct(step, attempt, part) } else { Trigger::AfterAct(step, attempt, part) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_text_names_faults_and_their_points() {
        let script =
            Script::parse("crash-after-append=2, fail-before-act=copy#2,delay-after-undo=s[a]:2s").expect("good");
        let copy = StepId::new("copy");
        let point = |attempt| Point::BeforeAct { step: &copy, attempt, part: Part::Action };
        assert_eq!(script.at(&point(1)), None);
        assert_eq!(script.at(&point(2)), Some(Fault::Fail { effect: Effect::None, retryable: true }));
        let item = StepId::new("s[a]");
        let undo = Point::AfterAct { step: &item, attempt: 7, part: Part::Undo };
        assert_eq!(script.at(&undo), Some(Fault::Delay(std::time::Duration::from_secs(2))));
        assert_eq!(script.at(&Point::BeforeAppend { number: 2, events: &[] }), None);
        let append = Point::AfterAppend { number: 2, events: &[] };
        assert_eq!((script.at(&append), script.at(&append)), (Some(Fault::Crash), None));
        let script = Script::parse("stop-before-commit=3").expect("good");
        let chunk = |number, moment| Point::Chunk { number, moment };
        assert_eq!(script.at(&chunk(2, ChunkMoment::BeforeCommit)), None);
        assert_eq!(script.at(&chunk(3, ChunkMoment::AfterCommit)), None);
        assert_eq!(script.at(&chunk(3, ChunkMoment::BeforeCommit)), Some(Fault::Stop));
        assert_eq!(script.at(&chunk(3, ChunkMoment::BeforeCommit)), None, "once");
    }

    #[test]
    fn what_names_no_fault_is_refused() {
        for bad in [
            "crash",
            "crash-after-append=0",
            "crash-after-append=x",
            "crash-within-append=3",
            "melt-before-act=a",
            "disk-full-after-append=3",
            "repeat-before-append=3",
            "delay-before-act=a",
            "delay-before-act=a:soon",
            "fail-before-act=a#b",
            "crash-after-read=1",
            "crash-before-commit=0",
            "fail-before-commit=1",
        ] {
            assert!(Script::parse(bad).is_err(), "{bad}");
        }
    }
}
