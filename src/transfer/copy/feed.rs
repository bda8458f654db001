//! Rows of SQLite or MariaDB as whole rows of a binary COPY: read in one stream in the order of the key, encoded as they come.
//!
//! Takes a table whose columns all have a form (`encode`) and come from plain columns of the source; everything else goes by value. A value that is
//! none of the usual ones goes the long way, which converts or refuses it by table, key and column. Used by `sorted`.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{Stream, TryStreamExt as _};
use rusqlite::types::ValueRef;
use sqlx::mysql::{MySql, MySqlRow};
use sqlx::{AssertSqlSafe, Decode, Row as _};
use tokio::sync::mpsc::Sender;

use super::super::engine::Engine;
use super::super::error::TransferError;
use super::super::mariadb;
use super::super::mariadb_value::MariaKind;
use super::super::plan::{From, TablePlan};
use super::super::rows::{self, Lookups, Params, Range};
use super::super::schema::{one, text};
use super::super::session::Session;
use super::super::sqlite_reader::{self, Reader};
use super::super::value::{Kind, Value, convert};
use super::encode::{self, Cell, Form, Unusual};
use super::wire::{Block, COLUMNS, Facts};

/// Bytes of rows that are gathered before they are handed on.
const BUFFER: usize = 64 * 1024;

/// Where a field comes from.
enum Field {
    /// Always the same bytes, with their length.
    Constant(Vec<u8>),
    /// A column of the row that is read, by its place.
    Column { place: usize, form: Form, kind: Kind, not_null: bool },
}

/// The way of one table.
pub(super) struct Feed {
    range: Range,
    encoder: Arc<Encoder>,
    pub(super) write: String,
}

/// Makes of rows what goes over the wire.
struct Encoder {
    plan: TablePlan,
    fields: Vec<Field>,
    /// Places of the key among the columns that are read.
    key: Vec<usize>,
    /// Columns that are read.
    width: usize,
}

impl Feed {
    /// Finds out whether every column of a planned table has a form.
    pub(super) async fn between(
        source: Engine,
        target: &mut Session,
        plan: &TablePlan,
        range: Range,
    ) -> Result<Option<Self>, TransferError> {
        if source == Engine::Postgres || target.engine() != Engine::Postgres {
            return Ok(None);
        }
        let to = plan.target.quoted();
        if !Facts::ask(target, &to).await?.is_some_and(|facts| facts.is_plain) {
            return Ok(None);
        }
        let have = target.rows(COLUMNS, one(&to)).await?;
        let form = |name: &str| {
            let row = have.iter().find(|row| row.first().map(text).as_deref() == Some(name))?;
            (text(row.get(2)?) == "true").then(|| Form::of(&text(row.get(1)?))).flatten()
        };
        let Some(encoder) = Encoder::of(plan, form) else { return Ok(None) };
        let names: Vec<String> = plan.columns.iter().map(|c| Engine::Postgres.quote(&c.target.name)).collect();
        let write = format!("COPY {to} ({}) FROM STDIN (FORMAT binary)", names.join(", "));
        Ok(Some(Self { range, encoder: Arc::new(encoder), write }))
    }

    /// Reads the rows behind `after` into blocks of at most so many rows, until there are no more or nobody takes them. A `reader` that
    /// fails is gone.
    pub(super) async fn blocks(
        &self,
        source: &mut Session,
        reader: &mut Option<Reader>,
        after: Option<&[Value]>,
        most: u64,
        patience: Option<Duration>,
        to: Sender<Block>,
    ) -> Result<(), TransferError> {
        let (sql, params) = self.select(source.engine(), after)?;
        match (source, reader.take()) {
            (Session::Mariadb(connection), _) => {
                let sql = AssertSqlSafe(sql);
                let rows = sqlx::query_with(sql, mariadb::arguments(params.args)?).fetch(&mut **connection);
                self.encoder.stream(rows, most, patience, to).await
            }
            (Session::Sqlite(_), Some(taken)) => {
                *reader = Some(self.read(taken, sql, params, most, patience, to).await?);
                Ok(())
            }
            (Session::Sqlite(_) | Session::Postgres(_), _) => {
                Err(TransferError::statement("there is no stream of rows of this source"))
            }
        }
    }

