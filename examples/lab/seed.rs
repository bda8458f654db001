//! Makes a lab: its directory, its databases, and a past that ends exactly where live collection begins.

use std::path::Path;

use super::db::LabDb;
use super::error::LabError;
use super::settings::{Database, Lab, LabOptions, Release, now_ms};
use super::truth::Load;
use super::{aggregator, component::ComponentName};

const SESSIONS: &str = include_str!("../../schemas/wfm/lab-session.sql");

/// Rows of history per statement.
const ROWS_PER_INSERT: i64 = 1_000;
/// Days of forecasts and schedules.
const PLANNED_DAYS: i64 = 14;

/// Makes the lab's directory and empty databases. Refuses options that make no sense and a directory that has a lab.
pub async fn create(dir: &Path, options: LabOptions) -> Result<Lab, LabError> {
    let wrong = |what: &str| Err(LabError::Options(what.to_owned()));
    if options.entities < 1 || options.timestep_s < 1 || options.history_steps < 0 || options.write_lag_ms < 0 {
        return wrong("a lab needs at least one entity, a timestep of at least 1 s, and no negative number");
    }
    if options.engine == super::Engine::Postgres && options.postgres_url.is_none() {
        return wrong("a lab on PostgreSQL needs a URL: give `--postgres-url`");
    }
    let run = dir.join("run");
    std::fs::create_dir_all(&run).map_err(LabError::file(&run))?;
    let dir = std::path::absolute(dir).map_err(LabError::file(dir))?;
    let mut lab = Lab { dir, options, history_end_s: 0 };
    lab.history_end_s = lab.bucket(now_ms());
    let old =
        [include_str!("../../schemas/wfm/wfm-6.5.sql"), SESSIONS, include_str!("../../schemas/wfm/evidence-6.5.sql")];
    let new =
        [include_str!("../../schemas/wfm/wfm-7.6.sql"), SESSIONS, include_str!("../../schemas/wfm/evidence-7.6.sql")];
    LabDb::build(&lab, Database::Wfm65, &old).await?;
    LabDb::build(&lab, Database::Wfm76, &new).await?;
    LabDb::build(&lab, Database::Truth, &[include_str!("../../schemas/wfm/lab-truth.sql")]).await?;
    LabDb::build(&lab, Database::Genesys, &[include_str!("../../schemas/wfm/lab-genesys.sql")]).await?;
    lab.save()?;
    Ok(lab)
}

/// Fills the 6.5 database with configuration and `history_steps` closed timesteps per entity, and the ledger with their
/// truth. The history ends at the boundary before now, which is written back to `lab.json`; call it on an empty lab.
pub async fn seed(lab: &Lab) -> Result<Lab, LabError> {
    let mut db = LabDb::open(lab, "piton-lab-seed").await?;
    db.batch(&configuration(lab.options.entities)).await?;
    let mut lab = lab.clone();
    let mut next = lab.history_end_s - lab.options.history_steps * lab.options.timestep_s;
    // The clock moves while rows are written; the last rounds are short.
    loop {
        let end = lab.bucket(now_ms());
        if next >= end {
            break;
        }
        history(&lab, &mut db, next, end).await?;
        next = end;
    }
    lab.history_end_s = next;
    lab.save()?;
    db.close().await?;
    Ok(lab)
}

/// Writes rows and truth of the timesteps in `[from, to)`, in key order.
async fn history(lab: &Lab, db: &mut LabDb, from: i64, to: i64) -> Result<(), LabError> {
    let step_s = lab.options.timestep_s;
    let load = Load::new(lab.options.seed, step_s);
    db.batch("BEGIN").await?;
    for entity in 1..=lab.options.entities {
        let mut start = from;
        while start < to {
            let end = to.min(start + ROWS_PER_INSERT * step_s);
            let (mut rows, mut truth) = (Vec::new(), Vec::new());
            while start < end {
                let seen = load.step(entity, start);
                rows.push(aggregator::values(Release::R65, entity, start, &seen));
                truth.push(format!("({entity},{start},{},{})", seen.iv, seen.handle_s));
                start += step_s;
            }
            let columns = aggregator::columns(Release::R65);
            db.batch(&format!("INSERT INTO wfm65.wfm_perf_item ({columns}) VALUES {}", rows.join(","))).await?;
            let columns = "entity_id, step_start, iv, handle_s";
            db.batch(&format!("INSERT INTO truth.truth ({columns}) VALUES {}", truth.join(","))).await?;
        }
    }
    db.batch("COMMIT").await
}

