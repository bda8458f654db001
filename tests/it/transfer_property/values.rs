//! Generated types and values: how each engine declares and spells them, and what each says it holds, in a spelling of the tests' own.
//!
//! Every value is one that all three engines can hold, so that what comes back can be told beforehand.

use fastrand::Rng;
use piton::transfer::Engine;

/// What a generated column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Int16,
    Int32,
    Int64,
    /// Digits in all, digits behind the point.
    Decimal(u32, u32),
    Single,
    Double,
    Bool,
    /// Longest text.
    Text(usize),
    /// Longest byte string.
    Bytes(usize),
    Instant,
    Civil,
    Date,
    Time,
    Uuid,
    Json,
}

/// A generated value; texts are as the tests spell them.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Held {
    Null,
    Int(i64),
    Decimal(String),
    Single(f32),
    Double(f64),
    Bool(bool),
    Text(String),
    Bytes(Vec<u8>),
    /// Date and time in UTC.
    Instant(String),
    Civil(String),
    Date(String),
    Time(String),
    Uuid(String),
    Json(String),
}

/// Texts that have gone wrong somewhere: quotes, binds, escapes, comments, what looks like another type, beyond the first plane.
const TEXTS: [&str; 22] = [
    "",
    " ",
    "NULL",
    "null",
    "\\N",
    "'",
    "''",
    "\"",
    "`",
    "\\",
    "\\'; --",
    ":name ?1 $1 %s",
    "/* */",
    "line\nline\r\n\ttab",
    "0",
    "1e3",
    "true",
    "2024-01-01",
    "é",
    "e\u{301}",
    "ß€漢字",
    "😀👩‍👩‍👧",
];

impl Type {
    pub(super) fn any(random: &mut Rng) -> Self {
        match random.u8(0..15) {
            0 => Self::Int16,
            1 => Self::Int32,
            2 => Self::Int64,
            3 => {
                let scale = random.u32(0..=20);
                Self::Decimal(scale + random.u32(1..=20), scale)
            }
            4 => Self::Single,
            5 => Self::Double,
            6 => Self::Bool,
            7 | 8 => Self::Text(random.usize(8..=200)),
            9 => Self::Bytes(random.usize(1..=60)),
            10 => Self::Instant,
            11 => Self::Civil,
            12 => Self::Date,
            13 => Self::Time,
            _ => {
                if random.bool() {
                    Self::Uuid
                } else {
                    Self::Json
                }
            }
        }
    }

    /// A type that may stand in a key.
    pub(super) fn of_a_key(random: &mut Rng) -> Self {
        match random.u8(0..10) {
            0 => Self::Int16,
            1 | 2 => Self::Int32,
            3 => Self::Int64,
            4 => Self::Text(40),
            5 => Self::Bytes(24),
            6 => Self::Uuid,
            7 => Self::Date,
            8 => Self::Instant,
            _ => Self::Decimal(12, 3),
        }
    }

    /// The type as an engine declares it.
    fn declared(self, engine: Engine) -> String {
        match engine {
            Engine::Sqlite => self.of_sqlite().to_owned(),
            Engine::Postgres => self.of_postgres(),
            Engine::Mariadb => self.of_mariadb(),
        }
    }

