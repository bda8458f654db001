//! Hashes of rows that the two engines compute themselves: built where both sides can be shown to compute the same from equal values.
//!
//! Refuses, by giving none, what is not proven: other engines, other kinds of column, look-ups, floats that are shown rounded.
//! Two hashes that differ say nothing (the rows are then read), two that agree must mean equal values; the page
//! `docs/design/compare.md` says which ways of hashing do not and are therefore not taken. Used by `sums`.

use crate::transfer::engine::Engine;
use crate::transfer::error::TransferError;
use crate::transfer::mariadb_value::MariaKind;
use crate::transfer::plan::{ColumnPlan, From, TablePlan};
use crate::transfer::schema::{Column, text};
use crate::transfer::session::Session;
use crate::transfer::value::{Kind, Value, convert};

/// The first PostgreSQL with every function that is used.
const POSTGRES_SINCE: i64 = 130_000;
/// Longest text or byte string that is hashed together with the row's others; longer ones are hashed by themselves first.
const LENGTH_MAX: u64 = 4_096;

/// What one side computes: whole numbers of 64 bits over the key and over the row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hashes {
    pub(super) key: String,
    pub(super) row: String,
}

/// A column as both sides read it.
struct Part {
    source: String,
    target: String,
    /// Whether either side may hold NULL.
    nullable: bool,
}

/// The hashes of the source and of the target; `None` where the rows must be hashed here.
pub(super) async fn hashes(
    source: &mut Session,
    target: &mut Session,
    plan: &TablePlan,
) -> Result<Option<[Hashes; 2]>, TransferError> {
    match (source.engine(), target.engine()) {
        (Engine::Postgres, Engine::Postgres) => {
            let (a, b) = (postgres_facts(source).await?, postgres_facts(target).await?);
            let fit = a.0 >= POSTGRES_SINCE && b.0 >= POSTGRES_SINCE && a.1 == b.1;
            Ok(if fit { postgres(plan) } else { None })
        }
        (Engine::Mariadb, Engine::Mariadb) => Ok(mariadb(plan)),
        _ => Ok(None),
    }
}

/// Version and encoding: the bytes of two encodings may be the same for other letters.
async fn postgres_facts(session: &mut Session) -> Result<(i64, String), TransferError> {
    let sql = "SELECT current_setting('server_version_num'), getdatabaseencoding()::text";
    let rows = session.rows(sql, Vec::new()).await?;
    let row = rows.first().map(Vec::as_slice).unwrap_or_default();
    Ok((row.first().and_then(Value::as_integer).unwrap_or(0), row.get(1).map(text).unwrap_or_default()))
}

/// What both sides read for a column; none behind a key map.
fn part(column: &ColumnPlan, engine: Engine) -> Option<Part> {
    if column.lookup.is_some() {
        return None;
    }
    let target = engine.quote(&column.target.name);
    let source = match &column.from {
        From::Source(sql, _) => sql.clone(),
        From::Constant(value) => {
            let value = convert(value.clone(), None, column.target.kind).ok()?;
            let literal = value.to_text().filter(|text| !text.contains(['\\', '\0']))?;
            format!("({})", engine.cast(&format!("'{}'", literal.replace('\'', "''")), &column.target.cast))
        }
    };
    // An expression may give NULL whatever it reads.
    Some(Part { source, target, nullable: true })
}

/// Whether the values of a column come from a plain column that is never NULL, on both sides.
fn never_null(plan: &TablePlan, column: &ColumnPlan) -> bool {
    let From::Source(sql, _) = &column.from else { return column.target.not_null };
    let is_read = |c: &&Column| plan.source.engine.quote(&c.name) == *sql;
    column.target.not_null && plan.source.columns.iter().find(is_read).is_some_and(|c| c.not_null)
}

