//! Which runs a policy prunes and which it leaves, and why: a pure function of what is known of all runs.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{PrunedRun, What};
use crate::event::Outcome;
use crate::ids::{Milestone, RunId};
use crate::journal::{LockTable, RunSummary};

/// One rule of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What it is called on tombstones and in lists.
    pub name: String,
    /// What it takes.
    pub prune: What,
    /// Only of runs whose latest record is older.
    pub before: Option<Timestamp>,
    /// Only of these runs.
    pub runs: Vec<RunId>,
    /// Only of runs of these runbooks.
    pub runbooks: Vec<String>,
    /// Only of runs on these sites.
    pub sites: Vec<String>,
    /// How many of the latest runs of each runbook on each site stay.
    pub keep_last: u32,
    /// Also of runs that rest failed or cancelled.
    pub failed: bool,
    /// Of `contents`, only the payload of records of these kinds; of all kinds if there are none.
    pub kinds: Vec<String>,
}

impl Rule {
    /// Whether it is about this run, whatever became of it.
    fn is_about(&self, run: &RunSummary) -> bool {
        let among = |list: &[String], value: &String| list.is_empty() || list.contains(value);
        (self.runs.is_empty() || self.runs.contains(&run.run))
            && among(&self.runbooks, &run.runbook)
            && among(&self.sites, &run.site)
            && self.before.is_none_or(|before| run.last_at < before)
    }

    fn admits(&self, run: &RunSummary) -> bool {
        self.is_about(run) && (self.failed || !can_be_resumed(run))
    }
}

/// Whether it rests failed or cancelled.
fn can_be_resumed(run: &RunSummary) -> bool {
    matches!(run.outcome, Some(Outcome::Failed | Outcome::Cancelled))
}

/// A milestone that a run which is not over requires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Required {
    /// The run that requires it.
    pub by: RunId,
    /// Its site.
    pub site: String,
    /// Which; none where the run cannot be read, so that it may be any.
    pub milestone: Option<Milestone>,
}

/// Everything that decides.
#[derive(Debug, Default)]
pub struct Facts {
    /// All runs, the latest first.
    pub runs: Vec<RunSummary>,
    /// Locks, and which runs have a driver.
    pub locks: LockTable,
    /// Milestones that stand: their run.
    pub standing: Vec<(RunId, Milestone)>,
    /// Milestones that runs established at any time.
    pub established: Vec<(RunId, Milestone)>,
    /// What runs that are not over require.
    pub required: Vec<Required>,
    /// What was pruned before.
    pub pruned: BTreeMap<RunId, Vec<PrunedRun>>,
    /// The latest record of each run.
    pub heads: BTreeMap<RunId, u64>,
    /// Runs that stay whatever the rules say.
    pub except: BTreeSet<RunId>,
}

/// One thing that is to be pruned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Of which run.
    pub run: RunId,
    /// What.
    pub what: What,
    /// Of which kinds of records.
    pub kinds: Vec<String>,
    /// By which rules.
    pub rule: String,
}

/// A run that a rule would prune and that stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keeps {
    /// Which.
    pub run: RunId,
    /// What would have gone.
    pub what: What,
    /// Why it stays.
    pub why: String,
}

/// What is to be pruned, and what is not.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Chosen {
    /// Runs that go together, the oldest first.
    pub families: Vec<Vec<Choice>>,
    /// What is old enough and stays.
    pub kept: Vec<Keeps>,
}

/// What the rules want of one run.
type Wanted = BTreeMap<What, Want>;

/// One thing that rules want.
struct Want {
    /// Of which kinds of records; of all if there are none.
    kinds: Vec<String>,
    /// Their names.
    rule: String,
}

impl Want {
    fn of(rule: &Rule) -> Self {
        let kinds = if rule.prune == What::Contents { rule.kinds.clone() } else { Vec::new() };
        Self { kinds, rule: rule.name.clone() }
    }

    /// Takes what another rule of the same policy wants of the contents as well.
    fn join(&mut self, rule: &Rule) {
        if self.kinds.is_empty() || rule.kinds.is_empty() {
            self.kinds.clear();
        } else {
            let new = rule.kinds.iter().filter(|kind| !self.kinds.contains(kind)).cloned();
            self.kinds.extend(new.collect::<Vec<_>>());
        }
        self.rule = format!("{}; {}", self.rule, rule.name);
    }
}

