//! Pruning on the server: one transaction, during which nobody says anything new.

use std::collections::BTreeSet;

use sqlx::Connection as _;
use sqlx::postgres::PgConnection;

use super::{Postgres, lasting, row};
use crate::ids::RunId;
use crate::journal::JournalError;
use crate::journal::chain::{NAMES_TEXTS, Row};
use crate::journal::prune::{Burial, HAS_ENDS, Named, Tidied, Tombstone, What, stones_of};
use crate::journal::seal::SealKey;

/// What came of it, apart from the server's own failures.
type Answer<T> = Result<Result<T, JournalError>, sqlx::Error>;

/// Buried, or why not.
type Buried = Result<Vec<Tombstone>, String>;

impl Postgres {
    /// The tombstones of a run, or all.
    pub(in crate::journal) async fn tombstones(&self, run: Option<&RunId>) -> Result<Vec<Tombstone>, JournalError> {
        lasting!(self, conn => of_run(conn, run))
    }

    /// The latest tombstones of runs on a site whose ends only they tell.
    pub(in crate::journal) async fn graves_with_ends(&self, site: &str) -> Result<Vec<Tombstone>, JournalError> {
        let found: Vec<(i64, String, String, String, String)> = lasting!(self, conn => sqlx::query_as(
            "SELECT t.number, t.run, t.body, t.key, t.signature
             FROM piton.runs r JOIN piton.tombstones t ON t.number = r.pruned
             WHERE r.site = $1 AND strpos(t.body, $2) > 0 ORDER BY t.number",
        )
        .bind(site)
        .bind(HAS_ENDS)
        .fetch_all(conn))?;
        Ok(found.into_iter().map(Tombstone::from).collect())
    }

    pub(in crate::journal) async fn heads_of_all(&self) -> Result<Vec<(RunId, u64)>, JournalError> {
        lasting!(self, conn => heads(conn))
    }

    pub(in crate::journal) async fn rows_holding(
        &self,
        run: &RunId,
        from_seq: u64,
        part: &str,
    ) -> Result<Vec<Row>, JournalError> {
        lasting!(self, conn => rows_holding(conn, run, from_seq, part))
    }

    /// Carries out what was computed, or says why not.
    pub(in crate::journal) async fn bury(
        &self,
        burials: &[Burial],
        named: &mut Named,
        key: &SealKey,
    ) -> Result<Buried, JournalError> {
        let answer: Result<Result<Buried, JournalError>, JournalError> =
            lasting!(self, conn => in_transaction(conn, burials, named, key));
        let buried = answer??;
        for burial in burials {
            self.heads.forget(&burial.run);
        }
        Ok(buried)
    }

    /// Has the server take back the room; when it overwrites the bytes is its business.
    pub(in crate::journal) async fn tidy(&self, rewrite: bool) -> Result<Tidied, JournalError> {
        if !rewrite {
            return Ok(Tidied::Server);
        }
        let fault = |error| self.line.fault(error);
        let mut conn = PgConnection::connect_with(self.line.options()).await.map_err(fault)?;
        for text in
            ["SET statement_timeout = 0", "SET lock_timeout = 0", "VACUUM piton.events", "VACUUM piton.transcripts"]
        {
            sqlx::raw_sql(text).execute(&mut conn).await.map_err(fault)?;
        }
        conn.close().await.map_err(fault)?;
        Ok(Tidied::Server)
    }
}

async fn in_transaction(
    conn: &mut PgConnection,
    burials: &[Burial],
    named: &mut Named,
    key: &SealKey,
) -> Answer<Buried> {
    let mut tx = conn.begin().await?;
    let answer = bury(&mut tx, burials, named, key).await?;
    // Told at once: until the server hears of the end, tables stay locked.
    if matches!(answer, Ok(Ok(_))) {
        tx.commit().await?;
    } else {
        tx.rollback().await?;
    }
    Ok(answer)
}

