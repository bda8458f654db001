//! Binary COPY from one PostgreSQL to another: whose bytes may pass as they are, the two statements, the stream between them.
//!
//! Refuses to pass what the target could read as something else: other types, other lengths, types that are no part of PostgreSQL itself.
//! Used by `heap` and `sorted`.

use std::ops::ControlFlow;
use std::time::Duration;

use futures_util::TryStreamExt;
use sqlx::encode::IsNull;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgArguments, PgConnection, PgCopyIn, PgTypeInfo};
use sqlx::{Arguments, Encode, Postgres, Row, Type};
use tokio::sync::mpsc::Sender;

use super::super::database::Database;
use super::super::engine::Engine;
use super::super::error::TransferError;
use super::super::plan::{From, TablePlan};
use super::super::postgres_stream::Stream;
use super::super::rows::Range;
use super::super::schema::{one, text};
use super::super::session::Session;
use super::super::value::{Kind, Value};

/// Bytes that are gathered before they are sent: a server sends one message per row. With room for one more row it is no more than the
/// allocator shares a page for; above 64 KiB every thread holds several times as much.
const BUFFER: usize = 56 * 1024;
/// What a binary COPY begins with: its signature, no flags, no extension.
const HEADER: [u8; 19] = *b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What it ends with.
const TRAILER: [u8; 2] = [0xff, 0xff];
/// For the transaction that marks a table as done: it is on the disk before anybody hears of it, and all before it with it, whatever the server's
/// settings say.
pub(super) const SYNC: &str = "SELECT CASE current_setting('synchronous_commit') \
                               WHEN 'off' THEN set_config('synchronous_commit', 'on', true) END";
/// Keeps the planner of a transaction from walking over the index of a key where it thinks that this is cheap and it is not.
pub(super) const NO_WALK: &str = "SET LOCAL enable_indexscan = off";
/// Bytes of a page, about.
pub(super) const PAGE_BYTES: u64 = 8_192;
/// The oldest server that reads a range of pages without reading all pages before it.
const TID_RANGES: i64 = 140_000;

/// Type names that say something else on another server: they stand for objects by number.
pub(super) const COLUMNS: &str = "SELECT a.attname, format_type(a.atttypid, a.atttypmod), \
    (n.nspname = 'pg_catalog' AND t.typtype = 'b' AND t.typname !~ '^_?reg')::text, a.atttypid::int8::text \
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid JOIN pg_namespace n ON n.oid = t.typnamespace \
    WHERE a.attrelid = to_regclass($1::text) AND a.attnum > 0 AND NOT a.attisdropped";

const FACTS: &str = "SELECT c.relkind::text, c.relhassubclass::text, c.relrowsecurity::text, \
    current_setting('server_version_num'), \
    CASE WHEN c.relfilenode = COALESCE(pg_relation_filenode(c.oid), 0) THEN c.relfilenode::int8::text END, \
    (pg_relation_size(c.oid) / current_setting('block_size')::int8)::text, GREATEST(c.reltuples, 0)::int8::text, \
    (EXISTS (SELECT 1 FROM pg_index i WHERE i.indrelid = c.oid))::text FROM pg_class c WHERE c.oid = to_regclass($1::text)";

/// The physical side of a PostgreSQL table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// A table, partitioned or not, whose rows are not chosen by who asks for them.
    pub(super) is_plain: bool,
    /// Whether pages can be read one range at a time.
    pub(super) has_page_ranges: bool,
    /// The file that the table stands in, another one after a rewrite; none where it was written anew behind the back of this snapshot,
    /// which may then see no row of it.
    pub(super) filenode: Option<u64>,
    pub(super) pages: u64,
    /// As the planner's statistics have it.
    pub(super) rows: u64,
    pub(super) has_index: bool,
}

impl Facts {
    /// What the table takes, about.
    pub(super) fn bytes(&self) -> u64 {
        self.pages.saturating_mul(PAGE_BYTES)
    }

