//! Drives a run while somebody watches: the stream of facts to the display, and what Ctrl-C means.
//!
//! The driver hands facts over and goes on; a thread of its own shows them, so a slow terminal or a closed pipe can
//! never slow or fail a run.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::error::CliError;
use super::exit::Exit;
use super::out::Out;
use crate::action::Progress;
use crate::driver::{DriverError, Ended, Observer};
use crate::event::Record;
use crate::ids::{RunId, StepId};
use crate::journal::Journal;
use crate::report::live::{Watch, is_untouched};
use crate::report::words::{self, Paint};
use crate::report::{Fact, Subject, lines, plain, terminal};
use crate::scheduler::State;
use crate::site::LoadedSite;

/// Hands facts to the display.
struct Stream {
    facts: Sender<Fact>,
    /// Runs whose first record has been seen.
    known: Mutex<BTreeSet<RunId>>,
}

impl Observer for Stream {
    fn record(&self, record: Record, state: &State) {
        let is_first =
            self.known.lock().is_ok_and(|mut known| !known.contains(&record.run) && known.insert(record.run.clone()));
        let state = is_first.then(|| Arc::new(state.clone()));
        // A display that is gone is no reason to stop.
        let _ = self.facts.send(Fact::Recorded { record: Box::new(record), state });
    }

    fn progress(&self, run: &RunId, step: &StepId, progress: &Progress) {
        let fact = Fact::Progress { run: run.clone(), step: step.clone(), progress: progress.clone() };
        let _ = self.facts.send(fact);
    }
}

/// How long a display that has shown everything sleeps before it looks again.
const BURST: Duration = Duration::from_millis(3);

/// A display at work and the tokens that stop the run.
pub struct Watched {
    /// Who watches; for the driver's options.
    pub observer: Arc<dyn Observer>,
    /// Cancelled by the first Ctrl-C or SIGTERM.
    pub stop: CancellationToken,
    /// Cancelled by the second.
    pub stop_now: CancellationToken,
    site: LoadedSite,
    facts: Sender<Fact>,
    display: std::thread::JoinHandle<()>,
    signals: tokio::task::JoinHandle<()>,
}

/// Starts the display of a run and listens for signals.
pub fn watch(out: Out, subject: Subject) -> Watched {
    let (facts, received) = channel();
    let site = subject.plan.site.clone();
    let stream = Stream { facts: facts.clone(), known: Mutex::default() };
    let display = std::thread::spawn(move || {
        if out.json {
            show_json(out, &received);
        } else if out.terminal {
            terminal::show(Watch::new(subject), &received, out.paint, crate::config::now);
        } else {
            show_plain(out, Watch::new(subject), &received);
        }
    });
    let (stop, stop_now) = (CancellationToken::new(), CancellationToken::new());
    let signals = tokio::spawn(listen(stop.clone(), stop_now.clone(), facts.clone(), out));
    Watched { observer: Arc::new(stream), stop, stop_now, site, facts, display, signals }
}

impl Watched {
    /// Shows the end, tells the anchors and gives the exit code.
    pub async fn close(
        self,
        out: Out,
        (run, journal): (&RunId, &Journal),
        result: Result<Ended, DriverError>,
    ) -> Result<Exit, CliError> {
        self.signals.abort();
        if let Ok(ended) = &result {
            let _ = self.facts.send(Fact::Ended { outcome: ended.outcome, note: ended.note.clone() });
        }
        drop((self.facts, self.observer));
        let display = self.display;
        // The thread ends with the stream; a panic of it is not a failure of the run.
        let _ = tokio::task::spawn_blocking(move || display.join()).await;
        let ended = result?;
        super::anchor::tell(&self.site, journal, run, out).await;
        if out.json {
            let _ = out.json_line(&lines::last(run, ended.outcome, ended.note.as_deref()));
        }
        Ok(Exit::of(ended.outcome))
    }
}

async fn listen(stop: CancellationToken, stop_now: CancellationToken, facts: Sender<Fact>, out: Out) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        tracing::warn!("signals cannot be listened to; Ctrl-C will end the process at once, resumable");
        return;
    };
    let say = |text: &str, typed: bool| {
        if out.json || !out.terminal {
            out.note(text);
        } else {
            let _ = facts.send(Fact::Notice { text: text.to_owned(), typed });
        }
    };
    let texts = [
        "finishing what runs, then stopping; press Ctrl-C again to stop it now",
        "stopping what runs now; what it did may stay unknown",
    ];
    for (token, text) in [&stop, &stop_now].into_iter().zip(texts) {
        let typed = tokio::select! {
            _ = interrupt.recv() => true,
            _ = terminate.recv() => false,
        };
        say(text, typed);
        token.cancel();
    }
}

fn show_json(out: Out, facts: &Receiver<Fact>) {
    let mut heard = lines::Heard::default();
    for fact in in_bursts(facts) {
        match fact {
            Fact::Recorded { record, state } if state.as_ref().is_none_or(|state| is_untouched(state)) => {
                let _ = out.json_line(&lines::event(&record));
            }
            Fact::Progress { run, step, progress } if heard.is_due(&run, &step, Instant::now()) => {
                let _ = out.json_line(&lines::progress(&run, &step, &progress, crate::config::now()));
            }
            Fact::Recorded { .. } | Fact::Progress { .. } | Fact::Notice { .. } | Fact::Ended { .. } => {}
        }
    }
}

/// Facts as they come, a few milliseconds late: a driver that reports to a thread that sleeps need not wake it.
fn in_bursts(facts: &Receiver<Fact>) -> impl Iterator<Item = Fact> {
    std::iter::from_fn(|| {
        facts.try_recv().ok().or_else(|| {
            std::thread::sleep(BURST);
            facts.recv().ok()
        })
    })
}

fn show_plain(out: Out, mut watch: Watch, facts: &Receiver<Fact>) {
    let zone = jiff::tz::TimeZone::system();
    for fact in in_bursts(facts) {
        let is_said_anew = watch.is_said_anew(&fact);
        if let Some(record) = watch.take(&fact) {
            let line = plain::line(&watch, record);
            let _ = out.line(line.print(record.at, &zone, Paint::default()));
        }
        if let (true, Fact::Progress { run, step, progress }) = (is_said_anew, &fact) {
            let line = plain::note(&watch, run, step, &progress.what);
            let _ = out.line(line.print(crate::config::now(), &zone, Paint::default()));
        }
        if let Fact::Ended { outcome, .. } = fact {
            for line in plain::closing(&watch, crate::config::now(), outcome, out.paint) {
                let _ = out.line(line);
            }
            let _ = out.line(format!("run {} {}", watch.subject.run, words::outcome(outcome)));
        }
    }
}
