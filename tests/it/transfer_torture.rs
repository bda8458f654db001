//! Every type at its boundaries, on the way between every two engines: the content stays equal, and what does not fit is named.

use std::sync::atomic::{AtomicU32, Ordering};

use piton::transfer::{
    Binds, CompareMode, CompareRequest, ConnectOptions, CopyRequest, Database, Engine, Mapping, Policy, Range,
    StatementOptions, TableComparison, TransferError, compare, copy, execute, query,
};
use tokio_util::sync::CancellationToken;

use crate::support::mariadb::PrivateMariadb;
use crate::support::postgres::PrivatePostgres;

const ENGINES: [Engine; 3] = [Engine::Sqlite, Engine::Postgres, Engine::Mariadb];

static DATABASES: AtomicU32 = AtomicU32::new(0);

async fn open(engine: Engine, folder: &tempfile::TempDir) -> Database {
    let number = DATABASES.fetch_add(1, Ordering::Relaxed);
    let url = match engine {
        Engine::Sqlite => format!("sqlite://{}", folder.path().join(format!("{number}.db")).display()),
        Engine::Postgres => PrivatePostgres::start().create_database(&format!("torture_{number}")),
        Engine::Mariadb => PrivateMariadb::start().create_database(&format!("torture_{number}")),
    };
    Database::connect(&url, ConnectOptions { create: true, ..Default::default() }).await.expect("opens")
}

async fn run(database: &Database, sql: &str) {
    let done = execute(database, sql, &Binds::new(), StatementOptions::default()).await;
    done.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

fn whole(policy: Policy, token: &str) -> CopyRequest {
    let text = "apiVersion: piton/v1\nkind: Mapping\nname: torture\nsets: { all: [typed] }\n";
    let mut request = CopyRequest::new(Mapping::from_yaml(text).expect("valid"), "all", policy, token);
    request.chunk_rows = 3;
    request
}

async fn move_all(from: &Database, to: &Database, request: &CopyRequest) -> Result<u64, TransferError> {
    copy(from, to, request, &|_| {}, &CancellationToken::new()).await.map(|report| report.changed())
}

async fn compared(from: &Database, to: &Database) -> TableComparison {
    let wanted = CompareRequest {
        mapping: whole(Policy::Fail, "").mapping,
        set: "all".into(),
        range: Range::default(),
        mode: CompareMode::Content,
        limit: 5,
    };
    compare(from, to, &wanted).await.expect("compares").tables.remove(0)
}

/// The same columns in each engine's own types.
fn table(engine: Engine) -> &'static str {
    match engine {
        Engine::Sqlite => {
            "CREATE TABLE typed (id INTEGER PRIMARY KEY, small INTEGER, i INTEGER, b INTEGER, f4 REAL, f8 REAL, n TEXT, n2 TEXT, \
             flag INTEGER, name TEXT, fixed TEXT, lng TEXT, bytes BLOB, at TEXT, loc TEXT, day TEXT, tim TEXT, u TEXT, j TEXT)"
        }
        Engine::Postgres => {
            "CREATE TABLE typed (id bigint PRIMARY KEY, small int2, i int4, b int8, f4 real, f8 double precision, n numeric(65,30), \
             n2 numeric(10,2), flag bool, name varchar(40), fixed char(6), lng text, bytes bytea, at timestamptz, loc timestamp, \
             day date, tim time, u uuid, j json)"
        }
        Engine::Mariadb => {
            "CREATE TABLE typed (id BIGINT PRIMARY KEY, small SMALLINT, i INT, b BIGINT, f4 FLOAT, f8 DOUBLE, n DECIMAL(65,30), \
             n2 DECIMAL(10,2), flag BOOLEAN, name VARCHAR(40), fixed CHAR(6), lng LONGTEXT, bytes LONGBLOB, at TIMESTAMP(6) NULL, \
             loc DATETIME(6), day DATE, tim TIME(6), u UUID, j JSON)"
        }
    }
}

