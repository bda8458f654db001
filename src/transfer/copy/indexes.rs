//! Takes the keys and indexes of an empty PostgreSQL table away before it is loaded and builds them again afterwards.
//!
//! What is taken away is written into the table `piton_index` of the target in the same transaction, so that no crash can lose it; it is
//! built again in the transaction that marks the table as done, or when the copy is forgotten. Leaves a table alone whose indexes say
//! more than their definition shows. Called by `copy`, and by `checkpoint::forget`.

use super::super::engine::Engine;
use super::super::error::TransferError;
use super::super::plan::TablePlan;
use super::super::schema::{one, text};
use super::super::session::{Arg, Begin, Session};
use super::super::value::Value;
use super::request::cores;

/// The table of what is to be built again.
pub(in super::super) const TABLE: &str = "piton_index";

const CREATE: &str = "CREATE TABLE IF NOT EXISTS piton_index (token TEXT NOT NULL, table_name TEXT NOT NULL, position BIGINT NOT NULL, \
                      statement TEXT NOT NULL, PRIMARY KEY (token, table_name, position))";

/// Counts what forbids to take the indexes of a table away: a place, options, a comment or a role that would be lost.
const SPECIAL: &str = "SELECT ((SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
    WHERE i.indrelid = to_regclass($1::text) AND (c.reloptions IS NOT NULL OR c.reltablespace <> 0 OR i.indisreplident \
    OR i.indisclustered OR NOT i.indisvalid OR obj_description(c.oid, 'pg_class') IS NOT NULL)) \
    + (SELECT count(*) FROM pg_constraint k WHERE (k.conrelid = to_regclass($2::text) OR k.confrelid = to_regclass($3::text)) \
    AND k.contype IN ('p', 'u', 'x', 'f') AND (obj_description(k.oid, 'pg_constraint') IS NOT NULL OR k.coninhcount > 0)) \
    + (SELECT count(*) FROM pg_class c WHERE c.oid = to_regclass($4::text) AND (c.relkind <> 'r' OR c.relhassubclass OR c.relispartition)) \
    )::text";

/// How each is dropped and made: foreign keys, then constraints, then plain indexes; they are built in the opposite order.
const DEFINITIONS: &str = "SELECT drop_it, make_it FROM ( \
    SELECT 0 AS rank, k.conname AS name, format('ALTER TABLE %s DROP CONSTRAINT %I', k.conrelid::regclass, k.conname) AS drop_it, \
    format('ALTER TABLE %s ADD CONSTRAINT %I %s', k.conrelid::regclass, k.conname, pg_get_constraintdef(k.oid)) AS make_it \
    FROM pg_constraint k WHERE k.contype = 'f' AND (k.conrelid = to_regclass($1::text) OR k.confrelid = to_regclass($2::text)) \
    UNION ALL SELECT 2, k.conname, format('ALTER TABLE %s DROP CONSTRAINT %I', k.conrelid::regclass, k.conname), \
    format('ALTER TABLE %s ADD CONSTRAINT %I %s', k.conrelid::regclass, k.conname, pg_get_constraintdef(k.oid)) \
    FROM pg_constraint k WHERE k.contype IN ('p', 'u', 'x') AND k.conrelid = to_regclass($3::text) \
    UNION ALL SELECT 1, i.indexrelid::regclass::text, format('DROP INDEX %s', i.indexrelid::regclass), pg_get_indexdef(i.indexrelid) \
    FROM pg_index i WHERE i.indrelid = to_regclass($4::text) \
    AND NOT EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x'))) AS d \
    ORDER BY rank, name";

/// Names in definitions are written out in full, whatever the search path.
const FULL_NAMES: &str = "SET LOCAL search_path = pg_catalog";
/// Megabytes of memory for what is no sort: checks of foreign keys, indexes of other kinds.
const WORK: u64 = 256;
/// Fewest megabytes of each process that sorts for one index: below them PostgreSQL lets fewer of them work
/// (`plan_create_index_workers`). More of it is slower, as it is no longer the processor's cache in which they sort.
const SORT_LEAST: u64 = 32;
/// Parts that are merged at once, with that memory.
const MERGED: u64 = 100;
/// How many may sort for one index, and how large the table is.
const SORTERS: &str = "SELECT (COALESCE(current_setting('max_parallel_maintenance_workers', true), '0')::int8 + 1)::text, \
                       COALESCE(pg_relation_size(to_regclass(NULLIF($1::text, ''))), 0)::int8::text";