    fn select(&self, engine: Engine, after: Option<&[Value]>) -> Result<(String, Params), TransferError> {
        let plan = &self.encoder.plan;
        let mut params = Params::new(engine);
        let mut clauses = rows::keyset_sql(&mut params, &plan.source_key, after);
        if let Some((time, _)) = rows::time_of(plan, self.range)? {
            rows::range_sql(&mut params, time, self.range, &mut clauses);
        }
        let shown = plan.columns.iter().filter_map(|column| match &column.from {
            From::Source(sql, _) => Some(sql.as_str()),
            From::Constant(_) => None,
        });
        let sql = format!(
            "SELECT {} FROM {}{} ORDER BY {}",
            shown.collect::<Vec<_>>().join(", "),
            plan.source.quoted(),
            rows::where_sql(&clauses),
            rows::order_sql(&plan.source, &plan.source_key)
        );
        Ok((sql, params))
    }

    /// Reads and encodes on a thread of its own.
    async fn read(
        &self,
        reader: Reader,
        sql: String,
        params: Params,
        most: u64,
        patience: Option<Duration>,
        to: Sender<Block>,
    ) -> Result<Reader, TransferError> {
        let encoder = Arc::clone(&self.encoder);
        let met = Arc::new(AtomicU64::new(0));
        // Whoever gives up waiting ends the statement too.
        let _stop = Stop(reader.interrupt());
        let (room, count) = (to.clone().downgrade(), Arc::clone(&met));
        let mut work = tokio::task::spawn_blocking(move || {
            let mut filling = Filling::new(&encoder, most);
            reader.each_row(&sql, params.args, |row| {
                count.fetch_add(1, Ordering::Relaxed);
                let full = filling.take(row)?;
                let is_taken = full.is_none_or(|block| to.blocking_send(block).is_ok());
                Ok(if is_taken { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
            })?;
            if let Some(rest) = filling.rest() {
                let _ = to.blocking_send(rest);
            }
            Ok(reader)
        });
        let mut seen = 0;
        let done = loop {
            let Some(after) = patience else { break (&mut work).await };
            if let Ok(done) = tokio::time::timeout(after, &mut work).await {
                break done;
            }
            // A reader for whose blocks there is no room is not silent.
            let is_held = room.upgrade().is_some_and(|to| to.capacity() == 0);
            let now = met.load(Ordering::Relaxed);
            if now == seen && !is_held {
                return Err(TransferError::Timeout { after, effect_unknown: false });
            }
            seen = now;
        };
        done.map_err(|_| TransferError::statement("the thread that reads SQLite came to an early end"))?
    }
}

/// Interrupts a reader when it goes.
struct Stop(rusqlite::InterruptHandle);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.interrupt();
    }
}

/// A block that is being filled.
struct Filling<'e> {
    encoder: &'e Encoder,
    most: u64,
    block: Block,
    /// The key of its last row.
    key: Vec<Value>,
}

impl<'e> Filling<'e> {
    fn new(encoder: &'e Encoder, most: u64) -> Self {
        Self { encoder, most, block: Block::default(), key: vec![Value::Null; encoder.key.len()] }
    }

    /// Takes a row; a block that is full with it comes back.
    fn take(&mut self, row: &rusqlite::Row<'_>) -> Result<Option<Block>, TransferError> {
        self.encoder.put_row(row, &mut self.block.bytes)?;
        self.block.rows += 1;
        for (place, kept) in self.encoder.key.iter().zip(&mut self.key) {
            keep(row.get_ref(*place).unwrap_or(ValueRef::Null), kept);
        }
        let is_full = self.block.bytes.len() >= BUFFER || self.block.rows >= self.most;
        Ok(is_full.then(|| self.close()))
    }

    /// What is left at the end.
    fn rest(mut self) -> Option<Block> {
        (self.block.rows > 0).then(|| self.close())
    }

    fn close(&mut self) -> Block {
        let bytes = Vec::with_capacity(2 * BUFFER);
        let mut full = std::mem::replace(&mut self.block, Block { bytes, ..Block::default() });
        full.key.clone_from(&self.key);
        full
    }
}