/// What the rules want.
#[derive(Default)]
struct Wishes {
    of_run: BTreeMap<RunId, Wanted>,
    /// Runs that only rules without `failed` are about, and the most that they would take.
    turned_back: BTreeMap<RunId, What>,
}

/// Chooses.
pub fn choose(rules: &[Rule], facts: &Facts) -> Chosen {
    let wanted = wanted(rules, facts);
    let mut families: BTreeMap<&RunId, Vec<&RunSummary>> = BTreeMap::new();
    let ids: BTreeMap<&str, &RunId> = facts.runs.iter().map(|run| (run.run.as_str(), &run.run)).collect();
    for run in &facts.runs {
        families.entry(first_of(&run.run, &ids)).or_default().push(run);
    }
    let mut chosen = Chosen::default();
    let mut in_order: Vec<_> = families.into_values().collect();
    in_order.sort_by_key(|family| family.iter().map(|run| (run.started_at, &run.run)).min());
    for family in in_order {
        let choices = chosen.family(&family, &wanted, facts);
        if !choices.is_empty() {
            chosen.families.push(choices);
        }
    }
    chosen
}

fn wanted(rules: &[Rule], facts: &Facts) -> Wishes {
    let mut wishes = Wishes::default();
    for rule in rules {
        let what = rule.prune;
        let mut latest: BTreeMap<(&str, &str), u32> = BTreeMap::new();
        for run in &facts.runs {
            let count = latest.entry((&run.runbook, &run.site)).or_default();
            *count += 1;
            if *count <= rule.keep_last || !rule.is_about(run) || is_done(run, rule, facts) {
                continue;
            }
            if rule.admits(run) {
                match wishes.of_run.entry(run.run.clone()).or_default().entry(what) {
                    Entry::Vacant(free) => drop(free.insert(Want::of(rule))),
                    Entry::Occupied(mut found) if what == What::Contents => found.get_mut().join(rule),
                    Entry::Occupied(_) => {}
                }
            } else {
                let most = wishes.turned_back.entry(run.run.clone()).or_insert(what);
                *most = what.max(*most);
            }
        }
    }
    wishes.turned_back.retain(|run, _| !wishes.of_run.contains_key(run));
    wishes
}

/// Whether what a rule takes of a run went before.
fn is_done(run: &RunSummary, rule: &Rule, facts: &Facts) -> bool {
    let head = facts.heads.get(&run.run).copied().unwrap_or(0);
    let all = facts.pruned.get(&run.run).map(Vec::as_slice).unwrap_or_default();
    let earlier = || all.iter().filter(|earlier| earlier.until >= head);
    let went = |what: What| earlier().any(|earlier| earlier.what == what);
    match rule.prune {
        What::Run => went(What::Run),
        What::Contents => went(What::Run) || are_empty(&rule.kinds, earlier()),
        what @ (What::Transcripts | What::Evidence) => went(what) || went(What::Contents) || went(What::Run),
    }
}

/// Whether all records of these kinds, or all records if there are none, lost their payload before.
fn are_empty<'p>(kinds: &[String], earlier: impl Iterator<Item = &'p PrunedRun>) -> bool {
    let of_contents = earlier.filter(|earlier| earlier.what == What::Contents);
    let emptied: Vec<&Vec<String>> = of_contents.filter_map(|earlier| earlier.kinds.as_ref()).collect();
    let is_empty = |kind: &String| emptied.iter().any(|kinds| kinds.contains(kind));
    emptied.iter().any(|kinds| kinds.is_empty()) || (!kinds.is_empty() && kinds.iter().all(is_empty))
}

/// The run that started all others of a family: children are named after it.
fn first_of<'a>(run: &'a RunId, ids: &BTreeMap<&str, &'a RunId>) -> &'a RunId {
    let mut dots = run.as_str().match_indices('.').map(|(at, _)| &run.as_str()[..at]);
    dots.find_map(|before| ids.get(before).copied()).unwrap_or(run)
}

