//! Pruning in the file: what goes is overwritten with zeros in the transaction that leaves its tombstone.

use sqlx::{Row as _, SqliteConnection};

use super::{OF_RUN, ROW, Sqlite, head, lease, primary_code, row};
use crate::ids::RunId;
use crate::journal::JournalError;
use crate::journal::chain::{NAMES_TEXTS, Row};
use crate::journal::prune::{Burial, HAS_ENDS, Named, Tidied, Tombstone, What, stones_of};
use crate::journal::seal::SealKey;

/// How often it is tried to get at the file alone, and how long between.
const TRIES: u32 = 20;
const EMPTY_LOG: &str = "PRAGMA wal_checkpoint(TRUNCATE)";
/// The largest file that is rewritten while a driver works, in bytes.
const DRIVEN_BYTES_MAX: u64 = 256 * 1024 * 1024;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

impl Sqlite {
    /// The tombstones of a run, or all.
    pub(in crate::journal) async fn tombstones(&self, run: Option<&RunId>) -> Result<Vec<Tombstone>, JournalError> {
        let fault = |error| self.fault(error);
        let mut reader = self.readers.acquire().await.map_err(fault)?;
        of_run(&mut reader, run).await.map_err(fault)
    }

    /// The latest tombstones of runs on a site whose ends only they tell.
    pub(in crate::journal) async fn graves_with_ends(&self, site: &str) -> Result<Vec<Tombstone>, JournalError> {
        let found: Vec<(i64, String, String, String, String)> = sqlx::query_as(
            "SELECT t.number, t.run, t.body, t.key, t.signature FROM runs r JOIN tombstones t ON t.number = r.pruned
             WHERE r.site = ? AND instr(t.body, ?) > 0 ORDER BY t.number",
        )
        .bind(site)
        .bind(HAS_ENDS)
        .fetch_all(&self.readers)
        .await
        .map_err(|error| self.fault(error))?;
        Ok(found.into_iter().map(Tombstone::from).collect())
    }

    pub(in crate::journal) async fn heads_of_all(&self) -> Result<Vec<(RunId, u64)>, JournalError> {
        let fault = |error| self.fault(error);
        let mut reader = self.readers.acquire().await.map_err(fault)?;
        heads(&mut reader).await.map_err(fault)
    }

    pub(in crate::journal) async fn rows_holding(
        &self,
        run: &RunId,
        from_seq: u64,
        part: &str,
    ) -> Result<Vec<Row>, JournalError> {
        let fault = |error| self.fault(error);
        let mut reader = self.readers.acquire().await.map_err(fault)?;
        rows_holding(&mut reader, run, from_seq, part).await.map_err(fault)
    }

    /// Carries out what was computed, or says why not.
    pub(in crate::journal) async fn bury(
        &self,
        burials: &[Burial],
        named: &mut Named,
        key: &SealKey,
    ) -> Result<Result<Vec<Tombstone>, String>, JournalError> {
        let fault = |error| self.fault(error);
        let mut writer = self.writer().await?;
        sqlx::raw_sql("PRAGMA secure_delete = ON").execute(&mut *writer).await.map_err(fault)?;
        let mut tx = self.begin(&mut writer).await?;
        for burial in burials {
            let found = head(&mut tx, &burial.run).await.map_err(fault)?;
            if !found.is_some_and(|(seq, hash)| burial.is_of(seq, &hash)) {
                return Ok(Err(burial.moved_on()));
            }
            let lease = lease(&mut tx, &burial.run).await.map_err(fault)?;
            if lease.is_none_or(|lease| lease.generation != burial.generation || lease.owner.is_none()) {
                return Ok(Err(burial.taken_over()));
            }
        }
        for (run, from, seq) in named.news(heads(&mut tx).await.map_err(fault)?) {
            named.add(&run, seq, &rows_holding(&mut tx, &run, from, NAMES_TEXTS).await.map_err(fault)?)?;
        }
        let last = of_run(&mut tx, None).await.map_err(fault)?.pop();
        let stones = stones_of(burials, last.as_ref(), key)?;
        for digest in named.going(burials) {
            sqlx::query("DELETE FROM transcripts WHERE digest = ?")
                .bind(digest)
                .execute(&mut *tx)
                .await
                .map_err(fault)?;
        }
        for (burial, stone) in burials.iter().zip(&stones) {
            empty(&mut tx, burial, stone).await.map_err(fault)?;
            insert(&mut tx, stone).await.map_err(fault)?;
        }
        tx.commit().await.map_err(fault)?;
        for burial in burials {
            self.heads.forget(&burial.run);
        }
        Ok(Ok(stones))
    }