/// Takes them away where the table is empty and nothing would be lost; true when something was taken.
pub(super) async fn take_away(target: &mut Session, token: &str, plan: &TablePlan) -> Result<bool, TransferError> {
    if target.engine() != Engine::Postgres {
        return Err(TransferError::request(format!(
            "`{}`: `indexes: after` is for PostgreSQL targets; {} builds its indexes as rows come",
            plan.target.name,
            target.engine()
        )));
    }
    let table = full_name(target, &plan.target.quoted()).await?;
    target.begin(Begin::Write).await?;
    let answer = take_away_in(target, token, plan, &table).await;
    match answer {
        Ok(true) => target.commit().await?,
        Ok(false) | Err(_) => target.rollback().await?,
    }
    answer
}

/// Waits until no other table of a copy is at what locks several tables, without the limit that is meant for locks of others.
async fn one_at_a_time(target: &mut Session) -> Result<(), TransferError> {
    let limit = target.rows("SELECT current_setting('lock_timeout')", Vec::new()).await?;
    let limit = limit.first().and_then(|row| row.first()).map(text).unwrap_or_default();
    target.run("SET LOCAL lock_timeout = 0", Vec::new()).await?;
    target.run("SELECT pg_advisory_xact_lock(hashtext('piton_checkpoint'))", Vec::new()).await?;
    target.run("SELECT set_config('lock_timeout', ($1::text), true)", one(&limit)).await.map(drop)
}

/// The name with its schema, as SQL reads it.
async fn full_name(target: &mut Session, quoted: &str) -> Result<String, TransferError> {
    let sql = "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
               WHERE c.oid = to_regclass($1::text)";
    let rows = target.rows(sql, one(quoted)).await?;
    Ok(rows.first().and_then(|row| row.first()).map_or_else(|| quoted.to_owned(), text))
}