/// Keeps a value in the room of the one before: this is done for every row.
fn keep(value: ValueRef<'_>, kept: &mut Value) {
    match (value, kept) {
        (ValueRef::Text(bytes), Value::Text(text)) if str::from_utf8(bytes).is_ok() => {
            text.clear();
            text.push_str(str::from_utf8(bytes).unwrap_or_default());
        }
        (value, kept) => *kept = sqlite_reader::value(value),
    }
}

impl Encoder {
    /// None where a column has no form or is more than a column.
    fn of(plan: &TablePlan, form: impl Fn(&str) -> Option<Form>) -> Option<Self> {
        let mut fields = Vec::new();
        let mut places = Vec::new();
        let mut width = 0;
        for column in &plan.columns {
            let form = form(&column.target.name)?;
            if column.lookup.is_some() {
                return None;
            }
            places.push(width);
            match &column.from {
                From::Constant(value) => {
                    let value = convert(value.clone(), None, column.target.kind).ok()?;
                    if value == Value::Null && column.target.not_null {
                        return None;
                    }
                    let mut bytes = Vec::new();
                    form.put_value(&mut bytes, &value).ok()?;
                    fields.push(Field::Constant(bytes));
                }
                From::Source(sql, Some(kind)) if is_plain(plan, sql) => {
                    fields.push(Field::Column { place: width, form, kind: *kind, not_null: column.target.not_null });
                    width += 1;
                }
                From::Source(..) => return None,
            }
        }
        let key = plan.key.iter().map(|index| places[*index]).collect();
        Some(Self { plan: plan.clone(), fields, key, width })
    }

    async fn stream(
        &self,
        mut rows: impl Stream<Item = Result<MySqlRow, sqlx::Error>> + Unpin,
        most: u64,
        patience: Option<Duration>,
        to: Sender<Block>,
    ) -> Result<(), TransferError> {
        let mut block = Block::default();
        let mut ahead = next(&mut rows, patience).await?;
        while let Some(row) = ahead {
            self.put_row(&row, &mut block.bytes)?;
            block.rows += 1;
            ahead = next(&mut rows, patience).await?;
            if block.bytes.len() >= BUFFER || block.rows >= most || ahead.is_none() {
                block.key = self.key_of(&row.values(self.width)?);
                if to.send(std::mem::take(&mut block)).await.is_err() {
                    return Ok(());
                }
                block.bytes.reserve(2 * BUFFER);
            }
        }
        Ok(())
    }

    fn key_of(&self, values: &[Value]) -> Vec<Value> {
        self.key.iter().map(|place| values[*place].clone()).collect()
    }

    /// Appends one row.
    fn put_row(&self, row: &impl SourceRow, to: &mut Vec<u8>) -> Result<(), TransferError> {
        let start = to.len();
        let count = i16::try_from(self.fields.len()).unwrap_or(i16::MAX).to_be_bytes();
        to.extend_from_slice(&count);
        let quick = self.fields.iter().try_for_each(|field| match field {
            Field::Constant(bytes) => {
                to.extend_from_slice(bytes);
                Ok(())
            }
            Field::Column { place, form, kind, not_null } => match row.cell(*place, *kind) {
                Cell::Null if *not_null => Err(Unusual),
                cell => form.put(to, cell),
            },
        });
        if quick.is_ok() {
            return Ok(());
        }
        to.truncate(start);
        to.extend_from_slice(&count);
        let read = row.values(self.width)?;
        let key = self.key_of(&read);
        let values = rows::map_row(&self.plan, &Lookups::default(), &key, read)?;
        for ((field, value), column) in self.fields.iter().zip(&values).zip(&self.plan.columns) {
            match field {
                Field::Constant(bytes) => to.extend_from_slice(bytes),
                Field::Column { form, .. } => {
                    form.put_value(to, value)
                        .map_err(|why| rows::misfit(&self.plan, &key, &column.target.name, why))?;
                }
            }
        }
        Ok(())
    }
}

