//! Cuts one side of a table into slices that are read one after the other: pages on PostgreSQL, ranges of the primary key's first
//! column elsewhere, the whole where neither can be done.
//!
//! The slices of the two sides need not meet: what is summed up over them does not depend on their order. A slice that was cut by a
//! guess about order is proven by the count of all rows. Used by `sums`.

use serde_json::{Value as Json, json};

use crate::transfer::engine::Engine;
use crate::transfer::error::TransferError;
use crate::transfer::mariadb_value::MariaKind;
use crate::transfer::rows::Params;
use crate::transfer::schema::{Column, Table};
use crate::transfer::session::{Arg, Session};
use crate::transfer::value::{Kind, Value};

/// Rows of a slice where the caller names none: what a crash loses at most.
const ROWS_DEFAULT: u64 = 1_000_000;
/// Rows of a PostgreSQL page, as a guess.
const ROWS_PER_PAGE: u64 = 64;
/// The first PostgreSQL that reads a range of pages without looking at the others.
const PAGE_RANGES_SINCE: i64 = 140_000;

/// How a table is cut.
#[derive(Debug, Clone)]
pub(super) enum Cut {
    /// By physical pages: so many there are, so many make a slice.
    Pages(u64, u64),
    /// By values of this indexed column, so many rows to a slice.
    Leading(Column, u64),
    /// Not at all.
    Whole,
}

/// How far a side has come.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Position {
    Start,
    /// The next page.
    Page(u64),
    /// Behind this value of the leading column.
    After(Value),
    Done,
}

impl Position {
    pub(super) fn to_json(&self) -> Json {
        match self {
            Self::Start => json!("start"),
            Self::Done => json!("done"),
            Self::Page(page) => json!({ "page": page }),
            Self::After(value) => json!({ "after": value.to_stored() }),
        }
    }

    pub(super) fn from_json(stored: &Json) -> Option<Self> {
        match stored.as_str() {
            Some("start") => return Some(Self::Start),
            Some("done") => return Some(Self::Done),
            Some(_) => return None,
            None => {}
        }
        match (stored.get("page").and_then(Json::as_u64), stored.get("after")) {
            (Some(page), _) => Some(Self::Page(page)),
            (None, Some(value)) => Value::from_stored(value).map(Self::After),
            (None, None) => None,
        }
    }
}

/// One slice: the conditions of its rows, and where the next one begins.
pub(super) struct Slice {
    pub(super) clauses: Vec<String>,
    pub(super) next: Position,
}

/// Finds out how `table` can be cut into slices of about so many rows (0 for the usual).
pub(super) async fn cut(
    session: &mut Session,
    table: &Table,
    has_range: bool,
    slice_rows: u64,
) -> Result<Cut, TransferError> {
    // A range is small, or has an index of its own: the engine knows best.
    if has_range {
        return Ok(Cut::Whole);
    }
    let rows = if slice_rows == 0 { ROWS_DEFAULT } else { slice_rows };
    if session.engine() == Engine::Postgres {
        let step = rows.div_ceil(ROWS_PER_PAGE);
        return pages(session, table).await.map(|pages| pages.map_or(Cut::Whole, |pages| Cut::Pages(pages, step)));
    }
    let leading =
        table.primary_key.first().and_then(|name| table.column(name)).filter(|column| is_ordered(column.kind));
    Ok(leading.map_or(Cut::Whole, |column| Cut::Leading(column.clone(), rows)))
}

/// The pages of an ordinary table, on servers that can read a part of them.
async fn pages(session: &mut Session, table: &Table) -> Result<Option<u64>, TransferError> {
    let version = session.number("SELECT current_setting('server_version_num')", Vec::new()).await?;
    if version.is_none_or(|version| version < PAGE_RANGES_SINCE) {
        return Ok(None);
    }
    let sql = "SELECT (pg_relation_size(c.oid) / current_setting('block_size')::int8)::text FROM pg_class c \
               JOIN pg_am a ON a.oid = c.relam WHERE c.oid = to_regclass($1::text) AND c.relkind = 'r' AND a.amname = 'heap' \
               AND NOT EXISTS (SELECT 1 FROM pg_inherits i WHERE i.inhparent = c.oid)";
    let pages = session.number(sql, vec![Arg::One(Value::Text(table.quoted()))]).await?;
    Ok(pages.and_then(|pages| u64::try_from(pages).ok()))
}

