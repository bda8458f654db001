//! Applies a folder of SQL migrations through sqlx's own bookkeeping (`_sqlx_migrations`).
//!
//! Refuses changed or vanished migrations, as sqlx does. On SQLite and PostgreSQL a migration is one transaction; MariaDB has no such
//! thing, see `mariadb_migrate`. Called by the `db.migrate` action.

use std::path::Path;

use sqlx::migrate::Migrator;

use super::database::Database;
use super::error::TransferError;
use super::mariadb_migrate;
use super::session::Session;
use super::value::Value;

/// Applies every migration of `folder` (`<version>_<name>.sql`) that is not applied yet; returns the versions that were applied now.
pub async fn migrate(database: &Database, folder: &Path) -> Result<Vec<i64>, TransferError> {
    let failed = |source| TransferError::Migrate { folder: folder.display().to_string(), source };
    let migrator = Migrator::new(folder).await.map_err(failed)?;
    let before = applied(database).await?;
    match database {
        Database::Sqlite(pool) => migrator.run(pool).await,
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