impl Chosen {
    /// What goes of a family: all of it together, and of what stays the texts and files.
    fn family(&mut self, family: &[&RunSummary], wanted: &Wishes, facts: &Facts) -> Vec<Choice> {
        let mut choices = self.together(family, &wanted.of_run, facts);
        for run in family {
            if choices.iter().any(|choice| choice.run == run.run) {
                continue;
            }
            if let Some(what) = wanted.turned_back.get(&run.run) {
                let failed = "it failed or was cancelled and can be resumed; `failed` includes such runs";
                self.keep(run, *what, objection(run, *what, facts).unwrap_or_else(|| failed.into()));
            }
            let lesser = wanted.of_run.get(&run.run).into_iter().flatten().filter(|(what, _)| !what.is_grave());
            for (what, want) in lesser {
                match objection(run, *what, facts) {
                    Some(why) => self.keep(run, *what, why),
                    None => choices.push(choice(run, *what, want)),
                }
            }
        }
        choices
    }

    /// What can only go if the whole family does.
    fn together(&mut self, family: &[&RunSummary], wanted: &BTreeMap<RunId, Wanted>, facts: &Facts) -> Vec<Choice> {
        let mut choices = Vec::new();
        let mut stays = None;
        for run in family {
            let grave = wanted.get(&run.run).and_then(|wanted| wanted.iter().rfind(|(what, _)| what.is_grave()));
            let Some((what, want)) = grave else {
                let was_before =
                    facts.pruned.get(&run.run).is_some_and(|all| all.iter().any(|one| one.what.is_grave()));
                stays = stays.or((!was_before).then_some(&run.run));
                continue;
            };
            match objection(run, *what, facts) {
                Some(why) => {
                    self.keep(run, *what, why);
                    stays = Some(&run.run);
                }
                None => choices.push(choice(run, *what, want)),
            }
        }
        if let Some(other) = stays {
            for Choice { run, what, .. } in std::mem::take(&mut choices) {
                let why = format!("run {other}, which is of its family, stays");
                self.kept.push(Keeps { run, what, why });
            }
        }
        choices
    }

    fn keep(&mut self, run: &RunSummary, what: What, why: String) {
        self.kept.push(Keeps { run: run.run.clone(), what, why });
    }
}

fn choice(run: &RunSummary, what: What, want: &Want) -> Choice {
    Choice { run: run.run.clone(), what, kinds: want.kinds.clone(), rule: want.rule.clone() }
}

/// Why a run stays.
fn objection(run: &RunSummary, what: What, facts: &Facts) -> Option<String> {
    if facts.except.contains(&run.run) {
        return Some("somebody excepted it".into());
    }
    match run.outcome {
        None => return Some("it is open".into()),
        Some(Outcome::Waiting) => return Some("it waits for a person".into()),
        Some(Outcome::Stuck) => return Some("it is stuck until a person decides".into()),
        Some(Outcome::Failed | Outcome::Cancelled | Outcome::Succeeded | Outcome::RolledBack) => {}
    }
    if facts.locks.is_driven(&run.run) {
        return Some("a driver has it".into());
    }
    if let Some(held) = facts.locks.held.iter().find(|held| held.run == run.run) {
        return Some(format!("it holds the lock `{}`", held.name));
    }
    if what == What::Transcripts {
        return None;
    }
    if let Some((_, milestone)) = facts.standing.iter().find(|(by, _)| *by == run.run) {
        return Some(format!("its milestone `{milestone}` stands"));
    }
    let mine = || facts.established.iter().filter(|(by, _)| *by == run.run).map(|(_, milestone)| milestone);
    let needs = |required: &&Required| {
        let any = required.milestone.as_ref();
        required.site == run.site && required.by != run.run && mine().any(|own| any.is_none_or(|wanted| wanted == own))
    };
    facts.required.iter().find(needs).map(|required| match &required.milestone {
        Some(milestone) => {
            format!("run {}, which is not over, requires `{milestone}`, which this one established", required.by)
        }
        None => format!("run {}, which is not over, may require what this one established", required.by),
    })
}

#[cfg(test)]
#[path = "choose_tests.rs"]
mod tests;
