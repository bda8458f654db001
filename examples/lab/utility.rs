//! The Database Utility: reads its option once, when it starts, and carries out the two migration passes when asked.
//!
//! It behaves as the vendor's guide describes: *Migrate Database* copies the configuration, and the performance data too unless
//! the option is 0; *Migrate Performance Data* writes every source row over the target's row of the same key, whole rows,
//! so that what only 7.6 knows is lost. It refuses the second pass if its option was 0 when it started.

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::db::{Arg, LabDb};
use super::error::LabError;
use super::session::{HEARTBEAT_MS, Kind, Ready, Session, Stop, until};
use super::settings::{Database, Lab, now_ms};

/// The name under which the utility is known.
pub(super) const NAME: &str = "database-utility";
/// Where its option lives: application object, section, name.
pub(super) const OPTION: (&str, &str, &str) = ("WFM Client Application", "Options", "AllowMigratePerformance");

/// How long the utility needs until it is operational.
pub(super) const START_MS: i64 = 200;
/// Rows of performance data per statement.
const CHUNK_ROWS: i64 = 2_000;

/// An operation that the utility offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Operation {
    /// Configuration, and performance data unless the option is 0.
    MigrateDatabase,
    /// Performance data; refused if the option was 0 at start.
    MigratePerformance,
}

impl Operation {
    /// The operation's name in requests and in `migration_pass`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::MigrateDatabase => "migrate-database",
            Self::MigratePerformance => "migrate-performance",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::MigrateDatabase, Self::MigratePerformance].into_iter().find(|operation| operation.name() == text)
    }
}

/// The answer to an operation, one JSON object on one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answer {
    operation: String,
    refused: Option<String>,
    config_rows: i64,
    perf_rows: i64,
    seconds: i64,
}

/// A table of the configuration: source and target name, then the columns of each in the same order.
struct ConfigTable(&'static str, &'static str, &'static str, &'static str);

const CONFIGURATION: [ConfigTable; 12] = [
    ConfigTable("wfm_business_unit", "wfm_business_unit", "bu_id, bu_name, timezone", "bu_id, name, timezone"),
    ConfigTable("wfm_site", "wfm_site", "site_id, bu_id, site_name, week_start", "site_id, bu_id, name, week_start"),
    ConfigTable("wfm_team", "wfm_team", "team_id, site_id, team_name", "team_id, site_id, name"),
    ConfigTable(
        "wfm_contract",
        "wfm_contract",
        "contract_id, site_id, contract_name, weekly_minutes",
        "contract_id, site_id, name, weekly_minutes",
    ),
    ConfigTable(
        "wfm_agent",
        "wfm_agent",
        "agent_id, team_id, contract_id, agent_name, hired_at",
        "agent_id, team_id, contract_id, display_name, hired_at",
    ),
    ConfigTable(
        "wfm_activity",
        "wfm_activity",
        "activity_id, site_id, activity_name, is_active",
        "activity_id, site_id, name, is_active",
    ),
    ConfigTable(
        "wfm_agent_activity",
        "wfm_agent_activity",
        "agent_id, activity_id, skill_level",
        "agent_id, activity_id, skill_level",
    ),
    ConfigTable(
        "wfm_shift",
        "wfm_shift",
        "shift_id, site_id, shift_name, start_minute, length_minutes",
        "shift_id, site_id, name, start_minute, length_minutes",
    ),
    ConfigTable(
        "wfm_calendar",
        "wfm_calendar_item",
        "calendar_id, agent_id, day_number, kind, note",
        "item_id, agent_id, day_number, kind, comments",
    ),
    ConfigTable(
        "wfm_forecast",
        "wfm_forecast",
        "activity_id, day_number, volume, handle_s",
        "activity_id, day_number, volume, handle_s",
    ),
    ConfigTable(
        "wfm_schedule",
        "wfm_schedule",
        "agent_id, day_number, shift_id, state",
        "agent_id, day_number, shift_id, state",
    ),
    ConfigTable("wfm_security_role", "wfm_security_role", "role_id, role_name", "role_id, role_name"),
];