    /// Asks for `table`; none where there is no such table.
    pub(super) async fn ask(session: &mut Session, table: &str) -> Result<Option<Self>, TransferError> {
        let rows = session.rows(FACTS, one(table)).await?;
        let Some([kind, parent, security, version, filenode, pages, rows, index]) = rows.first().map(Vec::as_slice)
        else {
            return Ok(None);
        };
        let number = |value: &Value| value.as_integer().and_then(|n| u64::try_from(n).ok());
        let is_open = text(security) == "false";
        let is_table = is_open && text(kind) == "r" && text(parent) == "false";
        Ok(Some(Self {
            is_plain: is_table || (is_open && text(kind) == "p"),
            has_page_ranges: is_table && version.as_integer().unwrap_or(0) >= TID_RANGES,
            filenode: number(filenode),
            pages: number(pages).unwrap_or(0),
            rows: number(rows).unwrap_or(0),
            has_index: text(index) == "true",
        }))
    }
}

/// Keeps a table of the source from being written anew while it is read: neither its pages nor its rows would be those of the snapshot.
async fn hold(source: &mut Session, plan: &TablePlan, facts: Facts) -> Result<Facts, TransferError> {
    if !facts.is_plain {
        return Ok(facts);
    }
    let table = plan.source.quoted();
    source.run(&format!("LOCK TABLE {table} IN ACCESS SHARE MODE"), Vec::new()).await?;
    let facts = Facts::ask(source, &table).await?.filter(|facts| facts.filenode.is_some());
    facts.ok_or_else(|| {
        TransferError::request(format!("`{}` was written anew while the copy began: begin it again", plan.source.name))
    })
}

/// The two ends of a stream of one table.
#[derive(Debug, Clone)]
pub(super) struct Wire {
    columns: String,
    table: String,
    clauses: Vec<String>,
    order: String,
    keys: Vec<String>,
    /// Types of the key's columns.
    key_types: Vec<(String, u32)>,
    pub(super) write: String,
    pub(super) source: Facts,
    pub(super) target: Facts,
}

impl Wire {
    /// Finds out whether the bytes of a planned table may pass as they are.
    pub(super) async fn between(
        source: &mut Session,
        target: &mut Session,
        plan: &TablePlan,
        range: Range,
    ) -> Result<Option<Self>, TransferError> {
        if (source.engine(), target.engine()) != (Engine::Postgres, Engine::Postgres) {
            return Ok(None);
        }
        let (from, to) = (plan.source.quoted(), plan.target.quoted());
        let facts = (Facts::ask(source, &from).await?, Facts::ask(target, &to).await?);
        let (Some(source_facts), Some(target_facts)) = facts else { return Ok(None) };
        if !target_facts.is_plain {
            return Ok(None);
        }
        let source_facts = hold(source, plan, source_facts).await?;
        let have = source.rows(COLUMNS, one(&from)).await?;
        let want = target.rows(COLUMNS, one(&to)).await?;
        let Some(columns) = columns(plan, &have, &want) else { return Ok(None) };
        let Some(clauses) = range_clauses(plan, range) else { return Ok(None) };
        let names: Vec<String> = plan.columns.iter().map(|c| Engine::Postgres.quote(&c.target.name)).collect();
        let keys: Vec<String> = plan.source_key.iter().map(|c| Engine::Postgres.quote(&c.name)).collect();
        let key_types = plan.source_key.iter().filter_map(|column| {
            let row = have.iter().find(|row| row.first().map(text).as_deref() == Some(&column.name))?;
            Some((text(row.get(1)?), u32::try_from(row.get(3)?.as_integer()?).ok()?))
        });
        Ok(Some(Self {
            columns: columns.join(", "),
            clauses,
            order: keys.iter().map(|key| format!("t.{key}")).collect::<Vec<_>>().join(", "),
            keys,
            key_types: key_types.collect(),
            write: format!("COPY {to} ({}) FROM STDIN (FORMAT binary)", names.join(", ")),
            table: from,
            source: source_facts,
            target: target_facts,
        }))
    }

    /// A connection of its own that reads the table in the snapshot of that name, the one that read the table before where there is one; none where that
    /// cannot be had at once.
    pub(super) async fn stream(
        &self,
        kept: &mut Option<Stream>,
        (from, snapshot): (&Database, &str),
        settings: &[&str],
    ) -> Option<Stream> {
        if !self.source.is_plain {
            return None;
        }
        if let Some(kept) = kept.take()
            && let Some(stream) = kept.turn_to(&self.table, settings).await
        {
            return Some(stream);
        }
        Stream::join(from, snapshot, &self.table, settings).await
    }

    /// Reads the rows for which all of `more` hold.
    pub(super) fn read(&self, more: &[String]) -> String {
        format!("COPY ({}) TO STDOUT (FORMAT binary)", self.select(more))
    }

