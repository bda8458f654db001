//! The table `piton_checkpoint` of the target database: how far a copy has come.
//!
//! Each chunk moves its row in the chunk's own transaction, so a copy is exactly once whatever dies. Written by `copy`, read by
//! [`copied`], the probe after a crash.

use serde_json::Value as Json;

use super::copy::{Pages, build_all};
use super::database::Database;
use super::engine::Engine;
use super::error::TransferError;
use super::session::{Arg, Begin, Session};
use super::value::Value;

/// The table's name.
pub(super) const TABLE: &str = "piton_checkpoint";
/// Columns that older versions did not have.
const ADDED: &str = "inserted BIGINT NOT NULL DEFAULT 0, updated BIGINT NOT NULL DEFAULT 0, \
                     unchanged BIGINT NOT NULL DEFAULT 0, kept BIGINT NOT NULL DEFAULT 0, asked TEXT NOT NULL DEFAULT ''";

/// How far one table of one copy has come.
#[derive(Debug, Clone, PartialEq)]
pub struct TableCheckpoint {
    /// The source table.
    pub table: String,
    /// The source key of the last row that is done; `None` before the first chunk.
    pub(super) last_key: Option<Vec<Value>>,
    /// What is done of a table that is copied by pages.
    pub(super) pages: Option<Pages>,
    /// Whether the target held none of the rows in question when the copy began.
    pub(super) began_empty: bool,
    /// Source rows that are done.
    pub rows: u64,
    /// Chunks that are done.
    pub chunk_no: u64,
    /// What became of the rows that are done.
    pub counts: Counts,
    /// What was asked for when the copy began; empty in rows of older versions.
    pub(super) asked: String,
    /// Whether the table is done.
    pub done: bool,
    /// When the row was last moved, RFC 3339.
    pub updated_at: String,
}

/// What became of source rows, over all calls of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Rows inserted.
    pub inserted: u64,
    /// Rows overwritten or added to.
    pub updated: u64,
    /// Rows that were equal already.
    pub unchanged: u64,
    /// Rows that differ and stay as the target had them.
    pub kept: u64,
}

impl Counts {
    /// Both together.
    pub(super) fn with(self, more: Self) -> Self {
        Self {
            inserted: self.inserted + more.inserted,
            updated: self.updated + more.updated,
            unchanged: self.unchanged + more.unchanged,
            kept: self.kept + more.kept,
        }
    }
}

/// What the target knows about a copy.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Copied {
    /// One entry per table that was begun, by name.
    pub tables: Vec<TableCheckpoint>,
}

impl Copied {
    /// True where every one of `tables` is done; the copy with this token must not be repeated.
    pub fn is_done(&self, tables: &[String]) -> bool {
        tables.iter().all(|name| self.tables.iter().any(|known| known.table == *name && known.done))
    }

    /// Source rows that are committed.
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows).sum()
    }
}

fn text(value: &str) -> Arg {
    Arg::One(Value::Text(value.to_owned()))
}

/// What is committed under `token`; nothing where no copy ever ran into this database.
pub async fn copied(to: &Database, token: &str) -> Result<Copied, TransferError> {
    let mut session = Session::open(to).await?;
    if !exists(&mut session).await? {
        return Ok(Copied::default());
    }
    Ok(Copied { tables: load(&mut session, token).await? })
}

/// Forgets how far the copy under `token` had come, so that it begins anew; for a copy whose rows were taken back.
pub async fn forget(to: &Database, token: &str) -> Result<(), TransferError> {
    let mut session = Session::open(to).await?;
    if exists(&mut session).await? {
        let engine = session.engine();
        let sql = format!("DELETE FROM {} WHERE token = {}", engine.quote(TABLE), engine.text_parameter(1));
        session.run(&sql, vec![text(token)]).await?;
    }
    build_all(&mut session, token).await
}

async fn exists(session: &mut Session) -> Result<bool, TransferError> {
    let sql = session.engine().has_table(TABLE);
    Ok(session.number(&sql, Vec::new()).await? == Some(1))
}

/// Creates the table where it is missing.
pub(super) async fn prepare(session: &mut Session) -> Result<(), TransferError> {
    if exists(session).await? {
        return add_columns(session).await;
    }
    let engine = session.engine();
    if engine == Engine::Mariadb {
        // DDL commits by itself there, and `IF NOT EXISTS` waits for the other one.
        return session.run(CREATE_MARIADB, Vec::new()).await.map(drop);
    }
    session.begin(Begin::Write).await?;
    if engine == Engine::Postgres {
        // Two copies may start at once; `IF NOT EXISTS` alone can still collide in the catalogue.
        session.run("SELECT pg_advisory_xact_lock(hashtext('piton_checkpoint'))", Vec::new()).await?;
    }
    let sql = format!(
        "CREATE TABLE IF NOT EXISTS {} (token TEXT NOT NULL, table_name TEXT NOT NULL, last_key TEXT, rows BIGINT NOT NULL, \
         chunk_no BIGINT NOT NULL, done INTEGER NOT NULL, updated_at TEXT NOT NULL, {ADDED}, \
         PRIMARY KEY (token, table_name))",
        engine.quote(TABLE)
    );
    session.run(&sql, Vec::new()).await?;
    session.commit().await
}

