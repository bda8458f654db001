//! What pruning takes away of one run, and its tombstone: computed from everything that the store keeps of the run.
//!
//! The stores carry it out in one transaction, which compares the latest record and the lease with what this was computed from.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::judge::{Stones, dropped};
use super::tombstone::{End, Inscription, LastRecord, StandsOn, Summary, Tombstone, What};
use crate::event::{Answer, Event};
use crate::ids::{Actor, RunId};
use crate::journal::chain::{self, FIRST, Row};
use crate::journal::lease::{LeaseError, Owner};
use crate::journal::proof::{Evidence, key_spans};
use crate::journal::seal::SealKey;
use crate::journal::{Journal, JournalError, RunSummary};

/// How long the runs of a family are kept from drivers while they are pruned.
const LEASE: SignedDuration = SignedDuration::from_secs(120);

/// One thing to prune.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// Of which run.
    pub run: RunId,
    /// What.
    pub what: What,
    /// Of `contents`, only the payload of records of these kinds; of all kinds if there are none.
    pub kinds: Vec<String>,
    /// By which rule, for the tombstone.
    pub rule: String,
    /// Place and hash of the latest record when the run was proved.
    pub head: (u64, String),
    /// Words that people had signed, judged then.
    pub signed: u64,
    /// What other runs' ways back must know; none where it could not be read.
    pub stands_on: Option<StandsOn>,
}

/// Who prunes.
#[derive(Debug, Clone)]
pub struct Pruner<'a> {
    /// Who.
    pub by: Actor,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Timestamp,
    /// The key that signs tombstones.
    pub key: &'a SealKey,
    /// This process: it takes the lease of each run.
    pub owner: Owner,
}

/// What a store does to one run.
#[derive(Debug, Clone)]
pub(in crate::journal) struct Burial {
    pub(in crate::journal) run: RunId,
    /// Of the lease that was taken.
    pub(in crate::journal) generation: u64,
    /// Place and hash of the latest record.
    pub(in crate::journal) head: (u64, String),
    pub(in crate::journal) what: What,
    /// Kinds of records that lose their payload; all if there are none.
    pub(in crate::journal) kinds: Vec<String>,
    /// Texts that the run names and that go.
    texts: BTreeSet<String>,
    /// The tombstone, but for its number.
    text: Inscription,
}

impl Burial {
    /// Whether this is the latest record that it was computed from.
    pub(in crate::journal) fn is_of(&self, seq: u64, hash: &str) -> bool {
        (self.head.0, self.head.1.as_str()) == (seq, hash)
    }

    /// Whether records of this kind lose their payload.
    pub(in crate::journal) fn empties(&self, kind: &str) -> bool {
        self.what.is_grave() && (self.kinds.is_empty() || self.kinds.iter().any(|one| one == kind))
    }

    /// The tombstone that says the same, if it is there already.
    pub(in crate::journal) fn done<'s>(&self, stones: &'s [Tombstone]) -> Option<&'s Tombstone> {
        let same = |stone: &&Tombstone| {
            stone.read().is_ok_and(|Inscription { number, before, .. }| {
                serde_json::to_string(&Inscription { number, before, ..self.text.clone() })
                    .is_ok_and(|text| text == stone.body)
            })
        };
        stones.iter().find(same)
    }

    pub(in crate::journal) fn moved_on(&self) -> String {
        format!("run {} went on meanwhile", self.run)
    }

    pub(in crate::journal) fn taken_over(&self) -> String {
        format!("a driver took run {} over meanwhile", self.run)
    }
}

/// Which runs name which texts.
#[derive(Debug, Default)]
pub(in crate::journal) struct Named {
    pub(super) by_digest: BTreeMap<String, BTreeSet<RunId>>,
    /// How far each run had come when that was looked up.
    pub(super) heads: BTreeMap<RunId, u64>,
}

impl Named {
    /// Runs that have come further, and from which record on they have to be looked at again.
    pub(in crate::journal) fn news(&self, heads: Vec<(RunId, u64)>) -> Vec<(RunId, u64, u64)> {
        let further = |(run, seq): (RunId, u64)| {
            let known = self.heads.get(&run).copied().unwrap_or(0);
            (seq > known).then_some((run, known + 1, seq))
        };
        heads.into_iter().filter_map(further).collect()
    }

    /// Takes in what a run that has come as far as `seq` named meanwhile.
    pub(in crate::journal) fn add(&mut self, run: &RunId, seq: u64, rows: &[Row]) -> Result<(), JournalError> {
        for digest in texts_named(run, rows)? {
            self.by_digest.entry(digest).or_default().insert(run.clone());
        }
        self.heads.insert(run.clone(), seq);
        Ok(())
    }

