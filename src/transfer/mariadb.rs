//! MariaDB's and MySQL's own ways: how a server is opened, what goes in and comes out of a statement, what a table looks like.
//!
//! Every session is strict, in UTC and in utf8mb4, whatever the server's defaults are. Zero dates are told apart from NULL, which the
//! driver would not do. Used by the files of this module that speak to every engine.

use std::fmt::Write as _;
use std::str::FromStr;

use sqlx::mysql::{MySql, MySqlArguments, MySqlConnectOptions, MySqlRow, MySqlValueRef};
use sqlx::{AssertSqlSafe, Column as _, Decode, Executor, Row, Statement as _, Type, TypeInfo, ValueRef};

use super::database::ConnectOptions;
use super::engine::Engine;
use super::error::TransferError;
use super::mariadb_value::{Charset, MariaKind, Members};
use super::schema::{Column, Table, groups, text};
use super::session::{Arg, Session};
use super::value::{Kind, Value};

/// Reads the address; `mysql://` and `mariadb://` mean the same.
pub(super) fn options(url: &str) -> Result<MySqlConnectOptions, sqlx::Error> {
    let opened = MySqlConnectOptions::from_str(url)?;
    if opened.get_database().is_none() {
        return Err(sqlx::Error::Configuration("it names no database".into()));
    }
    Ok(opened
        .charset("utf8mb4")
        .pipes_as_concat(false)
        .no_engine_substitution(false)
        .timezone("+00:00".to_owned())
        .statement_cache_capacity(32))
}

/// What every session is set to: strict about values, zero dates refused, a given 0 is no request for the next number; nothing that a
/// server's configuration could cut short or read differently.
pub(super) fn settings(options: &ConnectOptions) -> Vec<String> {
    let mut set = "SET SESSION sql_mode = 'STRICT_ALL_TABLES,STRICT_TRANS_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,\
                   ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION,NO_AUTO_VALUE_ON_ZERO', time_zone = '+00:00', \
                   autocommit = 1, foreign_key_checks = 1, unique_checks = 1, sql_select_limit = DEFAULT, sql_big_selects = 1, \
                   sql_auto_is_null = 0, sql_safe_updates = 0"
        .to_owned();
    if let Some(limit) = options.statement_timeout {
        let millis = limit.as_millis();
        // Each engine runs its own comment only.
        let _ = write!(set, " /*M!100101 , max_statement_time = {}.{:03} */", millis / 1_000, millis % 1_000);
        let _ = write!(set, " /*!50708 , max_execution_time = {millis} */");
    }
    let mut all = vec![set];
    if options.read_only {
        all.push("SET SESSION TRANSACTION READ ONLY".to_owned());
    }
    all
}

pub(super) fn arguments(args: Vec<Arg>) -> Result<MySqlArguments, TransferError> {
    use sqlx::Arguments;
    let mut bound = MySqlArguments::default();
    bound.reserve(args.len(), args.len() * 8);
    for arg in args {
        let Arg::One(value) = arg else { return Err(TransferError::statement("MariaDB takes no column arguments")) };
        match value {
            Value::Null => bound.add(Option::<String>::None),
            Value::Int(number) => bound.add(number),
            Value::UInt(number) => bound.add(number),
            Value::Real(number) => bound.add(number),
            Value::Text(text) => bound.add(text),
            Value::Blob(bytes) => bound.add(bytes),
            Value::BadText(_) => return Err(TransferError::statement("a text that is not UTF-8 cannot be bound")),
        }
        .map_err(|error| TransferError::statement(error.to_string()))?;
    }
    Ok(bound)
}

/// A row of a prepared statement.
pub(super) fn row(row: &MySqlRow) -> Result<Vec<Value>, sqlx::Error> {
    (0..row.len()).map(|i| value(row.try_get_raw(i)?)).collect()
}

