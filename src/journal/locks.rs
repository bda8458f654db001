//! Who may have a lock, who waits, and when waiting would never end: decided here once, for every store.
//!
//! A store loads its table of locks, asks [`decide`], and writes down the answer in the same transaction.
//! `docs/design/locks.md` argues the rules.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::lease::Owner;
use crate::ids::{LockName, RunId, StepId};

/// A lock that is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldLock {
    /// Its name.
    pub name: LockName,
    /// The run that holds it.
    pub run: RunId,
    /// The step, unless the run holds it from beginning to end.
    pub step: Option<StepId>,
    /// Since when.
    pub since: Timestamp,
    /// Grows by one with each taking of this lock.
    pub fence: u64,
    /// Whether it stays held when the run has no driver: the run's own locks, and those of an attempt that is not safe
    /// to repeat, until somebody says what became of it.
    pub stays: bool,
}

/// A step that waits for a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockWaiter {
    /// The lock.
    pub name: LockName,
    /// Its run.
    pub run: RunId,
    /// The step.
    pub step: StepId,
    /// Since when.
    pub since: Timestamp,
    /// Place in the line of the whole store.
    pub ticket: u64,
}

/// Every lock of a store, and the lease of each run in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LockTable {
    /// Held locks by name.
    pub held: Vec<HeldLock>,
    /// Waiting steps, the first in line first.
    pub waiting: Vec<LockWaiter>,
    /// Of these runs, until when their driver's lease lasts; a run without driver is missing.
    pub driven_until: BTreeMap<RunId, Timestamp>,
}

/// A step that asks for all its locks at once.
#[derive(Debug, Clone, Copy)]
pub struct LockAsk<'a> {
    /// Its run.
    pub run: &'a RunId,
    /// The generation of its driver.
    pub generation: u64,
    /// The step.
    pub step: &'a StepId,
    /// What it needs.
    pub locks: &'a [LockName],
    /// When it asks.
    pub at: Timestamp,
}

/// What a step that asks for locks is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockAnswer {
    /// It has them all.
    Taken,
    /// It stands in line.
    Waits {
        /// For this one.
        lock: LockName,
        /// Who holds it, or stands before it in line.
        behind: (RunId, Option<StepId>),
    },
    /// It would wait for ever.
    Never {
        /// For this one.
        lock: LockName,
        /// The run that holds it and waits, by itself or by others, for a lock of the asking run; or its own parent.
        holder: RunId,
    },
}