/// Rows in a spelling that each engine reads, decimals with all their digits: `<..>` stands for bytes in hexadecimal digits, `@` opens a point in time in UTC.
const ROWS: [&str; 8] = [
    "1, 0, 0, 0, 0, 0, '0.000000000000000000000000000000', '0.00', '0', '', '', '', <>, '@1970-01-01 00:00:01', '2000-01-01 00:00:00', '2000-01-01', '00:00:00', \
     '00000000-0000-0000-0000-000000000000', '{}'",
    "-9223372036854775808, -32768, -2147483648, -9223372036854775808, -3.4028235e38, -1.7976931348623157e308, \
     '-99999999999999999999999999999999999.999999999999999999999999999999', '-99999999.99', '1', 'ä€😀', 'ä€😀xyz', 'a''b\"c`d', <00ff10>, \
     '@2001-09-09 01:46:40.123456', '0001-01-01 00:00:00', '0001-01-01', '00:00:00.000001', \
     'ffffffff-ffff-ffff-ffff-ffffffffffff', '[1, 2.50, null, \"x\"]'",
    "9223372036854775807, 32767, 2147483647, 9223372036854775807, 3.4028235e38, 1.7976931348623157e308, \
     '99999999999999999999999999999999999.999999999999999999999999999999', '99999999.99', '0', \
     '1234567890123456789012345678901234567890', '123456', 'line one and %s ? $1 :name ; -- /* #', <27225c00>, \
     '@2038-01-19 03:14:07.999999', '9999-12-31 23:59:59.999999', '9999-12-31', '23:59:59.999999', \
     'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{\"b\": [1, {\"a\": \"ä😀\"}], \"a\": 1e3}'",
    "2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL",
    "3, 1, -1, 4503599627370497, 0.1, 0.1, '0.000000000000000000000000000001', '0.01', '1', ' lead', ' lead', 'trail  ', <20>, \
     '@2024-02-29 23:59:59.5', '2024-02-29 23:59:59.5', '2024-02-29', '12:34:56.7', '12345678-9abc-4ef0-9234-56789abcdef0', '0.1'",
    "4, 1, 1, 1, 16777216, 9007199254740993e3, '1.500000000000000000000000000000', '1.50', '0', 'NULL', 'null', '0', <00>, '@2024-06-30 23:59:59', \
     '1582-10-10 00:00:00', '1582-10-10', '01:02:03', '00000000-0000-4000-8000-000000000000', 'null'",
    "5, -1, 1, -1, 1.1754944e-38, 2.2250738585072014e-308, '-0.500000000000000000000000000000', '-0.05', '1', 'tab\tand\nline', 'é', 'x', <ffffffff>, \
     '@2000-02-29 12:00:00.000001', '1900-02-28 00:00:00.1', '1900-02-28', '23:00:00', '00000000-0000-0000-0000-00000000000a', '\"\"'",
    "6, 7, 7, 7, 1e10, 123456789.123456789, '1234567890.098765432100000000000000000000', '12345678.90', '0', 'ABC', 'abc', 'ABC', <616263>, \
     '@2024-03-31 01:30:00', '2024-03-31 02:30:00', '2024-03-31', '02:30:00', 'ABCDEFAB-CDEF-4BCD-8FAB-CDEFABCDEFAB', '[]'",
];

/// A row's literals for an engine.
fn literals(row: &str, engine: Engine) -> String {
    let fields = row.replace('@', if engine == Engine::Mariadb { "" } else { "+" });
    let mut text = String::new();
    let mut letters = fields.chars().peekable();
    let mut moment = false;
    while let Some(letter) = letters.next() {
        match letter {
            '<' => {
                let digits: String = letters.by_ref().take_while(|c| *c != '>').collect();
                text += if engine == Engine::Postgres { "'\\x" } else { "x'" };
                text += &digits;
                text.push('\'');
            }
            // A point in time says its zone where the engine's literals can.
            '+' if text.ends_with('\'') => moment = true,
            '\'' if moment => {
                moment = false;
                text += "+00'";
            }
            other => text.push(other),
        }
    }
    // MariaDB reads the shortest spelling of the greatest 32-bit number as one beyond it.
    let text = if engine == Engine::Mariadb { text.replace("3.4028235e38", "3.4028234663852886e38") } else { text };
    text.replace("'ABCDEFAB-CDEF-4BCD-8FAB-CDEFABCDEFAB'", "'abcdefab-cdef-4bcd-8fab-cdefabcdefab'")
}

