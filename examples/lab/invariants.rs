//! What must hold after a migration: seventeen statements, each measured in the lab's own databases.
//!
//! Most are one portable SQL text each. Some need facts that only the run knows (which ranges it copied, when the passes ran,
//! what it predicted): the caller hands them in as [`RunFacts`]. What was not measured does not hold, and says so.

use serde::{Deserialize, Serialize};

use super::db::{Arg, LabDb};
use super::error::LabError;
use super::loss::{self, Loss};
use super::settings::Lab;
use super::utility;

/// One invariant, measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvariantResult {
    /// `I1` to `I17`.
    pub id: String,
    /// Whether it holds; false if it could not be measured.
    pub holds: bool,
    /// What was found, for a person.
    pub measured: String,
}

/// A time between two moments, epoch milliseconds, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    /// When it began.
    pub from_ms: i64,
    /// When it ended.
    pub to_ms: i64,
}

/// A half-open range of timestep starts that one copy step moved, epoch seconds; late-row re-reads are not listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopiedRange {
    /// First timestep; none means from the beginning.
    pub from: Option<i64>,
    /// End, not included.
    pub to: i64,
}

/// A watermark and when it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watermark {
    /// Epoch seconds; every timestep that starts before it was complete.
    pub at: i64,
    /// When it was read, epoch milliseconds.
    pub read_ms: i64,
}

/// A service that a run stopped with a hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Held {
    /// The service's name, as in the site file.
    pub service: String,
    /// From the end of its stop to the hold's release or the run's end.
    pub span: Span,
}

/// What only the run knows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunFacts {
    /// When the run started, epoch milliseconds.
    pub started_ms: i64,
    /// Up to when rows are judged, epoch milliseconds: the moment of measuring, some timesteps after the run's end.
    pub ended_ms: i64,
    /// B, epoch seconds.
    pub boundary: Option<i64>,
    /// When the configuration pass ran.
    pub config_pass: Option<Span>,
    /// When the last performance pass ran.
    pub performance_pass: Option<Span>,
    /// Rows in the target's performance table right after the configuration pass.
    pub perf_rows_after_config_pass: Option<i64>,
    /// The ranges of the performance copies, in the order of the run.
    pub copied: Vec<CopiedRange>,
    /// The watermarks that the run read, in the order of the run.
    pub watermarks: Vec<Watermark>,
    /// Rows that a second execution of the last pass inserted, updated or deleted.
    pub repeat_changed_rows: Option<i64>,
    /// Whether the site has the milestone that the 8.x update requires.
    pub milestone: bool,
    /// The loss that was predicted before the run.
    pub predicted: Option<Loss>,
    /// The services that the run held down.
    pub held: Vec<Held>,
}

/// Measures every invariant, in order.
pub async fn check(lab: &Lab, facts: &RunFacts) -> Result<Vec<InvariantResult>, LabError> {
    let mut check = Check { lab, facts, db: LabDb::open(lab, "piton-lab-invariants").await?, results: Vec::new() };
    check.rows().await?;
    check.ledger().await?;
    check.sessions().await?;
    check.source_unchanged().await?;
    let option = check.option().await?;
    check.add("I12", option);
    let ranges = check.ranges();
    check.add("I13", ranges);
    check.add(
        "I14",
        facts.repeat_changed_rows.map_or_else(
            || Err("the last pass was not executed a second time".to_owned()),
            |n| zero(n, "rows changed by a second execution"),
        ),
    );
    check.gate().await?;
    check.loss().await?;
    check.holds().await?;
    let order = |result: &InvariantResult| result.id[1..].parse::<u8>().unwrap_or(u8::MAX);
    check.results.sort_by_key(order);
    check.db.close().await?;
    Ok(check.results)
}

/// What holds, or what does not.
type Verdict = Result<String, String>;

fn zero(count: i64, what: &str) -> Verdict {
    let text = format!("{count} {what}");
    if count == 0 { Ok(text) } else { Err(text) }
}

struct Check<'a> {
    lab: &'a Lab,
    facts: &'a RunFacts,
    db: LabDb,
    results: Vec<InvariantResult>,
}