async fn take_away_in(target: &mut Session, token: &str, plan: &TablePlan, table: &str) -> Result<bool, TransferError> {
    one_at_a_time(target).await?;
    target.run(CREATE, Vec::new()).await?;
    target.run(&format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"), Vec::new()).await?;
    let filled = target.rows(&format!("SELECT 1::text FROM {table} LIMIT 1"), Vec::new()).await?;
    let names = |count: usize| vec![Arg::One(Value::Text(table.to_owned())); count];
    if !filled.is_empty() || target.number(SPECIAL, names(4)).await? != Some(0) {
        return Ok(false);
    }
    let own = full_name(target, TABLE).await?;
    target.run(FULL_NAMES, Vec::new()).await?;
    let found = target.rows(DEFINITIONS, names(4)).await?;
    let insert = format!(
        "INSERT INTO {own} (token, table_name, position, statement) VALUES (($1::text), ($2::text), ($3::text)::int8, ($4::text))"
    );
    for (position, row) in found.iter().enumerate() {
        let [drop, make] = row.as_slice() else { continue };
        let position = Value::Int(i64::try_from(position).unwrap_or(i64::MAX));
        let args = [Value::Text(token.to_owned()), Value::Text(plan.source.name.clone()), position, make.clone()];
        target.run(&insert, args.into_iter().map(Arg::One).collect()).await?;
        target.run(&text(drop), Vec::new()).await?;
    }
    Ok(!found.is_empty())
}

/// Megabytes of memory for the sort of a table of so many bytes by so many processes. It grows only with a table that could not be merged at once.
fn sort_memory(bytes: u64, sorters: u64) -> u64 {
    let share = bytes / (1 << 20) / sorters.max(1) / MERGED;
    share.clamp(SORT_LEAST, WORK) * sorters.max(1)
}

/// Whether a statement sorts the rows of a table: the index is a b-tree, as that of every key is.
fn is_sort(statement: &str) -> bool {
    [" PRIMARY KEY ", " UNIQUE ", " USING btree "].iter().any(|mark| statement.contains(mark))
}

/// Memory for the sorts of the indexes of `table`, in megabytes.
async fn sort_memory_of(target: &mut Session, table: &str) -> Result<u64, TransferError> {
    let found = target.rows(SORTERS, one(table)).await?;
    let number = |place: usize| {
        let value = found.first().and_then(|row| row.get(place)).and_then(Value::as_integer);
        value.and_then(|number| u64::try_from(number).ok()).unwrap_or(0)
    };
    // How many processors the server has, nobody tells; it seldom has fewer than this machine.
    Ok(sort_memory(number(1), number(0).min(u64::try_from(cores()).unwrap_or(1).max(2))))
}

/// Builds what was taken away from one table, in the caller's transaction; `table` is its quoted name on the target, where that is known.
pub(super) async fn build(
    target: &mut Session,
    token: &str,
    source_table: &str,
    table: Option<&str>,
) -> Result<bool, TransferError> {
    if target.engine() != Engine::Postgres
        || target.number(&Engine::Postgres.has_table(TABLE), Vec::new()).await? != Some(1)
    {
        return Ok(false);
    }
    let args = || [token, source_table].map(|name| Arg::One(Value::Text(name.to_owned()))).to_vec();
    let sql =
        "SELECT statement FROM piton_index WHERE token = ($1::text) AND table_name = ($2::text) ORDER BY position DESC";
    let statements = target.rows(sql, args()).await?;
    if statements.is_empty() {
        return Ok(false);
    }
    target.run("DELETE FROM piton_index WHERE token = ($1::text) AND table_name = ($2::text)", args()).await?;
    let sort = sort_memory_of(target, table.unwrap_or_default()).await?;
    let statements: Vec<String> = statements.iter().filter_map(|row| row.first().map(text)).collect();
    // Those come last. Each locks two tables, which others may lock in another order: so no two copies are at it at the same time.
    let first = statements.iter().position(|statement| statement.contains(" FOREIGN KEY "));
    for (place, statement) in statements.iter().enumerate() {
        if Some(place) == first {
            one_at_a_time(target).await?;
        }
        let memory = if is_sort(statement) { sort } else { WORK };
        target.run(&format!("SET LOCAL maintenance_work_mem = '{memory}MB'"), Vec::new()).await?;
        target.run(statement, Vec::new()).await?;
    }
    Ok(true)
}

/// Builds what a copy took away from any table and did not build again.
pub(in super::super) async fn build_all(target: &mut Session, token: &str) -> Result<(), TransferError> {
    if target.engine() != Engine::Postgres
        || target.number(&Engine::Postgres.has_table(TABLE), Vec::new()).await? != Some(1)
    {
        return Ok(());
    }
    let sql = "SELECT DISTINCT table_name FROM piton_index WHERE token = ($1::text)";
    for row in target.rows(sql, one(token)).await? {
        let table = row.first().map(text).unwrap_or_default();
        target.begin(Begin::Write).await?;
        build(target, token, &table, None).await?;
        target.commit().await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sort_gets_no_more_memory_than_it_needs() {
        const GIB: u64 = 1 << 30;
        assert_eq!([0, GIB, 6 * GIB].map(|bytes| sort_memory(bytes, 2)), [64, 64, 64]);
        assert_eq!(sort_memory(GIB, 3), 96);
        assert_eq!(sort_memory(20 * GIB, 2), 2 * 102, "parts of more, so that they are merged at once");
        assert_eq!(sort_memory(10_000 * GIB, 3), 3 * WORK);
        assert_eq!(sort_memory(GIB, 0), 32);
    }

    #[test]
    fn only_what_sorts_is_a_sort() {
        assert!(is_sort("ALTER TABLE public.t ADD CONSTRAINT t_pkey PRIMARY KEY (a)"));
        assert!(is_sort("ALTER TABLE public.t ADD CONSTRAINT t_a_key UNIQUE (a)"));
        assert!(is_sort("CREATE INDEX i ON public.t USING btree (a)"));
        assert!(!is_sort("CREATE INDEX i ON public.t USING gin (a)"));
        assert!(!is_sort("ALTER TABLE public.t ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES public.u(a)"));
        assert!(!is_sort("ALTER TABLE public.t ADD CONSTRAINT x EXCLUDE USING gist (a WITH =)"));
    }
}