fn value(raw: MySqlValueRef<'_>) -> Result<Value, sqlx::Error> {
    let info = raw.type_info().into_owned();
    // `raw.is_null()` takes a zero date for NULL.
    let Ok(bytes) = <&[u8] as Decode<MySql>>::decode(raw) else { return Ok(Value::Null) };
    let broken = || sqlx::Error::Protocol(format!("unreadable {} of {} bytes", info.name(), bytes.len()));
    Ok(match info.name() {
        "BOOLEAN" | "TINYINT" | "SMALLINT" | "MEDIUMINT" | "INT" | "BIGINT" | "TINYINT UNSIGNED"
        | "SMALLINT UNSIGNED" | "MEDIUMINT UNSIGNED" | "INT UNSIGNED" | "BIGINT UNSIGNED" => {
            integer(bytes, <u64 as Type<MySql>>::compatible(&info)).ok_or_else(broken)?
        }
        "YEAR" => integer(bytes, true).ok_or_else(broken)?,
        "BIT" => Value::unsigned(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))),
        "FLOAT" => {
            let real = f32::from_le_bytes(bytes.try_into().map_err(|_| broken())?);
            // The shortest text that reads back as the same number, as PostgreSQL shows its `real`.
            Value::Real(real.to_string().parse().map_err(|_| broken())?)
        }
        "DOUBLE" => Value::Real(f64::from_le_bytes(bytes.try_into().map_err(|_| broken())?)),
        "DATE" => Value::Text(date(bytes).ok_or_else(broken)?),
        "DATETIME" | "TIMESTAMP" => Value::Text(date_time(bytes).ok_or_else(broken)?),
        "TIME" => Value::Text(time(bytes).ok_or_else(broken)?),
        "DECIMAL" | "JSON" => Value::Text(String::from_utf8(bytes.to_vec()).map_err(|_| broken())?),
        "GEOMETRY" | "NULL" => Value::Blob(bytes.to_vec()),
        _ if <str as Type<MySql>>::compatible(&info) => {
            String::from_utf8(bytes.to_vec()).map_or_else(|error| Value::BadText(error.into_bytes()), Value::Text)
        }
        _ => Value::Blob(bytes.to_vec()),
    })
}

/// Little endian, of 1, 2, 4 or 8 bytes.
pub(super) fn integer(bytes: &[u8], unsigned: bool) -> Option<Value> {
    let mut wide = [0; 8];
    wide.get_mut(..bytes.len())?.copy_from_slice(bytes);
    let number = u64::from_le_bytes(wide);
    if unsigned {
        return Some(Value::unsigned(number));
    }
    let shift = 64 - 8 * u32::try_from(bytes.len()).ok()?;
    Some(Value::Int((number << shift).cast_signed() >> shift))
}

/// The wire's packed form: length, year, month, day, hour, minute, second, microseconds; what is zero at the end is left out.
pub(super) fn packed(bytes: &[u8]) -> Option<(u16, [u8; 5], u32)> {
    let (length, rest) = bytes.split_first()?;
    let mut full = [0; 11];
    full.get_mut(..usize::from(*length))?.copy_from_slice(rest.get(..usize::from(*length))?);
    let micros = u32::from_le_bytes([full[7], full[8], full[9], full[10]]);
    Some((u16::from_le_bytes([full[0], full[1]]), [full[2], full[3], full[4], full[5], full[6]], micros))
}

fn date(bytes: &[u8]) -> Option<String> {
    let (year, [month, day, ..], _) = packed(bytes)?;
    Some(format!("{year:04}-{month:02}-{day:02}"))
}

