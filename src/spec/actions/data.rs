//! Arguments of the actions on databases: statements, migrations, copies, comparisons, time series.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::spec::decode::{Decode, Decoder, Schemas};
use crate::spec::problem::Problem;
use crate::spec::rules::{Choice, exactly_one, known, more_than_zero, pair, whole_seconds};
use crate::spec::values::Millis;
use crate::spec::yaml::Node;
use crate::{choice, record};

record! {
    /// One SQL statement or file with bound values.
    pub struct DbSql("a database action") {
        /// Database of the site.
        database: String,
        /// SQL text, or the path of a `.sql` file relative to the runbook. Never a template.
        sql: String,
        /// Values for `:name` in the SQL.
        bind: BTreeMap<String, Json>,
    }
}

record! {
    /// What an assertion expects.
    #[check(check_expect)]
    pub struct ExpectRows("`expect`") {
        /// Exactly so many rows.
        rows: Option<u64>,
        /// The first column of the only row.
        value: Option<Json>,
    }
}

fn check_expect(node: &Node, d: &mut Decoder) {
    let choices = [Choice::Value("rows"), Choice::Value("value")];
    exactly_one("spec::one_of", "`expect`", &choices, "`{ rows: 1 }`; leave `expect` out to demand no rows", node, d);
}

/// `expect: no_rows` or a mapping.
#[derive(Debug, Clone, PartialEq)]
pub enum Expect {
    /// The query must return nothing; what it returns is the evidence.
    NoRows,
    /// Something else.
    That(ExpectRows),
}

impl Decode for Expect {
    fn decode(node: &Node, d: &mut Decoder) -> Option<Self> {
        if node.text() == Some("no_rows") {
            return Some(Self::NoRows);
        }
        ExpectRows::decode(node, d).map(Self::That)
    }

    fn absent() -> Option<Self> {
        Some(Self::NoRows)
    }

    fn schema(schemas: &mut Schemas) -> Json {
        serde_json::json!({ "anyOf": [{ "const": "no_rows" }, ExpectRows::schema(schemas)] })
    }
}

record! {
    /// Fails with the offending rows unless the query answers as expected.
    pub struct DbAssert("`db.assert`") {
        /// Database of the site.
        database: String,
        /// SQL text, or the path of a `.sql` file relative to the runbook. Never a template.
        sql: String,
        /// Values for `:name` in the SQL.
        bind: BTreeMap<String, Json>,
        /// `no_rows`, `{ rows: N }` or `{ value: V }`.
        expect: Expect,
    }
}

record! {
    /// Applies a folder of SQL migrations.
    pub struct DbMigrate("`db.migrate`") {
        /// Database of the site.
        database: String,
        /// Folder of `VERSION_name.sql` files, relative to the runbook.
        folder: String,
    }
}

record! {
    /// A half-open range of a time series: from <= t < to, seconds since the epoch.
    pub struct TimeRange("`range`") {
        /// First second; from the beginning when left out.
        from: Option<i64>,
        /// First second that is not in it; to the end when left out.
        to: Option<i64>,
    }
}

choice! {
    /// What happens when source and target both have a row.
    pub enum MergePolicy("merge policy") {
        /// The whole source row replaces the target's.
        SourceWins = "source_wins",
        /// The target's row stays.
        Fill = "fill",
        /// Source before `at`, target from `at` on; a selected source row at or after `at` aborts.
        SplitAt = "split_at",
        /// Any common key aborts before anything is written.
        Fail = "fail",
        /// The row that covers more of its timestep stays.
        BestCoverage = "best_coverage",
        /// Additive columns are added up; only for disjoint coverage.
        MergeAdditive = "merge_additive",
    }
}

record! {
    /// A question that is asked again and again while the work waits.
    #[check(check_pause)]
    pub struct PauseWhile("`pause_while`") {
        /// Database of the site; the source when left out.
        database: Option<String>,
        /// One query, or the path of a `.sql` file relative to the runbook; it says yes with `true` or a number that is not 0. Never a template.
        sql: String,
        /// Values for `:name` in the SQL.
        bind: BTreeMap<String, Json>,
        /// How often it is asked, between chunks and while the copy waits.
        every: Millis = Millis(5_000),
    }
}

fn check_pause(node: &Node, d: &mut Decoder) {
    more_than_zero("every", node, d);
}

record! {
    /// How much a copy may take; whichever is reached first counts.
    #[check(check_throttle)]
    pub struct Throttle("`throttle`") {
        /// Most rows per second; a chunk is never more than that.
        rows_per_second: Option<u64>,
        /// Most bytes per second.
        bytes_per_second: Option<u64>,
        /// Waits while a query says that somebody else needs the database.
        pause_while: Option<PauseWhile>,
    }
}

fn check_throttle(node: &Node, d: &mut Decoder) {
    more_than_zero("rows_per_second", node, d);
    more_than_zero("bytes_per_second", node, d);
}