    fn select(&self, more: &[String]) -> String {
        let clauses: Vec<&str> = self.clauses.iter().chain(more).map(String::as_str).collect();
        let filter = if clauses.is_empty() { String::new() } else { format!(" WHERE {}", clauses.join(" AND ")) };
        format!("SELECT {} FROM {} AS t{filter}", self.columns, self.table)
    }

    /// Reads, in the order of the key, the rows behind `after`.
    pub(super) fn read_sorted(&self, after: Option<&[Value]>) -> String {
        let more = after.map(|after| {
            let bounds: Vec<String> = after
                .iter()
                .zip(&self.key_types)
                .map(|(value, (name, _))| format!("{}::{name}", literal(&value.to_text().unwrap_or_default())))
                .collect();
            let keys: Vec<String> = self.keys.iter().map(|key| format!("t.{key}")).collect();
            format!("({}) > ({})", keys.join(", "), bounds.join(", "))
        });
        let select = self.select(more.as_slice());
        format!("COPY ({select} ORDER BY {}) TO STDOUT (FORMAT binary)", self.order)
    }

    /// The key in a row of the stream, in the text form of the engine, which `session` renders.
    pub(super) async fn key_text(
        &self,
        session: &mut Session,
        plan: &TablePlan,
        row: &[u8],
    ) -> Result<Vec<Value>, TransferError> {
        let broken =
            || TransferError::request(format!("a row of `{}` cannot be read from its stream", plan.source.name));
        let fields = fields(row).ok_or_else(broken)?;
        let mut arguments = PgArguments::default();
        let mut shown = Vec::new();
        for (number, (index, (_, oid))) in plan.key.iter().zip(&self.key_types).enumerate() {
            let bytes = fields.get(*index).copied().flatten().ok_or_else(broken)?;
            let raw = Raw { bytes: bytes.to_vec(), oid: *oid };
            arguments.add(raw).map_err(|error| TransferError::statement(error.to_string()))?;
            shown.push(format!("(${})::text", number + 1));
        }
        let Session::Postgres(connection) = session else { return Err(broken()) };
        let sql = sqlx::AssertSqlSafe(format!("SELECT {}", shown.join(", ")));
        let row = sqlx::query_with(sql, arguments).fetch_one(&mut **connection).await;
        let row = row.map_err(|error| TransferError::sql(Engine::Postgres, &error))?;
        (0..shown.len())
            .map(|i| row.try_get::<String, _>(i).map(Value::Text))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| TransferError::sql(Engine::Postgres, &error))
    }
}

/// A value as it stands on the wire.
struct Raw {
    bytes: Vec<u8>,
    oid: u32,
}

impl Type<Postgres> for Raw {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(0))
    }
}

impl Encode<'_, Postgres> for Raw {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, sqlx::error::BoxDynError> {
        buffer.extend_from_slice(&self.bytes);
        Ok(IsNull::No)
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(PgTypeInfo::with_oid(Oid(self.oid)))
    }
}

/// The fields of one row of a binary COPY.
fn fields(row: &[u8]) -> Option<Vec<Option<&[u8]>>> {
    let (count, mut rest) = row.split_first_chunk::<2>()?;
    let mut fields = Vec::new();
    for _ in 0..i16::from_be_bytes(*count) {
        let (length, behind) = rest.split_first_chunk::<4>()?;
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            fields.push(None);
            rest = behind;
            continue;
        };
        let (field, behind) = behind.split_at_checked(length)?;
        fields.push(Some(field));
        rest = behind;
    }
    Some(fields)
}

/// What is selected, in the order of the planned columns; none where some column's bytes may not pass.
fn columns(plan: &TablePlan, have: &[Vec<Value>], want: &[Vec<Value>]) -> Option<Vec<String>> {
    let of = |rows: &[Vec<Value>], name: &str| {
        let row = rows.iter().find(|row| row.first().map(text).as_deref() == Some(name))?;
        Some((text(row.get(1)?), text(row.get(2)?) == "true"))
    };
    let mut selected = Vec::new();
    for column in &plan.columns {
        let (wanted, is_own) = of(want, &column.target.name)?;
        if column.lookup.is_some() || !is_own {
            return None;
        }
        match &column.from {
            From::Constant(value) => {
                let value = value.to_text().map_or_else(|| "NULL".to_owned(), |value| literal(&value));
                if !matches!(column.target.kind, Kind::Text { max: None, .. } | Kind::Integer(_)) {
                    return None;
                }
                selected.push(format!("{value}::{wanted}"));
            }
            From::Source(sql, _) => {
                let name = have.iter().filter_map(|row| row.first().map(text));
                let name = name.into_iter().find(|name| Engine::Postgres.quote(name) == *sql)?;
                if of(have, &name)? != (wanted, true) {
                    return None;
                }
                selected.push(format!("t.{sql}"));
            }
        }
    }
    Some(selected)
}

