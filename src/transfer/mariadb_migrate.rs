//! Applies migrations on MariaDB, where DDL commits by itself: statement by statement, each one recorded.
//!
//! The versions stand in sqlx's `_sqlx_migrations` as everywhere; `piton_migration_step` says how far a version has come. A statement that
//! only changes rows is one transaction with its record: it is never done twice. Before a DDL statement "begun" is recorded, after it
//! "done"; a crash in between leaves a doubt, which is named and never guessed. Called by `migrate`.

use sha2::{Digest, Sha256};
use sqlx::migrate::{Migration, Migrator};

use super::database::Database;
use super::engine::Engine;
use super::error::TransferError;
use super::mariadb_statement::{commits_by_itself, refuse_control};
use super::session::{Arg, Begin, Session};
use super::sql_text::{SqlStatement, split};
use super::value::Value;

/// The table of the statements.
pub(super) const STEPS: &str = "piton_migration_step";

const CREATE_VERSIONS: &str = "CREATE TABLE IF NOT EXISTS `_sqlx_migrations` (version BIGINT PRIMARY KEY, description TEXT NOT NULL, \
    installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, success BOOLEAN NOT NULL, checksum BLOB NOT NULL, \
    execution_time BIGINT NOT NULL) ENGINE=InnoDB";

const CREATE_STEPS: &str = "CREATE TABLE IF NOT EXISTS `piton_migration_step` (version BIGINT NOT NULL, statement INT NOT NULL, \
    digest CHAR(64) NOT NULL, state VARCHAR(10) NOT NULL, PRIMARY KEY (version, statement)) ENGINE=InnoDB";

/// How long another process's migration is waited for.
const LOCK_SECONDS: u32 = 60;

/// Applies what is missing.
pub(super) async fn run(database: &Database, migrator: &Migrator) -> Result<(), TransferError> {
    let mut session = Session::open(database).await?;
    let lock = "SELECT GET_LOCK(CONCAT('piton_migrate:', LEFT(DATABASE(), 40)), ?)";
    let got = session.number(lock, vec![int(i64::from(LOCK_SECONDS))]).await?;
    if got != Some(1) {
        return Err(TransferError::request(format!(
            "another process migrates this database for more than {LOCK_SECONDS} s"
        )));
    }
    // The lock ends with the session.
    session.run(CREATE_VERSIONS, Vec::new()).await?;
    session.run(CREATE_STEPS, Vec::new()).await?;
    let known =
        session.rows("SELECT version, success, checksum FROM `_sqlx_migrations` ORDER BY version", Vec::new()).await?;
    let mut succeeded = Vec::new();
    for row in &known {
        let [version, success, checksum] = row.as_slice() else { continue };
        let (Some(version), Value::Blob(checksum)) = (version.as_integer(), checksum) else { continue };
        let done = success.as_integer() == Some(1);
        let Some(migration) = migrator.iter().find(|migration| migration.version == version) else {
            return Err(TransferError::request(format!(
                "migration {version} is applied and not in the folder any more"
            )));
        };
        if done && migration.checksum.as_ref() != checksum.as_slice() {
            return Err(TransferError::request(format!("migration {version} is applied and was changed since")));
        }
        if done {
            succeeded.push(version);
        }
    }
    for migration in migrator.iter() {
        if !migration.migration_type.is_down_migration() && !succeeded.contains(&migration.version) {
            Steps::read(&mut session, migration).await?.apply(&mut session).await?;
        }
    }
    Ok(())
}

fn int(number: i64) -> Arg {
    Arg::One(Value::Int(number))
}

fn words(text: &str) -> Arg {
    Arg::One(Value::Text(text.to_owned()))
}

/// One migration under way.
struct Steps<'a> {
    migration: &'a Migration,
    statements: Vec<(SqlStatement, String)>,
    done: usize,
}

impl<'a> Steps<'a> {
    async fn read(session: &mut Session, migration: &'a Migration) -> Result<Self, TransferError> {
        let statements = split(migration.sql.as_str(), Engine::Mariadb)?;
        statements.iter().try_for_each(refuse_control)?;
        let statements: Vec<(SqlStatement, String)> = statements
            .into_iter()
            .map(|statement| {
                let text = statement.render("", "", |_| "?".to_owned()).text;
                (statement, text)
            })
            .collect();
        let mut steps = Self { migration, statements, done: 0 };
        let sql = "SELECT statement, digest, state FROM `piton_migration_step` WHERE version = ? ORDER BY statement";
        for row in session.rows(sql, vec![int(migration.version)]).await? {
            let [number, digest, state] = row.as_slice() else { continue };
            let number = number.as_integer().and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
            let text = steps.statements.get(number.saturating_sub(1)).map(|(_, text)| text.as_str());
            if text.map(digest_of) != digest.to_text() {
                return Err(
                    steps.wrong(number, "it was done in another form before: restore the file's text up to here")
                );
            }
            if state.to_text().as_deref() != Some("done") {
                return Err(steps.doubt(number));
            }
            steps.done = number;
        }
        Ok(steps)
    }

