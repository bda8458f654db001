//! The statistics source (`stat-server`): tells collectors what happens, and keeps the ledger of the truth.
//!
//! It listens on a loopback port named in its ready file. A collector opens a statistic and is told nothing that happened
//! before that moment; each answer covers at most what lies between opening and now. Lines of the protocol:
//! `open now` or `open <ms>` -> `opened <ms>`; `observe <from_ms> <to_ms>` -> one line per entity, then `end`.

use std::fmt::Write as _;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::db::LabDb;
use super::error::LabError;
use super::session::{Ready, Stop};
use super::settings::{Lab, now_ms};
use super::truth::{Load, Observation};

/// The name under which the source is known.
pub(super) const NAME: &str = "stat-server";

/// How long after a timestep's end the ledger has it.
const LEDGER_DELAY_MS: i64 = 20;

/// Runs the source until it is asked to stop.
pub(super) async fn serve(lab: &Lab) -> Result<(), LabError> {
    let mut stop = Stop::listen()?;
    let ready = Ready::claim(lab, NAME)?;
    let mut db = LabDb::open(lab, NAME).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(LabError::file("127.0.0.1"))?;
    let address = listener.local_addr().map_err(LabError::file("127.0.0.1"))?;
    let mut next = write_ledger(lab, &mut db).await?;
    ready.announce(&address.to_string())?;
    loop {
        let due_ms = (next + lab.options.timestep_s) * 1_000 + LEDGER_DELAY_MS;
        tokio::select! {
            () = stop.asked() => break,
            () = super::session::until(due_ms) => next = write_ledger(lab, &mut db).await?,
            accepted = listener.accept() => {
                let (stream, _) = accepted.map_err(LabError::file("127.0.0.1"))?;
                let (load, entities) = (Load::new(lab.options.seed, lab.options.timestep_s), lab.options.entities);
                tokio::spawn(async move {
                    // A collector that hangs up ends its own conversation only.
                    let _ = converse(stream, load, entities).await;
                });
            }
        }
    }
    write_ledger(lab, &mut db).await?;
    db.close().await
}

/// Writes every closed timestep that the ledger lacks, also those of a time when the source was down: the world went on.
/// Returns the start of the first timestep that is not closed yet.
async fn write_ledger(lab: &Lab, db: &mut LabDb) -> Result<i64, LabError> {
    let step_s = lab.options.timestep_s;
    let known = db.number("SELECT MAX(step_start) FROM truth.truth", &[]).await?;
    let mut next = if known == 0 { lab.history_end_s } else { known + step_s };
    let load = Load::new(lab.options.seed, step_s);
    while (next + step_s) * 1_000 <= now_ms() {
        let rows = (1..=lab.options.entities)
            .map(|entity| {
                let happened = load.step(entity, next);
                format!("({entity},{next},{},{})", happened.iv, happened.handle_s)
            })
            .collect::<Vec<_>>()
            .join(",");
        db.batch(&format!("INSERT INTO truth.truth (entity_id, step_start, iv, handle_s) VALUES {rows}")).await?;
        next += step_s;
    }
    Ok(next)
}

async fn converse(stream: TcpStream, load: Load, entities: i64) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    let mut opened_ms = now_ms();
    while let Some(line) = lines.next_line().await? {
        let answer = match line.split(' ').collect::<Vec<_>>().as_slice() {
            ["open", since] => {
                opened_ms = since.parse().unwrap_or_else(|_| now_ms()).min(now_ms());
                format!("opened {opened_ms}\n")
            }
            ["observe", from, to] => match (from.parse::<i64>(), to.parse::<i64>()) {
                (Ok(from), Ok(to)) => observed(load, entities, from.max(opened_ms), to.min(now_ms())),
                _ => "error numbers wanted\n".to_owned(),
            },
            _ => "error unknown request\n".to_owned(),
        };
        write.write_all(answer.as_bytes()).await?;
    }
    Ok(())
}

fn observed(load: Load, entities: i64, from_ms: i64, to_ms: i64) -> String {
    let mut text = String::new();
    for entity in 1..=entities {
        let Observation { iv, handle_s, sl_pct, abandoned, queue_len } = load.between(entity, from_ms, to_ms);
        writeln!(text, "{entity} {iv} {handle_s} {sl_pct} {abandoned} {queue_len}").expect("a string takes any text");
    }
    text.push_str("end\n");
    text
}

/// A collector's open statistic.
#[derive(Debug)]
pub(super) struct Statistic {
    lines: tokio::io::Lines<BufReader<tokio::net::tcp::OwnedReadHalf>>,
    write: tokio::net::tcp::OwnedWriteHalf,
    /// From when on the source tells this collector anything.
    pub(super) opened_ms: i64,
}

impl Statistic {
    /// Connects to the source and opens the statistic: now, or since a moment at which it is known to have been open.
    pub(super) async fn open(lab: &Lab, since_ms: Option<i64>) -> Result<Self, LabError> {
        let path = lab.ready_file(NAME);
        let gone = |error: std::io::Error| LabError::SourceGone(error.to_string());
        let address = std::fs::read_to_string(&path).map_err(gone)?;
        let stream = TcpStream::connect(address.trim()).await.map_err(gone)?;
        stream.set_nodelay(true).map_err(gone)?;
        let (read, write) = stream.into_split();
        let mut statistic = Self { lines: BufReader::new(read).lines(), write, opened_ms: 0 };
        let since = since_ms.map_or_else(|| "now".to_owned(), |ms| ms.to_string());
        let answer = statistic.ask(&format!("open {since}\n")).await?;
        statistic.opened_ms = answer
            .strip_prefix("opened ")
            .and_then(|ms| ms.parse().ok())
            .ok_or_else(|| LabError::Protocol(answer.clone()))?;
        Ok(statistic)
    }

    /// What every entity did in the window, as far as the statistic was open and the time has come.
    pub(super) async fn observe(&mut self, from_ms: i64, to_ms: i64) -> Result<Vec<(i64, Observation)>, LabError> {
        let mut line = self.ask(&format!("observe {from_ms} {to_ms}\n")).await?;
        let mut seen = Vec::new();
        while line != "end" {
            let numbers: Vec<i64> = line.split(' ').filter_map(|n| n.parse().ok()).collect();
            let [entity, iv, handle_s, sl_pct, abandoned, queue_len] = numbers[..] else {
                return Err(LabError::Protocol(line));
            };
            seen.push((entity, Observation { iv, handle_s, sl_pct, abandoned, queue_len }));
            line = self.line().await?;
        }
        Ok(seen)
    }

    async fn ask(&mut self, request: &str) -> Result<String, LabError> {
        let written = self.write.write_all(request.as_bytes()).await;
        written.map_err(|error| LabError::SourceGone(error.to_string()))?;
        self.line().await
    }

    async fn line(&mut self) -> Result<String, LabError> {
        let read = self.lines.next_line().await.map_err(|error| LabError::SourceGone(error.to_string()))?;
        read.ok_or_else(|| LabError::SourceGone("it hung up".into()))
    }
}
