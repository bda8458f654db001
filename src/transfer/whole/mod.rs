//! Whole databases: what product and version serves one, what it holds, and how one is emptied, copied or put into its place.
//!
//! Refuses to empty anything but what a restore of MariaDB has marked as its own. Called by `db.backup` and `db.restore`.

mod mariadb;
mod sqlite;

use super::database::Database;
use super::engine::Engine;
use super::error::TransferError;
use super::schema::{self, text};
use super::session::Session;

pub use mariadb::{MARK, RestoreMark, clear_marked, mark_restore, restore_mark, unmark_restore};
pub use sqlite::{sqlite_address, sqlite_copy_to, sqlite_damage, sqlite_file, sqlite_settle};

/// Who serves a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFacts {
    /// `PostgreSQL`, `MariaDB`, `MySQL` or `SQLite`.
    pub product: &'static str,
    /// The version as the server says it.
    pub version: String,
}

/// What everything that a restore could collide with is called; extensions bring their own and do not count.
const POSTGRES_OBJECTS: &str = "WITH own AS (SELECT oid, nspname FROM pg_namespace WHERE nspname NOT IN ('pg_catalog', 'information_schema') \
       AND nspname !~ '^pg_(toast|temp)'), \
     ext AS (SELECT classid, objid FROM pg_depend WHERE deptype = 'e') \
     SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN own n ON n.oid = c.relnamespace \
       WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c') AND (c.tableoid, c.oid) NOT IN (SELECT classid, objid FROM ext) \
     UNION ALL SELECT n.nspname || '.' || p.proname || '()' FROM pg_proc p JOIN own n ON n.oid = p.pronamespace \
       WHERE (p.tableoid, p.oid) NOT IN (SELECT classid, objid FROM ext) \
     UNION ALL SELECT n.nspname || '.' || t.typname FROM pg_type t JOIN own n ON n.oid = t.typnamespace \
       WHERE t.typtype IN ('e', 'd', 'r') AND (t.tableoid, t.oid) NOT IN (SELECT classid, objid FROM ext) \
     UNION ALL SELECT 'schema ' || n.nspname FROM own n JOIN pg_namespace s ON s.oid = n.oid \
       WHERE n.nspname <> 'public' AND (s.tableoid, s.oid) NOT IN (SELECT classid, objid FROM ext) ORDER BY 1";

const MARIADB_OBJECTS: &str = "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() \
     UNION ALL SELECT CONCAT(ROUTINE_NAME, '()') FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = DATABASE() \
     UNION ALL SELECT CONCAT('event ', EVENT_NAME) FROM information_schema.EVENTS WHERE EVENT_SCHEMA = DATABASE() ORDER BY 1";

const SQLITE_OBJECTS: &str = "SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite!_%' ESCAPE '!' ORDER BY name";

/// Product and version.
pub async fn server_facts(database: &Database) -> Result<ServerFacts, TransferError> {
    let mut session = Session::open(database).await?;
    let sql = match database.engine() {
        Engine::Sqlite => "SELECT sqlite_version()",
        Engine::Postgres => "SELECT current_setting('server_version')",
        Engine::Mariadb => "SELECT VERSION()",
    };
    let rows = session.rows(sql, Vec::new()).await?;
    let version = rows.first().and_then(|row| row.first()).map(text).unwrap_or_default();
    let product = match database.engine() {
        Engine::Sqlite => "SQLite",
        Engine::Postgres => "PostgreSQL",
        Engine::Mariadb if version.contains("MariaDB") => "MariaDB",
        Engine::Mariadb => "MySQL",
    };
    Ok(ServerFacts { product, version })
}

/// The names of the ordinary tables; the engine's catalogues and Piton's own bookkeeping are left out.
pub async fn tables(database: &Database) -> Result<Vec<String>, TransferError> {
    schema::tables(&mut Session::open(database).await?).await
}

/// Tables of MariaDB that have no transactions, so that no snapshot holds them still.
pub async fn tables_without_transactions(database: &Database) -> Result<u64, TransferError> {
    if database.engine() != Engine::Mariadb {
        return Ok(0);
    }
    let sql = "SELECT COUNT(*) FROM information_schema.TABLES t JOIN information_schema.ENGINES e ON e.ENGINE = t.ENGINE \
               WHERE t.TABLE_SCHEMA = DATABASE() AND t.TABLE_TYPE = 'BASE TABLE' AND COALESCE(e.TRANSACTIONS, 'NO') <> 'YES'";
    let found = Session::open(database).await?.number(sql, Vec::new()).await?;
    Ok(found.and_then(|count| u64::try_from(count).ok()).unwrap_or(0))
}

/// The names of everything that is in a database, whoever made it.
pub async fn objects(database: &Database) -> Result<Vec<String>, TransferError> {
    let sql = match database.engine() {
        Engine::Sqlite => SQLITE_OBJECTS,
        Engine::Postgres => POSTGRES_OBJECTS,
        Engine::Mariadb => MARIADB_OBJECTS,
    };
    let rows = Session::open(database).await?.rows(sql, Vec::new()).await?;
    Ok(rows.iter().filter_map(|row| row.first().map(text)).collect())
}