/// Runs the utility until it is asked to stop; a pass under way ends between two statements.
pub(super) async fn serve(lab: &Lab) -> Result<(), LabError> {
    let mut stop = Stop::listen()?;
    let ready = Ready::claim(lab, NAME)?;
    let mut db = LabDb::open(lab, NAME).await?;
    let source = Session::open(&mut db, Database::Wfm65, NAME, Kind::Utility).await?;
    let target = Session::open(&mut db, Database::Wfm76, NAME, Kind::Utility).await?;
    let option = read_option(&mut db).await?;
    let started = [target.id().into(), now_ms().into(), option.as_deref().into()];
    let sql = "INSERT INTO genesys.dbu_start (session_id, started_ms, allow_migrate_performance) VALUES ($1, $2, $3)";
    db.execute(sql, &started).await?;
    until(now_ms() + START_MS).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(LabError::file("127.0.0.1"))?;
    let address = listener.local_addr().map_err(LabError::file("127.0.0.1"))?;
    ready.announce(&address.to_string())?;
    let mut beats = LabDb::open(lab, NAME).await?;
    loop {
        tokio::select! {
            () = stop.asked() => break,
            () = until(now_ms() + HEARTBEAT_MS) => {
                source.beat(&mut beats).await?;
                target.beat(&mut beats).await?;
            }
            accepted = listener.accept() => {
                let (stream, _) = accepted.map_err(LabError::file("127.0.0.1"))?;
                let asked = tokio::select! {
                    () = stop.asked() => true,
                    done = answer(lab, &mut db, stream, option.as_deref()) => { done?; false }
                };
                if asked {
                    break;
                }
            }
        }
    }
    source.end(&mut beats).await?;
    target.end(&mut beats).await?;
    beats.close().await?;
    db.close().await
}

async fn read_option(db: &mut LabDb) -> Result<Option<String>, LabError> {
    let sql = "SELECT value FROM genesys.option_value WHERE object = $1 AND section = $2 AND name = $3";
    let rows = db.rows(sql, &[OPTION.0.into(), OPTION.1.into(), OPTION.2.into()]).await?;
    Ok(rows.first().and_then(|row| row.first()?.text()).map(str::to_owned))
}

/// Reads one request, does what it says and answers. A caller that hangs up does not stop the pass.
async fn answer(lab: &Lab, db: &mut LabDb, stream: TcpStream, option: Option<&str>) -> Result<(), LabError> {
    let (read, mut write) = stream.into_split();
    let request = BufReader::new(read).lines().next_line().await.unwrap_or_default().unwrap_or_default();
    let refuse = |why: &str| Answer {
        operation: request.clone(),
        refused: Some(why.to_owned()),
        config_rows: 0,
        perf_rows: 0,
        seconds: 0,
    };
    let answer = match Operation::parse(&request) {
        None => refuse("there is no such operation"),
        Some(Operation::MigratePerformance) if option == Some("0") => {
            refuse("AllowMigratePerformance was 0 when the utility started; set it to 1 and start the utility again")
        }
        Some(operation) => pass(lab, db, operation, option).await?,
    };
    let text = serde_json::to_string(&answer).map_err(|source| LabError::Json { what: request, source })?;
    // The caller may be gone; what was done is in `migration_pass`.
    let _ = write.write_all(format!("{text}\n").as_bytes()).await;
    Ok(())
}

async fn pass(lab: &Lab, db: &mut LabDb, operation: Operation, option: Option<&str>) -> Result<Answer, LabError> {
    let started_ms = now_ms();
    let id = format!("{}-{started_ms}", operation.name());
    db.execute(
        "INSERT INTO genesys.migration_pass (pass_id, operation, started_ms, config_rows, perf_rows, option_value) \
         VALUES ($1, $2, $3, 0, 0, $4)",
        &[Arg::Text(id.clone()), operation.name().into(), started_ms.into(), option.into()],
    )
    .await?;
    let config_rows = match operation {
        Operation::MigrateDatabase => migrate_configuration(lab, db).await?,
        Operation::MigratePerformance => 0,
    };
    let perf_rows = match operation {
        Operation::MigrateDatabase if option == Some("0") => 0,
        Operation::MigrateDatabase | Operation::MigratePerformance => migrate_performance(lab, db).await?,
    };
    let ended_ms = now_ms();
    db.execute(
        "UPDATE genesys.migration_pass SET ended_ms = $1, config_rows = $2, perf_rows = $3 WHERE pass_id = $4",
        &[ended_ms.into(), config_rows.into(), perf_rows.into(), Arg::Text(id)],
    )
    .await?;
    let seconds = (ended_ms - started_ms) / 1_000;
    Ok(Answer { operation: operation.name().to_owned(), refused: None, config_rows, perf_rows, seconds })
}