/// COPY takes no parameters.
fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

/// The range as conditions; none where the time column is none that can be compared here.
fn range_clauses(plan: &TablePlan, range: Range) -> Option<Vec<String>> {
    if range == Range::default() {
        return Some(Vec::new());
    }
    let (time, _) = plan.time.as_ref()?;
    let name = format!("t.{}", Engine::Postgres.quote(&time.name));
    let bounds = [(range.from, ">="), (range.to, "<")];
    bounds
        .into_iter()
        .filter_map(|(bound, compare)| Some((bound?, compare)))
        .map(|(bound, compare)| match time.kind {
            Kind::Integer(_) => Some(format!("{name} {compare} {bound}")),
            Kind::Instant => Some(format!("{name} {compare} to_timestamp({bound})")),
            _ => None,
        })
        .collect()
}

/// Whole rows of a stream, without header and trailer.
#[derive(Debug, Default)]
pub(super) struct Block {
    pub(super) bytes: Vec<u8>,
    pub(super) rows: u64,
    /// The last of them, where its key is read from its bytes.
    pub(super) last: Vec<u8>,
    /// Else the key of the last of them, as the source has it.
    pub(super) key: Vec<Value>,
    /// The pages that are whole with these rows, where a table is read page by page.
    pub(super) ends: Option<(u64, u64)>,
}

#[expect(clippy::needless_pass_by_value, reason = "as `map_err` hands it over")]
fn wrong(error: sqlx::Error) -> TransferError {
    TransferError::sql(Engine::Postgres, &error)
}

/// A binary COPY into a table, in the open transaction of its session; dropped before its end it leaves nothing.
pub(super) struct Sink<'c> {
    copy: PgCopyIn<&'c mut PgConnection>,
    /// Bytes of rows that went in.
    pub(super) bytes: u64,
}

impl<'c> Sink<'c> {
    pub(super) async fn begin(target: &'c mut Session, write: &str) -> Result<Self, TransferError> {
        let Session::Postgres(connection) = target else {
            return Err(TransferError::statement("bytes pass between two PostgreSQL sessions only"));
        };
        let mut copy = connection.copy_in_raw(write).await.map_err(wrong)?;
        copy.send(HEADER.as_slice()).await.map_err(wrong)?;
        Ok(Self { copy, bytes: 0 })
    }

    /// Sends whole rows.
    pub(super) async fn put(&mut self, rows: &[u8]) -> Result<(), TransferError> {
        if !rows.is_empty() {
            self.copy.send(rows).await.map_err(wrong)?;
            self.bytes += u64::try_from(rows.len()).unwrap_or(u64::MAX);
        }
        Ok(())
    }

    /// Ends it and gives how many rows the target counted.
    pub(super) async fn end(mut self) -> Result<u64, TransferError> {
        self.copy.send(TRAILER.as_slice()).await.map_err(wrong)?;
        self.copy.finish().await.map_err(wrong)
    }

    /// Gives up; the target may say what it likes to being left.
    pub(super) async fn abort(self, why: &str) {
        let _ = self.copy.abort(why).await;
    }
}

/// Who reads.
pub(super) enum Source<'s> {
    /// A connection of its own; none once it was left before the end of what it read.
    Stream(Option<Stream>),
    /// A session that joined the snapshot.
    Joined(Session),
    /// The session that holds it.
    Session(&'s mut Session),
}

impl Source<'_> {
    /// The connection that can read another table, where it is one and stands at the end of what it read.
    pub(super) fn into_stream(self) -> Option<Stream> {
        match self {
            Self::Stream(stream) => stream,
            Self::Joined(_) | Self::Session(_) => None,
        }
    }

    /// The session, where it is one.
    pub(super) fn session(&mut self) -> Option<&mut Session> {
        match self {
            Self::Stream(_) => None,
            Self::Joined(session) => Some(session),
            Self::Session(session) => Some(session),
        }
    }
}