    /// Writes the file anew if `rewrite` says so, since pages keep fragments of what once lay in them, and empties the write-ahead
    /// log, which holds pages as they were. A large file is not rewritten while a driver works: its appends would wait too long.
    pub(in crate::journal) async fn tidy(&self, rewrite: bool, is_driven: bool) -> Result<Tidied, JournalError> {
        let fault = |error| self.fault(error);
        let large = std::fs::metadata(&*self.path).is_ok_and(|meta| meta.len() > DRIVEN_BYTES_MAX);
        let too_large = rewrite && is_driven && large;
        let mut writer = self.writer().await?;
        // Each try would wait as long as an append may.
        sqlx::raw_sql("PRAGMA busy_timeout = 100").execute(&mut *writer).await.map_err(fault)?;
        let mut left = if rewrite && !too_large { vec!["VACUUM", EMPTY_LOG] } else { vec![EMPTY_LOG] };
        for _ in 0..TRIES {
            while let Some(text) = left.first() {
                if !is_done(&mut writer, text).await.map_err(fault)? {
                    break;
                }
                left.remove(0);
            }
            if left.is_empty() {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        let again = format!("PRAGMA busy_timeout = {}", super::BUSY_WAIT.as_millis());
        sqlx::raw_sql(sqlx::AssertSqlSafe(again)).execute(&mut *writer).await.map_err(fault)?;
        Ok(match (left.is_empty(), rewrite) {
            (true, true) if too_large => Tidied::Driven,
            (true, true) => Tidied::Gone,
            (true, false) => Tidied::Fragments,
            (false, _) => Tidied::Busy,
        })
    }
}

/// Does one of the two; false if another process is in the way.
async fn is_done(conn: &mut SqliteConnection, text: &'static str) -> Result<bool, sqlx::Error> {
    match sqlx::query(text).fetch_optional(conn).await {
        // The log says itself whether somebody still reads it.
        Ok(Some(line)) => Ok(line.try_get::<i64, _>(0)? == 0),
        Ok(None) => Ok(true),
        Err(error) if matches!(primary_code(&error), Some(5 | 6)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The tombstones of a run, or all, in the order of their numbers.
pub(super) async fn of_run(conn: &mut SqliteConnection, run: Option<&RunId>) -> Result<Vec<Tombstone>, sqlx::Error> {
    let found: Vec<(i64, String, String, String, String)> = sqlx::query_as(
        "SELECT number, run, body, key, signature FROM tombstones WHERE ?1 IS NULL OR run = ?1 ORDER BY number",
    )
    .bind(run.map(RunId::as_str))
    .fetch_all(conn)
    .await?;
    Ok(found.into_iter().map(Tombstone::from).collect())
}

async fn heads(conn: &mut SqliteConnection) -> Result<Vec<(RunId, u64)>, sqlx::Error> {
    let found: Vec<(String, Option<i64>)> = sqlx::query_as(
        "SELECT r.run, (SELECT e.id & 4294967295 FROM events e
             WHERE e.id > r.number * 4294967296 AND e.id < (r.number + 1) * 4294967296 ORDER BY e.id DESC LIMIT 1)
         FROM runs r",
    )
    .fetch_all(conn)
    .await?;
    Ok(found.into_iter().map(|(run, seq)| (RunId::new(run), seq.unwrap_or(0).cast_unsigned())).collect())
}

/// The records of a run whose payload holds this.
async fn rows_holding(
    conn: &mut SqliteConnection,
    run: &RunId,
    from_seq: u64,
    part: &str,
) -> Result<Vec<Row>, sqlx::Error> {
    let text = format!("SELECT {ROW} FROM {OF_RUN} AND instr(e.payload, ?3) > 0 ORDER BY e.id");
    let query = sqlx::query(sqlx::AssertSqlSafe(text)).bind(run.as_str()).bind(from_seq.cast_signed()).bind(part);
    query.fetch_all(conn).await?.iter().map(|line| row(line, 0)).collect()
}

/// Takes away what the tombstone says.
async fn empty(conn: &mut SqliteConnection, burial: &Burial, stone: &Tombstone) -> Result<(), sqlx::Error> {
    if !burial.what.is_grave() {
        return Ok(());
    }
    let run = burial.run.as_str();
    sqlx::query("UPDATE runs SET pruned = ? WHERE run = ?")
        .bind(stone.number.cast_signed())
        .bind(run)
        .execute(&mut *conn)
        .await?;
    let head = burial.head.0.cast_signed();
    let of_run = "id > (SELECT number FROM runs WHERE run = ?1) * 4294967296
        AND id < (SELECT number FROM runs WHERE run = ?1) * 4294967296 + ?2";
    if burial.what == What::Run {
        let text = format!("DELETE FROM events WHERE {of_run}");
        sqlx::query(sqlx::AssertSqlSafe(text)).bind(run).bind(head).execute(&mut *conn).await?;
    }
    let kinds = serde_json::to_string(&burial.kinds).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let text = format!(
        "UPDATE events SET payload = '' WHERE {of_run}
         AND (?3 = '[]' OR kind IN (SELECT value FROM json_each(?3)))"
    );
    sqlx::query(sqlx::AssertSqlSafe(text)).bind(run).bind(head + 1).bind(kinds).execute(conn).await?;
    Ok(())
}

async fn insert(conn: &mut SqliteConnection, stone: &Tombstone) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO tombstones (number, run, body, key, signature) VALUES (?, ?, ?, ?, ?)")
        .bind(stone.number.cast_signed())
        .bind(stone.run.as_str())
        .bind(&stone.body)
        .bind(&stone.key)
        .bind(&stone.signature)
        .execute(conn)
        .await?;
    Ok(())
}