fn postgres(plan: &TablePlan) -> Option<[Hashes; 2]> {
    let mut parts = Vec::new();
    for column in &plan.columns {
        let from = match &column.from {
            From::Source(_, kind) => (*kind)?,
            From::Constant(_) => column.target.kind,
        };
        let class = Class::of(from, column.target.kind)?;
        let part = part(column, Engine::Postgres)?;
        parts.push((class, Part { nullable: !never_null(plan, column), ..part }));
    }
    let side = |pick: fn(&Part) -> &str| {
        let all: Vec<&(Class, Part)> = parts.iter().collect();
        let key: Vec<&(Class, Part)> = plan.key.iter().map(|i| &parts[*i]).collect();
        Hashes { key: chain(&key, pick), row: chain(&all, pick) }
    };
    Some([side(|part| &part.source), side(|part| &part.target)])
}

/// Kinds of column for which PostgreSQL's hash of equal values is equal and that of others is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Int,
    Int8,
    Float4,
    Float8,
    Numeric,
    Bool,
    Text,
    Bytes,
    Instant,
    Civil,
    Date,
    Uuid,
    /// By the text form, which is also what rows of such columns are compared by.
    Other,
}

impl Class {
    fn of(from: Kind, to: Kind) -> Option<Self> {
        Some(match (from, to) {
            (Kind::Integer(a), Kind::Integer(b)) if a <= 32 && b <= 32 => Self::Int,
            (Kind::Integer(_), Kind::Integer(_)) => Self::Int8,
            (Kind::Float4, Kind::Float4) => Self::Float4,
            (Kind::Float8, Kind::Float8) => Self::Float8,
            (Kind::Numeric(_), Kind::Numeric(_)) => Self::Numeric,
            (Kind::Bool, Kind::Bool) => Self::Bool,
            (Kind::Text { padded: a, .. }, Kind::Text { padded: b, .. }) if a == b => Self::Text,
            (Kind::Bytes, Kind::Bytes) => Self::Bytes,
            (Kind::Instant, Kind::Instant) => Self::Instant,
            (Kind::Civil, Kind::Civil) => Self::Civil,
            (Kind::Date, Kind::Date) => Self::Date,
            (Kind::Uuid, Kind::Uuid) => Self::Uuid,
            (Kind::Json, Kind::Json) | (Kind::Other, Kind::Other) => Self::Other,
            _ => return None,
        })
    }

    /// The value in the type that is hashed, and what stands for NULL.
    fn value(self, sql: &str) -> (String, &'static str) {
        match self {
            Self::Int | Self::Bool => (format!("({sql})::int4"), "0"),
            Self::Int8 => (format!("({sql})::int8"), "0"),
            Self::Float4 => (format!("({sql})::float4"), "0"),
            Self::Float8 => (format!("({sql})::float8"), "0"),
            Self::Numeric => (format!("trim_scale({sql})::text"), "''"),
            Self::Text | Self::Other => (format!("({sql})::text"), "''"),
            Self::Bytes => (format!("({sql})::bytea"), "''::bytea"),
            Self::Instant => (format!("({sql})::timestamptz"), "'epoch'::timestamptz"),
            Self::Civil => (format!("({sql})::timestamp"), "'epoch'::timestamp"),
            Self::Date => (format!("({sql})::date"), "'epoch'::date"),
            Self::Uuid => (format!("({sql})::uuid"), "'00000000-0000-0000-0000-000000000000'::uuid"),
        }
    }

    fn hash(self, value: &str, seed: &str) -> String {
        match self {
            Self::Int | Self::Bool => format!("hashint4extended({value}, {seed})"),
            // The engine folds both halves into one: 1 and 4294967296 would be the same.
            Self::Int8 => format!("hashint8extended({value} & 4294967295, hashint8extended({value} >> 32, {seed}))"),
            Self::Float4 => format!("hashfloat4extended({value}, {seed})"),
            Self::Float8 => format!("hashfloat8extended({value}, {seed})"),
            // By its text: the engine's own hash of numerics knows neither the sign nor NaN from infinity.
            Self::Numeric | Self::Text | Self::Other => format!("hashtextextended({value} COLLATE \"C\", {seed})"),
            Self::Bytes | Self::Instant | Self::Date => format!("hash_array_extended(ARRAY[{value}], {seed})"),
            Self::Civil => format!("timestamp_hash_extended({value}, {seed})"),
            Self::Uuid => format!("uuid_hash_extended({value}, {seed})"),
        }
    }
}

