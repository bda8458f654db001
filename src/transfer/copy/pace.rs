//! How a copy holds back, and what it tells meanwhile: so many rows and bytes a second, nothing while a query says that somebody else
//! needs the database, nothing more once it is cancelled.
//!
//! Waits between two chunks only, when no transaction of the target is open. A copy that is not throttled pays one comparison for each chunk.
//! Refuses an answer that says neither yes nor no. Used by every way of `copy`.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use tokio_util::sync::CancellationToken;

use super::super::database::Database;
use super::super::error::TransferError;
use super::super::statement::{Binds, StatementOptions, query};
use super::report::{CopyProgress, per_second};

/// Longest time for the answer to [`PauseWhile`].
const ANSWER: Duration = Duration::from_secs(30);

/// What a copy may take of the time of others; the default is everything.
#[derive(Debug, Clone, Default)]
pub struct Throttle {
    /// Most rows per second; a chunk is never more than that.
    pub rows_per_second: Option<u64>,
    /// Most bytes per second: those of binary COPY where bytes pass as they are, else the length of the values.
    pub bytes_per_second: Option<u64>,
    /// When to wait altogether.
    pub pause_while: Option<PauseWhile>,
}

/// A question that is asked between chunks; the copy waits as long as the answer is true.
#[derive(Debug, Clone)]
pub struct PauseWhile {
    /// Where it is asked.
    pub database: Database,
    /// One query; the first value of its first row counts: true, or a number that is not 0.
    pub sql: String,
    /// Values for `:name` in it.
    pub binds: Binds,
    /// How often it is asked.
    pub every: Duration,
}

impl PauseWhile {
    async fn is_busy(&self) -> Result<bool, TransferError> {
        let options = StatementOptions { timeout: Some(ANSWER), keep_rows: 1 };
        let wrong = |why: String| TransferError::request(format!("`pause_while` cannot be decided: {why}"));
        let found = query(&self.database, &self.sql, &self.binds, options).await;
        let found = found.map_err(|error| wrong(error.to_string()))?;
        let first = found.columns.first().and_then(|name| found.rows.first()?.get(name));
        let answer = match first {
            None | Some(Json::Null) => Some(false),
            Some(Json::Bool(answer)) => Some(*answer),
            Some(Json::Number(number)) => number.as_f64().map(|number| number != 0.0),
            Some(Json::String(text)) => text.parse::<f64>().ok().map(|number| number != 0.0),
            Some(Json::Array(_) | Json::Object(_)) => None,
        };
        answer.ok_or_else(|| wrong(format!("it answers {}, neither true nor false", first.unwrap_or(&Json::Null))))
    }
}

impl Throttle {
    /// Whether it may wait at all.
    pub(super) fn is_set(&self) -> bool {
        self.has_rate() || self.pause_while.is_some()
    }

    fn has_rate(&self) -> bool {
        self.rows_per_second.is_some() || self.bytes_per_second.is_some()
    }

    /// How long so many rows and bytes take at least.
    fn cost(&self, rows: u64, bytes: u64) -> Duration {
        let one = |amount: u64, limit: Option<u64>| {
            let micros = limit.map_or(0, |limit| u128::from(amount) * 1_000_000 / u128::from(limit.max(1)));
            Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
        };
        one(rows, self.rows_per_second).max(one(bytes, self.bytes_per_second))
    }
}

/// What is known of the table under way, and of the tables before.
struct Seen {
    started: Instant,
    /// Rows of earlier tables, and the time that they took.
    before: (u64, Duration),
    /// Rows of the tables behind this one; none where nobody knows.
    ahead: Option<u64>,
    /// Time in which the question was answered with true.
    waited: Duration,
    rows: u64,
    bytes: u64,
    told: CopyProgress,
}

impl Seen {
    /// Time of work on this table.
    fn worked(&self) -> Duration {
        self.started.elapsed().saturating_sub(self.waited)
    }

    /// Time that is left, at the speed of all tables so far.
    fn left(&self) -> Option<Duration> {
        let rate = per_second(self.before.0 + self.rows, self.before.1 + self.worked());
        let left = self.ahead? + self.told.rows_total.saturating_sub(self.told.rows_done);
        let is_known = self.told.rows_total > 0 && rate > 0.0;
        #[expect(clippy::cast_precision_loss, reason = "an estimate for people")]
        let seconds = is_known.then(|| left as f64 / rate)?;
        Duration::try_from_secs_f64(seconds).ok()
    }