    fn of_sqlite(self) -> &'static str {
        match self {
            Self::Int16 | Self::Int32 | Self::Int64 | Self::Bool => "INTEGER",
            Self::Single | Self::Double => "REAL",
            Self::Bytes(_) => "BLOB",
            Self::Decimal(..)
            | Self::Text(_)
            | Self::Instant
            | Self::Civil
            | Self::Date
            | Self::Time
            | Self::Uuid
            | Self::Json => "TEXT",
        }
    }

    fn of_postgres(self) -> String {
        let fixed = match self {
            Self::Int16 => "SMALLINT",
            Self::Int32 => "INTEGER",
            Self::Int64 => "BIGINT",
            Self::Decimal(digits, scale) => return format!("NUMERIC({digits},{scale})"),
            Self::Single => "REAL",
            Self::Double => "DOUBLE PRECISION",
            Self::Bool => "BOOLEAN",
            Self::Text(most) => return format!("VARCHAR({most})"),
            Self::Bytes(_) => "BYTEA",
            Self::Instant => "TIMESTAMPTZ",
            Self::Civil => "TIMESTAMP",
            Self::Date => "DATE",
            Self::Time => "TIME",
            Self::Uuid => "UUID",
            Self::Json => "JSON",
        };
        fixed.to_owned()
    }

    fn of_mariadb(self) -> String {
        let fixed = match self {
            Self::Int16 => "SMALLINT",
            Self::Int32 => "INTEGER",
            Self::Int64 => "BIGINT",
            Self::Decimal(digits, scale) => return format!("DECIMAL({digits},{scale})"),
            Self::Single => "FLOAT",
            Self::Double => "DOUBLE",
            Self::Bool => "BOOLEAN",
            Self::Text(most) => return format!("VARCHAR({most})"),
            Self::Bytes(most) => return format!("VARBINARY({most})"),
            // NULL is a value of its own only where it is asked for.
            Self::Instant => "TIMESTAMP(6) NULL DEFAULT NULL",
            Self::Civil => "DATETIME(6)",
            Self::Date => "DATE",
            Self::Time => "TIME(6)",
            Self::Uuid => "UUID",
            Self::Json => "JSON",
        };
        fixed.to_owned()
    }

    /// A column of this type, and whether it may hold NULL.
    pub(super) fn column(self, engine: Engine, nullable: bool) -> String {
        let declared = self.declared(engine);
        match (nullable, declared.strip_suffix(" NULL DEFAULT NULL")) {
            (true, _) => declared,
            (false, Some(bare)) => format!("{bare} NOT NULL DEFAULT '2000-01-01 00:00:00'"),
            (false, None) => format!("{declared} NOT NULL"),
        }
    }

    /// A value, often one at an edge.
    pub(super) fn value(self, random: &mut Rng) -> Held {
        match self {
            Self::Int16 => Held::Int(whole(random, i64::from(i16::MIN), i64::from(i16::MAX))),
            Self::Int32 => Held::Int(whole(random, i64::from(i32::MIN), i64::from(i32::MAX))),
            Self::Int64 => Held::Int(whole(random, i64::MIN, i64::MAX)),
            Self::Decimal(digits, scale) => Held::Decimal(decimal(random, digits, scale)),
            Self::Single => Held::Single(single(random)),
            Self::Double => Held::Double(double(random)),
            Self::Bool => Held::Bool(random.bool()),
            Self::Text(most) => Held::Text(text(random, most)),
            Self::Bytes(most) => {
                let length = random.usize(0..=most);
                Held::Bytes((0..length).map(|_| if random.bool() { random.u8(..) } else { 0 }).collect())
            }
            Self::Instant => Held::Instant(match random.u8(0..6) {
                0 => "1970-01-01 00:00:01".to_owned(),
                1 => "2038-01-19 03:14:07.999999".to_owned(),
                _ => format!("{} {}", date(random, 1971, 2037), time(random)),
            }),
            Self::Civil => Held::Civil(match random.u8(0..6) {
                0 => "0001-01-01 00:00:00".to_owned(),
                1 => "9999-12-31 23:59:59.999999".to_owned(),
                _ => format!("{} {}", date(random, 1, 9999), time(random)),
            }),
            Self::Date => Held::Date(date(random, 1, 9999)),
            Self::Time => Held::Time(time(random)),
            Self::Uuid => {
                let n = random.u128(..) & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
                let h = format!("{n:032x}");
                Held::Uuid(format!("{}-{}-{}-{}-{}", &h[..8], &h[8..12], &h[12..16], &h[16..20], &h[20..]))
            }
            Self::Json => Held::Json(json(random, 2).to_string()),
        }
    }
}

fn whole(random: &mut Rng, least: i64, most: i64) -> i64 {
    match random.u8(0..8) {
        0 => least,
        1 => most,
        2 => 0,
        3 => -1,
        4 => random.i64(-100..100),
        _ => random.i64(least..=most),
    }
}

fn decimal(random: &mut Rng, digits: u32, scale: u32) -> String {
    let digit = |random: &mut Rng| char::from(b'0' + random.u8(0..10));
    let all = |random: &mut Rng, count: u32, nines: bool| -> String {
        (0..count).map(|_| if nines { '9' } else { digit(random) }).collect()
    };
    let nines = random.u8(0..6) == 0;
    let used = random.u32(0..=digits - scale);
    let used = if nines { digits - scale } else { used };
    let (before, behind) = (all(random, used, nines), all(random, scale, nines));
    let sign = if random.bool() { "-" } else { "" };
    plain_decimal(&format!("{sign}{before}.{behind}"))
}