/// The same table in MariaDB's words: no TEXT in a key, an engine with transactions, names that differ in case only are two.
const CREATE_MARIADB: &str = "CREATE TABLE IF NOT EXISTS `piton_checkpoint` (token VARCHAR(500) NOT NULL, \
    table_name VARCHAR(255) NOT NULL, last_key LONGTEXT, `rows` BIGINT NOT NULL, chunk_no BIGINT NOT NULL, done INTEGER NOT NULL, \
    updated_at VARCHAR(64) NOT NULL, inserted BIGINT NOT NULL, updated BIGINT NOT NULL, unchanged BIGINT NOT NULL, \
    kept BIGINT NOT NULL, asked LONGTEXT NOT NULL, PRIMARY KEY (token, table_name)) \
    ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin";

/// Brings a table of an older version to this one.
async fn add_columns(session: &mut Session) -> Result<(), TransferError> {
    let missing = |engine| match engine {
        // The table is younger than its last column there.
        Engine::Mariadb => "SELECT 0".to_owned(),
        Engine::Sqlite => format!("SELECT count(*) = 0 FROM pragma_table_info('{TABLE}') WHERE name = 'asked'"),
        Engine::Postgres => format!(
            "SELECT (count(*) = 0)::int::text FROM pg_attribute \
             WHERE attrelid = to_regclass('{TABLE}') AND attname = 'asked' AND NOT attisdropped"
        ),
    };
    let sql = missing(session.engine());
    if session.number(&sql, Vec::new()).await? != Some(1) {
        return Ok(());
    }
    session.begin(Begin::Write).await?;
    if session.engine() == Engine::Postgres {
        session.run("SELECT pg_advisory_xact_lock(hashtext('piton_checkpoint'))", Vec::new()).await?;
    }
    // Another copy may have been faster.
    if session.number(&sql, Vec::new()).await? == Some(1) {
        for column in ADDED.split(", ") {
            session
                .run(&format!("ALTER TABLE {} ADD COLUMN {column}", session.engine().quote(TABLE)), Vec::new())
                .await?;
        }
    }
    session.commit().await
}

/// Every table of a token.
pub(super) async fn load(session: &mut Session, token: &str) -> Result<Vec<TableCheckpoint>, TransferError> {
    let engine = session.engine();
    let columns = [
        "table_name",
        "last_key",
        "rows",
        "chunk_no",
        "done",
        "updated_at",
        "inserted",
        "updated",
        "unchanged",
        "kept",
        "asked",
    ];
    let shown: Vec<String> = columns.iter().map(|name| engine.read(&engine.quote(name))).collect();
    let sql = format!(
        "SELECT {} FROM {} WHERE token = {} ORDER BY 1",
        shown.join(", "),
        engine.quote(TABLE),
        engine.text_parameter(1)
    );
    let rows = session.rows(&sql, vec![text(token)]).await?;
    rows.iter()
        .map(|row| {
            decode(row)
                .ok_or_else(|| TransferError::request(format!("the row of `{token}` in `{TABLE}` is unreadable")))
        })
        .collect()
}

fn decode(row: &[Value]) -> Option<TableCheckpoint> {
    let [table, last_key, rows, chunk_no, done, updated_at, inserted, updated, unchanged, kept, asked] = row else {
        return None;
    };
    let count = |value: &Value| value.as_integer().and_then(|count| u64::try_from(count).ok());
    let Place { last_key, pages, began_empty } = match last_key.to_text() {
        None => Place::default(),
        Some(stored) => Place::from_stored(&serde_json::from_str(&stored).ok()?)?,
    };
    Some(TableCheckpoint {
        table: table.to_text()?,
        last_key,
        pages,
        began_empty,
        rows: count(rows)?,
        chunk_no: count(chunk_no)?,
        counts: Counts {
            inserted: count(inserted)?,
            updated: count(updated)?,
            unchanged: count(unchanged)?,
            kept: count(kept)?,
        },
        asked: asked.to_text().unwrap_or_default(),
        done: done.as_integer()? == 1,
        updated_at: updated_at.to_text()?,
    })
}

/// Where a copy stands: behind a key, or a list of pages.
#[derive(Default)]
struct Place {
    last_key: Option<Vec<Value>>,
    pages: Option<Pages>,
    began_empty: bool,
}

impl Place {
    /// A list is the key alone, which is all that older versions wrote.
    fn from_stored(stored: &Json) -> Option<Self> {
        let key = |stored: &Json| stored.as_array()?.iter().map(Value::from_stored).collect::<Option<Vec<_>>>();
        let Json::Object(fields) = stored else {
            return Some(Self { last_key: Some(key(stored)?), ..Self::default() });
        };
        let last_key = match fields.get("key") {
            Some(stored) => Some(key(stored)?),
            None => None,
        };
        let pages = match fields.get("pages") {
            Some(stored) => Some(Pages::from_stored(stored)?),
            None => None,
        };
        Some(Self { last_key, pages, began_empty: fields.get("empty").and_then(Json::as_bool).unwrap_or(false) })
    }
}

