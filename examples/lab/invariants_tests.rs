//! Every invariant on a finished migration that is as it should be, and again with one thing planted that breaks it.

use super::super::settings::{LabOptions, now_ms};
use super::super::{Arg, truth::Load};
use super::*;

/// A lab whose migration went well: 6.5 before the boundary, 7.6 from it on, everything equal to the truth.
struct Finished {
    _dir: tempfile::TempDir,
    lab: Lab,
    db: LabDb,
    facts: RunFacts,
}

impl Finished {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let options = LabOptions { entities: 3, history_steps: 20, timestep_s: 60, ..LabOptions::default() };
        let lab = super::super::create(dir.path(), options).await.expect("a fresh directory takes a lab");
        let lab = super::super::seed(&lab).await.expect("an empty lab takes its history");
        let mut db = LabDb::open(&lab, "test").await.expect("the lab's files are there");
        let boundary = lab.history_end_s - 5 * 60;
        db.batch(&migrated(boundary)).await.expect("the migrated rows are written");
        let ended_ms = lab.history_end_s * 1_000 + 2_000;
        let at = |step: i64| ended_ms - 100_000 + step * 1_000;
        for (ms, old, new, seen) in [(at(1), None, "0", "0"), (at(11), Some("0"), "1", "1")] {
            let (object, section, name) = utility::OPTION;
            let moment = jiff::Timestamp::from_millisecond(ms).expect("a moment of today").to_string();
            let args = [moment.as_str().into(), object.into(), section.into(), name.into(), old.into(), new.into()];
            db.execute("INSERT INTO genesys.option_history VALUES ($1, 'test', $2, $3, $4, $5, $6)", &args)
                .await
                .expect("the option's history is written");
            let start = [Arg::Text(format!("s{ms}")), (ms + 500).into(), seen.into()];
            db.execute("INSERT INTO genesys.dbu_start VALUES ($1, $2, $3)", &start).await.expect("a start is written");
        }
        let facts = RunFacts {
            started_ms: at(0),
            ended_ms,
            boundary: Some(boundary),
            config_pass: Some(Span { from_ms: at(3), to_ms: at(5) }),
            performance_pass: Some(Span { from_ms: at(13), to_ms: at(20) }),
            perf_rows_after_config_pass: Some(0),
            copied: vec![
                CopiedRange { from: None, to: boundary - 120 },
                CopiedRange { from: Some(boundary - 120), to: boundary },
            ],
            watermarks: vec![Watermark { at: boundary - 120, read_ms: boundary * 1_000 }],
            repeat_changed_rows: Some(0),
            milestone: true,
            predicted: Some(Loss::default()),
            held: vec![Held {
                service: "wfm65-data-aggregator".into(),
                span: Span { from_ms: at(10), to_ms: ended_ms },
            }],
        };
        Self { _dir: dir, lab, db, facts }
    }

    async fn plant(mut self, sql: &str) -> Self {
        let boundary = self.facts.boundary.expect("the fixture has one");
        let sql = sql.replace(":b", &boundary.to_string()).replace(":now", &(self.facts.ended_ms - 50).to_string());
        self.db.batch(&sql).await.expect("the violation can be planted");
        self
    }

    fn but(mut self, change: impl FnOnce(&mut RunFacts)) -> Self {
        change(&mut self.facts);
        self
    }

    /// The ids that do not hold.
    async fn broken(&self) -> Vec<String> {
        let results = check(&self.lab, &self.facts).await.expect("the lab can be measured");
        assert_eq!(results.len(), 17);
        results.into_iter().filter(|result| !result.holds).map(|result| result.id).collect()
    }
}

fn migrated(boundary: i64) -> String {
    format!(
        "INSERT INTO wfm76.wfm_activity (activity_id, site_id, name, is_active) \
         SELECT activity_id, site_id, activity_name, is_active FROM wfm65.wfm_activity; \
         INSERT INTO wfm76.wfm_perf_timestep SELECT entity_id, step_start, iv, handle_s, sl_pct, abandoned, queue_len, \
         CASE WHEN step_start < {boundary} THEN NULL ELSE 5 END, CASE WHEN step_start < {boundary} THEN '65' ELSE '76' END \
         FROM wfm65.wfm_perf_item; \
         DELETE FROM wfm65.wfm_perf_item WHERE step_start >= {boundary}; \
         INSERT INTO wfm76.piton_perf_before SELECT entity_id, step_start, iv, handle_s, new_metric, src \
         FROM wfm76.wfm_perf_timestep WHERE step_start >= {boundary}; \
         INSERT INTO wfm65.piton_source_digest SELECT {boundary}, COUNT(*), SUM(iv), SUM(handle_s), \
         SUM((iv * 31 + handle_s) * (step_start % 251 + entity_id % 127)) FROM wfm65.wfm_perf_item;"
    )
}