    fn wrong(&self, statement: usize, why: impl Into<String>) -> TransferError {
        TransferError::Migration {
            version: self.migration.version,
            name: self.migration.description.to_string(),
            statement,
            of: self.statements.len(),
            why: why.into(),
        }
    }

    /// A DDL statement that was begun, and nobody knows whether it ended.
    fn doubt(&self, statement: usize) -> TransferError {
        let text = self.statements.get(statement - 1).map_or("", |(_, text)| text.trim());
        let first = text.lines().next().unwrap_or_default();
        let place = format!("version = {} AND statement = {statement}", self.migration.version);
        self.wrong(
            statement,
            format!(
                "it was begun and its end is unknown: `{first}`; look whether the database has it, then say so: \
                 `UPDATE {STEPS} SET state = 'done' WHERE {place}` if it is there, `DELETE FROM {STEPS} WHERE {place}` if it is not"
            ),
        )
    }

    async fn apply(&self, session: &mut Session) -> Result<(), TransferError> {
        if self.done == 0 {
            // As sqlx does: a version that is under way is not a success.
            let sql = "INSERT INTO `_sqlx_migrations` (version, description, success, checksum, execution_time) VALUES (?, ?, FALSE, ?, -1) \
                       ON DUPLICATE KEY UPDATE checksum = VALUES(checksum)";
            let checksum = Arg::One(Value::Blob(self.migration.checksum.to_vec()));
            session.run(sql, vec![int(self.migration.version), words(&self.migration.description), checksum]).await?;
        }
        let started = std::time::Instant::now();
        for (i, (statement, text)) in self.statements.iter().enumerate().skip(self.done) {
            let done = if commits_by_itself(statement) {
                self.by_itself(session, i + 1, text).await
            } else {
                self.with_record(session, i + 1, text).await
            };
            done.map_err(|error| self.wrong(i + 1, error.to_string()))?;
        }
        let sql = "UPDATE `_sqlx_migrations` SET success = TRUE, checksum = ?, execution_time = ? WHERE version = ?";
        let nanos = i64::try_from(started.elapsed().as_nanos()).unwrap_or(i64::MAX);
        let checksum = Arg::One(Value::Blob(self.migration.checksum.to_vec()));
        session.run(sql, vec![checksum, int(nanos), int(self.migration.version)]).await.map(drop)
    }

    /// A statement that the engine commits: its record stands before and after it.
    async fn by_itself(&self, session: &mut Session, number: usize, text: &str) -> Result<(), TransferError> {
        self.record(session, number, text, "begun").await?;
        if let Err(error) = session.run(text, Vec::new()).await {
            // The engine says that it did nothing; a broken connection says nothing.
            if !error.effect_unknown() {
                let sql = "DELETE FROM `piton_migration_step` WHERE version = ? AND statement = ?";
                session.run(sql, vec![int(self.migration.version), place(number)]).await?;
            }
            return Err(error);
        }
        self.record(session, number, text, "done").await
    }

    /// A statement that changes rows: one transaction with its record.
    async fn with_record(&self, session: &mut Session, number: usize, text: &str) -> Result<(), TransferError> {
        session.begin(Begin::Write).await?;
        let done = match session.run(text, Vec::new()).await {
            Ok(_) => self.record(session, number, text, "done").await,
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => session.commit().await,
            Err(error) => {
                if !error.effect_unknown() {
                    session.rollback().await?;
                }
                Err(error)
            }
        }
    }

    async fn record(&self, session: &mut Session, number: usize, text: &str, state: &str) -> Result<(), TransferError> {
        let sql = "INSERT INTO `piton_migration_step` (version, statement, digest, state) VALUES (?, ?, ?, ?) \
                   ON DUPLICATE KEY UPDATE state = VALUES(state)";
        let args = vec![int(self.migration.version), place(number), words(&digest_of(text)), words(state)];
        session.run(sql, args).await.map(drop)
    }
}

fn place(number: usize) -> Arg {
    int(i64::try_from(number).unwrap_or(i64::MAX))
}

fn digest_of(text: &str) -> String {
    hex::encode(Sha256::digest(text.trim()))
}