/// The next row; with `patience` the source may not be silent for longer.
async fn next(
    rows: &mut (impl Stream<Item = Result<MySqlRow, sqlx::Error>> + Unpin),
    patience: Option<Duration>,
) -> Result<Option<MySqlRow>, TransferError> {
    let row = match patience {
        None => rows.try_next().await,
        Some(after) => tokio::time::timeout(after, rows.try_next())
            .await
            .map_err(|_| TransferError::Timeout { after, effect_unknown: false })?,
    };
    row.map_err(|error| TransferError::sql(Engine::Mariadb, &error))
}

fn is_plain(plan: &TablePlan, sql: &str) -> bool {
    plan.source.columns.iter().any(|column| plan.source.engine.quote(&column.name) == sql)
}

/// A row of either engine.
trait SourceRow {
    /// A value as it stands in the row.
    fn cell(&self, place: usize, kind: Kind) -> Cell<'_>;

    /// Every value, of which there are `width`, as the long way takes it.
    fn values(&self, width: usize) -> Result<Vec<Value>, TransferError>;
}

impl SourceRow for rusqlite::Row<'_> {
    fn cell(&self, place: usize, _: Kind) -> Cell<'_> {
        match self.get_ref(place) {
            Ok(ValueRef::Null) => Cell::Null,
            Ok(ValueRef::Integer(number)) => Cell::Int(number),
            Ok(ValueRef::Real(number)) => Cell::Double(number),
            Ok(ValueRef::Text(bytes)) => Cell::Text(bytes),
            Ok(ValueRef::Blob(bytes)) => Cell::Bytes(bytes),
            Err(_) => Cell::Odd,
        }
    }

    fn values(&self, width: usize) -> Result<Vec<Value>, TransferError> {
        sqlite_reader::values(self, width)
    }
}

impl SourceRow for MySqlRow {
    fn cell(&self, place: usize, kind: Kind) -> Cell<'_> {
        let (Ok(raw), Kind::Maria(kind)) = (self.try_get_raw(place), kind) else { return Cell::Odd };
        // As in `mariadb`: a zero date is not NULL here.
        let Ok(bytes) = <&[u8] as Decode<MySql>>::decode(raw) else { return Cell::Null };
        let cell = match kind {
            MariaKind::Integer { unsigned, .. } => match mariadb::integer(bytes, unsigned) {
                Some(Value::Int(number)) => Some(Cell::Int(number)),
                _ => None,
            },
            MariaKind::Float(_) => bytes.try_into().ok().map(|bytes| Cell::Single(f32::from_le_bytes(bytes))),
            MariaKind::Double(_) => bytes.try_into().ok().map(|bytes| Cell::Double(f64::from_le_bytes(bytes))),
            MariaKind::Year => mariadb::integer(bytes, true).and_then(|year| year.as_integer()).map(Cell::Int),
            // All of these come as text.
            MariaKind::Text { .. }
            | MariaKind::Decimal { .. }
            | MariaKind::Member
            | MariaKind::Uuid
            | MariaKind::Json => Some(Cell::Text(bytes)),
            MariaKind::Bytes { .. } => Some(Cell::Bytes(bytes)),
            MariaKind::Timestamp(_) => moment(bytes).map(Cell::Instant),
            MariaKind::DateTime(_) => moment(bytes).map(Cell::Civil),
            MariaKind::Date => {
                let (year, [month, day, ..], _) = mariadb::packed(bytes).unwrap_or_default();
                let is_day = encode::moment(i64::from(year), [month, day, 0, 0, 0], 0).is_some();
                is_day.then(|| Cell::Date(encode::days(i64::from(year), i64::from(month), i64::from(day))))
            }
            MariaKind::Bit(_) | MariaKind::Time(_) | MariaKind::Other => None,
        };
        cell.unwrap_or(Cell::Odd)
    }

    fn values(&self, _: usize) -> Result<Vec<Value>, TransferError> {
        mariadb::row(self).map_err(|error| TransferError::sql(Engine::Mariadb, &error))
    }
}

/// Microseconds since 1970 of what MariaDB packs.
fn moment(bytes: &[u8]) -> Option<i64> {
    let (year, parts, micros) = mariadb::packed(bytes)?;
    encode::moment(i64::from(year), parts, micros)
}