    /// Texts of these runs that nobody else names.
    pub(in crate::journal) fn going(&self, burials: &[Burial]) -> Vec<String> {
        let leave = |run: &RunId| burials.iter().any(|burial| burial.run == *run && burial.what.takes_texts());
        let texts: BTreeSet<&String> = burials.iter().flat_map(|burial| &burial.texts).collect();
        let is_free = |digest: &&String| self.by_digest.get(*digest).is_none_or(|runs| runs.iter().all(leave));
        texts.into_iter().filter(is_free).cloned().collect()
    }

    fn forget(&mut self, burials: &[Burial]) {
        for burial in burials.iter().filter(|burial| burial.what.takes_texts()) {
            for runs in self.by_digest.values_mut() {
                runs.remove(&burial.run);
            }
        }
    }
}

/// The texts that records name.
pub(super) fn texts_named(run: &RunId, rows: &[Row]) -> Result<BTreeSet<String>, JournalError> {
    let mut named = BTreeSet::new();
    for row in rows.iter().filter(|row| row.names_texts()) {
        named.extend(chain::event(run, row)?.said().iter().map(|said| said.digest.clone()));
    }
    Ok(named)
}

/// The files that a record names, by their SHA-256.
pub(super) fn evidence_of(event: &Event) -> impl Iterator<Item = &String> {
    let files = match event {
        Event::StepAnswered { answer: Answer::Completed { evidence, .. }, .. } => Some(evidence.values()),
        _ => None,
    };
    files.into_iter().flatten()
}

/// The tombstones of these runs behind `last`, the store's latest.
pub(in crate::journal) fn stones_of(
    burials: &[Burial],
    last: Option<&Tombstone>,
    key: &SealKey,
) -> Result<Vec<Tombstone>, JournalError> {
    let mut stones: Vec<Tombstone> = Vec::with_capacity(burials.len());
    for burial in burials {
        let stone = Tombstone::make(&burial.text, stones.last().or(last), key)?;
        stones.push(stone);
    }
    Ok(stones)
}

/// What goes of a run as the store has it; why nothing does.
fn burial(
    order: &Order,
    generation: u64,
    found: &Evidence,
    pruner: &Pruner<'_>,
) -> Result<Result<Burial, String>, JournalError> {
    let run = &order.run;
    let Some(last) = found.rows.last().filter(|last| (last.seq, &last.hash) == (order.head.0, &order.head.1)) else {
        return Ok(Err(format!("run {run} went on meanwhile")));
    };
    let stones = Stones::read(&found.stones);
    let earlier = stones.grave();
    let Some(summary) = summary(run, found, earlier)? else {
        return Ok(Err(format!("run {run} does not begin with its start")));
    };
    let text = inscription(order, (found, last), (earlier, summary), pruner);
    let mut burial = Burial {
        run: run.clone(),
        generation,
        head: order.head.clone(),
        what: order.what,
        kinds: text.kinds.clone().unwrap_or_default(),
        texts: BTreeSet::new(),
        text,
    };
    let texts_taken = stones.texts_taken(1).map_or(0, |text| text.head.seq);
    let (mut evidence, mut left) = (BTreeSet::new(), Vec::new());
    for row in &found.rows {
        if !row.payload.is_empty() {
            let event = chain::event(run, row)?;
            if order.what.takes_texts() && row.seq > texts_taken {
                for said in event.said() {
                    burial.text.text_bytes += if burial.texts.insert(said.digest.clone()) { said.kept } else { 0 };
                }
            }
            if order.what != What::Transcripts {
                evidence.extend(evidence_of(&event).cloned());
            }
            if burial.empties(&row.kind) {
                burial.text.ends.extend(end(row, event));
            }
        }
        if order.what != What::Run || row.seq == last.seq {
            let payload = if burial.empties(&row.kind) { String::new() } else { row.payload.clone() };
            left.push(Row { payload, ..row.clone() });
        }
    }
    let empty = left.iter().filter(|row| row.payload.is_empty()).count() as u64;
    let gone = if order.what == What::Run { last.seq - 1 } else { 0 };
    burial.text.dropped = dropped(&left, empty + gone);
    burial.text.texts = burial.texts.len() as u64;
    burial.text.evidence = evidence.into_iter().collect();
    Ok(Ok(burial))
}