async fn bury(tx: &mut PgConnection, burials: &[Burial], named: &mut Named, key: &SealKey) -> Answer<Buried> {
    // Whoever records a word of a person waits, or is waited for. Before the tables: who records has the line first, too.
    let runs: BTreeSet<&str> = burials.iter().map(|burial| burial.run.as_str()).collect();
    for run in runs {
        sqlx::query("SELECT 1 FROM piton.runs WHERE run = $1 FOR UPDATE").bind(run).execute(&mut *tx).await?;
    }
    // Whoever says something waits, and so does who prunes at the same time.
    let lock = "LOCK TABLE piton.tombstones, piton.transcripts IN SHARE ROW EXCLUSIVE MODE";
    sqlx::raw_sql(lock).execute(&mut *tx).await?;
    let mut there = Vec::new();
    for burial in burials {
        there.extend(burial.done(&of_run(tx, Some(&burial.run)).await?).cloned());
    }
    if there.len() == burials.len() {
        // The answer to an earlier try was lost.
        return Ok(Ok(Ok(there)));
    }
    for burial in burials {
        let run = burial.run.as_str();
        let head: Option<(i64, String)> =
            sqlx::query_as("SELECT seq, hash FROM piton.events WHERE run = $1 ORDER BY seq DESC LIMIT 1")
                .bind(run)
                .fetch_optional(&mut *tx)
                .await?;
        if !head.is_some_and(|(seq, hash)| burial.is_of(seq.cast_unsigned(), &hash)) {
            return Ok(Ok(Err(burial.moved_on())));
        }
        let lease: Option<(i64, bool)> =
            sqlx::query_as("SELECT generation, owner IS NOT NULL FROM piton.leases WHERE run = $1 FOR SHARE")
                .bind(run)
                .fetch_optional(&mut *tx)
                .await?;
        if lease != Some((burial.generation.cast_signed(), true)) {
            return Ok(Ok(Err(burial.taken_over())));
        }
    }
    for (run, from, seq) in named.news(heads(tx).await?) {
        if let Err(error) = named.add(&run, seq, &rows_holding(tx, &run, from, NAMES_TEXTS).await?) {
            return Ok(Err(error));
        }
    }
    let stones = match stones_of(burials, of_run(tx, None).await?.last(), key) {
        Ok(stones) => stones,
        Err(error) => return Ok(Err(error)),
    };
    sqlx::query("DELETE FROM piton.transcripts WHERE digest = ANY($1)")
        .bind(named.going(burials))
        .execute(&mut *tx)
        .await?;
    for (burial, stone) in burials.iter().zip(&stones) {
        empty(tx, burial, stone).await?;
        insert(tx, stone).await?;
    }
    Ok(Ok(Ok(stones)))
}

/// The tombstones of a run, or all, in the order of their numbers.
pub(super) async fn of_run(conn: &mut PgConnection, run: Option<&RunId>) -> Result<Vec<Tombstone>, sqlx::Error> {
    let found: Vec<(i64, String, String, String, String)> = sqlx::query_as(
        "SELECT number, run, body, key, signature FROM piton.tombstones
         WHERE $1::text IS NULL OR run = $1 ORDER BY number",
    )
    .bind(run.map(RunId::as_str))
    .fetch_all(conn)
    .await?;
    Ok(found.into_iter().map(Tombstone::from).collect())
}

async fn heads(conn: &mut PgConnection) -> Result<Vec<(RunId, u64)>, sqlx::Error> {
    let found: Vec<(String, i64)> = sqlx::query_as(
        "SELECT r.run, coalesce((SELECT seq FROM piton.events e WHERE e.run = r.run ORDER BY seq DESC LIMIT 1), 0)
         FROM piton.runs r",
    )
    .fetch_all(conn)
    .await?;
    Ok(found.into_iter().map(|(run, seq)| (RunId::new(run), seq.cast_unsigned())).collect())
}

/// The records of a run whose payload holds this.
async fn rows_holding(
    conn: &mut PgConnection,
    run: &RunId,
    from_seq: u64,
    part: &str,
) -> Result<Vec<Row>, sqlx::Error> {
    let found =
        sqlx::query("SELECT * FROM piton.events WHERE run = $1 AND seq >= $2 AND strpos(payload, $3) > 0 ORDER BY seq")
            .bind(run.as_str())
            .bind(from_seq.cast_signed())
            .bind(part)
            .fetch_all(conn)
            .await?;
    found.iter().map(row).collect()
}

/// Takes away what the tombstone says.
async fn empty(tx: &mut PgConnection, burial: &Burial, stone: &Tombstone) -> Result<(), sqlx::Error> {
    if !burial.what.is_grave() {
        return Ok(());
    }
    let (run, head) = (burial.run.as_str(), burial.head.0.cast_signed());
    sqlx::query("UPDATE piton.runs SET pruned = $1 WHERE run = $2")
        .bind(stone.number.cast_signed())
        .bind(run)
        .execute(&mut *tx)
        .await?;
    if burial.what == What::Run {
        sqlx::query("DELETE FROM piton.events WHERE run = $1 AND seq < $2")
            .bind(run)
            .bind(head)
            .execute(&mut *tx)
            .await?;
    }
    sqlx::query(
        "UPDATE piton.events SET payload = ''
         WHERE run = $1 AND seq <= $2 AND (cardinality($3::text[]) = 0 OR kind = ANY($3))",
    )
    .bind(run)
    .bind(head)
    .bind(&burial.kinds)
    .execute(tx)
    .await?;
    Ok(())
}

async fn insert(tx: &mut PgConnection, stone: &Tombstone) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO piton.tombstones (number, run, body, key, signature) VALUES ($1, $2, $3, $4, $5)")
        .bind(stone.number.cast_signed())
        .bind(stone.run.as_str())
        .bind(&stone.body)
        .bind(&stone.key)
        .bind(&stone.signature)
        .execute(tx)
        .await?;
    Ok(())
}
