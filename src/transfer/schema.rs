//! What a database says about its tables: columns with their kinds, defaults and unique keys.
//!
//! Refuses tables that do not exist. Used by `plan`, which holds a mapping against two of these.

use super::database::Engine;
use super::error::TransferError;
use super::session::{Arg, Session};
use super::value::{Affinity, Kind, Value};

/// One column of a real table.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// The type to cast a text to, PostgreSQL only.
    pub(super) cast: String,
    pub(super) not_null: bool,
    /// The default as an SQL expression.
    pub(super) default: Option<String>,
    /// Computed by the engine; never written.
    pub(super) generated: bool,
    /// Numbered by the engine where nothing is given.
    pub(super) numbered: bool,
}

/// One real table.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) columns: Vec<Column>,
    pub(super) primary_key: Vec<String>,
    /// Sets of columns that are unique, the primary key included.
    pub(super) unique: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    pub(super) fn require(&self, name: &str) -> Result<&Column, TransferError> {
        self.column(name)
            .ok_or_else(|| TransferError::UnknownColumn { table: self.name.clone(), column: name.to_owned() })
    }

    /// The table's name as it stands in SQL.
    pub(super) fn quoted(&self) -> String {
        quote_table(&self.name)
    }

    /// Whether some unique key is exactly these columns, in any order.
    pub(super) fn is_unique(&self, columns: &[String]) -> bool {
        let mut wanted = columns.to_vec();
        wanted.sort();
        self.unique.iter().any(|key| {
            let mut key = key.clone();
            key.sort();
            key == wanted
        })
    }
}

/// `"name"` with its quotes doubled; both engines read it.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `"schema"."table"`.
pub(super) fn quote_table(name: &str) -> String {
    name.split('.').map(quote).collect::<Vec<_>>().join(".")
}

fn text(value: &Value) -> String {
    value.to_text().unwrap_or_default()
}

fn one(name: &str) -> Vec<Arg> {
    vec![Arg::One(Value::Text(name.to_owned()))]
}

/// Describes one table or view.
pub(super) async fn describe(session: &mut Session, name: &str) -> Result<Table, TransferError> {
    let engine = session.engine();
    let table = match engine {
        Engine::Sqlite => describe_sqlite(session, name).await?,
        Engine::Postgres => describe_postgres(session, name).await?,
    };
    if table.columns.is_empty() {
        return Err(TransferError::UnknownTable { engine, table: name.to_owned() });
    }
    Ok(table)
}

/// The names of every ordinary table, engine catalogues and our own bookkeeping left out.
pub(super) async fn tables(session: &mut Session) -> Result<Vec<String>, TransferError> {
    let sql = match session.engine() {
        Engine::Sqlite => {
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite!_%' ESCAPE '!' ORDER BY name"
        }
        Engine::Postgres => {
            "SELECT CASE WHEN n.nspname = current_schema() THEN c.relname ELSE n.nspname || '.' || c.relname END \
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition \
             AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg_toast%' ORDER BY 1"
        }
    };
    let rows = session.rows(sql, Vec::new()).await?;
    let own = [super::checkpoint::TABLE, "_sqlx_migrations"];
    Ok(rows.iter().filter_map(|row| row.first().map(text)).filter(|name| !own.contains(&name.as_str())).collect())
}

async fn describe_sqlite(session: &mut Session, name: &str) -> Result<Table, TransferError> {
    let bare = name.rsplit('.').next().unwrap_or(name);
    let sql = "SELECT name, type, \"notnull\", dflt_value, pk, hidden FROM pragma_table_xinfo(?1) ORDER BY cid";
    let mut columns = Vec::new();
    let mut key: Vec<(i64, String)> = Vec::new();
    for row in session.rows(sql, one(bare)).await? {
        let [column, declared, not_null, default, position, hidden] = row.as_slice() else { continue };
        let column = text(column);
        let position = position.as_integer().unwrap_or(0);
        if position > 0 {
            key.push((position, column.clone()));
        }
        columns.push(Column {
            name: column,
            kind: Kind::Sqlite(Affinity::of(&text(declared))),
            cast: String::new(),
            not_null: not_null.as_integer() == Some(1),
            default: default.to_text(),
            generated: hidden.as_integer().unwrap_or(0) > 1,
            numbered: false,
        });
    }
    key.sort();
    let primary_key: Vec<String> = key.into_iter().map(|(_, column)| column).collect();
    let mut unique = Vec::new();
    if !primary_key.is_empty() {
        unique.push(primary_key.clone());
    }
    let sql = "SELECT i.name, c.name FROM pragma_index_list(?1) i JOIN pragma_index_info(i.name) c \
               WHERE i.\"unique\" = 1 AND i.partial = 0 ORDER BY i.name, c.seqno";
    unique.extend(groups(&session.rows(sql, one(bare)).await?));
    Ok(Table { name: name.to_owned(), columns, primary_key, unique })
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

async fn describe_postgres(session: &mut Session, name: &str) -> Result<Table, TransferError> {
    let quoted = quote_table(name);
    let mut columns = Vec::new();
    for row in session.rows(POSTGRES_COLUMNS, one(&quoted)).await? {
        let [column, base, cast, modifier, not_null, default, generated, identity] = row.as_slice() else { continue };
        columns.push(Column {
            name: text(column),
            kind: postgres_kind(&text(base), modifier.as_integer().unwrap_or(-1)),
            cast: text(cast),
            not_null: text(not_null) == "true",
            numbered: text(identity) == "true" || text(default).starts_with("nextval("),
            default: default.to_text(),
            generated: text(generated) == "true",
        });
    }
    let keys = session.rows(POSTGRES_KEYS, one(&quoted)).await?;
    let primary = |row: &&Vec<Value>| row.get(2).map(text).as_deref() == Some("true");
    let primary_key = keys.iter().filter(primary).filter_map(|row| row.get(1).map(text)).collect();
    Ok(Table { name: name.to_owned(), columns, primary_key, unique: groups(&keys) })
}

/// Gathers `(group, member)` rows that are sorted by group.
fn groups(rows: &[Vec<Value>]) -> Vec<Vec<String>> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for row in rows {
        let [group, member, ..] = row.as_slice() else { continue };
        let (group, member) = (text(group), text(member));
        match found.last_mut() {
            Some((last, members)) if *last == group => members.push(member),
            _ => found.push((group, vec![member])),
        }
    }
    found.into_iter().map(|(_, members)| members).collect()
}

/// The kind of a PostgreSQL type by its catalogue name and modifier (`atttypmod`, -1 for none).
pub(super) fn postgres_kind(base: &str, modifier: i64) -> Kind {
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