record! {
    /// Copies a table set, each row exactly once, whatever dies.
    #[check(check_copy)]
    pub struct DbCopy("`db.copy`") {
        /// Source database of the site.
        from: String,
        /// Target database of the site.
        to: String,
        /// Mapping file, relative to the runbook.
        map: String,
        /// Name of a table set of the mapping.
        tables: String,
        /// Rows per chunk and transaction; without it, as many as an engine takes in about a second.
        chunk_rows: Option<u64>,
        /// Part of a time series to copy.
        range: Option<TimeRange>,
        /// What happens to rows that both sides have.
        policy: MergePolicy = MergePolicy::Fail,
        /// With `split_at`: the first second that belongs to the target.
        at: Option<i64>,
        /// Length of a timestep in seconds, when not the mapping's.
        timestep: Option<u64>,
        /// When the keys and indexes of an empty PostgreSQL table are built: as rows come, or after them, which is faster.
        indexes: BuildIndexes = BuildIndexes::Keep,
        /// Most tables at the same time, and most connections to either side for one table, up to 8; without it as many as there are processors, two to four.
        parallel: Option<u64>,
        /// How the copy holds back.
        throttle: Option<Throttle>,
        /// Longest time for one statement, on PostgreSQL and MariaDB; SQLite has no such limit.
        statement_timeout: Option<Millis>,
        /// Longest wait for a lock of somebody else; on MariaDB whole seconds, rounded up.
        lock_timeout: Option<Millis>,
    }
}

choice! {
    /// When the keys and indexes of an empty target are built.
    pub enum BuildIndexes("time to build indexes") {
        /// They stay, and every row goes into them.
        Keep = "keep",
        /// They are taken away, and built again once the rows are there.
        After = "after",
    }
}

fn check_limits(node: &Node, d: &mut Decoder) {
    more_than_zero("statement_timeout", node, d);
    more_than_zero("lock_timeout", node, d);
}

/// Most that a copy may do at the same time: half of the connections that a run opens to one database.
const PARALLEL_MAX: u64 = 8;

fn check_copy(node: &Node, d: &mut Decoder) {
    more_than_zero("chunk_rows", node, d);
    more_than_zero("parallel", node, d);
    if let (Some(most), Some(place)) = (known::<u64>(node, "parallel", d), node.get("parallel"))
        && most > PARALLEL_MAX
    {
        let message = format!("`parallel` must be at most {PARALLEL_MAX}");
        let problem = Problem::new("spec::out_of_range", message, place.span).label("too many");
        d.problem(
            problem
                .help("each may take two connections to its source; leave it out for as many as there are processors"),
        );
    }
    check_limits(node, d);
    let policy = pair(node, "policy");
    if policy.is_some_and(|(_, value)| d.is_pending(value)) {
        return;
    }
    let splits = known(node, "policy", d) == Some(MergePolicy::SplitAt);
    match (pair(node, "at"), policy) {
        (None, Some((_, value))) if splits => {
            let problem =
                Problem::new("spec::one_of", "`policy: split_at` needs `at`", value.span).label("split at what?");
            d.problem(problem.help("add `at: \"{{ ... }}\"`, the first second that belongs to the target"));
        }
        (Some((key, _)), _) if !splits => {
            let problem = Problem::new("spec::one_of", "`at` means something with `policy: split_at` only", key.span);
            d.problem(problem.label("without effect").help("add `policy: split_at`, or drop `at`"));
        }
        (Some(_) | None, _) => {}
    }
}

choice! {
    /// How closely tables are compared.
    pub enum CompareMode("compare mode") {
        /// Only the number of rows.
        Count = "count",
        /// Every value.
        Content = "content",
    }
}

record! {
    /// Fails with the differing keys unless both sides hold the same.
    #[check(check_compare)]
    pub struct DbCompare("`db.compare`") {
        /// Source database of the site.
        from: String,
        /// Target database of the site.
        to: String,
        /// Mapping file, relative to the runbook.
        map: String,
        /// Name of a table set of the mapping.
        tables: String,
        /// Part of a time series to compare.
        range: Option<TimeRange>,
        /// How closely.
        mode: CompareMode = CompareMode::Content,
        /// Most differing keys to name.
        limit: u64 = 20,
        /// Reads one chunk in so many, chosen at random; all of them when left out.
        sample: Option<u64>,
        /// With `sample`: chooses the chunks; one of its own for each step of each run when left out.
        seed: Option<u64>,
        /// Longest time for one statement, on PostgreSQL and MariaDB; SQLite has no such limit.
        statement_timeout: Option<Millis>,
        /// Longest wait for a lock of somebody else; on MariaDB whole seconds, rounded up.
        lock_timeout: Option<Millis>,
    }
}

fn check_compare(node: &Node, d: &mut Decoder) {
    more_than_zero("sample", node, d);
    check_limits(node, d);
    if let (Some((key, _)), None) = (pair(node, "seed"), pair(node, "sample")) {
        let problem = Problem::new("spec::one_of", "`seed` means something with `sample` only", key.span);
        d.problem(problem.label("without effect").help("add `sample`, or drop `seed`"));
    }
}

