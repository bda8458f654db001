//! The data aggregator, the only collector of a release: one row per entity and timestep.
//!
//! What it writes for the timestep in which it started or stopped depends on its write mode; that is where loss comes from.
//! It depends on the statistics source and on its database and ends when either is gone; it does not need its Server.

use serde::{Deserialize, Serialize};

use super::db::LabDb;
use super::error::LabError;
use super::session::{HEARTBEAT_MS, Kind, Ready, Session, Stop, say, until};
use super::settings::{Lab, Release, now_ms};
use super::source::Statistic;
use super::truth::Observation;

/// When a collector writes the row of a timestep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum WriteMode {
    /// Once, when the timestep has closed and the lag has passed; a stop drops what is unfinished.
    Close,
    /// A provisional row a few times per timestep, the final one at its close; a stop writes the partial row.
    Flush,
    /// At every tick; a stop writes the partial row.
    Live,
}

impl WriteMode {
    /// Whether rows of unfinished timesteps reach the database.
    pub fn writes_unfinished(self) -> bool {
        match self {
            Self::Close => false,
            Self::Flush | Self::Live => true,
        }
    }

    /// How often an unfinished timestep is written, if at all.
    fn every_ms(self, timestep_ms: i64) -> Option<i64> {
        match self {
            Self::Close => None,
            Self::Flush => Some((timestep_ms / 3).max(100)),
            Self::Live => Some((timestep_ms / 10).clamp(100, 1_000)),
        }
    }
}

/// A running collector.
struct Aggregator<'a> {
    lab: &'a Lab,
    release: Release,
    mode: WriteMode,
    lag_ms: i64,
    db: LabDb,
    statistic: Statistic,
    active: std::collections::BTreeSet<i64>,
    /// Start of the first timestep whose final row is not written.
    next: i64,
}

/// Collects for `release` until asked to stop. `mode` and `lag_ms` default to the lab's.
pub(super) async fn collect(
    lab: &Lab,
    release: Release,
    mode: Option<WriteMode>,
    lag_ms: Option<i64>,
) -> Result<(), LabError> {
    let mut stop = Stop::listen()?;
    let name = format!("{}-data-aggregator", release.prefix());
    let ready = Ready::claim(lab, &name)?;
    let mut db = LabDb::open(lab, &name).await?;
    let active = active_entities(&mut db, release).await?;
    let since_ms = continued_since(lab, &mut db, release).await?;
    let session = Session::open(&mut db, release.database(), &name, Kind::Collector).await?;
    let statistic = Statistic::open(lab, since_ms).await?;
    let mut collector = Aggregator {
        lab,
        release,
        mode: mode.unwrap_or(lab.options.write_mode),
        lag_ms: lag_ms.unwrap_or(lab.options.write_lag_ms),
        next: lab.bucket(statistic.opened_ms),
        db,
        statistic,
        active,
    };
    ready.announce(&std::process::id().to_string())?;
    say(&format!("{name} collects {} entities since {} ms", collector.active.len(), collector.statistic.opened_ms));
    let outcome = collector.work(&session, &mut stop).await;
    let ended = session.end(&mut collector.db).await;
    outcome.and(ended)?;
    collector.db.close().await
}

/// The entities to collect, from the release's own configuration.
async fn active_entities(db: &mut LabDb, release: Release) -> Result<std::collections::BTreeSet<i64>, LabError> {
    let database = release.database().name();
    let sql = format!("SELECT activity_id FROM {database}.wfm_activity WHERE is_active = 1");
    let rows = db.rows(&sql, &[]).await?;
    let active: std::collections::BTreeSet<i64> = rows.iter().filter_map(|row| row.first()?.int()).collect();
    if active.is_empty() {
        return Err(LabError::Options(format!("`{database}` has no active activity; migrate the configuration first")));
    }
    Ok(active)
}

/// The old release's first collector stands for one that has been up since the seeded history ended, so it continues
/// from there. Every other start sees only what happens from now on.
async fn continued_since(lab: &Lab, db: &mut LabDb, release: Release) -> Result<Option<i64>, LabError> {
    if release == Release::R76 {
        return Ok(None);
    }
    let sql = "SELECT COUNT(*) FROM wfm65.lab_session WHERE kind = 'collector'";
    Ok((db.number(sql, &[]).await? == 0).then_some(lab.history_end_s * 1_000))
}

