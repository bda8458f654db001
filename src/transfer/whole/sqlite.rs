//! A SQLite database as a file: copied whole at one moment, looked through, made ready to be replaced.
//!
//! Refuses databases in memory, and to replace a file that somebody is seen to use.

use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use sqlx::sqlite::SqliteConnectOptions;

use crate::transfer::database::{ConnectOptions, Database};
use crate::transfer::error::TransferError;
use crate::transfer::schema::{one, text};
use crate::transfer::session::Session;

/// The file that an address names.
///
/// # Errors
/// When it names a database in memory, or nothing that can be read.
pub fn sqlite_file(url: &str) -> Result<PathBuf, TransferError> {
    let bad = |why: &str| TransferError::Address { url: url.to_owned(), why: why.to_owned() };
    let options = SqliteConnectOptions::from_str(url).map_err(|error| bad(&error.to_string()))?;
    if url.contains(":memory:") || url.contains("mode=memory") {
        return Err(bad("a database in memory has no file"));
    }
    Ok(options.get_filename().to_path_buf())
}

/// The address of a SQLite file.
pub fn sqlite_address(file: &Path) -> String {
    let name = file.display().to_string();
    format!("sqlite://{}", name.replace('%', "%25").replace('?', "%3F").replace('#', "%23"))
}

/// Writes what the database holds at one moment into `file`, which must be missing or empty.
pub async fn sqlite_copy_to(database: &Database, file: &Path) -> Result<(), TransferError> {
    let mut session = Session::open(database).await?;
    session.run("VACUUM INTO ?1", one(&file.display().to_string())).await.map(drop)
}

/// What SQLite's own check says about a file; nothing when it is whole.
pub async fn sqlite_damage(file: &Path) -> Result<Option<String>, TransferError> {
    let options = ConnectOptions { read_only: true, ..ConnectOptions::default() };
    let database = Database::connect(&sqlite_address(file), options).await?;
    let rows = async {
        let mut session = Session::open(&database).await?;
        session.rows("SELECT integrity_check FROM pragma_integrity_check LIMIT 3", Vec::new()).await
    }
    .await;
    database.close().await;
    let found: Vec<String> = rows?.iter().filter_map(|row| row.first().map(text)).collect();
    Ok((found != ["ok"]).then(|| found.join("; ")))
}

/// Brings all of a database into its one file, so that another can take its place; refused while somebody is seen to use it.
pub async fn sqlite_settle(file: &Path) -> Result<(), TransferError> {
    let log = PathBuf::from(format!("{}-wal", file.display()));
    if !file.exists() {
        return match std::fs::symlink_metadata(&log) {
            Err(_) => Ok(()),
            Ok(_) => Err(TransferError::request(format!("`{}` belongs to no file: move it away first", log.display()))),
        };
    }
    let database = Database::connect(&sqlite_address(file), ConnectOptions::default()).await?;
    let mode = async {
        let mut session = Session::open(&database).await?;
        session.rows("PRAGMA wal_checkpoint(TRUNCATE)", Vec::new()).await?;
        session.rows("PRAGMA journal_mode = DELETE", Vec::new()).await
    }
    .await;
    database.close().await;
    let in_use = |error| TransferError::request(format!("`{}` is in use, stop who uses it: {error}", file.display()));
    let mode = mode.map_err(in_use)?.first().and_then(|row| row.first()).map(text).unwrap_or_default();
    if mode != "delete" || log.exists() {
        let why = format!("`{}` is in use (its journal stays `{mode}`): stop who uses it", file.display());
        return Err(TransferError::request(why));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_and_its_file_belong_together() {
        let odd = Path::new("/a b/c%20?#.db");
        assert_eq!(sqlite_file(&sqlite_address(odd)).expect("a file"), odd);
        for url in ["sqlite::memory:", "sqlite://x?mode=memory"] {
            assert!(sqlite_file(url).is_err(), "{url}");
        }
    }

    #[tokio::test]
    async fn a_file_is_settled_unless_somebody_uses_it() {
        let folder = tempfile::tempdir().expect("a temp dir");
        let file = folder.path().join("a.db");
        let options = ConnectOptions { create: true, ..ConnectOptions::default() };
        let database = Database::connect(&sqlite_address(&file), options).await.expect("opened");
        let mut session = Session::open(&database).await.expect("a session");
        session.run("CREATE TABLE t (id INTEGER PRIMARY KEY)", Vec::new()).await.expect("made");
        let error = sqlite_settle(&file).await.expect_err("it is open");
        assert!(error.to_string().contains("in use") || error.to_string().contains("locked"), "{error}");
        drop(session);
        database.close().await;
        sqlite_settle(&file).await.expect("nobody uses it");
        assert!(!folder.path().join("a.db-wal").exists());
        assert_eq!(sqlite_damage(&file).await.expect("looked through"), None);
        std::fs::write(folder.path().join("b.db-wal"), "x").expect("written");
        assert!(sqlite_settle(&folder.path().join("b.db")).await.is_err(), "a log without its file");
    }
}