record! {
    /// Finds timesteps without a row.
    #[check(check_gaps)]
    pub struct DbGaps("`db.gaps`") {
        /// Database of the site.
        database: String,
        /// Table of the time series.
        table: String,
        /// Its time column, seconds since the epoch.
        time: String,
        /// Its entity column.
        entity: String,
        /// Length of a timestep, as a duration.
        timestep: Millis,
        /// First second to look at.
        from: Option<i64>,
        /// First second not to look at.
        to: Option<i64>,
        /// True to report gaps without failing.
        report: bool = false,
    }
}

fn check_gaps(node: &Node, d: &mut Decoder) {
    whole_seconds("timestep", node, d);
}

record! {
    /// Reads up to where a time series is closed for every active entity.
    #[check(check_watermark)]
    pub struct DbWatermark("`db.watermark`") {
        /// Database of the site.
        database: String,
        /// Table of the time series.
        table: String,
        /// Its time column, seconds since the epoch.
        time: String,
        /// Its entity column.
        entity: String,
        /// Length of a timestep, as a duration.
        timestep: Millis,
        /// SQL that lists the active entities; all that ever had a row when left out.
        active: Option<String>,
    }
}

fn check_watermark(node: &Node, d: &mut Decoder) {
    whole_seconds("timestep", node, d);
}

record! {
    /// Looks at both sides of a copy before anything is changed; fails with what must be mended first.
    #[check(check_preflight)]
    pub struct DbPreflight("`db.preflight`") {
        /// Source database of the site.
        from: String,
        /// Target database of the site.
        to: String,
        /// Mapping file, relative to the runbook.
        map: String,
        /// Name of a table set of the mapping; all sets, and no table forgotten, when left out.
        tables: Option<String>,
        /// Connections that must be free on each server.
        connections: u64 = 4,
        /// Extensions that a PostgreSQL target must have.
        extensions: Vec<String>,
        /// True to fail on warnings, too.
        strict: bool = false,
        /// True to report findings without failing.
        report: bool = false,
    }
}

fn check_preflight(node: &Node, d: &mut Decoder) {
    more_than_zero("connections", node, d);
}

choice! {
    /// What a session of a database does.
    pub enum SessionState("session state") {
        /// It runs a statement.
        Active = "active",
        /// It waits for its client, outside of a transaction.
        Idle = "idle",
        /// It waits for its client inside of a transaction.
        IdleInTransaction = "idle_in_transaction",
    }
}

record! {
    /// Lists the sessions of a database, and ends them if that is asked for.
    #[check(check_sessions)]
    pub struct DbSessions("`db.sessions`") {
        /// Database of the site; SQLite has no sessions.
        database: String,
        /// Only those of these users, by name or pattern (`wfm*`).
        users: Vec<String>,
        /// Only those of these applications, by name or pattern.
        applications: Vec<String>,
        /// All but those whose user or application is one of these names or patterns.
        except: Vec<String>,
        /// Only those in one of these states.
        states: Vec<SessionState>,
        /// Only those that have been in their state for longer than this.
        longer_than: Option<Millis>,
        /// True for the sessions of every database of the server.
        whole_server: bool = false,
        /// True to tell the beginning of what each one runs or ran last; it may hold what others should not read.
        statements: bool = false,
        /// True to fail while there are any; in `wait.until` it waits until they are gone.
        none: bool = false,
        /// True to end them; never those of this run.
        terminate: bool = false,
        /// With `terminate`: longest time until the last one is gone.
        within: Millis = Millis(10_000),
    }
}

fn check_sessions(node: &Node, d: &mut Decoder) {
    more_than_zero("within", node, d);
    let terminates = pair(node, "terminate").is_some_and(|(_, value)| d.is_pending(value))
        || known(node, "terminate", d) == Some(true);
    if let (Some((key, _)), false) = (pair(node, "within"), terminates) {
        let problem = Problem::new("spec::one_of", "`within` means something with `terminate` only", key.span);
        d.problem(problem.label("without effect").help("add `terminate: true`, or drop `within`"));
    }
    if let (Some((key, _)), Some(true), Some(true)) =
        (pair(node, "none"), known(node, "none", d), known(node, "terminate", d))
    {
        let message = "`none` only looks, `terminate` ends what it finds and waits until it is gone";
        let problem = Problem::new("spec::one_of", message, key.span).label("not with `terminate`");
        d.problem(problem.help("drop `none`; a later step may look whether new sessions came"));
    }
}

record! {
    /// Writes a whole database, as the engine's own tool does, into a folder with its checksum.
    pub struct DbBackup("`db.backup`") {
        /// Database of the site.
        database: String,
        /// Folder of the backup, relative to the runbook; it must not be there yet.
        to: String,
    }
}

record! {
    /// Restores what `db.backup` wrote into an empty database, whole or not at all.
    pub struct DbRestore("`db.restore`") {
        /// Database of the site; a SQLite file need not be there yet.
        database: String,
        /// Folder of the backup, relative to the runbook.
        from: String,
        /// True to replace what the database holds; not on MariaDB, which could not take it back.
        replace: bool = false,
        /// True to restore owners and privileges, too; PostgreSQL only, the roles must be there.
        owners: bool = false,
    }
}