async fn migrate_configuration(lab: &Lab, db: &mut LabDb) -> Result<i64, LabError> {
    let (started_ms, mut moved) = (now_ms(), 0);
    for ConfigTable(from, to, source_columns, target_columns) in CONFIGURATION {
        db.batch(&format!(
            "BEGIN; DELETE FROM wfm76.{to}; \
             INSERT INTO wfm76.{to} ({target_columns}) SELECT {source_columns} FROM wfm65.{from}; COMMIT"
        ))
        .await?;
        moved += db.number(&format!("SELECT COUNT(*) FROM wfm76.{to}"), &[]).await?;
        pace(lab, started_ms, moved).await;
    }
    Ok(moved)
}

/// Source rows over target rows in key order, each chunk as the source is when its turn comes: while the old collector
/// still runs, what it adds meanwhile is taken along for the entities that come later.
async fn migrate_performance(lab: &Lab, db: &mut LabDb) -> Result<i64, LabError> {
    let (started_ms, mut moved, mut after) = (now_ms(), 0, (0_i64, 0_i64));
    loop {
        let last = db.rows(LAST_KEY_OF_CHUNK, &[after.0.into(), after.1.into(), CHUNK_ROWS.into()]).await?;
        let Some([Arg::Int(entity), Arg::Int(step)]) = last.first().map(Vec::as_slice) else { break };
        let range: [Arg; 4] = [after.0.into(), after.1.into(), (*entity).into(), (*step).into()];
        let closed = lab.bucket(now_ms() - lab.options.write_lag_ms) - lab.options.timestep_s;
        let [after_entity, after_step, last_entity, last_step] = range.clone();
        db.execute(KEEP_EVIDENCE, &[after_entity, after_step, last_entity, last_step, closed.into()]).await?;
        moved += i64::try_from(db.execute(COPY_CHUNK, &range).await?).unwrap_or(i64::MAX);
        after = (*entity, *step);
        pace(lab, started_ms, moved).await;
    }
    Ok(moved)
}

/// The last key of the next chunk after `($1, $2)`.
const LAST_KEY_OF_CHUNK: &str = "SELECT entity_id, step_start FROM (SELECT entity_id, step_start \
     FROM wfm65.wfm_perf_item WHERE (entity_id, step_start) > ($1, $2) ORDER BY entity_id, step_start LIMIT $3) \
     AS chunk ORDER BY entity_id DESC, step_start DESC LIMIT 1";

/// Keeps the closed rows of a key range that 7.6 collected itself, as they stand before the pass writes there.
const KEEP_EVIDENCE: &str = "INSERT INTO wfm76.piton_perf_before (entity_id, step_start, iv, handle_s, new_metric, src) \
     SELECT entity_id, step_start, iv, handle_s, new_metric, src FROM wfm76.wfm_perf_timestep \
     WHERE (entity_id, step_start) > ($1, $2) AND (entity_id, step_start) <= ($3, $4) AND src = '76' AND step_start <= $5 \
     ON CONFLICT (entity_id, step_start) DO NOTHING";

const COPY_CHUNK: &str = "INSERT INTO wfm76.wfm_perf_timestep \
     (entity_id, step_start, iv, handle_s, service_level, abandoned, queue_len, new_metric, src) \
     SELECT entity_id, step_start, iv, handle_s, sl_pct, abandoned, queue_len, NULL, '65' FROM wfm65.wfm_perf_item \
     WHERE (entity_id, step_start) > ($1, $2) AND (entity_id, step_start) <= ($3, $4) \
     ON CONFLICT (entity_id, step_start) DO UPDATE SET iv = excluded.iv, handle_s = excluded.handle_s, \
     service_level = excluded.service_level, abandoned = excluded.abandoned, queue_len = excluded.queue_len, \
     new_metric = excluded.new_metric, src = excluded.src";