    fn new() -> Self {
        Self {
            started: Instant::now(),
            before: (0, Duration::ZERO),
            ahead: None,
            waited: Duration::ZERO,
            rows: 0,
            bytes: 0,
            told: CopyProgress::default(),
        }
    }
}

/// The pace of one copy, shared by everything that works on it.
pub(super) struct Pace<'a> {
    throttle: &'a Throttle,
    progress: &'a (dyn Fn(CopyProgress) + Sync),
    cancel: &'a CancellationToken,
    /// When the next chunk may begin.
    due: Mutex<Option<Instant>>,
    /// When the question was answered with false; who holds it asks.
    asked: tokio::sync::Mutex<Option<Instant>>,
    seen: Mutex<Seen>,
}

impl<'a> Pace<'a> {
    pub(super) fn new(
        throttle: &'a Throttle,
        progress: &'a (dyn Fn(CopyProgress) + Sync),
        cancel: &'a CancellationToken,
    ) -> Self {
        let (due, asked, seen) = (Mutex::default(), tokio::sync::Mutex::default(), Mutex::new(Seen::new()));
        Self { throttle, progress, cancel, due, asked, seen }
    }

    /// The pace of another table at the same time: the same rules, an account of its own. Not for a copy that keeps a rate.
    pub(super) fn another(&self) -> Self {
        Self::new(self.throttle, self.progress, self.cancel)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says how many rows there are in the tables behind the next one.
    pub(super) fn expect(&self, ahead: Option<u64>) {
        self.seen().ahead = ahead;
    }

    /// Begins to account for another table, of which `done` rows are committed, or says more of the one under way.
    pub(super) fn begin(&self, table: &str, done: u64, total: Option<u64>, is_counted: bool) {
        let told = CopyProgress {
            table: table.to_owned(),
            rows_done: done,
            rows_total: total.map_or(0, |total| total.max(done)),
            is_counted,
            ..CopyProgress::default()
        };
        let mut seen = self.seen();
        if seen.told.table == table {
            seen.told = told;
            return;
        }
        let before = (seen.before.0 + seen.rows, seen.before.1 + seen.worked());
        let before = if seen.rows == 0 { seen.before } else { before };
        *seen = Seen { told, before, ahead: seen.ahead, ..Seen::new() };
    }

    /// Whether there is a rate to keep, which several connections would not reach any sooner than one.
    pub(super) fn has_rate(&self) -> bool {
        self.throttle.has_rate()
    }

    /// Waits until the next chunk may begin; false when none may any more.
    pub(super) async fn ready(&self) -> Result<bool, TransferError> {
        let due = *self.due.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(due) = due {
            tokio::select! {
                () = tokio::time::sleep_until(due.into()) => {}
                () = self.cancel.cancelled() => {}
            }
        }
        if let Some(pause) = &self.throttle.pause_while
            && !self.cancel.is_cancelled()
        {
            tokio::select! {
                quiet = self.quiet(pause) => quiet?,
                () = self.cancel.cancelled() => {}
            }
        }
        Ok(!self.cancel.is_cancelled())
    }

    /// Waits until the question is answered with false, unless that is not long ago.
    async fn quiet(&self, pause: &PauseWhile) -> Result<(), TransferError> {
        let mut asked = self.asked.lock().await;
        if asked.is_some_and(|asked| asked.elapsed() < pause.every) {
            return Ok(());
        }
        loop {
            let begun = Instant::now();
            if !pause.is_busy().await? {
                *asked = Some(Instant::now());
                return Ok(());
            }
            let told = CopyProgress { waits: true, left: None, ..self.seen().told.clone() };
            (self.progress)(told);
            tokio::time::sleep(pause.every).await;
            self.seen().waited += begun.elapsed();
        }
    }

    /// Accounts for a chunk that was begun at `begun` and is committed.
    pub(super) fn moved(&self, begun: Instant, rows: u64, bytes: u64) {
        {
            let mut seen = self.seen();
            seen.rows += rows;
            seen.bytes += bytes;
        }
        if self.has_rate() {
            let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
            // Time that was not used is not saved up: a pause is followed by the same pace, not by a rush.
            *due = Some(due.map_or(begun, |due| due.max(begun)) + self.throttle.cost(rows, bytes));
        }
    }

    /// Gives a sign of life.
    pub(super) fn tell(&self, rows_done: u64) {
        let told = {
            let mut seen = self.seen();
            let worked = seen.worked();
            seen.told.rows_done = rows_done;
            if seen.told.rows_total > 0 {
                seen.told.rows_total = seen.told.rows_total.max(rows_done);
            }
            seen.told.rows_per_second = per_second(seen.rows, worked);
            seen.told.bytes_per_second = per_second(seen.bytes, worked);
            seen.told.left = seen.left();
            seen.told.clone()
        };
        (self.progress)(told);
    }

    /// Bytes and waiting time of the table so far.
    pub(super) fn account(&self) -> (u64, Duration) {
        let seen = self.seen();
        (seen.bytes, seen.waited)
    }

    /// Most rows of a chunk of which at most `most` are wanted: no more than a second's worth.
    pub(super) fn rows_max(&self, most: u64) -> u64 {
        let by_rows = self.throttle.rows_per_second.unwrap_or(u64::MAX);
        let by_bytes = self.throttle.bytes_per_second.map_or(u64::MAX, |limit| {
            let seen = self.seen();
            // Nothing is known before the first chunk, which is therefore a small one.
            seen.bytes.checked_div(seen.rows).map_or(1_000, |row| limit / row.max(1))
        });
        most.min(by_rows).min(by_bytes).max(1)
    }

    /// Most bytes of a chunk.
    pub(super) fn bytes_max(&self) -> u64 {
        self.throttle.bytes_per_second.unwrap_or(u64::MAX)
    }

    /// Whether every row has to be measured; else a few of each chunk say how long rows are.
    pub(super) fn measures(&self) -> bool {
        self.throttle.bytes_per_second.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_slower_of_two_rates_counts_and_idle_time_is_not_saved_up() {
        let throttle = Throttle { rows_per_second: Some(100), bytes_per_second: Some(1_000), pause_while: None };
        assert_eq!(throttle.cost(50, 100), Duration::from_millis(500));
        assert_eq!(throttle.cost(50, 2_000), Duration::from_secs(2));
        let cancel = CancellationToken::new();
        let pace = Pace::new(&throttle, &|_| {}, &cancel);
        let begun = Instant::now();
        pace.moved(begun, 100, 0);
        pace.moved(begun, 100, 0);
        let due = || pace.due.lock().expect("not poisoned").expect("a rate");
        assert_eq!(due() - begun, Duration::from_secs(2), "two workers share one rate");
        let later = begun + Duration::from_mins(1);
        pace.moved(later, 100, 0);
        assert_eq!(due() - later, Duration::from_secs(1));
    }

    #[test]
    fn the_time_left_counts_the_tables_behind_and_is_unknown_where_one_of_them_is() {
        let (free, cancel, last) = (Throttle::default(), CancellationToken::new(), Mutex::new(CopyProgress::default()));
        let tell = |told| *last.lock().expect("not poisoned") = told;
        let pace = Pace::new(&free, &tell, &cancel);
        let told = || last.lock().expect("not poisoned").clone();
        pace.expect(Some(600));
        pace.begin("a", 100, Some(500), false);
        pace.seen().started -= Duration::from_secs(10);
        pace.moved(Instant::now(), 100, 1_000);
        pace.tell(200);
        let seconds = told().left.expect("known").as_secs_f64();
        assert!((seconds - 90.0).abs() < 1.0, "300 of this table and 600 behind it at 10 a second: {seconds}");
        assert!((told().bytes_per_second - 100.0).abs() < 1.0, "{:?}", told());
        pace.tell(700);
        assert_eq!((told().rows_total, told().is_counted), (700, false), "a thought that was too low");
        pace.expect(None);
        pace.begin("b", 0, Some(50), true);
        pace.tell(25);
        assert_eq!((told().left, told().rows_total), (None, 50));
    }

    #[tokio::test]
    async fn a_chunk_is_at_most_what_a_second_allows() {
        let throttle = Throttle { rows_per_second: Some(5_000), bytes_per_second: Some(20_000), pause_while: None };
        let cancel = CancellationToken::new();
        let pace = Pace::new(&throttle, &|_| {}, &cancel);
        assert_eq!((pace.rows_max(300), pace.rows_max(20_000)), (300, 1_000));
        pace.moved(Instant::now(), 10, 100);
        assert_eq!(pace.rows_max(20_000), 2_000);
        pace.begin("t", 0, None, false);
        pace.moved(Instant::now(), 1, 1_000_000);
        assert_eq!(pace.rows_max(20_000), 1, "a row goes whole");
        let free = Throttle::default();
        let pace = Pace::new(&free, &|_| {}, &cancel);
        assert_eq!((pace.rows_max(20_000), pace.bytes_max(), pace.ready().await.ok()), (20_000, u64::MAX, Some(true)));
        cancel.cancel();
        assert!(!pace.ready().await.expect("no question"));
    }
}