/// Whether the engine sorts the column as it compares it with a parameter.
fn is_ordered(kind: Kind) -> bool {
    match kind {
        Kind::Sqlite(_) => true,
        Kind::Maria(kind) => matches!(
            kind,
            MariaKind::Integer { .. }
                | MariaKind::Text { .. }
                | MariaKind::Bytes { .. }
                | MariaKind::Date
                | MariaKind::DateTime(_)
                | MariaKind::Timestamp(_)
        ),
        _ => false,
    }
}

/// The slice that begins at `position`; its parameters go into `params`, which must be empty.
pub(super) async fn slice(
    session: &mut Session,
    table: &Table,
    cut: &Cut,
    position: &Position,
    params: &mut Params,
) -> Result<Option<Slice>, TransferError> {
    if *position == Position::Done {
        return Ok(None);
    }
    let (column, rows) = match cut {
        Cut::Whole => return Ok(Some(Slice { clauses: Vec::new(), next: Position::Done })),
        Cut::Pages(pages, step) => return Ok(Some(page_slice(*pages, *step, position))),
        Cut::Leading(column, rows) => (column, *rows),
    };
    let after = if let Position::After(value) = position { Some(value) } else { None };
    let bound = bound(session, table, column, after, rows).await?;
    let name = params.engine().quote(&column.name);
    let mut clauses = Vec::new();
    if let Some(after) = after {
        clauses.push(format!("{name} > {}", params.bind(after.clone(), &column.cast)));
    }
    if let Some(bound) = &bound {
        let upper = format!("{name} <= {}", params.bind(bound.clone(), &column.cast));
        // SQLite's keys may hold NULL, which sorts before everything.
        clauses.push(if after.is_none() { format!("({upper} OR {name} IS NULL)") } else { upper });
    }
    Ok(Some(Slice { clauses, next: bound.map_or(Position::Done, Position::After) }))
}

fn page_slice(pages: u64, step: u64, position: &Position) -> Slice {
    let first = if let Position::Page(page) = position { *page } else { 0 };
    let end = first + step;
    let mut clauses = Vec::new();
    if first > 0 {
        clauses.push(format!("ctid >= '({first},0)'::tid"));
    }
    if end >= pages {
        return Slice { clauses, next: Position::Done };
    }
    clauses.push(format!("ctid < '({end},0)'::tid"));
    Slice { clauses, next: Position::Page(end) }
}

/// The leading value of the last row of a slice; `None` where the slice is the last one.
async fn bound(
    session: &mut Session,
    table: &Table,
    column: &Column,
    after: Option<&Value>,
    rows: u64,
) -> Result<Option<Value>, TransferError> {
    let engine = session.engine();
    let mut params = Params::new(engine);
    let name = engine.quote(&column.name);
    let from = after.map(|after| format!(" WHERE {name} > {}", params.bind(after.clone(), &column.cast)));
    let sql = format!(
        "SELECT {name} FROM {}{} ORDER BY {name} LIMIT 1 OFFSET {}",
        table.quoted(),
        from.unwrap_or_default(),
        rows - 1
    );
    let found = session.rows(&sql, params.args).await?;
    let bound = found.into_iter().next().and_then(|row| row.into_iter().next());
    // What cannot be bound cannot bound.
    Ok(bound.filter(|value| !matches!(value, Value::Null | Value::BadText(_))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_cut_without_a_gap_and_the_last_slice_is_open() {
        let mut position = Position::Start;
        let mut shown = Vec::new();
        while position != Position::Done {
            let slice = page_slice(21, 10, &position);
            shown.push(slice.clauses.join(" AND "));
            position = slice.next;
        }
        assert_eq!(
            shown,
            ["ctid < '(10,0)'::tid", "ctid >= '(10,0)'::tid AND ctid < '(20,0)'::tid", "ctid >= '(20,0)'::tid"]
        );
        assert_eq!(page_slice(0, 10, &Position::Start).next, Position::Done);
    }

    #[test]
    fn a_position_is_read_back_as_it_was_kept() {
        let all = [Position::Start, Position::Page(7), Position::After(Value::Blob(vec![0, 255])), Position::Done];
        for position in all {
            assert_eq!(Position::from_json(&position.to_json()), Some(position));
        }
        assert_eq!(Position::from_json(&json!("somewhere")), None);
    }
}