/// The statements that write a plausible configuration: ten activities to a site, three teams to a site, eight agents to a team.
fn configuration(entities: i64) -> String {
    let sites = (entities + 9) / 10;
    let (teams, agents) = (sites * 3, sites * 24);
    let rows = |table: &str, count: i64, row: &dyn Fn(i64) -> String| {
        let rows: Vec<String> = (1..=count).map(|n| format!("({})", row(n))).collect();
        format!("INSERT INTO wfm65.{table} VALUES {};\n", rows.join(","))
    };
    let mut sql = String::from("BEGIN;\n");
    sql += "INSERT INTO wfm65.wfm_schema_version VALUES ('6.5.100.00', 1100000000, 0), ('6.5.201.00', 1150000000, 0), ('6.5.204.02', 1200000000, 1);\n";
    sql +=
        "INSERT INTO wfm76.wfm_schema_version VALUES ('7.6.000.00', 1210000000, 0), ('7.6.100.04', 1230000000, 1);\n";
    sql += &rows("wfm_business_unit", 1, &|n| format!("{n}, 'Unit {n}', 'Europe/Paris'"));
    sql += &rows("wfm_site", sites, &|n| format!("{n}, 1, 'Site {n}', {}", n % 2));
    sql += &rows("wfm_team", teams, &|n| format!("{n}, {}, 'Team {n}'", 1 + (n - 1) / 3));
    sql += &rows("wfm_contract", sites * 2, &|n| {
        format!("{n}, {}, 'Contract {n}', {}", 1 + (n - 1) / 2, 1_200 + n % 2 * 1_200)
    });
    sql += &rows("wfm_agent", agents, &|n| {
        format!(
            "{n}, {}, {}, 'Agent {n}, O''Neil', {}",
            1 + (n - 1) / 8,
            1 + n % (sites * 2),
            1_200_000_000 + n * 86_400
        )
    });
    sql += &rows("wfm_activity", entities, &|n| format!("{n}, {}, 'Activity {n}', 1", 1 + (n - 1) / 10));
    sql += &rows("wfm_agent_activity", agents, &|n| format!("{n}, {}, {}", 1 + n % entities, 1 + n % 10));
    sql += &rows("wfm_shift", sites * 4, &|n| format!("{n}, {}, 'Shift {n}', {}, 480", 1 + (n - 1) / 4, n % 4 * 240));
    sql += &rows("wfm_calendar", agents, &|n| {
        let note = if n % 3 == 0 { "NULL".to_owned() } else { format!("'requested {n}'") };
        format!("{n}, {n}, {}, 'time-off', {note}", 20_000 + n % PLANNED_DAYS)
    });
    sql += &rows("wfm_forecast", entities * PLANNED_DAYS, &|n| {
        format!(
            "{}, {}, {}, {}",
            1 + (n - 1) / PLANNED_DAYS,
            20_000 + (n - 1) % PLANNED_DAYS,
            40 + n % 80,
            120 + n % 300
        )
    });
    sql += &rows("wfm_schedule", agents * PLANNED_DAYS, &|n| {
        let (agent, day) = (1 + (n - 1) / PLANNED_DAYS, 20_000 + (n - 1) % PLANNED_DAYS);
        format!("{agent}, {day}, {}, 'published'", 1 + n % (sites * 4))
    });
    sql += &rows("wfm_security_role", ComponentName::ALL.len() as i64, &|n| format!("{n}, 'Role {n}'"));
    sql + "COMMIT"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn history_reaches_the_current_boundary_without_a_gap_and_agrees_with_the_ledger() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let options = LabOptions { entities: 12, history_steps: 50, ..LabOptions::default() };
        let lab = create(dir.path(), options).await.expect("a fresh directory takes a lab");
        let lab = seed(&lab).await.expect("an empty lab takes its history");
        assert!(lab.bucket(now_ms()) - lab.history_end_s <= lab.options.timestep_s);
        let mut db = LabDb::open(&lab, "test").await.expect("the lab's files are there");
        let newest = db.number("SELECT MAX(step_start) FROM wfm65.wfm_perf_item", &[]).await.expect("counts");
        assert_eq!(newest + lab.options.timestep_s, lab.history_end_s);
        let agree = "SELECT COUNT(*) FROM wfm65.wfm_perf_item AS s JOIN truth.truth AS t \
                     ON t.entity_id = s.entity_id AND t.step_start = s.step_start AND t.iv = s.iv AND t.handle_s = s.handle_s";
        let rows = db.number("SELECT COUNT(*) FROM wfm65.wfm_perf_item", &[]).await.expect("counts");
        assert!(rows >= 600);
        assert_eq!(db.number(agree, &[]).await.expect("counts"), rows);
    }

    #[tokio::test]
    async fn a_directory_that_has_a_lab_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        create(dir.path(), LabOptions::default()).await.expect("a fresh directory takes a lab");
        assert!(matches!(create(dir.path(), LabOptions::default()).await, Err(LabError::Options(_))));
    }
}