/// Whether `run` is the child run of this step, or a run below it: children are named after the step that started them.
fn is_below(run: &RunId, parent: &RunId, step: Option<&StepId>) -> bool {
    let rest = run.as_str().strip_prefix(parent.as_str()).and_then(|rest| match step {
        Some(step) => rest.strip_prefix('.')?.strip_prefix(step.as_str()),
        None => Some(rest),
    });
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

impl HeldLock {
    /// Whether the lock is kept until `run` has gone on: a run keeps its own while its steps and child runs wait, a step
    /// its own while its child run does.
    fn is_kept_for(&self, run: &RunId) -> bool {
        is_below(run, &self.run, self.step.as_ref()) || (self.step.is_none() && is_below(&self.run, run, None))
    }
}

impl LockTable {
    /// Whether a run has a driver at work.
    pub fn is_driven(&self, run: &RunId) -> bool {
        self.driven_until.contains_key(run)
    }

    fn holder(&self, name: &LockName) -> Option<&HeldLock> {
        self.held.iter().find(|held| held.name == *name)
    }

    /// Whether this holder still counts.
    fn stands(&self, held: &HeldLock) -> bool {
        held.stays || self.is_driven(&held.run)
    }

    /// What stands between the asking step and its locks.
    fn in_the_way(&self, ask: &LockAsk<'_>) -> Option<(LockName, RunId, Option<StepId>)> {
        let mine = |run: &RunId, step: Option<&StepId>| run == ask.run && step == Some(ask.step);
        let ticket = self.waiting.iter().find(|waiter| mine(&waiter.run, Some(&waiter.step))).map(|own| own.ticket);
        for lock in ask.locks {
            let held = self.holder(lock).filter(|held| self.stands(held) && !mine(&held.run, held.step.as_ref()));
            // What the run itself holds from beginning to end it need not wait for.
            if let Some(held) = held.filter(|held| held.run != *ask.run || held.step.is_some()) {
                return Some((lock.clone(), held.run.clone(), held.step.clone()));
            }
        }
        for lock in ask.locks {
            let before = self.waiting.iter().find(|waiter| {
                waiter.name == *lock
                    && !mine(&waiter.run, Some(&waiter.step))
                    && ticket.is_none_or(|own| waiter.ticket < own)
                    && self.is_driven(&waiter.run)
                    // Whoever waits for the asking run itself is overtaken: it would not move before.
                    && !self.waits_for(waiter, ask.run, &mut BTreeSet::new())
            });
            if let Some(waiter) = before {
                return Some((lock.clone(), waiter.run.clone(), Some(waiter.step.clone())));
            }
        }
        None
    }

    /// Whether a step in line waits, by itself or by way of others, for something that is kept until `run` has gone on.
    fn waits_for(&self, waiter: &LockWaiter, run: &RunId, seen: &mut BTreeSet<(RunId, StepId)>) -> bool {
        if !seen.insert((waiter.run.clone(), waiter.step.clone())) {
            return false;
        }
        let same = |other: &&LockWaiter| other.run == waiter.run && other.step == waiter.step;
        self.waiting.iter().filter(same).any(|place| {
            let held = self.holder(&place.name).filter(|held| self.stands(held));
            let ahead = |other: &&LockWaiter| {
                other.name == place.name && other.ticket < place.ticket && self.is_driven(&other.run)
            };
            held.is_some_and(|held| self.never_free(held, run, seen))
                || self.waiting.iter().filter(ahead).any(|other| self.waits_for(other, run, seen))
        })
    }

    /// Whether a lock stays held until `run` has gone on.
    fn never_free(&self, held: &HeldLock, run: &RunId, seen: &mut BTreeSet<(RunId, StepId)>) -> bool {
        held.is_kept_for(run)
            || self
                .waiting
                .iter()
                .filter(|waiter| held.is_kept_for(&waiter.run))
                .any(|waiter| self.waits_for(waiter, run, seen))
    }

    /// What the asking step is told.
    pub(super) fn decide(&self, ask: &LockAsk<'_>) -> LockAnswer {
        let Some((lock, run, step)) = self.in_the_way(ask) else { return LockAnswer::Taken };
        let held = self.holder(&lock).filter(|held| held.run == run && held.step == step);
        if held.is_some_and(|held| self.never_free(held, ask.run, &mut BTreeSet::new())) {
            return LockAnswer::Never { lock, holder: run };
        }
        LockAnswer::Waits { lock, behind: (run, step) }
    }

    /// Whether the run holds the lock from beginning to end.
    pub(super) fn is_of_run(&self, name: &LockName, run: &RunId) -> bool {
        self.holder(name).is_some_and(|held| held.run == *run && held.step.is_none())
    }

    /// One of these locks that another run holds.
    pub(super) fn held_by_others(&self, run: &RunId, locks: &[LockName]) -> Option<(LockName, RunId)> {
        let other = |held: &&HeldLock| held.run != *run && self.stands(held);
        locks.iter().find_map(|lock| self.holder(lock).filter(other)).map(|held| (held.name.clone(), held.run.clone()))
    }

    /// The place in line of whoever comes next.
    pub(super) fn next_ticket(&self) -> u64 {
        self.waiting.iter().map(|waiter| waiter.ticket).max().unwrap_or(0) + 1
    }
}

/// What the rows say; the same for every store in SQL.
pub(super) fn table(
    held: Vec<(String, String, Option<String>, i64, i64, bool)>,
    waiting: Vec<(String, String, String, i64, i64)>,
    leases: Vec<(String, String, i64)>,
    now: Timestamp,
) -> Result<LockTable, sqlx::Error> {
    let mut table = LockTable::default();
    for (name, run, step, since_ms, fence, stays) in held {
        let (name, run, step) = (LockName::new(name), RunId::new(run), step.map(StepId::new));
        table.held.push(HeldLock { name, run, step, since: time(since_ms)?, fence: fence.cast_unsigned(), stays });
    }
    for (name, run, step, since_ms, ticket) in waiting {
        let (name, run, step) = (LockName::new(name), RunId::new(run), StepId::new(step));
        table.waiting.push(LockWaiter { name, run, step, since: time(since_ms)?, ticket: ticket.cast_unsigned() });
    }
    table.driven_until = driven(leases, now)?;
    Ok(table)
}

/// Of leases that somebody holds, those that last and whose process is not known to be gone.
fn driven(leases: Vec<(String, String, i64)>, now: Timestamp) -> Result<BTreeMap<RunId, Timestamp>, sqlx::Error> {
    let me = Owner::this_process().map_err(sqlx::Error::Io)?;
    let mut driven = BTreeMap::new();
    for (run, owner, until_ms) in leases {
        let owner: Owner = serde_json::from_str(&owner).map_err(|error| sqlx::Error::Decode(error.into()))?;
        let until = time(until_ms)?;
        if until > now && !owner.is_gone(&me) {
            driven.insert(RunId::new(run), until);
        }
    }
    Ok(driven)
}

fn time(ms: i64) -> Result<Timestamp, sqlx::Error> {
    Timestamp::from_millisecond(ms).map_err(|error| sqlx::Error::Decode(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(name: &str, run: &str, step: Option<&str>, stays: bool) -> HeldLock {
        HeldLock {
            name: name.into(),
            run: run.into(),
            step: step.map(StepId::new),
            since: Timestamp::UNIX_EPOCH,
            fence: 1,
            stays,
        }
    }

    fn waiter(name: &str, run: &str, ticket: u64) -> LockWaiter {
        LockWaiter { name: name.into(), run: run.into(), step: "w".into(), since: Timestamp::UNIX_EPOCH, ticket }
    }

    fn table(held: Vec<HeldLock>, waiting: Vec<LockWaiter>, driven: &[&str]) -> LockTable {
        let driven_until = driven.iter().map(|run| (RunId::new(*run), Timestamp::MAX)).collect();
        LockTable { held, waiting, driven_until }
    }

    fn ask(table: &LockTable, run: &str, locks: &[&str]) -> LockAnswer {
        let locks: Vec<LockName> = locks.iter().map(|name| LockName::new(*name)).collect();
        let (run, step) = (RunId::new(run), StepId::new("s"));
        table.decide(&LockAsk { run: &run, generation: 1, step: &step, locks: &locks, at: Timestamp::UNIX_EPOCH })
    }

    fn waits(lock: &str, run: &str, step: Option<&str>) -> LockAnswer {
        LockAnswer::Waits { lock: lock.into(), behind: (run.into(), step.map(StepId::new)) }
    }

    #[test]
    fn a_lock_is_free_held_or_left_behind() {
        assert_eq!(ask(&table(vec![], vec![], &[]), "x", &["a"]), LockAnswer::Taken);
        let by = |stays, driven: &[&str]| table(vec![held("a", "y", Some("t"), stays)], vec![], driven);
        assert_eq!(ask(&by(false, &["y"]), "x", &["b", "a"]), waits("a", "y", Some("t")));
        assert_eq!(ask(&by(false, &[]), "x", &["a"]), LockAnswer::Taken, "its driver is gone, it may be repeated");
        assert_eq!(ask(&by(true, &[]), "x", &["a"]), waits("a", "y", Some("t")), "nobody knows what became of it");
        assert_eq!(ask(&table(vec![held("a", "x", None, true)], vec![], &["x"]), "x", &["a"]), LockAnswer::Taken);
    }

    #[test]
    fn whoever_came_first_is_first() {
        let line = |driven: &[&str]| table(vec![], vec![waiter("a", "y", 1), waiter("a", "z", 2)], driven);
        assert_eq!(ask(&line(&["y", "z"]), "x", &["a"]), waits("a", "y", Some("w")));
        assert_eq!(ask(&line(&["z"]), "x", &["a"]), waits("a", "z", Some("w")), "a dead driver holds nobody up");
        assert_eq!(ask(&line(&[]), "x", &["a"]), LockAnswer::Taken);
        // One that wants two is not overtaken at the free one while it waits for the other.
        let both =
            table(vec![held("b", "v", Some("t"), false)], vec![waiter("a", "y", 1), waiter("b", "y", 1)], &["v", "y"]);
        assert_eq!(ask(&both, "x", &["a"]), waits("a", "y", Some("w")));
    }

    #[test]
    fn whoever_waits_for_the_asking_run_is_overtaken() {
        // y wants both, and stands in line for the one that x keeps as long as it runs.
        let kept = |by: &str, step| {
            table(vec![held("a", by, step, true)], vec![waiter("a", "y", 1), waiter("b", "y", 1)], &["x", "y", "z"])
        };
        assert_eq!(ask(&kept("x", None), "x", &["b"]), LockAnswer::Taken);
        assert_eq!(ask(&kept("x", None), "x.t", &["b"]), LockAnswer::Taken, "a child of it as well");
        assert_eq!(ask(&kept("x", Some("t")), "x.t", &["b"]), LockAnswer::Taken);
        assert_eq!(ask(&kept("x", Some("t")), "x", &["b"]), waits("b", "y", Some("w")), "`t` gives it back by itself");
        assert_eq!(ask(&kept("x", None), "z", &["b"]), waits("b", "y", Some("w")));
        // Also if it waits behind another one that does.
        let mut far = kept("x", None);
        far.waiting = vec![waiter("a", "z", 1), waiter("c", "z", 1), waiter("c", "y", 2), waiter("b", "y", 2)];
        assert_eq!(ask(&far, "x", &["b"]), LockAnswer::Taken);
    }

    #[test]
    fn waiting_that_would_never_end_is_refused() {
        let never = |lock: &str, holder: &str| LockAnswer::Never { lock: lock.into(), holder: holder.into() };
        // x keeps a and asks for b; y keeps b and waits for a.
        let two =
            table(vec![held("a", "x", None, true), held("b", "y", None, true)], vec![waiter("a", "y", 1)], &["x", "y"]);
        assert_eq!(ask(&two, "x", &["b"]), never("b", "y"));
        // The same by way of a third.
        let three = table(
            vec![held("a", "x", None, true), held("b", "y", None, true), held("c", "z", None, true)],
            vec![waiter("c", "y", 1), waiter("a", "z", 2)],
            &["x", "y", "z"],
        );
        assert_eq!(ask(&three, "x", &["b"]), never("b", "y"));
        // A child asks for what its parent keeps until the child has ended.
        let parent = table(vec![held("a", "x", None, true)], vec![], &["x", "x.s"]);
        assert_eq!(ask(&parent, "x.s", &["a"]), never("a", "x"));
        let starter = table(vec![held("a", "x", Some("go"), true)], vec![], &["x", "x.go"]);
        assert_eq!(ask(&starter, "x.go", &["a"]), never("a", "x"));
        // Two steps of one run each keep what the child of the other needs.
        let steps = table(
            vec![held("a", "x", Some("t"), true), held("b", "x", Some("u"), true)],
            vec![waiter("b", "x.t", 1)],
            &["x", "x.t", "x.u"],
        );
        assert_eq!(ask(&steps, "x.u", &["a"]), never("a", "x"));
        // The same between runs that know nothing of each other.
        let strangers = table(
            vec![held("a", "x", Some("t"), true), held("b", "y", Some("u"), true)],
            vec![waiter("b", "x.t", 1)],
            &["x", "y", "x.t", "y.u"],
        );
        assert_eq!(ask(&strangers, "y.u.deep", &["a"]), never("a", "x"));
        assert_eq!(ask(&strangers, "z", &["a"]), waits("a", "x", Some("t")));
        // y waits for a step's lock, which comes back by itself.
        let step = table(
            vec![held("a", "x", Some("t"), false), held("b", "y", None, true)],
            vec![waiter("a", "y", 1)],
            &["x", "y"],
        );
        assert_eq!(ask(&step, "x", &["b"]), waits("b", "y", None));
    }
}
