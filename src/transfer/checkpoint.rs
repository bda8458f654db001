//! The table `piton_checkpoint` of the target database: how far a copy has come.
//!
//! Each chunk moves its row in the chunk's own transaction, so a copy is exactly once whatever dies. Written by `copy`, read by
//! [`copied`], the probe after a crash.

use serde_json::Value as Json;

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
    Ok(())
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
    session.begin(Begin::Write).await?;
    if session.engine() == Engine::Postgres {
        // Two copies may start at once; `IF NOT EXISTS` alone can still collide in the catalogue.
        session.run("SELECT pg_advisory_xact_lock(hashtext('piton_checkpoint'))", Vec::new()).await?;
    }
    let sql = format!(
        "CREATE TABLE IF NOT EXISTS {} (token TEXT NOT NULL, table_name TEXT NOT NULL, last_key TEXT, rows BIGINT NOT NULL, \
         chunk_no BIGINT NOT NULL, done INTEGER NOT NULL, updated_at TEXT NOT NULL, {ADDED}, \
         PRIMARY KEY (token, table_name))",
        session.engine().quote(TABLE)
    );
    session.run(&sql, Vec::new()).await?;
    session.commit().await
}

/// Brings a table of an older version to this one.
async fn add_columns(session: &mut Session) -> Result<(), TransferError> {
    let missing = |engine| match engine {
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
    let sql = format!(
        "SELECT table_name, last_key, CAST(rows AS TEXT), CAST(chunk_no AS TEXT), CAST(done AS TEXT), updated_at, \
         CAST(inserted AS TEXT), CAST(updated AS TEXT), CAST(unchanged AS TEXT), CAST(kept AS TEXT), asked \
         FROM {} WHERE token = $1 ORDER BY table_name",
        session.engine().quote(TABLE)
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
    let last_key = match last_key.to_text() {
        None => None,
        Some(stored) => {
            let parts: Vec<Json> = serde_json::from_str(&stored).ok()?;
            Some(parts.iter().map(Value::from_stored).collect::<Option<Vec<_>>>()?)
        }
    };
    Some(TableCheckpoint {
        table: table.to_text()?,
        last_key,
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

/// Moves the row inside of the caller's transaction.
///
/// Refuses to go on where another process has moved it in between (`chunk_no` is the guard).
pub(super) async fn advance(session: &mut Session, token: &str, state: &TableCheckpoint) -> Result<(), TransferError> {
    let key = state.last_key.as_ref().map(|key| Json::Array(key.iter().map(Value::to_stored).collect()).to_string());
    let integer = match session.engine() {
        Engine::Sqlite => "",
        Engine::Postgres => "::int8",
    };
    let sql = format!(
        "INSERT INTO {0} (token, table_name, last_key, rows, chunk_no, done, updated_at, inserted, updated, unchanged, \
         kept, asked) VALUES ($1, $2, $3, $4{integer}, $5{integer}, $6{integer}, $7, $8{integer}, $9{integer}, \
         $10{integer}, $11{integer}, $12) ON CONFLICT (token, table_name) DO UPDATE SET \
         last_key = excluded.last_key, rows = excluded.rows, chunk_no = excluded.chunk_no, done = excluded.done, \
         updated_at = excluded.updated_at, inserted = excluded.inserted, updated = excluded.updated, \
         unchanged = excluded.unchanged, kept = excluded.kept, asked = excluded.asked WHERE {0}.chunk_no = excluded.chunk_no - 1",
        session.engine().quote(TABLE)
    );
    let number = |n: u64| Arg::One(Value::Int(i64::try_from(n).unwrap_or(i64::MAX)));
    let args = vec![
        text(token),
        text(&state.table),
        Arg::One(key.map_or(Value::Null, Value::Text)),
        number(state.rows),
        number(state.chunk_no),
        number(u64::from(state.done)),
        text(&crate::config::now().to_string()),
        number(state.counts.inserted),
        number(state.counts.updated),
        number(state.counts.unchanged),
        number(state.counts.kept),
        text(&state.asked),
    ];
    if session.run(&sql, args).await? == 1 {
        return Ok(());
    }
    Err(TransferError::request(format!(
        "another process moves the copy `{token}` of `{}`: stop one of the two",
        state.table
    )))
}
