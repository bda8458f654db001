//! Rows of SQLite or MariaDB as whole rows of a binary COPY: read in one stream in the order of the key, encoded as they come.
//!
//! Takes a table whose columns all have a form (`encode`) and come from plain columns of the source; everything else goes by value. A value that is
//! none of the usual ones goes the long way, which converts or refuses it by table, key and column. Used by `sorted`.

use std::time::Duration;

use futures_util::{FutureExt as _, Stream, TryStreamExt as _};
use sqlx::mysql::{MySql, MySqlRow};
use sqlx::sqlite::{Sqlite, SqliteRow};
use sqlx::{AssertSqlSafe, Decode, Row as _, TypeInfo as _, ValueRef as _};
use tokio::sync::mpsc::Sender;

use super::super::engine::Engine;
use super::super::error::TransferError;
use super::super::mariadb_value::MariaKind;
use super::super::plan::{From, TablePlan};
use super::super::rows::{self, Lookups, Params, Range};
use super::super::schema::{one, text};
use super::super::session::Session;
use super::super::value::{Kind, Value, convert};
use super::super::{mariadb, sqlite};
use super::encode::{self, Cell, Form, Unusual};
use super::wire::{BUFFER, Block, COLUMNS, Facts};

/// Where a field comes from.
enum Field {
    /// Always the same bytes, with their length.
    Constant(Vec<u8>),
    /// A column of the row that is read, by its place.
    Column { place: usize, form: Form, kind: Kind, not_null: bool },
}

/// The way of one table.
pub(super) struct Feed<'a> {
    plan: &'a TablePlan,
    range: Range,
    fields: Vec<Field>,
    /// Places of the key among the columns that are read.
    key: Vec<usize>,
    pub(super) write: String,
}

impl<'a> Feed<'a> {
    /// Finds out whether every column of a planned table has a form.
    pub(super) async fn between(
        source: Engine,
        target: &mut Session,
        plan: &'a TablePlan,
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
        let Some((fields, key)) = fields(plan, form) else { return Ok(None) };
        let names: Vec<String> = plan.columns.iter().map(|c| Engine::Postgres.quote(&c.target.name)).collect();
        let write = format!("COPY {to} ({}) FROM STDIN (FORMAT binary)", names.join(", "));
        Ok(Some(Self { plan, range, fields, key, write }))
    }

    /// Reads the rows behind `after` into blocks of at most so many rows, until there are no more or nobody takes them.
    pub(super) async fn blocks(
        &self,
        source: &mut Session,
        after: Option<&[Value]>,
        most: u64,
        patience: Option<Duration>,
        to: Sender<Block>,
    ) -> Result<(), TransferError> {
        let engine = source.engine();
        let (sql, params) = self.select(engine, after)?;
        let sql = AssertSqlSafe(sql);
        match source {
            Session::Mariadb(connection) => {
                let rows = sqlx::query_with(sql, mariadb::arguments(params.args)?).fetch(&mut **connection);
                self.encode(rows, engine, most, patience, to).await
            }
            Session::Sqlite(connection) => {
                let rows = sqlx::query_with(sql, sqlite::arguments(params.args)?).fetch(&mut **connection);
                self.encode(rows, engine, most, patience, to).await
            }
            Session::Postgres(_) => Err(TransferError::statement("bytes of PostgreSQL pass as they are")),
        }
    }

