//! Loss of a migration: predicted before it starts, measured against the ledger after it ended.
//!
//! A prediction is an upper bound that follows from the timeline, not from luck: which collector is up when decides, for
//! every timestep, whether its row is missing, partial, or written over. Each [`Procedure`] says why.

use serde::{Deserialize, Serialize};

use super::aggregator::WriteMode;
use super::db::LabDb;
use super::error::LabError;
use super::settings::Lab;
use super::utility;

/// Rows of the target that are not what a perfect collector would have left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loss {
    /// Closed timesteps without a row.
    pub missing: i64,
    /// Rows that hold another volume or handle time than the truth.
    pub partial: i64,
    /// Rows that 7.6 had collected and that a 6.5 row replaced.
    pub overwritten: i64,
}

impl Loss {
    /// Whether no figure is greater than the bound's.
    pub fn within(&self, bound: &Self) -> bool {
        self.missing <= bound.missing && self.partial <= bound.partial && self.overwritten <= bound.overwritten
    }
}

/// The ways to migrate that the lab compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Procedure {
    /// Stop the old collector, copy everything, start the new one: the outage is as long as the copy.
    OneStep,
    /// The guide's eleven steps: the new collector starts before the old one stops, then the second pass.
    TwoStep,
    /// The guide without its optional step: both collect, the second pass writes over the new one's rows.
    #[value(name = "two-step-skip-7")]
    #[serde(rename = "two-step-skip-7")]
    TwoStepSkip7,
    /// Boundary fixed, old collector drained past it, target rows from the boundary on protected.
    TwoStepGuarded,
}

/// Upper bounds of the times, in milliseconds, between the moments that decide. T3: the new collector is up; T4: the old
/// one is down; T6: the second pass reads the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// T3 - T4 when the old collector stops first.
    pub outage_ms: i64,
    /// T4 - T3 when the new collector starts first.
    pub overlap_ms: i64,
    /// T6 - T3, up to the last read of the pass.
    pub reread_ms: i64,
    /// The least that T6 - T3 can be: the utility's own start lies between. What the old collector still had to write
    /// at T3 is in the source by T6 if its lag is no longer than this.
    pub reread_least_ms: i64,
}

/// What a prediction starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conditions {
    /// How many entities are collected.
    pub entities: i64,
    /// D in milliseconds.
    pub timestep_ms: i64,
    /// L in milliseconds.
    pub lag_ms: i64,
    /// When collectors write.
    pub mode: WriteMode,
}

/// How long one start or stop of a component takes at most, command and readiness included.
const SERVICE_MS: i64 = 1_500;
/// How many starts, stops and option changes stand between two of the deciding moments at most.
const SERVICES_BETWEEN: i64 = 12;

impl Bounds {
    /// Bounds for the lab's runbooks: row counts over the utility's speed, with half as much again, and the time for
    /// the starts and stops in between.
    pub async fn of(lab: &Lab, db: &mut LabDb) -> Result<Self, LabError> {
        let rows = db.number("SELECT COUNT(*) FROM wfm65.wfm_perf_item", &[]).await?
            + db.number("SELECT COUNT(*) FROM wfm65.wfm_schedule", &[]).await?
            + db.number("SELECT COUNT(*) FROM wfm65.wfm_forecast", &[]).await?
            + 30 * lab.options.entities;
        let copy_ms = rows * 1_500 / lab.options.dbu_rows_per_second.max(1);
        let services_ms = SERVICES_BETWEEN * SERVICE_MS + i64::try_from(lab.options.server_start_ms).unwrap_or(0);
        Ok(Self {
            outage_ms: copy_ms + services_ms,
            overlap_ms: 2 * SERVICE_MS,
            reread_ms: services_ms + copy_ms,
            reread_least_ms: utility::START_MS,
        })
    }
}

