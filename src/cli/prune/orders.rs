//! What is known before anything is pruned: all that decides, and that each run is as it was recorded.

use std::collections::{BTreeMap, BTreeSet};

use super::super::audit::with_people;
use super::super::error::CliError;
use super::super::place::Place;
use crate::driver;
use crate::event::Outcome;
use crate::ids::RunId;
use crate::journal::{Choice, Chosen, Facts, Keeps, Order, Required, RunFilter, RunSummary, StandsOn, Trust};

/// Everything that decides what may go.
pub(super) async fn facts(place: &Place, except: BTreeSet<RunId>) -> Result<Facts, CliError> {
    let journal = &place.journal;
    let runs = journal.runs(&RunFilter::default()).await?;
    let (mut standing, mut established, mut required) = (Vec::new(), Vec::new(), Vec::new());
    let sites: BTreeSet<&String> = runs.iter().map(|run| &run.site).collect();
    for site in sites {
        standing.extend(journal.milestones(site).await?.into_iter().map(|(milestone, run, _)| (run, milestone)));
        established.extend(journal.established(site).await?);
    }
    let is_over = |run: &&RunSummary| run.outcome.is_some_and(Outcome::is_final) || run.pruned.is_some();
    for run in runs.iter().filter(|run| !is_over(run)) {
        let (by, site) = (run.run.clone(), run.site.clone());
        match driver::read(journal, &run.run).await {
            Ok(told) => required.extend(told.plan.milestones.into_iter().map(|milestone| Required {
                by: by.clone(),
                site: site.clone(),
                milestone: Some(milestone),
            })),
            Err(error) => {
                tracing::warn!(run = %by, %error, "it cannot be read, so everything that it could require stays");
                required.push(Required { by, site, milestone: None });
            }
        }
    }
    let (locks, pruned, heads) = (journal.locks().await?, journal.pruned_runs().await?, journal.heads().await?);
    Ok(Facts { runs, locks, standing, established, required, pruned, heads, except })
}

/// What was chosen, proved first; what is not as it was recorded stays, and its family with it.
pub(super) async fn orders(place: &Place, chosen: &mut Chosen) -> Result<Vec<Vec<Order>>, CliError> {
    let keys = place.own_key()?;
    let mut orders = Vec::new();
    let mut families = Vec::new();
    for family in std::mem::take(&mut chosen.families) {
        let mut proved: BTreeMap<RunId, Result<Proved, String>> = BTreeMap::new();
        for choice in &family {
            if !proved.contains_key(&choice.run) {
                proved.insert(choice.run.clone(), prove(place, &choice.run, &keys).await?);
            }
        }
        let broken = proved.iter().find_map(|(run, proved)| Some((run.clone(), proved.as_ref().err()?.clone())));
        if let Some((broken, why)) = broken {
            for Choice { run, what, .. } in family {
                let why = if run == broken {
                    format!("its record is not as it was written: {why}")
                } else {
                    format!("the record of run {broken}, which is of its family, is not as it was written")
                };
                chosen.kept.push(Keeps { run, what, why });
            }
            continue;
        }
        let order = |choice: &Choice| {
            let proved = proved.get(&choice.run)?.as_ref().ok()?;
            Some(Order {
                run: choice.run.clone(),
                what: choice.what,
                kinds: choice.kinds.clone(),
                rule: choice.rule.clone(),
                head: proved.head.clone(),
                signed: proved.signed,
                stands_on: proved.stands_on.clone(),
            })
        };
        orders.push(family.iter().filter_map(order).collect());
        families.push(family);
    }
    chosen.families = families;
    Ok(orders)
}

/// A run that is as it was recorded.
struct Proved {
    head: (u64, String),
    signed: u64,
    stands_on: Option<StandsOn>,
}

/// Verifies a run as `audit verify` does, while there is something to verify; gives what is wrong.
async fn prove(place: &Place, run: &RunId, keys: &[String]) -> Result<Result<Proved, String>, CliError> {
    let proof = place.journal.prove(run, Trust { keys, anchors: &[] }).await?;
    if let Some(wrong) = proof.wrong.first() {
        return Ok(Err(wrong.to_string()));
    }
    if proof.is_grave() {
        let head = place.journal.anchored(run).await?;
        return Ok(Ok(Proved { head: (head.seq, head.hash), signed: 0, stands_on: None }));
    }
    let records = place.journal.read(run, 1).await?;
    let (proof, signed, _) = with_people(proof, &records, None)?;
    if let Some(wrong) = proof.wrong.first() {
        return Ok(Err(wrong.to_string()));
    }
    let head = records.last().map(|last| (last.seq, last.hash.clone())).unwrap_or_default();
    let stands_on = driver::stands_on(&place.journal, run).await;
    Ok(Ok(Proved { head, signed: signed as u64, stands_on: stands_on.ok() }))
}