    fn select(&self, engine: Engine, after: Option<&[Value]>) -> Result<(String, Params), TransferError> {
        let plan = self.plan;
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

    async fn encode<R: SourceRow>(
        &self,
        mut rows: impl Stream<Item = Result<R, sqlx::Error>> + Unpin,
        engine: Engine,
        most: u64,
        patience: Option<Duration>,
        to: Sender<Block>,
    ) -> Result<(), TransferError> {
        let wrong = |error: sqlx::Error| TransferError::sql(engine, &error);
        let mut block = Block::default();
        let mut ahead = next(&mut rows, patience).await?.map_err(wrong)?;
        while let Some(row) = ahead {
            self.put_row(&row, &mut block.bytes, engine)?;
            block.rows += 1;
            ahead = next(&mut rows, patience).await?.map_err(wrong)?;
            if block.bytes.len() >= BUFFER || block.rows >= most || ahead.is_none() {
                let values = row.values().map_err(wrong)?;
                block.key = self.key_of(&values);
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
    fn put_row<R: SourceRow>(&self, row: &R, to: &mut Vec<u8>, engine: Engine) -> Result<(), TransferError> {
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
        let read = row.values().map_err(|error| TransferError::sql(engine, &error))?;
        let key = self.key_of(&read);
        let values = rows::map_row(self.plan, &Lookups::default(), &key, read)?;
        for ((field, value), column) in self.fields.iter().zip(&values).zip(&self.plan.columns) {
            match field {
                Field::Constant(bytes) => to.extend_from_slice(bytes),
                Field::Column { form, .. } => {
                    form.put_value(to, value).map_err(|why| rows::misfit(self.plan, &key, &column.target.name, why))?;
                }
            }
        }
        Ok(())
    }
}

/// How long a source that has nothing ready is left alone.
const NAP: Duration = Duration::from_millis(1);

/// The next row; with `patience` the source may not be silent for longer.
async fn next<R: SourceRow>(
    rows: &mut (impl Stream<Item = Result<R, sqlx::Error>> + Unpin),
    patience: Option<Duration>,
) -> Result<Result<Option<R>, sqlx::Error>, TransferError> {
    if R::COMES_FROM_A_THREAD {
        if let Some(row) = rows.try_next().now_or_never() {
            return Ok(row);
        }
        // A thread that hands over row by row would wake this one for each: many are taken at once instead.
        tokio::time::sleep(NAP).await;
    }
    match patience {
        None => Ok(rows.try_next().await),
        Some(after) => tokio::time::timeout(after, rows.try_next())
            .await
            .map_err(|_| TransferError::Timeout { after, effect_unknown: false }),
    }
}

/// The fields of a table and the places of its key; none where a column has no form or is more than a column.
fn fields(plan: &TablePlan, form: impl Fn(&str) -> Option<Form>) -> Option<(Vec<Field>, Vec<usize>)> {
    let mut fields = Vec::new();
    let mut places = Vec::new();
    let mut read = 0;
    for column in &plan.columns {
        let form = form(&column.target.name)?;
        if column.lookup.is_some() {
            return None;
        }
        places.push(read);
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
                fields.push(Field::Column { place: read, form, kind: *kind, not_null: column.target.not_null });
                read += 1;
            }
            From::Source(..) => return None,
        }
    }
    Some((fields, plan.key.iter().map(|index| places[*index]).collect()))
}

fn is_plain(plan: &TablePlan, sql: &str) -> bool {
    plan.source.columns.iter().any(|column| plan.source.engine.quote(&column.name) == sql)
}

/// A row of either engine.
trait SourceRow {
    /// Whether another thread of this process reads ahead.
    const COMES_FROM_A_THREAD: bool;

    /// A value as it stands in the row.
    fn cell(&self, place: usize, kind: Kind) -> Cell<'_>;

    /// Every value, as the long way takes it.
    fn values(&self) -> Result<Vec<Value>, sqlx::Error>;
}

impl SourceRow for SqliteRow {
    const COMES_FROM_A_THREAD: bool = true;

    fn cell(&self, place: usize, _: Kind) -> Cell<'_> {
        let Ok(raw) = self.try_get_raw(place) else { return Cell::Odd };
        if raw.is_null() {
            return Cell::Null;
        }
        let cell = match raw.type_info().name() {
            "INTEGER" => <i64 as Decode<Sqlite>>::decode(raw).map(Cell::Int),
            "REAL" => <f64 as Decode<Sqlite>>::decode(raw).map(Cell::Double),
            "TEXT" => <&[u8] as Decode<Sqlite>>::decode(raw).map(Cell::Text),
            "BLOB" => <&[u8] as Decode<Sqlite>>::decode(raw).map(Cell::Bytes),
            _ => return Cell::Odd,
        };
        cell.unwrap_or(Cell::Odd)
    }

    fn values(&self) -> Result<Vec<Value>, sqlx::Error> {
        sqlite::row(self)
    }
}

impl SourceRow for MySqlRow {
    const COMES_FROM_A_THREAD: bool = false;

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
            MariaKind::Text { .. } => Some(Cell::Text(bytes)),
            MariaKind::Bytes { .. } => Some(Cell::Bytes(bytes)),
            MariaKind::Timestamp(_) => moment(bytes).map(Cell::Instant),
            MariaKind::DateTime(_) => moment(bytes).map(Cell::Civil),
            MariaKind::Date => {
                let (year, [month, day, ..], _) = mariadb::packed(bytes).unwrap_or_default();
                let is_day = encode::moment(i64::from(year), [month, day, 0, 0, 0], 0).is_some();
                is_day.then(|| Cell::Date(encode::days(i64::from(year), i64::from(month), i64::from(day))))
            }
            MariaKind::Bit(_)
            | MariaKind::Year
            | MariaKind::Decimal { .. }
            | MariaKind::Member
            | MariaKind::Time(_)
            | MariaKind::Uuid
            | MariaKind::Json
            | MariaKind::Other => None,
        };
        cell.unwrap_or(Cell::Odd)
    }

    fn values(&self) -> Result<Vec<Value>, sqlx::Error> {
        mariadb::row(self)
    }
}

/// Microseconds since 1970 of what MariaDB packs.
fn moment(bytes: &[u8]) -> Option<i64> {
    let (year, parts, micros) = mariadb::packed(bytes)?;
    encode::moment(i64::from(year), parts, micros)
}