/// The most that `procedure` can lose under these conditions if no time exceeds its bound.
pub fn predict(procedure: Procedure, conditions: &Conditions, bounds: &Bounds) -> Loss {
    let Conditions { entities, timestep_ms, lag_ms, mode } = *conditions;
    let steps = |ms: i64| (ms + timestep_ms - 1).div_euclid(timestep_ms);
    // A stop drops what is not written: the open timestep, and what closed within the lag.
    let unwritten = steps(lag_ms);
    // A partial row where the new collector begins, and one where the old one stops if it writes unfinished timesteps.
    let edges = if mode.writes_unfinished() { 2 + unwritten } else { 1 };
    let per_entity = match procedure {
        Procedure::OneStep => Loss { missing: steps(bounds.outage_ms) + unwritten, partial: edges, overwritten: 0 },
        Procedure::TwoStep => Loss { missing: unwritten, partial: edges, overwritten: steps(bounds.overlap_ms) + 1 },
        Procedure::TwoStepSkip7 => {
            let late = if lag_ms <= bounds.reread_least_ms { 0 } else { unwritten };
            Loss { missing: late, partial: edges, overwritten: steps(bounds.reread_ms) + 1 }
        }
        Procedure::TwoStepGuarded => Loss::default(),
    };
    Loss {
        missing: per_entity.missing * entities,
        partial: per_entity.partial * entities,
        overwritten: per_entity.overwritten * entities,
    }
}

/// The prediction for a run on this lab that starts now.
pub async fn predict_for(lab: &Lab, procedure: Procedure) -> Result<Loss, LabError> {
    let mut db = LabDb::open(lab, "piton-lab-loss").await?;
    let bounds = Bounds::of(lab, &mut db).await?;
    db.close().await?;
    let conditions = Conditions {
        entities: lab.options.entities,
        timestep_ms: lab.timestep_ms(),
        lag_ms: lab.options.write_lag_ms,
        mode: lab.options.write_mode,
    };
    Ok(predict(procedure, &conditions, &bounds))
}

