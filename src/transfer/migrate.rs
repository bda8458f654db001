//! Applies a folder of SQL migrations through sqlx's own bookkeeping (`_sqlx_migrations`).
//!
//! Refuses changed or vanished migrations, as sqlx does. On SQLite and PostgreSQL a migration is one transaction; MariaDB has no such
//! thing, see `mariadb_migrate`. Of several who migrate one database at the same time each finds everything applied in the end. Called by the
//! `db.migrate` action.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sqlx::error::DatabaseError;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, SqlSafeStr as _, SqlitePool};

use super::database::{Database, SQLITE_BUSY_TIMEOUT};
use super::engine::Engine;
use super::error::TransferError;
use super::mariadb_migrate;
use super::session::Session;
use super::value::Value;

/// How the name of a migration ends.
const ENDING: &str = ".sql";
/// How long a migration of somebody else is left alone before one looks again.
const PAUSE: Duration = Duration::from_millis(50);

/// Where migrations are: `<version>_<name>.sql`.
#[derive(Debug, Clone)]
pub enum Migrations {
    /// Texts by name that were read before, and what to call where they were.
    Texts(String, Vec<(String, String)>),
    /// A folder.
    Folder(PathBuf),
}

impl Migrations {
    fn place(&self) -> String {
        match self {
            Self::Texts(place, _) => place.clone(),
            Self::Folder(folder) => folder.display().to_string(),
        }
    }

    async fn resolve(&self) -> Result<Migrator, MigrateError> {
        match self {
            Self::Folder(folder) => Migrator::new(folder.as_path()).await,
            Self::Texts(_, texts) => {
                let all: Result<Vec<Migration>, _> = texts.iter().filter_map(one).collect();
                all.map(Migrator::with_migrations)
            }
        }
    }
}

/// A migration of a text, by the rules by which sqlx reads a folder; nothing for a file of another name.
fn one((name, text): &(String, String)) -> Option<Result<Migration, MigrateError>> {
    let (version, rest) = name.split_once('_').filter(|(_, rest)| rest.ends_with(ENDING))?;
    let Ok(version) = version.parse::<i64>() else {
        let text = format!("`{name}` does not begin with a whole number; call it like `01_tables.sql`");
        return Some(Err(MigrateError::Source(text.into())));
    };
    let kind = MigrationType::from_filename(rest);
    let description = rest.trim_end_matches(kind.suffix()).replace('_', " ");
    let sql = AssertSqlSafe(text.clone()).into_sql_str();
    Some(Ok(Migration::new(version, description.into(), kind, sql, text.starts_with("-- no-transaction"))))
}

/// Applies every migration of a folder that is not applied yet; returns the versions that were not applied when it began, by this call or by
/// another at the same time.
pub async fn migrate(database: &Database, folder: &Path) -> Result<Vec<i64>, TransferError> {
    apply(database, &Migrations::Folder(folder.to_path_buf())).await
}

/// The same for migrations wherever they are.
pub async fn apply(database: &Database, migrations: &Migrations) -> Result<Vec<i64>, TransferError> {
    let failed = |source| TransferError::Migrate { folder: migrations.place(), source };
    let migrator = migrations.resolve().await.map_err(failed)?;
    let before = applied(database).await?;
    match database {
        Database::Sqlite(pool) => beside_others(pool, &migrator, database).await,
        Database::Postgres(pool) => migrator.run(pool).await,
        Database::Mariadb(_) => {
            mariadb_migrate::run(database, &migrator).await?;
            Ok(())
        }
    }
    .map_err(failed)?;
    let after = applied(database).await?;
    Ok(after.into_iter().filter(|version| !before.contains(version)).collect())
}

/// sqlx makes those who migrate one database of PostgreSQL wait for each other; of SQLite it does not. But there a migration that failed is
/// undone, so it can be looked at again where somebody else was the reason: that one is at it, or has applied the same meanwhile.
async fn beside_others(pool: &SqlitePool, migrator: &Migrator, database: &Database) -> Result<(), MigrateError> {
    let until = Instant::now() + SQLITE_BUSY_TIMEOUT;
    loop {
        let Err(failed) = migrator.run(pool).await else { return Ok(()) };
        let (version, error) = match &failed {
            // Without a transaction nothing is undone.
            _ if migrator.iter().any(|migration| migration.no_tx) => return Err(failed),
            MigrateError::ExecuteMigration(error, version) => (Some(version), error),
            MigrateError::Execute(error) => (None, error),
            _ => return Err(failed),
        };
        let again = if TransferError::sql(Engine::Sqlite, error).is_lock_wait() {
            tokio::time::sleep(PAUSE).await;
            Instant::now() < until
        } else if let Some(version) = version {
            applied(database).await.unwrap_or_default().contains(version)
        } else {
            let is_taken = error.as_database_error().is_some_and(DatabaseError::is_unique_violation);
            is_taken && error.to_string().contains("_sqlx_migrations")
        };
        if !again {
            return Err(failed);
        }
    }
}

