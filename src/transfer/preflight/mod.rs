//! Looks at both sides of a copy before anything is changed: versions, rights, room, encodings, time zones, extensions, connections,
//! and whether the mapping fits.
//!
//! Writes nothing, on either side. Refuses to claim what cannot be seen from here: that is a note. Called by the `db.preflight` action.

mod local;
mod mariadb;
mod postgres;
mod sqlite;

use serde::Serialize;

use super::database::Database;
use super::engine::Engine;
use super::error::TransferError;
use super::mapping::Mapping;
use super::mariadb_value::MariaKind;
use super::plan::{From, TablePlan, check, plan_table};
use super::schema::{self, Table};
use super::session::{Begin, Session};
use super::value::Kind;

/// Clocks that differ by more than this are worth a word, in milliseconds.
const CLOCK_SKEW_MS_MAX: i64 = 2_000;

/// What is to be looked at.
#[derive(Debug, Clone)]
pub struct PreflightRequest {
    /// The mapping of the copy.
    pub mapping: Mapping,
    /// The table set; every set when left out, and then tables that the mapping forgets are findings, too.
    pub set: Option<String>,
    /// Connections that must be free on each server.
    pub connections: u64,
    /// Extensions that a PostgreSQL target must have.
    pub extensions: Vec<String>,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The copy would fail, or not do what was asked.
    Error,
    /// It may fail, or somebody may be surprised.
    Warning,
    /// It could not be looked at, or is good to know.
    Note,
}

/// One thing that was found, with what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PreflightFinding {
    /// How bad it is.
    pub severity: Severity,
    /// `source`, `target` or `mapping`.
    pub side: &'static str,
    /// What was looked at: `version`, `privilege`, `room` ...
    pub check: &'static str,
    /// What was found.
    pub found: String,
    /// What to do.
    pub help: String,
}

/// What is known about one side.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct SideFacts {
    /// The engine's name.
    pub engine: String,
    /// Its version as it says it.
    pub version: String,
    /// The encoding of its texts.
    pub encoding: String,
    /// The zone that its sessions have unless they say otherwise; nothing where it cannot be seen, or the engine has none.
    pub time_zone: Option<String>,
    /// How far its clock is ahead of this machine's, in milliseconds; nothing where it is the same clock.
    pub clock_ahead_ms: Option<i64>,
    /// Connections that could still be opened; nothing where there is no limit.
    pub connections_free: Option<i64>,
    /// Bytes that the tables take, with their indexes.
    pub tables_bytes: Option<u64>,
    /// Bytes free where its data lie; nothing where that cannot be seen from here.
    pub disk_free_bytes: Option<u64>,
}

/// Everything that was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PreflightReport {
    /// The source.
    pub source: SideFacts,
    /// The target.
    pub target: SideFacts,
    /// Findings, the worst first.
    pub findings: Vec<PreflightFinding>,
}

impl PreflightReport {
    /// How many findings are this bad.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }
}

/// One side while it is looked at.
struct Look<'a> {
    side: &'static str,
    tables: &'a [Table],
    request: &'a PreflightRequest,
    facts: SideFacts,
    findings: Vec<PreflightFinding>,
}

impl Look<'_> {
    fn is_target(&self) -> bool {
        self.side == "target"
    }

    fn say(&mut self, severity: Severity, check: &'static str, found: impl Into<String>, help: impl Into<String>) {
        let (found, help) = (found.into(), help.into());
        self.findings.push(PreflightFinding { severity, side: self.side, check, found, help });
    }

    fn clock(&mut self, server_ms: Option<i64>, before_ms: i64) {
        let Some(server) = server_ms else { return };
        let ahead = server - i64::midpoint(before_ms, crate::config::now().as_millisecond());
        self.facts.clock_ahead_ms = Some(ahead);
        if ahead.abs() > CLOCK_SKEW_MS_MAX {
            let found = format!("its clock is {ahead} ms ahead of this machine's");
            self.say(
                Severity::Warning,
                "clock",
                found,
                "synchronise the clocks (chrony, ntpd) before boundaries of time are compared",
            );
        }
    }

    fn connections(&mut self, free: i64) {
        self.facts.connections_free = Some(free);
        let needed = i64::try_from(self.request.connections).unwrap_or(i64::MAX);
        if free < needed {
            let found = format!("{free} connections are free, {needed} are needed");
            self.say(Severity::Error, "connections", found, "end sessions that are not needed, or raise the limit");
        }
    }
}