/// The one spelling of a decimal: no zeros that say nothing, no minus before nothing.
fn plain_decimal(text: &str) -> String {
    let (sign, rest) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let (before, behind) = rest.split_once('.').unwrap_or((rest, ""));
    let (before, behind) = (before.trim_start_matches('0'), behind.trim_end_matches('0'));
    let before = if before.is_empty() { "0" } else { before };
    match (before, behind) {
        ("0", "") => "0".to_owned(),
        (before, "") => format!("{sign}{before}"),
        (before, behind) => format!("{sign}{before}.{behind}"),
    }
}

fn single(random: &mut Rng) -> f32 {
    loop {
        let real = match random.u8(0..6) {
            0 => 0.0,
            1 => 0.1,
            2 => 16_777_216.0,
            3 => f32::MIN_POSITIVE,
            _ => f32::from_bits(random.u32(..)),
        };
        // At the very edges MariaDB reads a decimal as one beyond them.
        if real == 0.0 || (real.is_finite() && (1e-37..1e38).contains(&real.abs())) {
            return if real == 0.0 { 0.0 } else { real };
        }
    }
}

fn double(random: &mut Rng) -> f64 {
    loop {
        let real = match random.u8(0..7) {
            0 => 0.0,
            1 => 0.1,
            2 => 9_007_199_254_740_993e3,
            3 => -1.797_693_134_862_315_7e308,
            4 => 2.225_073_858_507_201_4e-308,
            _ => f64::from_bits(random.u64(..)),
        };
        if real == 0.0 || real.is_normal() {
            return if real == 0.0 { 0.0 } else { real };
        }
    }
}

fn text(random: &mut Rng, most: usize) -> String {
    let mut all = String::new();
    for _ in 0..random.usize(0..5) {
        match random.u8(0..3) {
            0 => all.push_str(TEXTS[random.usize(..TEXTS.len())]),
            1 => all.extend((0..random.usize(0..20)).map(|_| random.alphanumeric())),
            _ => all.push(random.char('\u{1}'..='\u{10ffff}')),
        }
    }
    all.chars().take(most).collect()
}

fn date(random: &mut Rng, first: u16, last: u16) -> String {
    match random.u8(0..8) {
        0 => format!("{first:04}-01-01"),
        1 => format!("{last:04}-12-31"),
        2 => "2000-02-29".to_owned(),
        _ => format!("{:04}-{:02}-{:02}", random.u16(first..=last), random.u8(1..=12), random.u8(1..=28)),
    }
}

fn time(random: &mut Rng) -> String {
    let second = format!("{:02}:{:02}:{:02}", random.u8(0..24), random.u8(0..60), random.u8(0..60));
    match random.u8(0..3) {
        0 => second,
        1 => format!("{second}.000001"),
        _ => plain_time(&format!("{second}.{:06}", random.u32(0..1_000_000))),
    }
}

/// The one spelling of a time: no zeros behind the point that say nothing.
fn plain_time(text: &str) -> String {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text.to_owned() }
}

