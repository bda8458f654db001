//! Copies several tables at the same time where nothing is against it: their readers share one snapshot, and none refers to another.
//!
//! The tables of a set keep their order: it is cut into groups, each begins when the one before is done, and only within a group are tables
//! copied side by side. A large table that has connections of its own stands alone. An error in one table ends the others between two of their chunks.
//! Called by `copy`.

use std::collections::VecDeque;
use std::ops::Range;

use futures_util::future::join_all;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::super::engine::Engine;
use super::super::error::TransferError;
use super::super::schema::one;
use super::super::value::Value;
use super::report::TableReport;
use super::wire::Facts;
use super::{Copier, Indexes, Work, heap};

/// Rows from which a table that is read page by page is worth all connections.
const LARGE: u64 = 200_000;
/// Cuts a set into groups of tables that may be copied side by side: `refers` says whether either of two tables refers to the other.
pub(super) fn groups(
    tables: usize,
    is_alone: impl Fn(usize) -> bool,
    refers: impl Fn(usize, usize) -> bool,
) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    for table in 0..tables {
        match groups.last_mut() {
            Some(group)
                if !is_alone(table) && !is_alone(group.start) && !group.clone().any(|other| refers(other, table)) =>
            {
                group.end = table + 1;
            }
            _ => groups.push(table..table + 1),
        }
    }
    groups
}

impl Copier<'_> {
    /// Finds out which tables may be copied side by side.
    pub(super) async fn groups(&mut self, work: &[Work]) -> Result<Vec<Range<usize>>, TransferError> {
        let one_by_one = self.request.throttle.is_set() || self.request.parallel() == 1 || work.len() == 1;
        // Only PostgreSQL lends its snapshot.
        let may_share = self.source.engine() == Engine::Postgres && !one_by_one;
        let Some((references, identity)) = self.target.engine().references().filter(|_| may_share) else {
            return Ok((0..work.len()).map(|table| table..table + 1).collect());
        };
        let pairs = self.target.rows(references, Vec::new()).await?;
        let mut tables = Vec::new();
        for work in work {
            let target = &work.plan.target;
            let name = if self.target.engine() == Engine::Postgres { target.quoted() } else { target.name.clone() };
            let found = self.target.rows(identity, one(&name)).await?;
            let identity = found.into_iter().next().and_then(|row| row.into_iter().next());
            tables.push((identity, self.has_own_connections(work).await?));
        }
        let refers = |a: usize, b: usize| {
            let (a, b) = (tables[a].0.as_ref(), tables[b].0.as_ref());
            let is_pair = |pair: &Vec<Value>| {
                let pair = (pair.first(), pair.get(1));
                pair == (a, b) || pair == (b, a)
            };
            // Two mappings into one table are no two tables.
            a == b || pairs.iter().any(is_pair)
        };
        Ok(groups(work.len(), |table| tables[table].1, refers))
    }

    /// Whether a table is large and will be read page by page.
    async fn has_own_connections(&mut self, Work { plan, state, rows, .. }: &Work) -> Result<bool, TransferError> {
        if self.target.engine() != Engine::Postgres || state.done || rows.is_some_and(|rows| rows < LARGE) {
            return Ok(false);
        }
        let facts = Facts::ask(&mut self.target, &plan.target.quoted()).await?;
        Ok(self.request.indexes == Indexes::After || facts.is_some_and(|facts| !facts.has_index))
    }

    /// Copiers for the same snapshot, as many as `most` tables want besides this one; fewer where there are no connections to be had.
    pub(super) async fn others(&mut self, most: usize) -> Result<Vec<Self>, TransferError> {
        let mut others = Vec::new();
        if most < 2 {
            return Ok(others);
        }
        let (_, id) = self.snapshot().await?;
        for _ in 1..most.min(self.request.parallel()) {
            let Some((source, target)) = heap::both(self.request, (self.from, self.to), &id).await else { break };
            let (from, to, request, pace) = (self.from, self.to, self.request, self.pace.another());
            others.push(Self { from, to, request, pace, source, reader: None, snapshot: None, stream: None, target });
        }
        Ok(others)
    }
}

/// Copies the tables of a group, each with its place in the set; `connections` to either side are for all of them. After an error no other is begun, and those under way end at a chunk.
pub(super) async fn side_by_side(
    lanes: &mut [Copier<'_>],
    group: Vec<(usize, Work)>,
    connections: usize,
    stop: &CancellationToken,
) -> Result<Vec<(usize, TableReport)>, TransferError> {
    let at_once = lanes.len().min(group.len()).max(1);
    let queue = Mutex::new(VecDeque::from(group));
    let share = (connections / at_once).max(1);
    let done = join_all(lanes.iter_mut().map(|copier| lane(copier, &queue, share, stop))).await;
    let (done, errors): (Vec<_>, Vec<_>) = done.into_iter().flatten().partition(Result::is_ok);
    let mut errors: Vec<TransferError> = errors.into_iter().filter_map(Result::err).collect();
    // What had to end because another failed says nothing of its own.
    let cause = errors.iter().position(|error| !matches!(error, TransferError::Cancelled { .. })).unwrap_or(0);
    if errors.is_empty() { Ok(done.into_iter().flatten().collect()) } else { Err(errors.swap_remove(cause)) }
}

async fn lane(
    copier: &mut Copier<'_>,
    queue: &Mutex<VecDeque<(usize, Work)>>,
    connections: usize,
    stop: &CancellationToken,
) -> Vec<Result<(usize, TableReport), TransferError>> {
    let mut all = Vec::new();
    loop {
        let Some((place, work)) = queue.lock().await.pop_front() else { return all };
        let done = copier.one(work, None, connections).await;
        let is_over = done.is_err();
        all.push(done.map(|report| (place, report)));
        if is_over {
            stop.cancel();
            return all;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_cut_where_a_table_refers_or_stands_alone_and_keeps_its_order() {
        let cut = |tables, alone: &[usize], refers: &[(usize, usize)]| {
            groups(tables, |table| alone.contains(&table), |a, b| refers.contains(&(b, a)) || refers.contains(&(a, b)))
        };
        assert!(cut(0, &[], &[]).is_empty());
        assert_eq!(cut(4, &[], &[]), vec![0..4; 1]);
        assert_eq!(cut(4, &[], &[(2, 0)]), [0..2, 2..4], "the third refers to the first");
        assert_eq!(cut(4, &[], &[(3, 0)]), [0..3, 3..4]);
        assert_eq!(cut(4, &[1], &[]), [0..1, 1..2, 2..4], "a large one stands alone");
        assert_eq!(cut(3, &[0, 1, 2], &[]), [0..1, 1..2, 2..3]);
        assert_eq!(cut(3, &[], &[(1, 0), (2, 1)]), [0..1, 1..2, 2..3]);
    }
}