/// Looks at both sides. Findings are no errors of this function; it fails where a side cannot be asked at all.
pub async fn preflight(
    from: &Database,
    to: &Database,
    request: &PreflightRequest,
) -> Result<PreflightReport, TransferError> {
    let mut findings = Vec::new();
    let plans = plans(from, to, request, &mut findings).await?;
    let sources: Vec<Table> = plans.iter().map(|plan| plan.source.clone()).collect();
    let targets: Vec<Table> = plans.iter().map(|plan| plan.target.clone()).collect();
    let (source, found) = side("source", from, &sources, request).await?;
    findings.extend(found);
    let (target, found) = side("target", to, &targets, request).await?;
    findings.extend(found);
    findings.extend(room(&source, &target));
    findings.extend(zones(&plans, &source, &target));
    findings.sort_by_key(|finding| finding.severity);
    Ok(PreflightReport { source, target, findings })
}

async fn side(
    side: &'static str,
    database: &Database,
    tables: &[Table],
    request: &PreflightRequest,
) -> Result<(SideFacts, Vec<PreflightFinding>), TransferError> {
    let mut session = Session::open(database).await?;
    let facts = SideFacts { engine: database.engine().to_string(), ..SideFacts::default() };
    let mut look = Look { side, tables, request, facts, findings: Vec::new() };
    match database.engine() {
        Engine::Sqlite => sqlite::look(&mut session, &mut look).await?,
        Engine::Postgres => postgres::look(&mut session, &mut look).await?,
        Engine::Mariadb => mariadb::look(&mut session, &mut look).await?,
    }
    for table in tables.iter().filter(|table| !table.transactional) {
        let (severity, found, help) = if look.is_target() {
            (Severity::Error, "cannot take back what was written", "convert it: `ALTER TABLE .. ENGINE=InnoDB`")
        } else {
            (Severity::Warning, "is not read as of one moment with the others", "stop its writers during the copy")
        };
        look.say(severity, "engine", format!("`{}` has no transactions: it {found}", table.name), help);
    }
    Ok((look.facts, look.findings))
}

/// The plans that can be made; what keeps a plan from being made is a finding.
async fn plans(
    from: &Database,
    to: &Database,
    request: &PreflightRequest,
    findings: &mut Vec<PreflightFinding>,
) -> Result<Vec<TablePlan>, TransferError> {
    let mapping = &request.mapping;
    let mut problems = Vec::new();
    if request.set.is_none()
        && let Err(error) = check(from, to, mapping).await
    {
        problems.extend(mapping_problems(error)?);
    }
    let names: Vec<String> = match &request.set {
        Some(set) => mapping.set(set)?.to_vec(),
        None => mapping.sets.values().flatten().cloned().collect(),
    };
    let (mut source, mut target) = (Session::open(from).await?, Session::open(to).await?);
    source.begin(Begin::Snapshot).await?;
    target.begin(Begin::Snapshot).await?;
    let mut plans = Vec::new();
    for name in &names {
        match plan_table(&mut source, &mut target, mapping, name).await {
            Ok(plan) => plans.push(plan),
            Err(error) => {
                problems.extend(mapping_problems(error)?);
                // A statement that the engine refused has ended PostgreSQL's transaction.
                for session in [&mut source, &mut target] {
                    session.rollback().await?;
                    session.begin(Begin::Snapshot).await?;
                }
            }
        }
    }
    problems.sort();
    problems.dedup();
    findings.extend(problems.into_iter().map(|found| PreflightFinding {
        severity: Severity::Error,
        side: "mapping",
        check: "mapping",
        found,
        help: "mend the mapping, create what is missing, or list it under `ignore`".to_owned(),
    }));
    Ok(plans)
}

