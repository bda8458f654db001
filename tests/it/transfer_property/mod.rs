//! Generated tables with generated rows, copied between every two engines, compared, read back without Piton, spoilt and compared again.
//!
//! `PITON_TRANSFERS=500` runs so many tables per pair of engines; `PITON_TRANSFER_SEED=n` runs those of one seed only. A table that fails names its seed.

mod values;

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use piton::transfer::{
    CompareMode, CompareRequest, CopyRequest, Database, Engine, Ignore, Mapping, Policy, Range, TableComparison,
    TableMapping, TransferError, compare, copy,
};
use sqlx::{AssertSqlSafe, Row, TypeInfo, ValueRef};
use tokio_util::sync::CancellationToken;

use self::values::{Held, Type, shown, told};
use crate::support::databases::{ENGINES, Fresh};

/// Tables per pair of engines where none are asked for.
const TABLES: u64 = 3;

/// Names that need their quotes: reserved words, spaces, quotes of every engine, binds, escapes, other alphabets.
const NAMES: [&str; 24] = [
    "id",
    "value",
    "select",
    "group",
    "order by",
    "CamelCase",
    "quo\"te",
    "apo'strophe",
    "back`tick",
    "back\\slash",
    "semi;colon",
    ":colon",
    "$1",
    "question?",
    "per%cent",
    "[bracket]",
    "dash-dash--",
    "/*comment*/",
    "ünïcödé",
    "漢字",
    "naïve col.umn",
    "rows",
    "null",
    "_",
];

#[derive(Debug, Clone)]
struct Column {
    name: String,
    /// Its name in the target.
    becomes: String,
    kind: Type,
    nullable: bool,
}

/// A generated table; the first `keys` columns are its key.
#[derive(Debug, Clone)]
struct Table {
    name: String,
    becomes: String,
    columns: Vec<Column>,
    keys: usize,
    rows: Vec<Vec<Held>>,
    renamed: bool,
}

fn quote(name: &str, engine: Engine) -> String {
    match engine {
        Engine::Mariadb => format!("`{}`", name.replace('`', "``")),
        Engine::Sqlite | Engine::Postgres => format!("\"{}\"", name.replace('"', "\"\"")),
    }
}

impl Table {
    fn generate(seed: u64) -> Self {
        let random = &mut Rng::with_seed(seed);
        let keys = random.usize(1..=3);
        let width = keys + random.usize(0..=7);
        let renamed = random.bool();
        let mut names: Vec<&str> = NAMES.to_vec();
        random.shuffle(&mut names);
        let mut others = names.clone();
        random.shuffle(&mut others);
        let columns: Vec<Column> = (0..width)
            .map(|i| Column {
                name: names[i].to_owned(),
                becomes: if renamed { others[i].to_owned() } else { names[i].to_owned() },
                kind: if i < keys { Type::of_a_key(random) } else { Type::any(random) },
                nullable: i >= keys && random.bool(),
            })
            .collect();
        // A point is what stands between a schema and a table.
        let any_name = |random: &mut Rng| format!("{} {seed}", NAMES[random.usize(..NAMES.len())].replace('.', ""));
        let name = any_name(random);
        let becomes = if renamed { any_name(random) } else { name.clone() };
        let mut table = Self { name, becomes, columns, keys, rows: Vec::new(), renamed };
        let mut taken = BTreeSet::new();
        for _ in 0..random.usize(0..40) {
            let row = table.row(random);
            if taken.insert(format!("{:?}", &row[..keys])) {
                table.rows.push(row);
            }
        }
        table
    }

    fn row(&self, random: &mut Rng) -> Vec<Held> {
        let value = |(i, column): (usize, &Column), random: &mut Rng| match column.kind.value(random) {
            _ if column.nullable && random.u8(0..4) == 0 => Held::Null,
            // MariaDB's keys do not tell texts apart that differ in spaces at their end.
            Held::Text(text) if i < self.keys => Held::Text(text.trim_end().to_owned()),
            value => value,
        };
        self.columns.iter().enumerate().map(|column| value(column, random)).collect()
    }