/// Counts what the 7.6 database lacks of the timesteps that a perfect collector would have written between the run's
/// start and its end (the one in which it started included). Ask at least two timesteps after the last start of a
/// collector, or the row at that edge is not written yet and not counted. The end must not lie in the future of the lab.
pub async fn measure(lab: &Lab, started_ms: i64, ended_ms: i64) -> Result<Loss, LabError> {
    let mut db = LabDb::open(lab, "piton-lab-loss").await?;
    let last = lab.last_written(ended_ms);
    let span = [lab.bucket(started_ms).into(), last.into()];
    let against_truth = "FROM truth.truth AS t LEFT JOIN wfm76.wfm_perf_timestep AS d \
         ON d.entity_id = t.entity_id AND d.step_start = t.step_start \
         WHERE t.step_start >= $1 AND t.step_start <= $2";
    let missing = format!("SELECT COUNT(*) {against_truth} AND d.entity_id IS NULL");
    let partial = format!("SELECT COUNT(*) {against_truth} AND (d.iv <> t.iv OR d.handle_s <> t.handle_s)");
    let overwritten = "SELECT COUNT(*) FROM wfm76.piton_perf_before AS b JOIN wfm76.wfm_perf_timestep AS d \
         ON d.entity_id = b.entity_id AND d.step_start = b.step_start \
         WHERE b.step_start >= $1 AND b.step_start <= $2 AND b.src = '76' AND d.src <> '76'";
    let loss = Loss {
        missing: db.number(&missing, &span).await?,
        partial: db.number(&partial, &span).await?,
        overwritten: db.number(overwritten, &span).await?,
    };
    db.close().await?;
    Ok(loss)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Rows of one entity: bucket -> (release, covered milliseconds).
    type Rows = BTreeMap<i64, (u8, i64)>;

    /// What a collector that is up in `[up, down)` has written by `until`.
    fn collected(release: u8, up: i64, down: i64, until: i64, c: &Conditions) -> Rows {
        let d = c.timestep_ms;
        (up.div_euclid(d)..=down.min(until).div_euclid(d))
            .filter_map(|bucket| {
                let (from, to) = (bucket * d, (bucket + 1) * d);
                let final_written = to + c.lag_ms <= down.min(until);
                let covered = if final_written { to } else { down.min(until).min(to) } - up.max(from);
                (covered > 0 && (final_written || c.mode.writes_unfinished())).then_some((bucket, (release, covered)))
            })
            .collect()
    }

    fn lost(target: &Rows, first: i64, last: i64, overwritten: i64, c: &Conditions) -> Loss {
        let buckets = first..=last;
        Loss {
            missing: buckets.clone().filter(|b| !target.contains_key(b)).count().try_into().expect("few"),
            partial: buckets
                .filter(|b| target.get(b).is_some_and(|(_, covered)| *covered < c.timestep_ms))
                .count()
                .try_into()
                .expect("few"),
            overwritten,
        }
    }

    /// One run: the new collector is up at `t3`, the old one down at `t4`, the source is read at `t6`.
    fn simulate(c: &Conditions, t3: i64, t4: i64, t6: i64) -> Loss {
        let last = t3.max(t4.min(t6)).max(t6);
        let end = last + 5 * c.timestep_ms + c.lag_ms;
        let old = collected(65, 0, t4, t6, c);
        let mut target = collected(76, t3, i64::MAX / 4, end, c);
        let before = collected(76, t3, i64::MAX / 4, t6, c);
        let mut overwritten = 0;
        for (bucket, row) in old {
            let final_later = (bucket + 1) * c.timestep_ms + c.lag_ms > t6;
            // What the new collector writes after the pass is its own again.
            if target.contains_key(&bucket) && final_later {
                continue;
            }
            overwritten += i64::from(before.contains_key(&bucket));
            target.insert(bucket, row);
        }
        lost(&target, 0, last.div_euclid(c.timestep_ms), overwritten, c)
    }

    #[test]
    fn no_random_schedule_loses_more_than_was_predicted() {
        let mut random = fastrand::Rng::with_seed(65_76);
        let mut seen = BTreeMap::new();
        for _ in 0..4_000 {
            let timestep_ms = [1_000, 2_000, 900_000][random.usize(..3)];
            let mode = [WriteMode::Close, WriteMode::Flush, WriteMode::Live][random.usize(..3)];
            let c = Conditions { entities: 1, timestep_ms, lag_ms: random.i64(0..timestep_ms * 3 / 2), mode };
            let bounds = Bounds {
                outage_ms: random.i64(1..20 * timestep_ms),
                overlap_ms: random.i64(1..3 * timestep_ms),
                reread_ms: random.i64(2..9 * timestep_ms),
                reread_least_ms: 1,
            };
            let bounds = Bounds { reread_least_ms: random.i64(1..=bounds.reread_ms), ..bounds };
            let at = random.i64(50 * timestep_ms..60 * timestep_ms);
            let t6 = at + random.i64(bounds.reread_least_ms..=bounds.reread_ms);
            let outage = at - random.i64(0..=bounds.outage_ms);
            let runs = [
                (Procedure::OneStep, simulate(&c, at, outage, outage)),
                (Procedure::TwoStep, {
                    let t4 = at + random.i64(0..=bounds.overlap_ms);
                    simulate(&c, at, t4, t4.max(t6))
                }),
                (Procedure::TwoStepSkip7, simulate(&c, at, i64::MAX / 4, t6)),
            ];
            for (procedure, measured) in runs {
                let bound = predict(procedure, &c, &bounds);
                assert!(measured.within(&bound), "{procedure:?} {c:?} {bounds:?}: {measured:?} > {bound:?}");
                let worst: &mut Loss = seen.entry(format!("{procedure:?}")).or_default();
                worst.missing = worst.missing.max(measured.missing);
                worst.partial = worst.partial.max(measured.partial);
                worst.overwritten = worst.overwritten.max(measured.overwritten);
            }
        }
        assert!(seen["OneStep"].missing > 10, "the baseline must show loss: {seen:?}");
        assert!(seen["TwoStep"].partial >= 1 && seen["TwoStepSkip7"].overwritten > 3, "{seen:?}");
    }

    #[test]
    fn only_the_guarded_procedure_promises_nothing_lost() {
        let c = Conditions { entities: 50, timestep_ms: 2_000, lag_ms: 200, mode: WriteMode::Close };
        let bounds = Bounds { outage_ms: 10_000, overlap_ms: 3_000, reread_ms: 8_000, reread_least_ms: 200 };
        assert_eq!(predict(Procedure::TwoStepGuarded, &c, &bounds), Loss::default());
        let one = predict(Procedure::OneStep, &c, &bounds);
        assert_eq!(one, Loss { missing: 300, partial: 50, overwritten: 0 });
        assert!(predict(Procedure::TwoStep, &c, &bounds).missing < one.missing);
    }
}