/// What is wrong with the mapping; other errors are passed on.
fn mapping_problems(error: TransferError) -> Result<Vec<String>, TransferError> {
    match error {
        TransferError::Mapping { problems, .. } => Ok(problems),
        TransferError::UnknownTable { .. }
        | TransferError::UnknownColumn { .. }
        | TransferError::Sql { effect_unknown: false, .. } => Ok(vec![error.to_string()]),
        other => Err(other),
    }
}

/// Whether what the source's tables take has room on the target.
fn room(source: &SideFacts, target: &SideFacts) -> Option<PreflightFinding> {
    let needed = source.tables_bytes?;
    let (severity, found, help) = match target.disk_free_bytes {
        Some(free) if free < needed => (
            Severity::Error,
            format!("{free} bytes are free and the source's tables take {needed}"),
            "make room, or move the target's data to a larger disk",
        ),
        Some(free) if free < needed.saturating_mul(2) => (
            Severity::Warning,
            format!("{free} bytes are free and the source's tables take {needed}: logs and indexes may not fit"),
            "make room for twice of what is copied",
        ),
        Some(_) => return None,
        None => (
            Severity::Note,
            format!("the target's disk cannot be seen from here; the source's tables take {needed} bytes"),
            "look at the free room on the target's server",
        ),
    };
    Some(PreflightFinding { severity, side: "target", check: "room", found, help: help.to_owned() })
}

/// Columns whose times will be read in another zone than they were written in.
fn zones(plans: &[TablePlan], source: &SideFacts, target: &SideFacts) -> Vec<PreflightFinding> {
    let is_utc = |zone: &str| matches!(zone.to_uppercase().as_str(), "UTC" | "ETC/UTC" | "GMT" | "+00:00" | "ZULU");
    let mut found = Vec::new();
    let mut warn = |column: String, what: String, help: &str| {
        found.push(PreflightFinding {
            severity: Severity::Warning,
            side: "target",
            check: "time_zone",
            found: format!("{column} {what}"),
            help: help.to_owned(),
        });
    };
    for plan in plans {
        for column in &plan.columns {
            let From::Source(_, Some(from)) = column.from else { continue };
            let name = format!("`{}`.`{}`", plan.target.name, column.target.name);
            let instant = |kind| matches!(kind, Kind::Instant | Kind::Maria(MariaKind::Timestamp(_)));
            let civil = |kind| matches!(kind, Kind::Civil | Kind::Maria(MariaKind::DateTime(_)));
            if instant(from) && civil(column.target.kind) {
                if let Some(zone) = target.time_zone.as_deref().filter(|zone| !is_utc(zone)) {
                    let what = format!("gets moments as date and time in UTC, and the server's zone is `{zone}`");
                    warn(name, what, "map it with an expression that shifts it, or make sure that readers expect UTC");
                }
            } else if civil(from)
                && civil(column.target.kind)
                && let (Some(here), Some(there)) = (&source.time_zone, &target.time_zone)
                && here != there
                && !(is_utc(here) && is_utc(there))
            {
                let what = format!("keeps its date and time as written under `{here}`; the target's zone is `{there}`");
                warn(name, what, "make sure that readers of the target expect the source's zone");
            }
        }
    }
    found
}

/// Fills in how many bytes the tables of a side take, from `(bytes)` answers of the engine.
fn total(bytes: impl Iterator<Item = Option<i64>>) -> u64 {
    bytes.flatten().filter_map(|bytes| u64::try_from(bytes).ok()).sum()
}

/// The parts of `schema.table`.
fn parts(table: &str) -> (Option<&str>, &str) {
    table.split_once('.').map_or((None, table), |(schema, name)| (Some(schema), name))
}

fn text(row: &[super::value::Value], at: usize) -> String {
    row.get(at).map(schema::text).unwrap_or_default()
}

fn number(row: &[super::value::Value], at: usize) -> Option<i64> {
    row.get(at).and_then(super::value::Value::as_integer)
}