fn date_time(bytes: &[u8]) -> Option<String> {
    let (year, [month, day, hour, minute, second], micros) = packed(bytes)?;
    Some(with_micros(format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}"), micros))
}

/// The wire's packed time: length, sign, days, hour, minute, second, microseconds.
fn time(bytes: &[u8]) -> Option<String> {
    let (length, rest) = bytes.split_first()?;
    let mut full = [0; 12];
    full.get_mut(..usize::from(*length))?.copy_from_slice(rest.get(..usize::from(*length))?);
    let days = u32::from_le_bytes([full[1], full[2], full[3], full[4]]);
    let micros = u32::from_le_bytes([full[8], full[9], full[10], full[11]]);
    let sign = if full[0] == 1 { "-" } else { "" };
    let hours = days.checked_mul(24)? + u32::from(full[5]);
    Some(with_micros(format!("{sign}{hours:02}:{:02}:{:02}", full[6], full[7]), micros))
}

fn with_micros(text: String, micros: u32) -> String {
    if micros == 0 { text } else { format!("{text}.{micros:06}").trim_end_matches('0').to_owned() }
}

const COLUMNS: &str = "SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, IS_NULLABLE, COLUMN_DEFAULT, EXTRA, CHARACTER_MAXIMUM_LENGTH, \
    CHARACTER_OCTET_LENGTH, NUMERIC_PRECISION, NUMERIC_SCALE, DATETIME_PRECISION, CHARACTER_SET_NAME, \
    COALESCE(GENERATION_EXPRESSION, '') FROM information_schema.COLUMNS \
    WHERE TABLE_SCHEMA = COALESCE(?, DATABASE()) AND TABLE_NAME = ? ORDER BY ORDINAL_POSITION";

const KEYS: &str = "SELECT INDEX_NAME, COLUMN_NAME FROM information_schema.STATISTICS AS s \
    WHERE TABLE_SCHEMA = COALESCE(?, DATABASE()) AND TABLE_NAME = ? AND NON_UNIQUE = 0 AND NOT EXISTS \
    (SELECT 1 FROM information_schema.STATISTICS AS p WHERE p.TABLE_SCHEMA = s.TABLE_SCHEMA AND p.TABLE_NAME = s.TABLE_NAME \
    AND p.INDEX_NAME = s.INDEX_NAME AND (p.SUB_PART IS NOT NULL OR p.COLUMN_NAME IS NULL)) ORDER BY INDEX_NAME, SEQ_IN_INDEX";

const STORAGE: &str = "SELECT e.TRANSACTIONS FROM information_schema.TABLES AS t JOIN information_schema.ENGINES AS e \
    ON e.ENGINE = t.ENGINE WHERE t.TABLE_SCHEMA = COALESCE(?, DATABASE()) AND t.TABLE_NAME = ?";

const JSON_CHECKS: &str = "SELECT CHECK_CLAUSE FROM information_schema.CHECK_CONSTRAINTS \
    WHERE CONSTRAINT_SCHEMA = COALESCE(?, DATABASE()) AND TABLE_NAME = ?";

/// The schema (NULL for the connection's own) and the table of a name.
fn place(name: &str) -> Vec<Arg> {
    let (schema, table) = name.split_once('.').map_or((None, name), |(schema, table)| (Some(schema), table));
    let schema = schema.map_or(Value::Null, |schema| Value::Text(schema.to_owned()));
    vec![Arg::One(schema), Arg::One(Value::Text(table.to_owned()))]
}

/// Describes one table or view.
pub(super) async fn describe(session: &mut Session, name: &str) -> Result<Table, TransferError> {
    let version = session.rows("SELECT VERSION()", Vec::new()).await?;
    let version = version.first().and_then(|row| row.first()).map(text).unwrap_or_default();
    // MariaDB's JSON is a LONGTEXT with a check; MySQL has a type of its own.
    let checks = if version.contains("MariaDB") { session.rows(JSON_CHECKS, place(name)).await? } else { Vec::new() };
    let checks: Vec<String> = checks.iter().filter_map(|row| row.first().map(text)).collect();
    let mut columns = Vec::new();
    for row in session.rows(COLUMNS, place(name)).await? {
        let [column, data, declared, nullable, default, extra, ..] = row.as_slice() else { continue };
        let column = text(column);
        let is_json = checks.contains(&format!("json_valid({})", Engine::Mariadb.quote(&column)));
        let (data, declared, extra) = (text(data).to_lowercase(), text(declared), text(extra).to_lowercase());
        let kind = if is_json && data == "longtext" { MariaKind::Json } else { kind(&data, &declared, &row[6..]) };
        let members = match data.as_str() {
            "enum" => Some(Members::One(members(&declared))),
            "set" => Some(Members::Many(members(&declared))),
            _ => None,
        };
        columns.push(Column {
            name: column,
            kind: Kind::Maria(kind),
            cast: kind.cast(),
            not_null: text(nullable) == "NO",
            default: default.to_text().filter(|default| default != "NULL"),
            generated: row.get(12).is_some_and(|expression| !text(expression).is_empty()),
            numbered: extra.contains("auto_increment"),
            members,
        });
    }
    let keys = session.rows(KEYS, place(name)).await?;
    let is_primary = |row: &&Vec<Value>| row.first().map(text).as_deref() == Some("PRIMARY");
    let primary_key = keys.iter().filter(is_primary).filter_map(|row| row.get(1).map(text)).collect();
    let storage = session.rows(STORAGE, place(name)).await?;
    let transactional = storage.first().and_then(|row| row.first()).map(text).is_none_or(|answer| answer == "YES");
    let unique = groups(&keys);
    Ok(Table { engine: Engine::Mariadb, name: name.to_owned(), columns, primary_key, unique, transactional })
}

/// The kind of a column by its catalogue row: the type's name, the whole declaration, then lengths, precisions and the character set.
fn kind(data: &str, declared: &str, sizes: &[Value]) -> MariaKind {
    let size = |i: usize| sizes.get(i).and_then(Value::to_text).and_then(|text| text.parse::<u64>().ok());
    let small = |i: usize| size(i).and_then(|n| u8::try_from(n).ok());
    let unsigned = declared.to_lowercase().contains("unsigned");
    let bits = |bits| MariaKind::Integer { bits, unsigned };
    match data {
        "tinyint" => bits(8),
        "smallint" => bits(16),
        "mediumint" => bits(24),
        "int" => bits(32),
        "bigint" => bits(64),
        "bit" => MariaKind::Bit(small(2).unwrap_or(1)),
        "year" => MariaKind::Year,
        "float" => MariaKind::Float(small(3)),
        "double" => MariaKind::Double(small(3)),
        "decimal" => MariaKind::Decimal { precision: small(2).unwrap_or(10), scale: small(3).unwrap_or(0), unsigned },
        "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" => {
            let charset = match sizes.get(5).map(text).unwrap_or_default().as_str() {
                "utf8mb4" => Charset::Utf8mb4,
                "utf8mb3" | "utf8" => Charset::Utf8mb3,
                _ => Charset::Other,
            };
            let chars = size(0).unwrap_or(u64::MAX);
            MariaKind::Text { chars, bytes: size(1).unwrap_or(u64::MAX), charset, padded: data == "char" }
        }
        "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => {
            MariaKind::Bytes { max: size(0).unwrap_or(u64::MAX), fixed: data == "binary" }
        }
        "enum" | "set" => MariaKind::Member,
        "date" => MariaKind::Date,
        "time" => MariaKind::Time(small(4).unwrap_or(0)),
        "datetime" => MariaKind::DateTime(small(4).unwrap_or(0)),
        "timestamp" => MariaKind::Timestamp(small(4).unwrap_or(0)),
        "uuid" => MariaKind::Uuid,
        "json" => MariaKind::Json,
        _ => MariaKind::Other,
    }
}

