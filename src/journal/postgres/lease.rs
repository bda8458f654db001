//! Leases by the server's clock.

use jiff::SignedDuration;
use sqlx::postgres::PgConnection;

use super::{Postgres, decode, lasting, time};
use crate::ids::RunId;
use crate::journal::JournalError;
use crate::journal::lease::{Lease, LeaseError, Owner};

impl Postgres {
    pub(in crate::journal) async fn claim(
        &self,
        run: &RunId,
        owner: &Owner,
        ttl: SignedDuration,
    ) -> Result<u64, LeaseError> {
        lasting!(self, conn => claim(conn, run, owner, ttl)).map_err(LeaseError::from)?
    }

    pub(in crate::journal) async fn renew(
        &self,
        run: &RunId,
        generation: u64,
        ttl: SignedDuration,
    ) -> Result<(), LeaseError> {
        let kept: bool = lasting!(self, conn => renew(conn, run, generation, ttl)).map_err(LeaseError::from)?;
        if kept {
            return Ok(());
        }
        Err(LeaseError::Lost { generation: self.head(run).await?.generation })
    }

    pub(in crate::journal) async fn release(&self, run: &RunId, generation: u64) -> Result<(), LeaseError> {
        let released: Result<_, JournalError> = lasting!(self, conn =>
            sqlx::query("UPDATE piton.leases SET owner = NULL WHERE run = $1 AND generation = $2")
                .bind(run.as_str())
                .bind(generation.cast_signed())
                .execute(conn));
        released?;
        Ok(())
    }

    /// Makes every lease older, as if time had passed.
    #[cfg(test)]
    pub(in crate::journal) async fn pass(&self, seconds: i64) {
        let passed: Result<_, JournalError> = lasting!(self, conn =>
            sqlx::query("UPDATE piton.leases SET until_ms = until_ms - $1").bind(seconds * 1000).execute(conn));
        passed.expect("the server is there");
    }
}

/// Looks, judges, and takes the lease if it is still what was looked at.
async fn claim(
    conn: &mut PgConnection,
    run: &RunId,
    owner: &Owner,
    ttl: SignedDuration,
) -> Result<Result<u64, LeaseError>, sqlx::Error> {
    let name = serde_json::to_string(owner).map_err(|error| sqlx::Error::Encode(error.into()))?;
    loop {
        let found: Option<(i64, Option<String>, i64, i64)> = sqlx::query_as(
            "SELECT generation, owner, until_ms, (extract(epoch FROM clock_timestamp()) * 1000)::bigint
             FROM piton.leases WHERE run = $1",
        )
        .bind(run.as_str())
        .fetch_optional(&mut *conn)
        .await?;
        let (generation, seen_owner, seen_until) = match found {
            None => (0, None, 0),
            Some((generation, holder, until_ms, now_ms)) => {
                let parsed = holder.as_deref().map(serde_json::from_str).transpose();
                let lease = Lease {
                    generation: generation.cast_unsigned(),
                    owner: parsed.map_err(|error| decode("owner", error))?,
                    until: time(until_ms)?,
                };
                if !lease.is_free(owner, time(now_ms)?)
                    && let Some(holder) = lease.owner
                {
                    return Ok(Err(LeaseError::Held { owner: holder, until: lease.until }));
                }
                (generation, holder, until_ms)
            }
        };
        let taken = sqlx::query(
            "INSERT INTO piton.leases AS l (run, generation, owner, until_ms)
             VALUES ($1, $2 + 1, $3, (extract(epoch FROM clock_timestamp()) * 1000)::bigint + $4)
             ON CONFLICT (run) DO UPDATE
             SET generation = excluded.generation, owner = excluded.owner, until_ms = excluded.until_ms
             WHERE l.generation = $2 AND l.until_ms = $5 AND l.owner IS NOT DISTINCT FROM $6",
        )
        .bind(run.as_str())
        .bind(generation)
        .bind(&name)
        .bind(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX))
        .bind(seen_until)
        .bind(seen_owner)
        .execute(&mut *conn)
        .await?;
        if taken.rows_affected() == 1 {
            return Ok(Ok(generation.cast_unsigned() + 1));
        }
    }
}

async fn renew(
    conn: &mut PgConnection,
    run: &RunId,
    generation: u64,
    ttl: SignedDuration,
) -> Result<bool, sqlx::Error> {
    let renewed = sqlx::query(
        "UPDATE piton.leases SET until_ms = (extract(epoch FROM clock_timestamp()) * 1000)::bigint + $3
         WHERE run = $1 AND generation = $2 AND owner IS NOT NULL",
    )
    .bind(run.as_str())
    .bind(generation.cast_signed())
    .bind(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX))
    .execute(conn)
    .await?;
    Ok(renewed.rows_affected() == 1)
}
