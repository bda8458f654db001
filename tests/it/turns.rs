//! What a step costs, counted: transactions on disk and bytes, never seconds.

use std::fmt::Write as _;
use std::path::Path;

use piton::driver::{self, Options};
use piton::event::Outcome;
use piton::ids::{Actor, RunId};
use piton::journal::Journal;
use piton::plan::{Given, Plan};
use piton::site::LoadedSite;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, SqliteConnection};

const NOTHING: &str = "wait.for: { duration: 0s }";
const ECHO: &str = "exec: { argv: [echo, hello] }";
const TRUE: &str = "exec: { argv: [\"true\"] }";

/// Steps with names of one length, each of which needs the one before if they are `chained`.
fn runbook(steps: usize, parallel: usize, chained: bool, work: &str) -> String {
    let mut text =
        format!("apiVersion: piton/v1\nkind: Runbook\nname: r\nlimits: {{ parallel: {parallel} }}\nsteps:\n");
    for step in 0..steps {
        let needs = if chained && step > 0 { format!("needs: [s{:04}], ", step - 1) } else { String::new() };
        writeln!(text, "  - {{ id: s{step:04}, {needs}{work} }}").expect("a string takes any text");
    }
    text
}

/// A run that ended well, in a store that is still open, so that its write-ahead log is still there.
struct Ran {
    folder: tempfile::TempDir,
    _journal: Journal,
}

impl Ran {
    async fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("r.yaml");
        std::fs::write(&path, text).expect("written");
        let plan = Plan::load(&path, LoadedSite::empty(), &Given::new()).expect("a valid runbook");
        let journal = Journal::open(&folder.path().join("r.db").display().to_string()).await.expect("opens");
        let options = Options::new(Actor::new("ann"), folder.path().to_owned());
        let ended = driver::start(plan, &journal, RunId::new("r"), options).await.expect("ends");
        assert_eq!(ended.outcome, Outcome::Succeeded);
        Self { folder, _journal: journal }
    }

    async fn connect(&self) -> SqliteConnection {
        let path = self.folder.path().join("r.db");
        SqliteConnectOptions::new().filename(path).read_only(true).connect().await.expect("connects")
    }

    /// Transactions that recorded something; renewals of the lease, which come with time, are left out.
    async fn transactions(&self) -> usize {
        let mut database = self.connect().await;
        let leases: i64 = sqlx::query_scalar("SELECT rootpage FROM sqlite_schema WHERE name = 'leases'")
            .fetch_one(&mut database)
            .await
            .expect("has leases");
        let pages = commits(&self.folder.path().join("r.db-wal"));
        pages.iter().filter(|pages| pages.iter().any(|page| i64::from(*page) != leases)).count()
    }
}

/// The pages of every transaction in a write-ahead log, as https://www.sqlite.org/fileformat2.html#walformat tells.
fn commits(log: &Path) -> Vec<Vec<u32>> {
    let log = std::fs::read(log).expect("the log is there while the store is open");
    let number = |at: usize| u32::from_be_bytes(log[at..at + 4].try_into().expect("four bytes"));
    let page_size = number(8) as usize;
    let (mut commits, mut pages) = (Vec::new(), Vec::new());
    for frame in (32..log.len()).step_by(24 + page_size) {
        // Frames of an earlier use of the file have other salts.
        if log[frame + 8..frame + 16] != log[16..24] {
            break;
        }
        pages.push(number(frame));
        if number(frame + 4) > 0 {
            commits.push(std::mem::take(&mut pages));
        }
    }
    commits
}

async fn transactions(steps: usize, parallel: usize, chained: bool, work: &str) -> usize {
    Ran::new(&runbook(steps, parallel, chained, work)).await.transactions().await
}

#[tokio::test]
async fn the_end_of_a_step_and_the_start_that_it_allows_are_one_transaction() {
    let short = transactions(20, 1, true, NOTHING).await;
    let long = transactions(60, 1, true, NOTHING).await;
    assert_eq!(long - short, 40, "one for each further step, not {short} and {long}");
    let short = transactions(4, 1, true, TRUE).await;
    let long = transactions(12, 1, true, TRUE).await;
    assert_eq!(long - short, 8, "one for each further command, not {short} and {long}");
    // What it says comes with its end.
    let short = transactions(4, 1, true, ECHO).await;
    let long = transactions(12, 1, true, ECHO).await;
    assert_eq!(long - short, 8, "one for each further command that speaks, not {short} and {long}");
}

#[tokio::test]
async fn ends_that_come_together_share_a_transaction_with_all_starts_that_they_allow() {
    let short = transactions(32, 8, false, NOTHING).await;
    let long = transactions(96, 8, false, NOTHING).await;
    assert_eq!(long - short, 8, "one for eight further steps, not {short} and {long}");
}

#[tokio::test]
async fn an_event_has_the_same_size_in_a_short_and_in_a_long_run() {
    let mut sizes = Vec::new();
    for steps in [10, 300] {
        let ran = Ran::new(&runbook(steps, 1, true, NOTHING)).await;
        let query = "SELECT kind, min(length(payload)), max(length(payload)) FROM events
            WHERE kind LIKE 'attempt_%' GROUP BY kind ORDER BY kind";
        let found: Vec<(String, i64, i64)> =
            sqlx::query_as(query).fetch_all(&mut ran.connect().await).await.expect("read");
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found.iter().all(|(_, least, most)| least == most), "{found:?}");
        sizes.push(found);
    }
    assert_eq!(sizes[0], sizes[1]);
}