/// The members of `enum('a','b''c')`.
fn members(declared: &str) -> Vec<String> {
    let list = declared.split_once('(').map_or("", |(_, list)| list.trim_end_matches(')'));
    let mut found = Vec::new();
    let mut current: Option<String> = None;
    let mut letters = list.chars().peekable();
    while let Some(letter) = letters.next() {
        match (letter, current.as_mut()) {
            ('\'', Some(member)) if letters.peek() == Some(&'\'') => {
                letters.next();
                member.push('\'');
            }
            ('\'', Some(_)) => found.extend(current.take()),
            ('\'', None) => current = Some(String::new()),
            (letter, Some(member)) => member.push(letter),
            (_, None) => {}
        }
    }
    found
}

/// The names and wire types of the columns that a statement returns.
pub(super) async fn columns_of(session: &mut Session, sql: &str) -> Result<Vec<(String, String)>, TransferError> {
    let Session::Mariadb(connection) = session else {
        return Err(TransferError::statement("not a MariaDB session"));
    };
    let prepared = (&mut **connection)
        .prepare(sqlx::SqlSafeStr::into_sql_str(AssertSqlSafe(sql.to_owned())))
        .await
        .map_err(|error| TransferError::sql(Engine::Mariadb, &error))?;
    Ok(prepared.columns().iter().map(|c| (c.name().to_owned(), c.type_info().name().to_owned())).collect())
}

/// The kind of an expression over a table, as far as conversion needs it.
pub(super) async fn expression_kind(
    session: &mut Session,
    table: &Table,
    expression: &str,
) -> Result<Option<Kind>, TransferError> {
    let sql = format!("SELECT ({expression}) FROM {} LIMIT 0", table.quoted());
    let columns = columns_of(session, &sql).await?;
    Ok(columns.first().and_then(|(_, name)| {
        Some(Kind::Maria(match name.as_str() {
            "DECIMAL" => MariaKind::Decimal { precision: 65, scale: 38, unsigned: false },
            "DATE" => MariaKind::Date,
            "TIME" => MariaKind::Time(6),
            "DATETIME" => MariaKind::DateTime(6),
            "TIMESTAMP" => MariaKind::Timestamp(6),
            _ => return None,
        }))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_read_with_their_quotes() {
        assert_eq!(members("enum('a','b''c',',)')"), ["a", "b'c", ",)"]);
        assert_eq!(members("set('')"), [""]);
    }

    #[test]
    fn packed_times_are_read_as_they_were_written() {
        assert_eq!(date(&[0]).as_deref(), Some("0000-00-00"));
        assert_eq!(date(&[4, 0xe8, 0x07, 2, 29]).as_deref(), Some("2024-02-29"));
        let full = [11, 0xe8, 0x07, 2, 29, 23, 59, 58, 0x20, 0xa1, 0x07, 0];
        assert_eq!(date_time(&full).as_deref(), Some("2024-02-29 23:59:58.5"));
        assert_eq!(time(&[8, 1, 34, 0, 0, 0, 22, 59, 59]).as_deref(), Some("-838:59:59"));
        assert_eq!(time(&[0]).as_deref(), Some("00:00:00"));
        assert_eq!(date(&[9, 1]), None);
    }

    #[test]
    fn whole_numbers_keep_their_sign() {
        assert_eq!(integer(&[0xff], false), Some(Value::Int(-1)));
        assert_eq!(integer(&[0xff], true), Some(Value::Int(255)));
        assert_eq!(integer(&[0xff; 8], true), Some(Value::UInt(u64::MAX)));
        assert_eq!(integer(&[0, 0, 0, 0x80], false), Some(Value::Int(i64::from(i32::MIN))));
    }
}