/// Reads into blocks of at most so many whole rows until there are no more or nobody takes them; with `patience` the source may not be silent for longer.
pub(super) async fn blocks(
    source: &mut Source<'_>,
    read: &str,
    most: u64,
    patience: Option<Duration>,
    to: &Sender<Block>,
) -> Result<(), TransferError> {
    let gathering = Gathering { most, block: Block::default(), last: 0 };
    if let Source::Stream(stream) = source {
        let left = || TransferError::statement("the stream of rows was left before its end");
        *stream = gathering.read_stream(stream.take().ok_or_else(left)?, read, patience, to).await?;
        return Ok(());
    }
    let Some(Session::Postgres(session)) = source.session() else {
        return Err(TransferError::statement("bytes pass between two PostgreSQL sessions only"));
    };
    gathering.read_session(session, read, patience, to).await
}

/// A block that is being gathered.
struct Gathering {
    most: u64,
    block: Block,
    /// Where its last row begins.
    last: usize,
}

impl Gathering {
    async fn read_session(
        mut self,
        source: &mut PgConnection,
        read: &str,
        patience: Option<Duration>,
        to: &Sender<Block>,
    ) -> Result<(), TransferError> {
        let mut rows = source.copy_out_raw(read).await.map_err(wrong)?;
        loop {
            let message = match patience {
                None => rows.try_next().await,
                Some(after) => tokio::time::timeout(after, rows.try_next())
                    .await
                    .map_err(|_| TransferError::Timeout { after, effect_unknown: false })?,
            };
            let Some(message) = message.map_err(wrong)? else { break };
            if let Some(full) = self.take(&message)
                && to.send(full).await.is_err()
            {
                return Ok(());
            }
        }
        if let Some(rest) = self.rest() {
            let _ = to.send(rest).await;
        }
        Ok(())
    }

    /// Reads on a thread of its own; the stream comes back where it was read to its end.
    async fn read_stream(
        mut self,
        mut stream: Stream,
        read: &str,
        patience: Option<Duration>,
        to: &Sender<Block>,
    ) -> Result<Option<Stream>, TransferError> {
        // Whoever gives up waiting ends the statement too.
        let closer = stream.closer()?;
        let (read, to) = (read.to_owned(), to.clone());
        let work = tokio::task::spawn_blocking(move || {
            let is_whole = stream.each_row(&read, patience, |message| {
                let is_taken = self.take(message).is_none_or(|full| to.blocking_send(full).is_ok());
                if is_taken { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            if !is_whole {
                return Ok(None);
            }
            if let Some(rest) = self.rest() {
                let _ = to.blocking_send(rest);
            }
            Ok(Some(stream))
        });
        let done = work.await;
        closer.release();
        done.map_err(|_| TransferError::statement("the thread that reads PostgreSQL came to an early end"))?
    }

    /// Takes the row that a message holds; a block that is full with it comes back.
    fn take(&mut self, message: &[u8]) -> Option<Block> {
        let row = message.strip_prefix(HEADER.as_slice()).unwrap_or(message);
        if row.is_empty() || row == TRAILER {
            return None;
        }
        self.last = self.block.bytes.len();
        self.block.bytes.extend_from_slice(row);
        self.block.rows += 1;
        let is_full = self.block.bytes.len() >= BUFFER || self.block.rows >= self.most;
        is_full.then(|| self.close())
    }

    /// What is left at the end.
    fn rest(mut self) -> Option<Block> {
        (self.block.rows > 0).then(|| self.close())
    }

    fn close(&mut self) -> Block {
        // With room for the row that fills it.
        let bytes = Vec::with_capacity(BUFFER + BUFFER / 8);
        let mut full = std::mem::replace(&mut self.block, Block { bytes, ..Block::default() });
        full.last = full.bytes.split_at(self.last).1.to_vec();
        full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_a_row_are_found_and_a_broken_row_is_none() {
        let row = [0, 3, 0, 0, 0, 2, 7, 8, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
        let wanted: Vec<Option<&[u8]>> = vec![Some(&[7, 8]), None, Some(&[])];
        assert_eq!(fields(&row), Some(wanted));
        assert_eq!(fields(&row[..9]), None);
    }

    #[test]
    fn a_literal_stays_one_literal() {
        assert_eq!(literal("a'b"), "'a''b'");
        assert_eq!(literal("a\\'b"), "E'a\\\\''b'");
    }
}
