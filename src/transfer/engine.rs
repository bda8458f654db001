//! What each engine calls things: quoting, parameters, casts, transactions, the list of its tables.
//!
//! Text only; it opens nothing and runs nothing. Used by every file of this module that builds SQL.

use std::fmt;

use super::session::Begin;

/// The engines that are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Engine {
    /// SQLite 3, one file.
    Sqlite,
    /// PostgreSQL, a server.
    Postgres,
    /// MariaDB or MySQL, a server.
    Mariadb,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
            Self::Mariadb => "MariaDB",
        })
    }
}

impl Engine {
    /// An identifier with its quotes doubled.
    pub(super) fn quote(self, name: &str) -> String {
        match self {
            Self::Sqlite | Self::Postgres => format!("\"{}\"", name.replace('"', "\"\"")),
            Self::Mariadb => format!("`{}`", name.replace('`', "``")),
        }
    }

    /// `schema.table` as two identifiers.
    pub(super) fn quote_table(self, name: &str) -> String {
        name.split('.').map(|part| self.quote(part)).collect::<Vec<_>>().join(".")
    }

    /// The parameter with this number (from 1), to be compared with or stored into a column of the type `cast`.
    ///
    /// Parameters must stand in the text in the order of their numbers, each once.
    pub(super) fn parameter(self, number: usize, cast: &str) -> String {
        match self {
            Self::Sqlite => format!("?{number}"),
            Self::Postgres => format!("(${number}::text)::{cast}"),
            Self::Mariadb if cast.is_empty() => "?".to_owned(),
            Self::Mariadb => format!("CAST(? AS {cast})"),
        }
    }

    /// A whole number of ours as a parameter.
    pub(super) fn integer_parameter(self, number: usize) -> String {
        self.parameter(number, if self == Self::Postgres { "int8" } else { "" })
    }

    /// A text of ours as a parameter.
    pub(super) fn text_parameter(self, number: usize) -> String {
        self.parameter(number, if self == Self::Postgres { "text" } else { "" })
    }

    /// An expression as its value is read.
    pub(super) fn read(self, sql: &str) -> String {
        match self {
            Self::Sqlite | Self::Mariadb => sql.to_owned(),
            Self::Postgres => format!("({sql})::text"),
        }
    }

    /// A text expression as a value of the type `to`.
    pub(super) fn cast(self, sql: &str, to: &str) -> String {
        match self {
            Self::Sqlite | Self::Mariadb => sql.to_owned(),
            Self::Postgres => format!("{sql}::{to}"),
        }
    }

    /// Division of whole numbers.
    pub(super) fn divide(self, sql: &str, by: i64) -> String {
        match self {
            Self::Sqlite | Self::Postgres => format!("{sql} / {by}"),
            Self::Mariadb => format!("{sql} DIV {by}"),
        }
    }

    /// Opens a transaction; the statements run one after the other.
    pub(super) fn begin(self, mode: Begin) -> &'static [&'static str] {
        match (self, mode) {
            (Self::Sqlite, Begin::Write) => &["BEGIN IMMEDIATE"],
            (Self::Sqlite, Begin::Snapshot) => &["BEGIN"],
            (Self::Postgres, Begin::Write) => &["BEGIN ISOLATION LEVEL READ COMMITTED"],
            (Self::Postgres, Begin::Snapshot) => &["BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"],
            (Self::Mariadb, Begin::Write) => &["SET TRANSACTION ISOLATION LEVEL READ COMMITTED", "START TRANSACTION"],
            (Self::Mariadb, Begin::Snapshot) => &[
                "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
                "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
            ],
        }
    }

    /// Asks for pairs of tables of which the first refers to the second, and what a table of a name is called in them; none for SQLite, whose one
    /// writer fills one table after the other.
    pub(super) fn references(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Postgres => Some((
                "SELECT conrelid::int8::text, confrelid::int8::text FROM pg_constraint WHERE contype = 'f'",
                "SELECT COALESCE(to_regclass($1::text)::oid::int8, 0)::text",
            )),
            Self::Mariadb => Some((
                // Some servers know no capitals.
                "SELECT DISTINCT LOWER(CONCAT(TABLE_SCHEMA, '.', TABLE_NAME)), \
                 LOWER(CONCAT(REFERENCED_TABLE_SCHEMA, '.', REFERENCED_TABLE_NAME)) FROM information_schema.KEY_COLUMN_USAGE \
                 WHERE REFERENCED_TABLE_NAME IS NOT NULL",
                "SELECT LOWER(CASE WHEN LOCATE('.', n) > 0 THEN n ELSE CONCAT(DATABASE(), '.', n) END) FROM (SELECT ? AS n) AS t",
            )),
            Self::Sqlite => None,
        }
    }

    /// Lists the ordinary tables, catalogues left out.
    pub(super) fn tables(self) -> &'static str {
        match self {
            Self::Sqlite => {
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite!_%' ESCAPE '!' ORDER BY name"
            }
            Self::Postgres => {
                "SELECT CASE WHEN n.nspname = current_schema() THEN c.relname ELSE n.nspname || '.' || c.relname END \
                 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition \
                 AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg_toast%' ORDER BY 1"
            }
            Self::Mariadb => {
                "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() \
                 AND TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') ORDER BY TABLE_NAME"
            }
        }
    }

    /// Counts (0 or 1) the ordinary table of our own with this name.
    pub(super) fn has_table(self, name: &str) -> String {
        match self {
            Self::Sqlite => format!("SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = '{name}'"),
            Self::Postgres => format!("SELECT count(to_regclass('{name}'))::text"),
            Self::Mariadb => format!(
                "SELECT count(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = '{name}'"
            ),
        }
    }
}