/// Sleeps until `moved` rows are due at the utility's speed.
async fn pace(lab: &Lab, started_ms: i64, moved: i64) {
    until(started_ms + moved * 1_000 / lab.options.dbu_rows_per_second.max(1)).await;
}

/// Asks the running utility for an operation and waits for its end; returns the answer's JSON line.
pub(super) async fn call(lab: &Lab, operation: Operation) -> Result<String, LabError> {
    let path = lab.ready_file(NAME);
    let address = std::fs::read_to_string(&path).map_err(LabError::file(&path))?;
    let mut stream = TcpStream::connect(address.trim()).await.map_err(LabError::file(&path))?;
    stream.write_all(format!("{}\n", operation.name()).as_bytes()).await.map_err(LabError::file(&path))?;
    let line = BufReader::new(stream).lines().next_line().await.map_err(LabError::file(&path))?;
    let line = line.ok_or_else(|| LabError::Protocol("the database utility hung up".into()))?;
    let answer: Answer = serde_json::from_str(&line).map_err(|source| LabError::Json { what: line.clone(), source })?;
    answer.refused.map_or(Ok(line), |why| Err(LabError::Refused(why)))
}

#[cfg(test)]
mod tests {
    use super::super::settings::LabOptions;
    use super::*;

    async fn small_lab(dir: &std::path::Path) -> (Lab, LabDb) {
        let options =
            LabOptions { entities: 3, history_steps: 10, dbu_rows_per_second: 1_000_000, ..LabOptions::default() };
        let lab = super::super::create(dir, options).await.expect("a fresh directory takes a lab");
        super::super::seed(&lab).await.expect("an empty lab takes its history");
        let db = LabDb::open(&lab, "test").await.expect("the lab's files are there");
        (lab, db)
    }

    #[tokio::test]
    async fn option_0_keeps_performance_data_out_and_an_absent_option_takes_it_along() {
        for (option, takes_all) in [(Some("0"), false), (None, true), (Some("1"), true)] {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let (lab, mut db) = small_lab(dir.path()).await;
            // A machine that is slow enough sees a further timestep end while the history is made.
            let source = db.number("SELECT COUNT(*) FROM wfm65.wfm_perf_item", &[]).await.expect("counts");
            assert!(source >= 30, "{source}");
            let rows = if takes_all { source } else { 0 };
            let answer = pass(&lab, &mut db, Operation::MigrateDatabase, option).await.expect("the pass runs");
            assert_eq!(answer.perf_rows, rows, "{option:?}");
            let target = db.number("SELECT COUNT(*) FROM wfm76.wfm_perf_timestep", &[]).await.expect("counts");
            assert_eq!(target, rows, "{option:?}");
            assert_eq!(db.number("SELECT COUNT(*) FROM wfm76.wfm_activity", &[]).await.expect("counts"), 3);
        }
    }

    #[tokio::test]
    async fn the_second_pass_writes_whole_source_rows_over_what_7_6_collected() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (lab, mut db) = small_lab(dir.path()).await;
        let newest = lab.history_end_s - lab.options.timestep_s;
        db.batch(&format!(
            "INSERT INTO wfm76.wfm_perf_timestep (entity_id, step_start, iv, handle_s, service_level, abandoned, queue_len, new_metric, src) \
             VALUES (1, {newest}, 1, 1, 1, 1, 1, 9, '76')"
        ))
        .await
        .expect("a row of 7.6");
        pass(&lab, &mut db, Operation::MigratePerformance, Some("1")).await.expect("the pass runs");
        let kept = "SELECT COUNT(*) FROM wfm76.wfm_perf_timestep WHERE src = '76' OR new_metric IS NOT NULL";
        assert_eq!(db.number(kept, &[]).await.expect("counts"), 0);
    }
}