/// Source rows below the boundary `$1`, each beside the target row of its key.
const SOURCE_BESIDE_TARGET: &str = "FROM wfm65.wfm_perf_item AS s LEFT JOIN wfm76.wfm_perf_timestep AS d \
     ON d.entity_id = s.entity_id AND d.step_start = s.step_start WHERE s.step_start < $1";

/// Kept target rows, each beside what is there now.
const BEFORE_BESIDE_NOW: &str = "FROM wfm76.piton_perf_before AS b LEFT JOIN wfm76.wfm_perf_timestep AS d \
     ON d.entity_id = b.entity_id AND d.step_start = b.step_start";

impl Check<'_> {
    fn add(&mut self, id: &str, verdict: Verdict) {
        let holds = verdict.is_ok();
        let (Ok(measured) | Err(measured)) = verdict;
        self.results.push(InvariantResult { id: id.to_owned(), holds, measured });
    }

    /// As `none_of`, out of `total` rows; with none to look at, nothing is proven.
    async fn none_among(&mut self, id: &str, total: i64, what: &str, sql: &str, args: &[Arg]) -> Result<(), LabError> {
        let count = self.db.number(sql, args).await?;
        let verdict = if total == 0 {
            Err(format!("not measured: no rows to look at for {what}"))
        } else {
            zero(count, &format!("of {total} {what}"))
        };
        self.add(id, verdict);
        Ok(())
    }

    async fn none_of(&mut self, id: &str, what: &str, sql: &str, args: &[super::Arg]) -> Result<(), LabError> {
        let count = self.db.number(sql, args).await?;
        self.add(id, zero(count, what));
        Ok(())
    }

    /// I1 to I7: keys and payloads of both databases.
    async fn rows(&mut self) -> Result<(), LabError> {
        let step = self.lab.options.timestep_s.into();
        let grid = "SELECT CAST(SUM(n) AS BIGINT) FROM (\
             SELECT COUNT(*) AS n FROM wfm65.wfm_perf_item WHERE step_start % $1 <> 0 UNION ALL \
             SELECT COUNT(*) AS n FROM wfm76.wfm_perf_timestep WHERE step_start % $1 <> 0 UNION ALL \
             SELECT COUNT(*) AS n FROM (SELECT entity_id FROM wfm76.wfm_perf_timestep \
             GROUP BY entity_id, step_start HAVING COUNT(*) > 1) AS twice) AS found";
        self.none_of("I1", "rows off the grid or with a key twice", grid, &[step]).await?;
        let map = "SELECT CAST(SUM(n) AS BIGINT) FROM (\
             SELECT COUNT(*) AS n FROM wfm65.wfm_activity AS a WHERE (SELECT COUNT(*) FROM wfm76.wfm_activity AS b \
             WHERE b.activity_id = a.activity_id AND b.site_id = a.site_id AND b.name = a.activity_name) <> 1 UNION ALL \
             SELECT COUNT(*) AS n FROM (SELECT site_id FROM wfm76.wfm_activity \
             GROUP BY site_id, name HAVING COUNT(*) > 1) AS merged) AS found";
        self.none_of("I2", "activities without exactly one counterpart", map, &[]).await?;
        let Some(boundary) = self.facts.boundary else {
            for id in ["I3", "I4", "I5", "I6", "I7"] {
                self.add(id, Err("not measured: the run fixed no boundary".into()));
            }
            return Ok(());
        };
        let boundary = [boundary.into()];
        let missing = format!("SELECT COUNT(*) {SOURCE_BESIDE_TARGET} AND d.entity_id IS NULL");
        let below = "SELECT COUNT(*) FROM wfm65.wfm_perf_item WHERE step_start < $1";
        let below = self.db.number(below, &boundary).await?;
        self.none_among("I3", below, "source rows below the boundary missing", &missing, &boundary).await?;
        let changed = format!(
            "SELECT COUNT(*) {SOURCE_BESIDE_TARGET} AND (d.iv <> s.iv OR d.handle_s <> s.handle_s \
             OR d.service_level <> s.sl_pct OR d.abandoned <> s.abandoned OR d.queue_len <> s.queue_len)"
        );
        self.none_among("I4", below, "source rows below the boundary with another payload", &changed, &boundary)
            .await?;
        let gone = format!("SELECT COUNT(*) {BEFORE_BESIDE_NOW} WHERE d.entity_id IS NULL");
        let kept = self.db.number("SELECT COUNT(*) FROM wfm76.piton_perf_before", &[]).await?;
        self.none_among("I5", kept, "rows that 7.6 had before the pass are gone", &gone, &[]).await?;
        let overwritten = format!(
            "SELECT COUNT(*) {BEFORE_BESIDE_NOW} WHERE b.step_start >= $1 AND (d.entity_id IS NULL OR d.iv <> b.iv \
             OR d.handle_s <> b.handle_s OR COALESCE(d.new_metric, -1) <> COALESCE(b.new_metric, -1) OR d.src <> b.src)"
        );
        self.none_among("I6", kept, "rows of 7.6 from the boundary on changed by the pass", &overwritten, &boundary)
            .await?;
        let provenance = "SELECT COUNT(*) FROM wfm76.wfm_perf_timestep \
             WHERE (step_start < $1 AND src <> '65') OR (step_start >= $1 AND src <> '76')";
        self.none_of("I7", "rows on the wrong side of the boundary", provenance, &boundary).await
    }

    /// I8 and I9: the target against its own grid and against the ledger.
    async fn ledger(&mut self) -> Result<(), LabError> {
        let (step, last) = (self.lab.options.timestep_s, self.lab.last_written(self.facts.ended_ms));
        let gaps = "SELECT CAST(COALESCE(SUM(gap), 0) AS BIGINT) FROM (SELECT (step_start - LAG(step_start) OVER \
             (PARTITION BY entity_id ORDER BY step_start)) / $1 - 1 AS gap \
             FROM wfm76.wfm_perf_timestep WHERE step_start <= $2) AS g WHERE gap > 0";
        let behind = "SELECT CAST(COALESCE(SUM(($2 - COALESCE(newest, $2 - $1)) / $1), 0) AS BIGINT) FROM (\
             SELECT a.activity_id, (SELECT MAX(step_start) FROM wfm76.wfm_perf_timestep AS d \
             WHERE d.entity_id = a.activity_id AND d.step_start <= $2) AS newest \
             FROM wfm76.wfm_activity AS a WHERE a.is_active = 1) AS e";
        let args = [step.into(), last.into()];
        let count = self.db.number(gaps, &args).await? + self.db.number(behind, &args).await?;
        self.add("I8", zero(count, "timesteps without a row"));
        let truth = "SELECT COUNT(*) FROM truth.truth AS t LEFT JOIN wfm76.wfm_perf_timestep AS d \
             ON d.entity_id = t.entity_id AND d.step_start = t.step_start \
             WHERE t.step_start <= $1 AND (d.entity_id IS NULL OR d.iv <> t.iv OR d.handle_s <> t.handle_s)";
        self.none_of("I9", "closed timesteps not equal to the ledger", truth, &[last.into()]).await
    }

    /// I10: no two collectors of one database at the same moment, as their sessions tell.
    async fn sessions(&mut self) -> Result<(), LabError> {
        let mut pairs = 0;
        for database in ["wfm65", "wfm76"] {
            let sql = format!(
                "SELECT COUNT(*) FROM {database}.lab_session AS a JOIN {database}.lab_session AS b \
                 ON a.session_id < b.session_id AND a.kind = 'collector' AND b.kind = 'collector' \
                 AND a.opened_ms < COALESCE(b.closed_ms, b.beat_ms) AND b.opened_ms < COALESCE(a.closed_ms, a.beat_ms)"
            );
            pairs += self.db.number(&sql, &[]).await?;
        }
        self.add("I10", zero(pairs, "pairs of collectors at the same time on one database"));
        Ok(())
    }

    /// I11: the source below the boundary is what it was when the boundary was fixed, and no collector writes any more.
    async fn source_unchanged(&mut self) -> Result<(), LabError> {
        let Some(boundary) = self.facts.boundary else {
            self.add("I11", Err("not measured: the run fixed no boundary".into()));
            return Ok(());
        };
        let kept =
            "SELECT row_count, sum_iv, sum_handle_s, weighted FROM wfm65.piton_source_digest WHERE boundary = $1";
        let now = "SELECT COUNT(*), CAST(SUM(iv) AS BIGINT), CAST(SUM(handle_s) AS BIGINT), \
             CAST(SUM((iv * 31 + handle_s) * (step_start % 251 + entity_id % 127)) AS BIGINT) \
             FROM wfm65.wfm_perf_item WHERE step_start < $1";
        let kept = self.db.rows(kept, &[boundary.into()]).await?;
        let now = self.db.rows(now, &[boundary.into()]).await?;
        let open = "SELECT COUNT(*) FROM wfm65.lab_session WHERE kind = 'collector' AND closed_ms IS NULL";
        let open = self.db.number(open, &[]).await?;
        let verdict = match (kept.first(), now.first()) {
            (None, _) => Err("not measured: no digest was kept at the boundary".to_owned()),
            (Some(kept), Some(now)) if kept == now => zero(open, "collectors left on the source, digest unchanged"),
            (Some(_), _) => Err("the source's digest below the boundary changed".to_owned()),
        };
        self.add("I11", verdict);
        Ok(())
    }

    /// I12: the option's history and the utility's starts around both passes.
    async fn option(&mut self) -> Result<Verdict, LabError> {
        let (Some(config), Some(performance)) = (self.facts.config_pass, self.facts.performance_pass) else {
            return Ok(Err("not measured: the run had no two passes".into()));
        };
        for (span, wanted) in [(config, "0"), (performance, "1")] {
            if let Err(why) = self.option_during(span, wanted).await? {
                return Ok(Err(why));
            }
        }
        Ok(match self.facts.perf_rows_after_config_pass {
            None => Err("not measured: performance rows after the first pass were not counted".into()),
            Some(count) => zero(count, "performance rows after the first pass; 0 and 1 were in force"),
        })
    }

    async fn option_during(&mut self, span: Span, wanted: &str) -> Result<Verdict, LabError> {
        let (object, section, name) = utility::OPTION;
        let sql = "SELECT CAST(at AS TEXT), new_value FROM genesys.option_history \
             WHERE object = $1 AND section = $2 AND name = $3";
        let changes = self.db.rows(sql, &[object.into(), section.into(), name.into()]).await?;
        let mut changes: Vec<(i64, Option<String>)> = changes
            .iter()
            .filter_map(|row| Some((moment_ms(row.first()?.text()?)?, row.get(1)?.text().map(str::to_owned))))
            .collect();
        changes.sort();
        if changes.iter().any(|(at, _)| (span.from_ms..=span.to_ms).contains(at)) {
            return Ok(Err(format!("the option changed during the pass that wants `{wanted}`")));
        }
        let Some((changed_ms, value)) = changes.into_iter().rfind(|(at, _)| *at < span.from_ms) else {
            return Ok(Err(format!("the option was never set before the pass that wants `{wanted}`")));
        };
        let starts = "SELECT started_ms, allow_migrate_performance FROM genesys.dbu_start WHERE started_ms <= $1 \
             ORDER BY started_ms DESC LIMIT 1";
        let start = self.db.rows(starts, &[span.from_ms.into()]).await?;
        let started_ms = start.first().and_then(|row| row.first()?.int()).unwrap_or(0);
        let seen = start.first().and_then(|row| row.get(1)?.text()).unwrap_or("absent").to_owned();
        Ok(if value.as_deref() != Some(wanted) {
            Err(format!("the option was {value:?} in the pass that wants `{wanted}`"))
        } else if started_ms < changed_ms || seen != wanted {
            Err(format!("the utility was not started after the option became `{wanted}` (it knew `{seen}`)"))
        } else {
            Ok(format!("`{wanted}` in force"))
        })
    }

    /// I13: watermarks never go back and cover closed timesteps only; ranges join without gap up to the boundary.
    fn ranges(&self) -> Verdict {
        let (marks, copied) = (&self.facts.watermarks, &self.facts.copied);
        if marks.windows(2).any(|pair| pair[1].at < pair[0].at) {
            return Err("a watermark went back".into());
        }
        if let Some(mark) = marks.iter().find(|mark| mark.at * 1_000 > mark.read_ms) {
            return Err(format!("watermark {} covers a timestep that was not closed", mark.at));
        }
        let (Some(first), Some(last)) = (copied.first(), copied.last()) else {
            return Err("not measured: no range was copied".into());
        };
        let joined = copied.windows(2).all(|pair| pair[1].from == Some(pair[0].to));
        let text = format!("{} ranges up to {}, {} watermarks", copied.len(), last.to, marks.len());
        if first.from.is_none() && joined && Some(last.to) == self.facts.boundary { Ok(text) } else { Err(text) }
    }

    /// I15: the milestone, or an 8.x schema, only where I3 to I9 hold.
    async fn gate(&mut self) -> Result<(), LabError> {
        let sql = "SELECT COUNT(*) FROM wfm76.wfm_schema_version WHERE version LIKE '8.%'";
        let updated = self.db.number(sql, &[]).await? > 0;
        let passed = ["I3", "I4", "I5", "I6", "I7", "I8", "I9"];
        let proven = self.results.iter().filter(|result| passed.contains(&result.id.as_str())).all(|r| r.holds);
        let open = updated || self.facts.milestone;
        let text = format!("milestone {}, schema at 8.x: {updated}, I3-I9 hold: {proven}", self.facts.milestone);
        self.add("I15", if open && !proven { Err(text) } else { Ok(text) });
        Ok(())
    }

    /// I16: measured against predicted.
    async fn loss(&mut self) -> Result<(), LabError> {
        let measured = loss::measure(self.lab, self.facts.started_ms, self.facts.ended_ms).await?;
        let Loss { missing, partial, overwritten } = measured;
        let verdict = match self.facts.predicted {
            None => Err("not measured: nothing was predicted".to_owned()),
            Some(bound) => {
                let text = format!(
                    "missing {missing} of {}, partial {partial} of {}, overwritten {overwritten} of {}",
                    bound.missing, bound.partial, bound.overwritten
                );
                if measured.within(&bound) { Ok(text) } else { Err(text) }
            }
        };
        self.add("I16", verdict);
        Ok(())
    }

    /// I17: no session of a held component while it was held.
    async fn holds(&mut self) -> Result<(), LabError> {
        let mut revived = Vec::new();
        for Held { service, span } in &self.facts.held {
            for database in ["wfm65", "wfm76"] {
                let sql = format!(
                    "SELECT COUNT(*) FROM {database}.lab_session WHERE component = $1 AND opened_ms < $2 \
                     AND COALESCE(closed_ms, beat_ms) > $3"
                );
                let args = [service.as_str().into(), span.to_ms.into(), span.from_ms.into()];
                if self.db.number(&sql, &args).await? > 0 {
                    revived.push(service.as_str());
                }
            }
        }
        let verdict = if revived.is_empty() {
            Ok(format!("{} held services stayed down", self.facts.held.len()))
        } else {
            Err(format!("revived while held: {}", revived.join(", ")))
        };
        self.add("I17", verdict);
        Ok(())
    }
}

/// The moment that a text names: RFC 3339, or whole epoch seconds or milliseconds.
pub(super) fn moment_ms(text: &str) -> Option<i64> {
    const LATEST_EPOCH_SECOND: i64 = 100_000_000_000;
    match text.parse::<i64>() {
        Ok(n) if n < LATEST_EPOCH_SECOND => Some(n * 1_000),
        Ok(n) => Some(n),
        Err(_) => text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond),
    }
}

#[cfg(test)]
#[path = "invariants_tests.rs"]
mod tests;