/// What the column `last_key` holds.
fn place(state: &TableCheckpoint) -> Option<Json> {
    let key = state.last_key.as_ref().map(|key| Json::Array(key.iter().map(Value::to_stored).collect()));
    if state.pages.is_none() && !state.began_empty {
        return key;
    }
    let mut fields = serde_json::Map::new();
    fields.extend(key.map(|key| ("key".to_owned(), key)));
    fields.extend(state.pages.as_ref().map(|pages| ("pages".to_owned(), pages.to_stored())));
    fields.insert("empty".to_owned(), Json::Bool(state.began_empty));
    Some(Json::Object(fields))
}

/// Moves the row inside of the caller's transaction.
///
/// Refuses to go on where another process has moved it in between (`chunk_no` is the guard).
pub(super) async fn advance(session: &mut Session, token: &str, state: &TableCheckpoint) -> Result<(), TransferError> {
    let key = place(state).map(|place| place.to_string());
    let number = |n: u64| Arg::One(Value::Int(i64::try_from(n).unwrap_or(i64::MAX)));
    let moved = vec![
        ("last_key", Arg::One(key.map_or(Value::Null, Value::Text))),
        ("rows", number(state.rows)),
        ("chunk_no", number(state.chunk_no)),
        ("done", number(u64::from(state.done))),
        ("updated_at", text(&crate::config::now().to_string())),
        ("inserted", number(state.counts.inserted)),
        ("updated", number(state.counts.updated)),
        ("unchanged", number(state.counts.unchanged)),
        ("kept", number(state.counts.kept)),
        ("asked", text(&state.asked)),
    ];
    let done = match session.engine() {
        Engine::Mariadb => advance_mariadb(session, token, state, moved).await?,
        engine @ (Engine::Sqlite | Engine::Postgres) => {
            let (sql, args) = upsert(engine, token, state, moved);
            session.run(&sql, args).await?
        }
    };
    if done == 1 {
        return Ok(());
    }
    Err(TransferError::request(format!(
        "another process moves the copy `{token}` of `{}`: stop one of the two",
        state.table
    )))
}

type Moved = Vec<(&'static str, Arg)>;

/// One statement that inserts the first row and moves a later one only from the chunk before.
fn upsert(engine: Engine, token: &str, state: &TableCheckpoint, moved: Moved) -> (String, Vec<Arg>) {
    let table = engine.quote(TABLE);
    let sets: Vec<String> = moved.iter().map(|(name, _)| format!("{name} = excluded.{name}")).collect();
    let names: Vec<&str> = moved.iter().map(|(name, _)| *name).collect();
    let mut args = vec![text(token), text(&state.table)];
    args.extend(moved.into_iter().map(|(_, arg)| arg));
    let marks: Vec<String> = args
        .iter()
        .enumerate()
        .map(|(i, arg)| match arg {
            Arg::One(Value::Int(_)) => engine.integer_parameter(i + 1),
            Arg::One(_) | Arg::Column(_) => engine.text_parameter(i + 1),
        })
        .collect();
    let sql = format!(
        "INSERT INTO {table} (token, table_name, {}) VALUES ({}) ON CONFLICT (token, table_name) DO UPDATE SET {} \
         WHERE {table}.chunk_no = excluded.chunk_no - 1",
        names.join(", "),
        marks.join(", "),
        sets.join(", ")
    );
    (sql, args)
}

/// MariaDB's upsert has no condition: two statements of the same transaction.
async fn advance_mariadb(
    session: &mut Session,
    token: &str,
    state: &TableCheckpoint,
    moved: Moved,
) -> Result<u64, TransferError> {
    let engine = Engine::Mariadb;
    let names: Vec<String> = moved.iter().map(|(name, _)| engine.quote(name)).collect();
    let table = engine.quote(TABLE);
    let values: Vec<Arg> = moved.into_iter().map(|(_, arg)| arg).collect();
    let sets: Vec<String> = names.iter().map(|name| format!("{name} = ?")).collect();
    let sql = format!("UPDATE {table} SET {} WHERE token = ? AND table_name = ? AND chunk_no = ?", sets.join(", "));
    let before = Arg::One(Value::unsigned(state.chunk_no.saturating_sub(1)));
    let mut args = values.clone();
    args.extend([text(token), text(&state.table), before]);
    let updated = session.run(&sql, args).await?;
    if updated > 0 || state.chunk_no > 1 {
        return Ok(updated);
    }
    let marks = vec!["?"; names.len() + 2].join(", ");
    let sql = format!("INSERT IGNORE INTO {table} ({}, token, table_name) VALUES ({marks})", names.join(", "));
    let mut args = values;
    args.extend([text(token), text(&state.table)]);
    session.run(&sql, args).await
}