async fn filled(engine: Engine, folder: &tempfile::TempDir) -> Database {
    let database = open(engine, folder).await;
    run(&database, table(engine)).await;
    for row in ROWS {
        run(&database, &format!("INSERT INTO typed VALUES ({})", literals(row, engine))).await;
    }
    database
}

#[tokio::test]
async fn boundary_values_of_every_type_survive_the_way_there_and_back_between_every_two_engines() {
    let folder = tempfile::tempdir().expect("a temp dir");
    for from in ENGINES {
        let source = filled(from, &folder).await;
        for to in ENGINES {
            let way = format!("{from} to {to}");
            let target = open(to, &folder).await;
            run(&target, table(to)).await;
            let moved = move_all(&source, &target, &whole(Policy::Fail, "there")).await;
            assert_eq!(moved.unwrap_or_else(|error| panic!("{way}: {error}")), 8, "{way}");
            let found = compared(&source, &target).await;
            assert!(found.is_equal() && found.source_rows == 8, "{way}: {found:?}");
            let back = open(from, &folder).await;
            run(&back, table(from)).await;
            let moved = move_all(&target, &back, &whole(Policy::Fail, "back")).await;
            assert_eq!(moved.unwrap_or_else(|error| panic!("back, {way}: {error}")), 8, "{way}");
            let found = compared(&source, &back).await;
            assert!(found.is_equal(), "there and back, {way}: {found:?}");
            // What is equal is known to be equal, and a full overwrite of every type works.
            let again = move_all(&source, &target, &whole(Policy::Fill, "again")).await.expect("nothing to do");
            assert_eq!(again, 0, "{way}");
            run(&target, "UPDATE typed SET small = 5, name = 'other', day = '2020-01-01' WHERE id < 4").await;
            let again = move_all(&source, &target, &whole(Policy::SourceWins { replace_row: true }, "over")).await;
            assert_eq!(again.unwrap_or_else(|error| panic!("over, {way}: {error}")), 4, "{way}");
            assert!(compared(&source, &target).await.is_equal(), "{way}");
        }
    }
}

#[tokio::test]
async fn every_type_of_mariadb_survives_the_way_to_mariadb() {
    let folder = tempfile::tempdir().expect("a temp dir");
    let (from, to) = (open(Engine::Mariadb, &folder).await, open(Engine::Mariadb, &folder).await);
    for database in [&from, &to] {
        run(
            database,
            "CREATE TABLE typed (id BIGINT UNSIGNED PRIMARY KEY, t TINYINT(1), tu TINYINT UNSIGNED, m MEDIUMINT, mu MEDIUMINT UNSIGNED, \
             b1 BIT(1), b64 BIT(64), y YEAR, e ENUM('a','b''c','1'), s SET('x','y','z'), bin BINARY(3), vb VARBINARY(3), \
             old VARCHAR(9) CHARACTER SET latin1, u3 TEXT CHARACTER SET utf8mb3, d2 DOUBLE(10,2), tt TIME(3), ts TIMESTAMP(3) NULL, \
             j JSON, net INET6, c CHAR(4), du DECIMAL(5,1) UNSIGNED, g INT GENERATED ALWAYS AS (tu + 1))",
        )
        .await;
    }
    let columns = "id, t, tu, m, mu, b1, b64, y, e, s, bin, vb, old, u3, d2, tt, ts, j, net, c, du";
    run(
        &from,
        &format!(
            "INSERT INTO typed ({columns}) VALUES (18446744073709551615, -128, 255, -8388608, 16777215, b'1', 18446744073709551615, 2155, \
             'b''c', 'x,z', x'610000', x'00', 'é\\\\', '€', -1234567.89, '-838:59:59.999', '2038-01-19 03:14:07.999', '{{\"a\": [1]}}', \
             '::ffff:1.2.3.4', 'ab', 9999.9), \
             (0, 127, 0, 8388607, 0, b'0', 0, 0, '1', '', x'000000', x'', '', '', 0, '838:59:59', '1970-01-01 00:00:01', '[]', '::', '', 0), \
             (7, 1, 1, 1, 1, NULL, 1, 1901, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)"
        ),
    )
    .await;
    let text = "apiVersion: piton/v1\nkind: Mapping\nname: m\nsets: { all: [typed] }\n\
                tables: { typed: { ignore: { source: [g], target: [g] } } }\n";
    let mapping = Mapping::from_yaml(text).expect("valid");
    let request = |policy, token: &str| CopyRequest::new(mapping.clone(), "all", policy, token);
    assert_eq!(move_all(&from, &to, &request(Policy::Fail, "t")).await.expect("copies"), 3);
    let same = "SELECT count(*) FROM typed";
    run(&to, "UPDATE typed SET old = 'no', b64 = 3, e = NULL, net = NULL, bin = NULL, y = 2000").await;
    let over = request(Policy::SourceWins { replace_row: true }, "over");
    assert_eq!(move_all(&from, &to, &over).await.expect("copies"), 3, "{same}");
    let wanted =
        CompareRequest { mapping, set: "all".into(), range: Range::default(), mode: CompareMode::Content, limit: 5 };
    let found = compare(&from, &to, &wanted).await.expect("compares").tables.remove(0);
    assert!(found.is_equal() && found.target_rows == 3, "{found:?}");
}