impl Aggregator<'_> {
    async fn work(&mut self, session: &Session, stop: &mut Stop) -> Result<(), LabError> {
        let every_ms = self.mode.every_ms(self.lab.timestep_ms());
        let mut beat_at = now_ms() + HEARTBEAT_MS;
        let mut flush_at = every_ms.map(|every| now_ms() + every);
        loop {
            self.write_finished().await?;
            if let (Some(at), Some(every)) = (flush_at, every_ms)
                && at <= now_ms()
            {
                self.write_unfinished().await?;
                flush_at = Some(now_ms() + every);
            }
            if beat_at <= now_ms() {
                session.beat(&mut self.db).await?;
                self.statistic.observe(0, 0).await?;
                beat_at = now_ms() + HEARTBEAT_MS;
            }
            let due = self.close_ms(self.next) + self.lag_ms;
            let wake = due.min(beat_at).min(flush_at.unwrap_or(i64::MAX));
            tokio::select! {
                () = stop.asked() => break,
                () = until(wake) => {}
            }
        }
        if self.mode.writes_unfinished() {
            self.write_unfinished().await?;
        }
        Ok(())
    }

    fn close_ms(&self, step_start: i64) -> i64 {
        (step_start + self.lab.options.timestep_s) * 1_000
    }

    /// Writes the final row of every timestep whose close and lag have passed.
    async fn write_finished(&mut self) -> Result<(), LabError> {
        while self.close_ms(self.next) + self.lag_ms <= now_ms() {
            self.write_step(self.next).await?;
            self.next += self.lab.options.timestep_s;
        }
        Ok(())
    }

    /// Writes what is known of the timesteps that are not final.
    async fn write_unfinished(&mut self) -> Result<(), LabError> {
        let mut step = self.next;
        while step * 1_000 <= now_ms() {
            self.write_step(step).await?;
            step += self.lab.options.timestep_s;
        }
        Ok(())
    }

    async fn write_step(&mut self, step_start: i64) -> Result<(), LabError> {
        let seen = self.statistic.observe(step_start * 1_000, self.close_ms(step_start)).await?;
        let rows: Vec<_> = seen.into_iter().filter(|(entity, _)| self.active.contains(entity)).collect();
        for part in rows.chunks(500) {
            self.db.batch(&upsert(self.release, step_start, part)).await?;
        }
        Ok(())
    }
}

/// One statement that writes the rows of a timestep over whatever is there.
fn upsert(release: Release, step_start: i64, rows: &[(i64, Observation)]) -> String {
    let values: Vec<String> = rows.iter().map(|(entity, seen)| values(release, *entity, step_start, seen)).collect();
    let columns = columns(release);
    let changes: Vec<String> =
        columns.split(", ").skip(2).map(|column| format!("{column} = excluded.{column}")).collect();
    format!(
        "INSERT INTO {} ({columns}) VALUES {} ON CONFLICT (entity_id, step_start) DO UPDATE SET {}",
        release.perf_table(),
        values.join(","),
        changes.join(", ")
    )
}

/// The performance columns of a release, key first, in the order of [`values`].
pub(super) fn columns(release: Release) -> &'static str {
    match release {
        Release::R65 => "entity_id, step_start, iv, handle_s, sl_pct, abandoned, queue_len",
        Release::R76 => "entity_id, step_start, iv, handle_s, service_level, abandoned, queue_len, new_metric, src",
    }
}

/// One row as the release writes it; 7.6 adds a metric of its own and says that the row is its.
pub(super) fn values(release: Release, entity: i64, step_start: i64, seen: &Observation) -> String {
    let Observation { iv, handle_s, sl_pct, abandoned, queue_len } = seen;
    let common = format!("{entity},{step_start},{iv},{handle_s},{sl_pct},{abandoned},{queue_len}");
    match release {
        Release::R65 => format!("({common})"),
        Release::R76 => format!("({common},{},'76')", 1 + iv % 97),
    }
}