    /// The target's table, where `is_target`, else the source's.
    fn create(&self, engine: Engine, is_target: bool) -> String {
        let named = |column: &Column| quote(if is_target { &column.becomes } else { &column.name }, engine);
        let mut parts: Vec<String> = self
            .columns
            .iter()
            .map(|column| format!("{} {}", named(column), column.kind.column(engine, column.nullable)))
            .collect();
        let key: Vec<String> = self.columns[..self.keys].iter().map(named).collect();
        parts.push(format!("PRIMARY KEY ({})", key.join(", ")));
        let name = if is_target { &self.becomes } else { &self.name };
        format!("CREATE TABLE {} ({})", quote(name, engine), parts.join(", "))
    }

    /// Fills the source's table.
    async fn fill(&self, from: &Fresh) {
        let engine = from.database.engine();
        let field = |held: &Held| match held.bound() {
            Some(_) if engine == Engine::Sqlite => "?".to_owned(),
            _ => held.literal(engine),
        };
        let rows: Vec<String> =
            self.rows.iter().map(|row| format!("({})", row.iter().map(field).collect::<Vec<_>>().join(", "))).collect();
        if rows.is_empty() {
            return;
        }
        let sql = format!("INSERT INTO {} VALUES {}", quote(&self.name, engine), rows.join(", "));
        let Database::Sqlite(pool) = &from.database else { return raw(from, &sql).await };
        let mut query = sqlx::query(AssertSqlSafe(sql.clone()));
        for real in self.rows.iter().flatten().filter_map(Held::bound) {
            query = query.bind(real);
        }
        query.execute(pool).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    fn mapping(&self) -> Mapping {
        let columns = self.columns.iter().map(|c| (c.becomes.clone(), c.name.clone())).collect();
        let table = TableMapping { to: Some(self.becomes.clone()), columns: Some(columns), ..TableMapping::default() };
        Mapping {
            api_version: "piton/v1".to_owned(),
            kind: "Mapping".to_owned(),
            name: "generated".to_owned(),
            description: None,
            sets: BTreeMap::from([("all".to_owned(), vec![self.name.clone()])]),
            tables: if self.renamed { BTreeMap::from([(self.name.clone(), table)]) } else { BTreeMap::new() },
            ignore: Ignore::default(),
        }
    }

    async fn copy(&self, from: &Fresh, to: &Fresh, chunk_rows: usize, token: &str) -> Result<u64, TransferError> {
        let mut request = CopyRequest::new(self.mapping(), "all", Policy::Fail, token);
        request.chunk_rows = chunk_rows;
        let done = copy(&from.database, &to.database, &request, &|_| {}, &CancellationToken::new()).await?;
        Ok(done.changed())
    }

    async fn compare(&self, from: &Fresh, to: &Fresh) -> Result<TableComparison, TransferError> {
        let (mapping, set, range) = (self.mapping(), "all".to_owned(), Range::default());
        let request = CompareRequest { mapping, set, range, mode: CompareMode::Content, limit: 9 };
        Ok(compare(&from.database, &to.database, &request).await?.tables.remove(0))
    }

    /// Every row of the target as its engine shows it, in the tests' spelling.
    async fn read_back(&self, to: &Fresh) -> Vec<Vec<Option<String>>> {
        let engine = to.database.engine();
        let list: Vec<String> =
            self.columns.iter().map(|c| shown(&quote(&c.becomes, engine), c.kind, engine)).collect();
        let sql = format!("SELECT {} FROM {}", list.join(", "), quote(&self.becomes, engine));
        let mut rows = texts(to, &sql, self.columns.len()).await;
        for row in &mut rows {
            for (field, column) in row.iter_mut().zip(&self.columns) {
                *field = field.take().map(|text| told(&text, column.kind));
            }
        }
        rows.sort();
        rows
    }

    fn expected(&self) -> Vec<Vec<Option<String>>> {
        let mut rows: Vec<Vec<Option<String>>> =
            self.rows.iter().map(|row| row.iter().map(Held::spelled).collect()).collect();
        rows.sort();
        rows
    }

    /// The condition that finds a row in the target.
    fn finds(&self, row: &[Held], engine: Engine) -> String {
        let parts: Vec<String> = self.columns[..self.keys]
            .iter()
            .zip(row)
            .map(|(column, held)| format!("{} = {}", quote(&column.becomes, engine), held.literal(engine)))
            .collect();
        parts.join(" AND ")
    }
}

/// Runs a statement past everything that Piton does with statements.
async fn raw(fresh: &Fresh, sql: &str) {
    let text = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
    let done = match &fresh.database {
        Database::Sqlite(pool) => text.execute(pool).await.map(drop),
        Database::Postgres(pool) => text.execute(pool).await.map(drop),
        Database::Mariadb(pool) => text.execute(pool).await.map(drop),
    };
    done.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// What SQLite holds; of its own text forms of reals none has every digit.
fn sqlite_text(row: &sqlx::sqlite::SqliteRow, i: usize) -> Option<String> {
    let is_real = row.try_get_raw(i).is_ok_and(|raw| raw.type_info().name() == "REAL");
    if is_real { row.get_unchecked::<Option<f64>, _>(i).map(|real| format!("{real:e}")) } else { row.get_unchecked(i) }
}

/// Reads columns that are texts.
async fn texts(fresh: &Fresh, sql: &str, width: usize) -> Vec<Vec<Option<String>>> {
    macro_rules! read {
        ($pool:expr, $text:expr) => {
            sqlx::query(AssertSqlSafe(sql.to_owned()))
                .fetch_all($pool)
                .await
                .unwrap_or_else(|error| panic!("{sql}: {error}"))
                .iter()
                .map(|row| (0..width).map(|i| $text(row, i)).collect())
                .collect()
        };
    }
    match &fresh.database {
        Database::Sqlite(pool) => read!(pool, sqlite_text),
        Database::Postgres(pool) => read!(pool, |row: &sqlx::postgres::PgRow, i| row.get_unchecked(i)),
        Database::Mariadb(pool) => read!(pool, |row: &sqlx::mysql::MySqlRow, i| row.get_unchecked(i)),
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("`{name}` must be a number")))
}

/// The seeds of this call; the same every time unless others are asked for.
fn seeds() -> Vec<u64> {
    match number("PITON_TRANSFER_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("PITON_TRANSFERS").unwrap_or(TABLES)).collect(),
    }
}

/// One pair of databases for each pair of engines.
async fn pairs(folder: &std::path::Path) -> Vec<(Fresh, Fresh)> {
    let mut all = Vec::new();
    for from in ENGINES {
        for to in ENGINES {
            all.push((Fresh::new(from, "prop", folder).await, Fresh::new(to, "prop", folder).await));
        }
    }
    all
}

/// Creates both tables anew and fills the source's.
async fn make(table: &Table, from: &Fresh, to: &Fresh) {
    raw(from, &table.create(from.database.engine(), false)).await;
    raw(to, &table.create(to.database.engine(), true)).await;
    table.fill(from).await;
}

async fn discard(table: &Table, from: &Fresh, to: &Fresh) {
    raw(from, &format!("DROP TABLE {}", quote(&table.name, from.database.engine()))).await;
    raw(to, &format!("DROP TABLE {}", quote(&table.becomes, to.database.engine()))).await;
}

#[tokio::test]
async fn generated_tables_arrive_whole_and_what_is_spoilt_is_found() {
    let folder = tempfile::tempdir().expect("a temp dir");
    let pairs = pairs(folder.path()).await;
    for seed in seeds() {
        for (pair, (from, to)) in pairs.iter().enumerate() {
            // Another table for every pair.
            let seed = if self::number("PITON_TRANSFER_SEED").is_some() {
                seed
            } else {
                seed * 9 + u64::try_from(pair).unwrap_or(0)
            };
            let table = Table::generate(seed);
            let case = format!(
                "PITON_TRANSFER_SEED={seed}, {} to {}, {}",
                from.database.engine(),
                to.database.engine(),
                table.create(from.database.engine(), false)
            );
            make(&table, from, to).await;
            let random = &mut Rng::with_seed(!seed);
            let count = u64::try_from(table.rows.len()).expect("few rows");
            let changed = table.copy(from, to, random.usize(1..20), &case).await;
            assert_eq!(changed.unwrap_or_else(|error| panic!("{case}: {error}")), count, "{case}");
            let (arrived, expected) = (table.read_back(to).await, table.expected());
            assert_eq!(arrived.len(), expected.len(), "{case}");
            for (row, wanted) in arrived.iter().zip(&expected) {
                assert_eq!(row, wanted, "{case}");
            }
            let found = table.compare(from, to).await.unwrap_or_else(|error| panic!("{case}: {error}"));
            assert!(found.is_equal() && found.target_rows == count, "{case}: {found:?}");
            if !table.rows.is_empty() {
                spoil(&table, from, to, random, &case).await;
            }
            discard(&table, from, to).await;
        }
    }
}

/// Changes or removes one row of the target, which the comparison must find.
async fn spoil(table: &Table, from: &Fresh, to: &Fresh, random: &mut Rng, case: &str) {
    let engine = to.database.engine();
    let row = &table.rows[random.usize(..table.rows.len())];
    let place = random.usize(table.keys - 1..table.columns.len());
    let (name, found) = (quote(&table.becomes, engine), table.finds(row, engine));
    let column = &table.columns[place];
    let other = (0..100).map(|_| column.kind.value(random)).find(|other| other.spelled() != row[place].spelled());
    let (sql, wanted) = match other {
        Some(other) if place >= table.keys => {
            let set = format!("{} = {}", quote(&column.becomes, engine), other.literal(engine));
            (format!("UPDATE {name} SET {set} WHERE {found}"), (0, 0, 1))
        }
        _ => (format!("DELETE FROM {name} WHERE {found}"), (1, 0, 0)),
    };
    raw(to, &sql).await;
    let seen = table.compare(from, to).await.unwrap_or_else(|error| panic!("{case}: {sql}: {error}"));
    assert_eq!((seen.missing, seen.extra, seen.different), wanted, "{case}: {sql}: {seen:?}");
    assert!(!seen.is_equal() && seen.differences.len() == 1, "{case}: {sql}: {seen:?}");
}

/// A type of the target that is narrower than the source's, the source's, and what fits only the latter.
fn misfit(to: Engine, random: &mut Rng) -> (Type, Type, Held) {
    match (to, random.u8(0..4)) {
        (Engine::Postgres | Engine::Mariadb, 0) => (Type::Int64, Type::Int16, Held::Int(32_768)),
        (Engine::Postgres | Engine::Mariadb, 1) => (Type::Text(90), Type::Text(9), Held::Text("ten letter".to_owned())),
        (Engine::Postgres | Engine::Mariadb, 2) => {
            (Type::Decimal(20, 6), Type::Decimal(16, 2), Held::Decimal("0.001".to_owned()))
        }
        // No type of SQLite is narrow; NULL is refused everywhere.
        _ => (Type::Date, Type::Date, Held::Null),
    }
}

#[tokio::test]
async fn a_generated_value_that_does_not_fit_is_named_and_the_target_stays_as_it_was() {
    let folder = tempfile::tempdir().expect("a temp dir");
    let pairs = pairs(folder.path()).await;
    for seed in seeds() {
        for (from, to) in &pairs {
            let (here, there) = (from.database.engine(), to.database.engine());
            let mut table = Table::generate(seed + 1_000_000);
            let random = &mut Rng::with_seed(seed);
            let (wide, narrow, value) = misfit(there, random);
            let fits = narrow;
            let column = |kind, nullable| Column {
                name: "misfit \"` column".to_owned(),
                becomes: "misfit \"` column".to_owned(),
                kind,
                nullable,
            };
            table.columns.push(column(wide, value == Held::Null));
            for row in &mut table.rows {
                row.push(fits.value(random));
            }
            let mut last = table.row(random);
            while table.rows.iter().any(|row| row[..table.keys] == last[..table.keys]) {
                last = table.row(random);
            }
            let width = last.len();
            last[width - 1] = value;
            table.rows.push(last);
            let case = format!("PITON_TRANSFER_SEED={seed}, {here} to {there}, {}", table.create(here, false));
            let mut target = table.clone();
            *target.columns.last_mut().expect("pushed above") = column(narrow, false);
            raw(from, &table.create(here, false)).await;
            raw(to, &target.create(there, true)).await;
            table.fill(from).await;
            let outcome = table.copy(from, to, 1_000, &case).await;
            let Err(TransferError::Misfit { table: named, key, column, why }) = outcome else {
                panic!("{case}: {outcome:?}")
            };
            assert_eq!((named.as_str(), column.as_str()), (table.name.as_str(), "misfit \"` column"), "{case}: {why}");
            assert!(key.starts_with(&format!("{}=", table.columns[0].name)), "{case}: {key}");
            if let Held::Int(number) = &table.rows[table.rows.len() - 1][0] {
                assert!(key.starts_with(&format!("{}={number}", table.columns[0].name)), "{case}: {key}");
            }
            let left = texts(to, &format!("SELECT {} FROM {}", "'x'", quote(&table.becomes, there)), 1).await;
            assert!(left.is_empty(), "{case}: {} rows were written", left.len());
            discard(&table, from, to).await;
        }
    }
}