/// The text of the tombstone, but for its number and what goes.
fn inscription(
    order: &Order,
    (found, last): (&Evidence, &Row),
    (earlier, summary): (Option<&Inscription>, Summary),
    pruner: &Pruner<'_>,
) -> Inscription {
    let Row { seq, at_ms, generation, kind, hash, .. } = last.clone();
    Inscription {
        version: Inscription::VERSION,
        number: 0,
        before: FIRST.to_owned(),
        run: order.run.clone(),
        what: order.what,
        at: pruner.at,
        by: pruner.by.clone(),
        reason: pruner.reason.clone(),
        rule: order.rule.clone(),
        piton: env!("CARGO_PKG_VERSION").to_owned(),
        summary,
        head: LastRecord { seq, at_ms, generation, kind, hash },
        records: seq,
        dropped: None,
        seals: found.seals.len() as u64,
        keys: key_spans(&order.run, &found.rows, earlier),
        ends: earlier.map(|earlier| earlier.ends.clone()).unwrap_or_default(),
        stands_on: order.stands_on.clone().or_else(|| earlier.and_then(|earlier| earlier.stands_on.clone())),
        texts: 0,
        text_bytes: 0,
        evidence: Vec::new(),
        signed: order.signed.max(earlier.map_or(0, |earlier| earlier.signed)),
        kinds: Some(if order.what == What::Contents { order.kinds.clone() } else { Vec::new() }),
    }
}

fn summary(run: &RunId, found: &Evidence, earlier: Option<&Inscription>) -> Result<Option<Summary>, JournalError> {
    if let Some(earlier) = earlier {
        return Ok(Some(earlier.summary.clone()));
    }
    let records = chain::records(run, 1, found.rows.clone())?;
    let digest = records.first().and_then(|record| match &record.event {
        Event::RunStarted { digest, .. } => Some(digest.clone()),
        _ => None,
    });
    let Some((RunSummary { runbook, version, site, by, started_at, last_at, outcome, .. }, digest)) =
        RunSummary::of(&records).zip(digest)
    else {
        return Ok(None);
    };
    Ok(Some(Summary { runbook, version, site, by, started_at, last_at, outcome, digest }))
}

fn end(row: &Row, event: Event) -> Option<End> {
    let Event::RunFinished { outcome, milestones, revoked, .. } = event else { return None };
    if milestones.is_empty() && revoked.is_empty() {
        return None;
    }
    let at = Timestamp::from_millisecond(row.at_ms).ok()?;
    Some(End { seq: row.seq, at, outcome, milestones, revoked })
}

impl Journal {
    /// Prunes a family in one transaction; gives its tombstones, or why it stays as it is.
    pub(in crate::journal) async fn prune_family(
        &self,
        family: &[Order],
        pruner: &Pruner<'_>,
        named: &mut Named,
    ) -> Result<Result<Vec<Tombstone>, String>, JournalError> {
        let runs: BTreeSet<&RunId> = family.iter().map(|order| &order.run).collect();
        let mut leases: BTreeMap<&RunId, u64> = BTreeMap::new();
        let buried = match self.claim_family(&runs, pruner, &mut leases).await {
            Ok(Ok(())) => self.prune_claimed(family, pruner, &leases, named).await,
            Ok(Err(why)) => Ok(Err(why)),
            Err(error) => Err(error),
        };
        for (run, generation) in leases {
            // Nobody drives a run that is over; a lease that stays runs out by itself.
            if let Err(error) = self.release(run, generation).await {
                tracing::warn!(%run, %error, "the lease was not given back");
            }
        }
        buried
    }

    /// Takes the lease of each run, as far as it comes; gives why it came no further.
    async fn claim_family<'r>(
        &self,
        runs: &BTreeSet<&'r RunId>,
        pruner: &Pruner<'_>,
        leases: &mut BTreeMap<&'r RunId, u64>,
    ) -> Result<Result<(), String>, JournalError> {
        for &run in runs {
            match self.claim(run, &pruner.owner, crate::config::now(), LEASE).await {
                Ok(generation) => drop(leases.insert(run, generation)),
                Err(LeaseError::Store(error)) => return Err(error),
                Err(error) => return Ok(Err(format!("run {run}: {error}"))),
            }
        }
        Ok(Ok(()))
    }

    async fn prune_claimed(
        &self,
        family: &[Order],
        pruner: &Pruner<'_>,
        leases: &BTreeMap<&RunId, u64>,
        named: &mut Named,
    ) -> Result<Result<Vec<Tombstone>, String>, JournalError> {
        let locks = self.locks().await?;
        if let Some(held) = locks.held.iter().find(|held| leases.contains_key(&held.run)) {
            return Ok(Err(format!("run {} holds the lock `{}`", held.run, held.name)));
        }
        let mut burials = Vec::with_capacity(family.len());
        for order in family {
            let found = self.evidence(&order.run).await?;
            let generation = leases.get(&order.run).copied().unwrap_or(0);
            match burial(order, generation, &found, pruner)? {
                Ok(burial) => burials.push(burial),
                Err(why) => return Ok(Err(why)),
            }
        }
        let buried =
            each!(self, store => store.bury(&burials, named, pruner.key), store.bury(&burials, named, pruner.key))?;
        if buried.is_ok() {
            named.forget(&burials);
        }
        Ok(buried)
    }
}