/// One hash over some columns: each is the seed of the next, so that values which change places between rows change the sum; a sum of
/// `hash_record_extended` would stay the same.
fn chain(parts: &[&(Class, Part)], pick: fn(&Part) -> &str) -> String {
    let nullable: Vec<&Part> = parts.iter().map(|(_, part)| part).filter(|part| part.nullable).collect();
    let masks = nullable.chunks(30).map(|chunk| {
        let bits: Vec<String> =
            chunk.iter().enumerate().map(|(i, part)| format!("(({}) IS NULL)::int4 << {i}", pick(part))).collect();
        // Most rows have no NULL, and to see that is cheaper than to build the mask.
        let full: Vec<String> = chunk.iter().map(|part| format!("({}) IS NOT NULL", pick(part))).collect();
        format!("CASE WHEN {} THEN 0 ELSE {} END", full.join(" AND "), bits.join(" | "))
    });
    let seed = masks.fold("0".to_owned(), |seed, mask| format!("hashint4extended({mask}, {seed})"));
    parts.iter().fold(seed, |seed, (class, part)| {
        let (value, null) = class.value(pick(part));
        let value = if part.nullable { format!("COALESCE({value}, {null})") } else { value };
        class.hash(&value, &seed)
    })
}

fn mariadb(plan: &TablePlan) -> Option<[Hashes; 2]> {
    let mut parts = Vec::new();
    for column in &plan.columns {
        let Kind::Maria(target) = column.target.kind else { return None };
        let From::Source(_, Some(Kind::Maria(from))) = &column.from else { return None };
        if from != &target {
            return None;
        }
        let part = part(column, Engine::Mariadb)?;
        parts.push(Part { source: spelled(&part.source, target)?, target: spelled(&part.target, target)?, ..part });
    }
    let side = |pick: fn(&Part) -> &str| {
        let all: Vec<&str> = parts.iter().map(pick).collect();
        let key: Vec<&str> = plan.key.iter().map(|i| pick(&parts[*i])).collect();
        let row = format!("CAST(CONV(LEFT(MD5({}), 16), 16, 10) AS UNSIGNED)", joined(&all));
        Hashes { key: format!("CRC32({})", joined(&key)), row }
    };
    Some([side(|part| &part.source), side(|part| &part.target)])
}

/// Every value behind its length: no two rows have the same text.
fn joined(values: &[&str]) -> String {
    let each: Vec<String> =
        values.iter().map(|value| format!("COALESCE(CONCAT(OCTET_LENGTH({value}), ':', {value}), '~')")).collect();
    format!("CONCAT({})", each.join(", "))
}

/// A value as a text that only this value has; `None` where MariaDB has none.
fn spelled(sql: &str, kind: MariaKind) -> Option<String> {
    Some(match kind {
        MariaKind::Integer { .. } | MariaKind::Decimal { .. } | MariaKind::Year => format!("CAST({sql} AS CHAR)"),
        MariaKind::Bit(_) => format!("CAST({sql} + 0 AS CHAR)"),
        // As the 64 bits it becomes: a FLOAT itself is shown with six digits.
        MariaKind::Float(None) | MariaKind::Double(None) => format!("CAST({sql} + 0e0 AS CHAR)"),
        MariaKind::Text { bytes, .. } if bytes > LENGTH_MAX => format!("MD5(CONVERT({sql} USING utf8mb4))"),
        MariaKind::Text { .. } | MariaKind::Member => format!("CONVERT({sql} USING utf8mb4)"),
        MariaKind::Json => format!("MD5(CONVERT({sql} USING utf8mb4))"),
        MariaKind::Bytes { max, .. } if max > LENGTH_MAX => format!("MD5({sql})"),
        MariaKind::Bytes { .. } => format!("HEX({sql})"),
        MariaKind::Date | MariaKind::Time(_) | MariaKind::DateTime(_) | MariaKind::Timestamp(_) | MariaKind::Uuid => {
            format!("CAST({sql} AS CHAR)")
        }
        MariaKind::Float(Some(_)) | MariaKind::Double(Some(_)) | MariaKind::Other => return None,
    })
}