fn json(random: &mut Rng, depth: u8) -> serde_json::Value {
    use serde_json::{Map, Value, json};
    match random.u8(0..if depth == 0 { 5 } else { 8 }) {
        0 => Value::Null,
        1 => json!(random.bool()),
        2 => json!(random.i64(-1_000_000..1_000_000)),
        3 => json!(f64::from(random.i32(-4_000..4_000)) / 8.0),
        4 => json!(text(random, 30).replace('\u{0}', "")),
        5 => Value::Array((0..random.usize(0..4)).map(|_| json(random, depth - 1)).collect()),
        _ => {
            let entries = (0..random.usize(0..4)).map(|i| (format!("k{i}"), json(random, depth - 1)));
            Value::Object(entries.collect::<Map<_, _>>())
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut all, byte| {
        let _ = write!(all, "{byte:02X}");
        all
    })
}

impl Held {
    /// The value as an engine's literal.
    pub(super) fn literal(&self, engine: Engine) -> String {
        let quoted = |text: &str| {
            let text = text.replace('\'', "''");
            format!("'{}'", if engine == Engine::Mariadb { text.replace('\\', "\\\\") } else { text })
        };
        match self {
            Self::Null => "NULL".to_owned(),
            // The least of all is an expression to some.
            Self::Int(number) if engine == Engine::Sqlite => number.to_string(),
            Self::Int(number) => quoted(&number.to_string()),
            Self::Single(real) if engine == Engine::Postgres => quoted(&format!("{real:e}")),
            Self::Double(real) if engine == Engine::Postgres => quoted(&format!("{real:e}")),
            Self::Single(real) => format!("{real:e}"),
            Self::Double(real) => format!("{real:e}"),
            Self::Bool(flag) if engine == Engine::Postgres => flag.to_string(),
            Self::Bool(flag) => u8::from(*flag).to_string(),
            Self::Bytes(bytes) if engine == Engine::Postgres => format!("'\\x{}'", hex(bytes)),
            Self::Bytes(bytes) => format!("x'{}'", hex(bytes)),
            Self::Instant(at) if engine == Engine::Mariadb => quoted(at),
            Self::Instant(at) => quoted(&format!("{at}+00")),
            Self::Decimal(text)
            | Self::Text(text)
            | Self::Civil(text)
            | Self::Date(text)
            | Self::Time(text)
            | Self::Uuid(text)
            | Self::Json(text) => quoted(text),
        }
    }

    /// What is bound in SQLite, which reads the last digits of a literal in its own way.
    pub(super) fn bound(&self) -> Option<f64> {
        match self {
            // As the shortest decimal, which is what the number of 32 bits means.
            Self::Single(real) => real.to_string().parse().ok(),
            Self::Double(real) => Some(*real),
            _ => None,
        }
    }

    /// The value in the tests' spelling, which [`told`] makes of what an engine shows.
    pub(super) fn spelled(&self) -> Option<String> {
        Some(match self {
            Self::Null => return None,
            Self::Int(number) => number.to_string(),
            Self::Single(real) => format!("{:08x}", real.to_bits()),
            Self::Double(real) => format!("{:016x}", real.to_bits()),
            Self::Bool(flag) => u8::from(*flag).to_string(),
            Self::Bytes(bytes) => hex(bytes),
            Self::Json(text) => {
                serde_json::from_str::<serde_json::Value>(text).map(|json| json.to_string()).unwrap_or_default()
            }
            Self::Decimal(text)
            | Self::Text(text)
            | Self::Instant(text)
            | Self::Civil(text)
            | Self::Date(text)
            | Self::Time(text)
            | Self::Uuid(text) => text.clone(),
        })
    }
}

/// An expression by which an engine shows a column as text.
pub(super) fn shown(column: &str, kind: Type, engine: Engine) -> String {
    match (kind, engine) {
        (Type::Bytes(_), Engine::Postgres) => format!("upper(encode({column}, 'hex'))"),
        // SQLite's `hex` of NULL is empty.
        (Type::Bytes(_), Engine::Sqlite) => format!("CASE WHEN {column} IS NOT NULL THEN hex({column}) END"),
        (Type::Bytes(_), Engine::Mariadb) => format!("hex({column})"),
        (Type::Bool, Engine::Postgres) => format!("({column}::int)::text"),
        (_, Engine::Postgres) => format!("({column})::text"),
        (Type::Single | Type::Double, Engine::Mariadb) => format!("CONVERT({column} + 0e0 USING utf8mb4)"),
        (_, Engine::Mariadb) => format!("CONVERT({column} USING utf8mb4)"),
        (Type::Single | Type::Double, Engine::Sqlite) => column.to_owned(),
        (_, Engine::Sqlite) => format!("CAST({column} AS TEXT)"),
    }
}

/// What an engine has shown, in the tests' spelling.
pub(super) fn told(shown: &str, kind: Type) -> String {
    match kind {
        Type::Decimal(..) => plain_decimal(shown),
        #[expect(clippy::cast_possible_truncation, reason = "the column holds 32 bits")]
        Type::Single => {
            shown.parse::<f64>().map_or_else(|_| shown.to_owned(), |real| format!("{:08x}", (real as f32).to_bits()))
        }
        Type::Double => {
            shown.parse::<f64>().map_or_else(|_| shown.to_owned(), |real| format!("{:016x}", real.to_bits()))
        }
        Type::Instant => plain_time(shown.strip_suffix("+00").unwrap_or(shown)),
        Type::Civil | Type::Time => plain_time(shown),
        Type::Json => {
            serde_json::from_str::<serde_json::Value>(shown).map_or_else(|_| shown.to_owned(), |json| json.to_string())
        }
        Type::Int16
        | Type::Int32
        | Type::Int64
        | Type::Bool
        | Type::Text(_)
        | Type::Bytes(_)
        | Type::Date
        | Type::Uuid => shown.to_owned(),
    }
}