/// Source engine, its column's type, a value that fits the target, one that does not, target engine, its type, a word of the reason.
type Misfit = (Engine, &'static str, &'static str, &'static str, Engine, &'static str, &'static str);

const MISFITS: [Misfit; 36] = {
    use Engine::{Mariadb as M, Postgres as P, Sqlite as S};
    [
        (S, "", "1", "32768", M, "SMALLINT", "out of the range"),
        (S, "", "1", "-1", M, "INT UNSIGNED", "out of the range"),
        (S, "", "1", "1.5", M, "INT", "whole number"),
        (S, "", "1", "'x'", M, "INT", "no number"),
        (S, "", "1", "1.005", M, "DECIMAL(8,2)", "2 digits"),
        (S, "", "1", "1234567", M, "DECIMAL(8,2)", "before the point"),
        (S, "", "1", "9e999", M, "DOUBLE", "Infinity"),
        (S, "", "1", "0.1234567890123", M, "FLOAT", "more digits"),
        (S, "", "'a'", "'far too long'", M, "VARCHAR(5)", "more than 5"),
        (S, "", "'a'", "CAST(x'ff41' AS TEXT)", M, "VARCHAR(5)", "UTF-8"),
        (S, "", "'a'", "'€€€€€'", M, "TINYTEXT CHARACTER SET latin1", ""),
        (S, "", "'a'", "'日'", M, "VARCHAR(5) CHARACTER SET latin1", "Incorrect string value"),
        (S, "", "'a'", "'😀'", M, "VARCHAR(5) CHARACTER SET utf8mb3", "utf8mb3"),
        (S, "", "'a'", "'b '", M, "CHAR(5)", "spaces at the end"),
        (S, "", "'a'", "x'00'", M, "VARCHAR(5)", "byte"),
        (S, "", "x'00'", "'text'", M, "BLOB", "bytes"),
        (S, "", "x'0000'", "x'00'", M, "BINARY(2)", "padded"),
        (S, "", "'2024-02-29'", "'2023-02-29'", M, "DATE", "2023-02-29"),
        (S, "", "'2024-02-29'", "'0000-00-00'", M, "DATE", "0000-00-00"),
        (S, "", "'2024-02-29 01:02:03'", "'2024-02-29 01:02:03.5'", M, "DATETIME", "0 digits"),
        (S, "", "'2024-02-29 01:02:03Z'", "'2024-02-29 01:02:03'", M, "TIMESTAMP", "with a zone"),
        (S, "", "'01:02:03'", "'839:00:00'", M, "TIME", "838:59:59"),
        (S, "", "'a'", "'1'", M, "ENUM('a','b')", "none of the column's values"),
        (S, "", "'a,b'", "'b,a'", M, "SET('a','b')", "another order"),
        (S, "", "2024", "24", M, "YEAR", "1901"),
        (S, "", "'{}'", "'{'", M, "JSON", "JSON"),
        (S, "", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "'a0'", M, "UUID", "UUID"),
        (P, "numeric", "1", "'NaN'", M, "DECIMAL(8,2)", "no number"),
        (P, "float8", "1", "'-Infinity'", M, "DOUBLE", "Infinity"),
        (P, "timestamptz", "'2024-02-29 01:02:03+00'", "'infinity'", M, "DATETIME(6)", "infinity"),
        (P, "timestamptz", "'2024-02-29 01:02:03+00'", "'1960-01-01 00:00:00+00'", M, "TIMESTAMP", "TIMESTAMP"),
        (P, "date", "'2024-02-29'", "'0044-03-15 BC'", M, "DATE", "BC"),
        (M, "BIGINT UNSIGNED", "1", "18446744073709551615", P, "int8", "64 bits"),
        (M, "BIGINT UNSIGNED", "1", "18446744073709551615", S, "INTEGER", "greatest whole number"),
        (M, "TEXT", "'a'", "CONCAT('a', CHAR(0))", P, "text", "NUL"),
        (M, "TIME", "'01:02:03'", "'-01:00:00'", P, "time", "-01:00:00"),
    ]
};

#[tokio::test]
async fn what_does_not_fit_is_named_by_table_key_and_column_and_nothing_is_written() {
    let folder = tempfile::tempdir().expect("a temp dir");
    let databases = [
        (Engine::Sqlite, open(Engine::Sqlite, &folder).await, open(Engine::Sqlite, &folder).await),
        (Engine::Postgres, open(Engine::Postgres, &folder).await, open(Engine::Postgres, &folder).await),
        (Engine::Mariadb, open(Engine::Mariadb, &folder).await, open(Engine::Mariadb, &folder).await),
    ];
    let find = |engine| databases.iter().find(|(known, ..)| *known == engine).expect("opened above");
    for (number, (from, kind, fits, misfit, to, target, why)) in MISFITS.into_iter().enumerate() {
        let case = format!("{from} {misfit} to {to} {target}");
        let (_, source, _) = find(from);
        let (_, _, sink) = find(to);
        run(source, &format!("DROP TABLE IF EXISTS typed; CREATE TABLE typed (id INTEGER PRIMARY KEY, v {kind})"))
            .await;
        run(sink, &format!("DROP TABLE IF EXISTS typed; CREATE TABLE typed (id INTEGER PRIMARY KEY, v {target})"))
            .await;
        run(source, &format!("INSERT INTO typed VALUES (1, {fits}), (2, {misfit}), (3, NULL)")).await;
        let outcome = move_all(source, sink, &whole(Policy::Fail, &format!("misfit {number}"))).await;
        if why.is_empty() {
            // Latin-1 has the euro sign: it fits, and comes back as it went.
            assert_eq!(outcome.unwrap_or_else(|error| panic!("{case}: {error}")), 3, "{case}");
            assert!(compared(source, sink).await.is_equal(), "{case}");
            continue;
        }
        let error = outcome.expect_err(&case);
        let TransferError::Misfit { table, key, column, why: said } = &error else { panic!("{case}: {error}") };
        assert_eq!((table.as_str(), key.as_str(), column.as_str()), ("typed", "id=2", "v"), "{case}");
        assert!(said.contains(why), "{case}: {said}");
        let left = query(sink, "SELECT id FROM typed", &Binds::new(), StatementOptions::default()).await;
        assert_eq!(left.expect("runs").counted, 0, "{case}: the chunk was rolled back");
        run(source, "DELETE FROM typed WHERE id = 2").await;
        let rest = move_all(source, sink, &whole(Policy::Fail, &format!("misfit {number}"))).await;
        assert_eq!(rest.unwrap_or_else(|error| panic!("{case}: {error}")), 2, "{case}");
        assert!(compared(source, sink).await.is_equal(), "{case}");
    }
}