#[tokio::test]
async fn all_seventeen_hold_after_a_migration_that_went_well() {
    assert_eq!(Finished::new().await.broken().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_planted_violation_is_found_by_the_invariant_that_forbids_it() {
    let session = "INSERT INTO wfm65.lab_session VALUES";
    let plants = [
        (
            "I1",
            "UPDATE wfm76.wfm_perf_timestep SET step_start = step_start + 1 WHERE entity_id = 1 AND step_start = :b"
                .to_owned(),
        ),
        ("I2", "DELETE FROM wfm76.wfm_activity WHERE activity_id = 2".to_owned()),
        ("I3", "DELETE FROM wfm76.wfm_perf_timestep WHERE entity_id = 1 AND step_start = :b - 60".to_owned()),
        (
            "I4",
            "UPDATE wfm76.wfm_perf_timestep SET abandoned = abandoned + 1 WHERE entity_id = 1 AND step_start = :b - 60"
                .to_owned(),
        ),
        ("I5", "DELETE FROM wfm76.wfm_perf_timestep WHERE entity_id = 3 AND step_start = :b".to_owned()),
        (
            "I6",
            "UPDATE wfm76.wfm_perf_timestep SET new_metric = NULL WHERE entity_id = 1 AND step_start = :b".to_owned(),
        ),
        ("I7", "UPDATE wfm76.wfm_perf_timestep SET src = '76' WHERE entity_id = 1 AND step_start = :b - 60".to_owned()),
        ("I8", "DELETE FROM wfm76.wfm_perf_timestep WHERE entity_id = 2 AND step_start = :b + 120".to_owned()),
        (
            "I9",
            "UPDATE wfm76.wfm_perf_timestep SET iv = iv - 1 WHERE entity_id = 2 AND step_start = :b + 60".to_owned(),
        ),
        ("I10", format!("{session} ('a', 'x', 'collector', 1, 10, 20, 20), ('b', 'x', 'collector', 2, 19, 30, 30)")),
        (
            "I11",
            "UPDATE wfm65.wfm_perf_item SET handle_s = handle_s + 1 WHERE entity_id = 1 AND step_start = :b - 60"
                .to_owned(),
        ),
        ("I12", "DELETE FROM genesys.dbu_start WHERE allow_migrate_performance = '1'".to_owned()),
        ("I15", "DELETE FROM wfm76.wfm_perf_timestep WHERE entity_id = 1 AND step_start = :b - 60".to_owned()),
        (
            "I16",
            "UPDATE wfm76.wfm_perf_timestep SET iv = iv - 1 WHERE entity_id = 2 AND step_start = :b + 240".to_owned(),
        ),
        ("I17", format!("{session} ('c', 'wfm65-data-aggregator', 'collector', 1, :now, :now, :now)")),
    ];
    for (id, sql) in plants {
        let broken = Finished::new().await.plant(&sql).await.broken().await;
        assert!(broken.iter().any(|broken| broken == id), "{id} was not found, only {broken:?}");
    }
}

#[tokio::test]
async fn facts_that_contradict_an_invariant_break_it() {
    type Change = fn(&mut RunFacts);
    let changes: [(&str, Change); 9] = [
        ("I12", |facts| facts.perf_rows_after_config_pass = Some(1)),
        ("I12", |facts| facts.config_pass = facts.performance_pass),
        ("I13", |facts| facts.copied[1].from = Some(facts.copied[0].to + 60)),
        ("I13", |facts| facts.copied.truncate(1)),
        ("I13", |facts| facts.watermarks.push(Watermark { at: 60, read_ms: now_ms() })),
        ("I13", |facts| facts.watermarks[0].read_ms = facts.watermarks[0].at * 1_000 - 1),
        ("I14", |facts| facts.repeat_changed_rows = Some(2)),
        ("I16", |facts| facts.predicted = None),
        ("I3", |facts| facts.boundary = None),
    ];
    for (id, change) in changes {
        let broken = Finished::new().await.but(change).broken().await;
        assert!(broken.iter().any(|broken| broken == id), "{id} was not found, only {broken:?}");
    }
}

#[test]
fn moments_are_read_in_every_form_that_a_history_may_use() {
    assert_eq!(moment_ms("2026-11-22T00:00:00Z"), Some(1_795_305_600_000));
    assert_eq!(moment_ms("1795305600"), Some(1_795_305_600_000));
    assert_eq!(moment_ms("1795305600123"), Some(1_795_305_600_123));
    assert_eq!(moment_ms("yesterday"), None);
}

#[tokio::test]
async fn a_row_collected_from_the_middle_of_a_timestep_is_measured_as_partial() {
    let finished = Finished::new().await;
    let boundary = finished.facts.boundary.expect("the fixture has one");
    let load = Load::new(finished.lab.options.seed, 60);
    let seen = load.between(1, boundary * 1_000 + 30_000, boundary * 1_000 + 60_000);
    let sql = format!(
        "UPDATE wfm76.wfm_perf_timestep SET iv = {}, handle_s = {} WHERE entity_id = 1 AND step_start = :b",
        seen.iv, seen.handle_s
    );
    let finished = finished.plant(&sql).await;
    let loss = loss::measure(&finished.lab, boundary * 1_000, finished.facts.ended_ms).await.expect("measured");
    assert_eq!(loss, Loss { missing: 0, partial: 1, overwritten: 0 });
}