/// The versions that are recorded as applied, in order.
pub async fn applied(database: &Database) -> Result<Vec<i64>, TransferError> {
    let mut session = Session::open(database).await?;
    if session.number(&session.engine().has_table("_sqlx_migrations"), Vec::new()).await? != Some(1) {
        return Ok(Vec::new());
    }
    let engine = session.engine();
    let version = engine.read("version");
    let sql = format!("SELECT {version} FROM _sqlx_migrations WHERE success ORDER BY _sqlx_migrations.version");
    let rows = session.rows(&sql, Vec::new()).await?;
    Ok(rows.iter().filter_map(|row| row.first().and_then(Value::as_integer)).collect())
}

#[cfg(test)]
mod tests {
    use super::super::database::ConnectOptions;
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn several_who_migrate_one_file_at_the_same_time_all_find_it_done() {
        let texts = [
            ("1_tables.sql", "CREATE TABLE t (a INT); CREATE TABLE u (a INT);"),
            ("2_rows.sql", "INSERT INTO t VALUES (1), (2), (3); INSERT INTO u VALUES (1);"),
            ("3_more.sql", "ALTER TABLE t ADD b INT; INSERT INTO u VALUES (2);"),
        ];
        let texts: Vec<_> = texts.iter().map(|(name, sql)| ((*name).to_owned(), (*sql).to_owned())).collect();
        for _ in 0..30 {
            let folder = tempfile::tempdir().expect("a folder");
            let url = format!("sqlite://{}", folder.path().join("t.db").display());
            let open = || Database::connect(&url, ConnectOptions { create: true, ..Default::default() });
            open().await.expect("is made");
            let each = (0..4).map(|_| {
                let (open, migrations) = (open(), Migrations::Texts("here".into(), texts.clone()));
                async move { apply(&open.await.expect("opens"), &migrations).await }
            });
            let ends = futures_util::future::join_all(each).await;
            assert!(ends.iter().all(Result::is_ok), "{ends:?}");
            let database = open().await.expect("opens");
            assert_eq!(applied(&database).await.expect("reads"), [1, 2, 3]);
            let mut session = Session::open(&database).await.expect("opens");
            let rows =
                session.number("SELECT (SELECT count(*) FROM t) * 10 + (SELECT count(*) FROM u)", Vec::new()).await;
            assert_eq!(rows.expect("reads"), Some(32), "each once");
        }
    }

    #[tokio::test]
    async fn a_migration_that_fails_by_itself_fails_at_once() {
        let database = Database::connect("sqlite::memory:", ConnectOptions::default()).await.expect("opens");
        let texts = vec![("1_bad.sql".to_owned(), "INSERT INTO nowhere VALUES (1)".to_owned())];
        let started = Instant::now();
        let error = apply(&database, &Migrations::Texts("here".into(), texts)).await.expect_err("no such table");
        assert!(error.to_string().contains("no such table: nowhere"), "{error}");
        assert!(started.elapsed() < SQLITE_BUSY_TIMEOUT / 2);
    }

    /// What is read of texts is what sqlx reads of the folder that holds them.
    #[tokio::test]
    async fn texts_are_what_their_folder_would_be() {
        let folder = tempfile::tempdir().expect("a folder");
        let texts = [
            ("2_more_rows.sql", "INSERT INTO t VALUES (1);\n"),
            ("01_tables.sql", "-- no-transaction\nCREATE TABLE t (a INT);\r\n"),
            ("3_back.up.sql", "ALTER TABLE t ADD b INT;"),
            ("3_back.down.sql", "ALTER TABLE t DROP b;"),
            ("README.md", "not one"),
            ("notes.sql", "not one"),
        ];
        for (name, text) in texts {
            std::fs::write(folder.path().join(name), text).expect("written");
        }
        let texts: Vec<_> = texts.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        let shown = |migrator: Migrator| migrator.iter().map(|one| format!("{one:?}")).collect::<Vec<_>>();
        let of_texts = Migrations::Texts("here".into(), texts).resolve().await.expect("are read");
        let of_folder = Migrations::Folder(folder.path().into()).resolve().await.expect("are read");
        assert_eq!(shown(of_texts), shown(of_folder));
        let bad = Migrations::Texts("here".into(), vec![("x_y.sql".into(), String::new())]).resolve().await;
        assert!(bad.expect_err("no version").to_string().contains("while resolving migrations"));
    }
}
