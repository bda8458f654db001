//! PostgreSQL's own ways: how a server is opened, what goes in and comes out of a statement, what a table looks like.
//!
//! Values travel as the engine's own text form. Used by the files of this module that speak to every engine.

use std::str::FromStr;

use sqlx::Row;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgRow};

use super::database::ConnectOptions;
use super::engine::Engine;
use super::error::TransferError;
use super::plan::TablePlan;
use super::schema::{Column, Table, groups, one, text};
use super::session::{Arg, Session};
use super::value::{Kind, Value};

/// Sets what makes text output independent of the server's configuration: zone, date style, float digits, byte strings.
pub(super) fn options(url: &str, options: &ConnectOptions) -> Result<PgConnectOptions, sqlx::Error> {
    let mut settings = vec![
        ("TimeZone", "UTC".to_owned()),
        ("DateStyle", "ISO,YMD".to_owned()),
        ("IntervalStyle", "iso_8601".to_owned()),
        ("extra_float_digits", "3".to_owned()),
        ("bytea_output", "hex".to_owned()),
    ];
    if let Some(limit) = options.statement_timeout {
        settings.push(("statement_timeout", limit.as_millis().to_string()));
    }
    if options.read_only {
        settings.push(("default_transaction_read_only", "on".to_owned()));
    }
    Ok(PgConnectOptions::from_str(url)?.application_name(super::own::application()).options(settings))
}

pub(super) fn arguments(args: Vec<Arg>) -> Result<PgArguments, TransferError> {
    use sqlx::Arguments;
    let mut bound = PgArguments::default();
    for arg in args {
        match arg {
            Arg::One(Value::Null) => bound.add(Option::<String>::None),
            Arg::One(value) => bound.add(
                value.to_text().ok_or_else(|| TransferError::statement("a text that is not UTF-8 cannot be bound"))?,
            ),
            Arg::Column(column) => bound.add(column),
        }
        .map_err(|error| TransferError::statement(error.to_string()))?;
    }
    Ok(bound)
}

pub(super) fn row(row: &PgRow) -> Result<Vec<Value>, sqlx::Error> {
    (0..row.len())
        .map(|i| Ok(row.try_get_unchecked::<Option<String>, _>(i)?.map_or(Value::Null, Value::Text)))
        .collect()
}

const POSTGRES_COLUMNS: &str = "SELECT a.attname, COALESCE(b.typname, t.typname), format_type(a.atttypid, -1), \
    (CASE WHEN t.typtype = 'd' THEN t.typtypmod ELSE a.atttypmod END)::text, a.attnotnull::text, pg_get_expr(d.adbin, d.adrelid), \
    (a.attgenerated <> '')::text, (a.attidentity <> '')::text \
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_type b ON b.oid = t.typbasetype AND t.typtype = 'd' \
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
    WHERE a.attrelid = to_regclass($1::text) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";

const POSTGRES_KEYS: &str = "SELECT i.indexrelid::text, a.attname, i.indisprimary::text FROM pg_index i \
    CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, position) \
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum \
    WHERE i.indrelid = to_regclass($1::text) AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL \
    AND k.position <= i.indnkeyatts ORDER BY i.indexrelid, k.position";

/// Describes one table or view.
pub(super) async fn describe(session: &mut Session, name: &str) -> Result<Table, TransferError> {
    let quoted = Engine::Postgres.quote_table(name);
    let mut columns = Vec::new();
    for row in session.rows(POSTGRES_COLUMNS, one(&quoted)).await? {
        let [column, base, cast, modifier, not_null, default, generated, identity] = row.as_slice() else { continue };
        columns.push(Column {
            name: text(column),
            kind: kind(&text(base), modifier.as_integer().unwrap_or(-1)),
            cast: text(cast),
            not_null: text(not_null) == "true",
            numbered: text(identity) == "true" || text(default).starts_with("nextval("),
            default: default.to_text(),
            generated: text(generated) == "true",
            members: None,
        });
    }
    let keys = session.rows(POSTGRES_KEYS, one(&quoted)).await?;
    let primary = |row: &&Vec<Value>| row.get(2).map(text).as_deref() == Some("true");
    let primary_key = keys.iter().filter(primary).filter_map(|row| row.get(1).map(text)).collect();
    Ok(Table {
        engine: Engine::Postgres,
        name: name.to_owned(),
        columns,
        primary_key,
        unique: groups(&keys),
        transactional: true,
    })
}

/// The kind of a PostgreSQL type by its catalogue name and modifier (`atttypmod`, -1 for none).
pub(super) fn kind(base: &str, modifier: i64) -> Kind {
    let length = usize::try_from(modifier - 4).ok().filter(|_| modifier >= 4);
    match base {
        "int2" => Kind::Integer(16),
        "int4" => Kind::Integer(32),
        "int8" => Kind::Integer(64),
        "float4" => Kind::Float4,
        "float8" => Kind::Float8,
        // The scale is the modifier's low eleven bits, signed (numeric.c, numeric_typmod_scale).
        "numeric" if modifier >= 4 => Kind::Numeric(i32::try_from((((modifier - 4) & 0x7ff) ^ 1024) - 1024).ok()),
        "numeric" => Kind::Numeric(None),
        "bool" => Kind::Bool,
        "text" | "name" => Kind::Text { max: None, padded: false },
        "varchar" => Kind::Text { max: length, padded: false },
        "bpchar" => Kind::Text { max: length, padded: true },
        "bytea" => Kind::Bytes,
        "timestamptz" => Kind::Instant,
        "timestamp" => Kind::Civil,
        "date" => Kind::Date,
        "uuid" => Kind::Uuid,
        "json" | "jsonb" => Kind::Json,
        _ => Kind::Other,
    }
}

/// Sets the sequences of a table past the greatest value.
pub(super) async fn advance_sequences(target: &mut Session, plan: &TablePlan) -> Result<(), TransferError> {
    let table = plan.target.quoted();
    for column in &plan.target.columns {
        if !matches!(column.kind, Kind::Integer(_)) {
            continue;
        }
        let args = [&table, &column.name].map(|name| Arg::One(Value::Text(name.clone()))).to_vec();
        let found = target.rows("SELECT pg_get_serial_sequence($1, $2)", args).await?;
        let Some(sequence) = found.first().and_then(|row| row.first()).and_then(Value::to_text) else { continue };
        let sql = format!(
            "SELECT setval($1::regclass, GREATEST(m.top, s.last_value), s.is_called OR m.top >= s.last_value)::text \
             FROM (SELECT max({}) AS top FROM {table}) AS m, {sequence} AS s WHERE m.top IS NOT NULL AND m.top >= 1",
            Engine::Postgres.quote(&column.name)
        );
        target.rows(&sql, vec![Arg::One(Value::Text(sequence))]).await?;
    }
    Ok(())
}
