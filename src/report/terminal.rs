//! The live list of a run on a terminal. Steps that ended stay as lines in the scrollback; below them, what runs,
//! what waits, what is to come, open windows and the run itself are drawn anew ten times a second.

use std::fmt::Write as _;
use std::io::Write;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::live::{Watch, progress_words};
use super::words::{self, Paint};
use super::{Fact, people, plain, windows};
use crate::ids::RunId;
use crate::scheduler::{State, StepState, StepView};

/// How often it is drawn.
const FRAME: Duration = Duration::from_millis(100);

/// Most lines that are drawn anew; fits a terminal of 24 lines with some scrollback left to see.
const LINES_MAX: usize = 18;

/// Follows the stream until it ends; `now` is the clock of the caller.
pub fn show(mut watch: Watch, facts: &Receiver<Fact>, paint: Paint, now: fn() -> Timestamp) {
    let mut screen = Screen::new(paint);
    loop {
        match facts.recv_timeout(FRAME) {
            Ok(fact) => {
                screen.take(&mut watch, &fact, now());
                while let Ok(fact) = facts.try_recv() {
                    screen.take(&mut watch, &fact, now());
                }
                screen.draw(&watch, now());
            }
            Err(RecvTimeoutError::Timeout) => screen.draw(&watch, now()),
            Err(RecvTimeoutError::Disconnected) => return screen.clear(),
        }
    }
}

/// The drawn lines.
struct Screen {
    lines: MultiProgress,
    bars: Vec<ProgressBar>,
    style: ProgressStyle,
    paint: Paint,
    zone: TimeZone,
    notice: Option<String>,
    ended: bool,
}

impl Screen {
    fn new(paint: Paint) -> Self {
        Self {
            lines: MultiProgress::with_draw_target(ProgressDrawTarget::stdout_with_hz(15)),
            bars: Vec::new(),
            style: ProgressStyle::with_template("{wide_msg}").expect("the template is valid"),
            paint,
            zone: TimeZone::system(),
            notice: None,
            ended: false,
        }
    }

    /// A line that stays; a terminal that is gone is no reason to stop.
    fn say(&self, line: &str) {
        let _ = self.lines.println(line);
    }

    fn take(&mut self, watch: &mut Watch, fact: &Fact, now: Timestamp) {
        if let Some(record) = watch.take(fact) {
            let line = plain::line(watch, record);
            if !line.begins {
                self.say(&self.scrollback(&line, record.at));
            }
        }
        match fact {
            Fact::Notice { text, typed } => {
                self.notice = Some(text.clone());
                if *typed && !self.bars.is_empty() {
                    step_over_echo();
                }
            }
            Fact::Ended { outcome, .. } => {
                self.clear();
                self.ended = true;
                for line in plain::closing(watch, now, *outcome, self.paint) {
                    self.say(&line);
                }
            }
            Fact::Recorded { .. } | Fact::Progress { .. } => {}
        }
    }

    fn scrollback(&self, line: &plain::Line, at: Timestamp) -> String {
        let mark = line.state.map_or_else(|| " ".to_owned(), |state| self.paint.state(state, words::mark(state)));
        let who = if line.who == "run" { self.paint.bold("run") } else { line.who.clone() };
        let gap = " ".repeat(24_usize.saturating_sub(line.who.chars().count()));
        let mut text = format!("{} {mark} {who}{gap} {}", self.paint.faint(&words::clock(at, &self.zone)), line.text);
        for more in &line.more {
            let _ = write!(text, "\n             {}", self.paint.bold(more));
        }
        text
    }

    fn clear(&mut self) {
        for bar in self.bars.drain(..) {
            bar.finish_and_clear();
            self.lines.remove(&bar);
        }
    }

    fn draw(&mut self, watch: &Watch, now: Timestamp) {
        let Some(state) = watch.state().filter(|_| !self.ended) else { return };
        let lines = block(watch, state, now, self.paint, self.notice.as_deref());
        while self.bars.len() > lines.len() {
            if let Some(bar) = self.bars.pop() {
                bar.finish_and_clear();
                self.lines.remove(&bar);
            }
        }
        while self.bars.len() < lines.len() {
            let bar = self.lines.add(ProgressBar::new_spinner().with_style(self.style.clone()));
            self.bars.push(bar);
        }
        for (bar, line) in self.bars.iter().zip(lines) {
            bar.set_message(line);
            bar.tick();
        }
    }
}

/// The terminal echoes a typed Ctrl-C behind the last line, which moves the cursor one line too far down.
fn step_over_echo() {
    let mut stdout = std::io::stdout().lock();
    // A terminal that is gone needs no mending.
    let _ = stdout.write_all(b"\r\x1b[2K\x1b[1A").and_then(|()| stdout.flush());
}

/// The lines that are drawn anew: what is at work, what waits, what is to come, windows, the run itself.
fn block(watch: &Watch, state: &State, now: Timestamp, paint: Paint, notice: Option<&str>) -> Vec<String> {
    let mut lines = Vec::new();
    for view in state.steps().filter(is_at_work) {
        lines.extend(at_work(watch, &view, now, paint));
        for (run, child) in watch.children() {
            let parent = run.as_str().rsplit_once('.').map_or("", |(_, step)| step);
            if parent == view.rule().id.as_str() && child.outcome().is_none() {
                for view in child.steps().filter(is_at_work) {
                    let id = &view.rule().id;
                    lines.push(format!("    {}", step_line(&watch.label(run, id.as_str()), &view, now, paint)));
                    lines.extend(how_far(watch, run, &view, paint).map(|line| format!("  {line}")));
                    lines.extend(asks(run, &view, now, paint).into_iter().map(|line| format!("  {line}")));
                }
            }
        }
    }
    let mut tail = Vec::new();
    for window in windows::measure(&watch.subject.plan, state) {
        if window.progress == windows::Progress::Open {
            let text = format!("  window {}: {}", window.name, window.words(now));
            tail.push(if window.is_over_budget(now) { paint.bad(&text) } else { paint.warn(&text) });
        }
    }
    let pending: Vec<StepView<'_>> = state.steps().filter(|view| matches!(view.state(), StepState::Pending)).collect();
    let room = LINES_MAX.saturating_sub(lines.len() + tail.len() + 2);
    if lines.len() > LINES_MAX {
        let hidden = lines.len() - LINES_MAX;
        lines.truncate(LINES_MAX);
        lines.push(paint.faint(&format!("    and {hidden} more lines")));
    }
    if pending.len() <= room {
        lines.extend(pending.iter().map(|view| paint.faint(&format!("  · {}", view.rule().id))));
    } else {
        let names: Vec<&str> = pending.iter().take(8).map(|view| view.rule().id.as_str()).collect();
        lines.push(paint.faint(&format!("  · {} to come: {}, …", pending.len(), names.join(", "))));
    }
    lines.extend(tail);
    lines.push(run_line(watch, state, now, paint));
    if let Some(notice) = notice {
        lines.push(paint.warn(&format!("  {notice}")));
    }
    lines
}

fn is_at_work(view: &StepView<'_>) -> bool {
    match view.state() {
        StepState::Ready | StepState::Running | StepState::InDoubt | StepState::Undoing | StepState::Waiting => true,
        StepState::Pending | StepState::Succeeded | StepState::Failed | StepState::Skipped | StepState::Undone => false,
    }
}

/// A step at work and, for a copy, how far it has come.
fn at_work(watch: &Watch, view: &StepView<'_>, now: Timestamp, paint: Paint) -> Vec<String> {
    let id = &view.rule().id;
    let mut lines = vec![format!("  {}", step_line(id.as_str(), view, now, paint))];
    lines.extend(how_far(watch, &watch.subject.run, view, paint));
    lines.extend(asks(&watch.subject.run, view, now, paint));
    lines
}

/// What a step asks of people, and the command to answer with.
fn asks(run: &RunId, view: &StepView<'_>, now: Timestamp, paint: Paint) -> Vec<String> {
    let Some(ask) = people::ask(view, run, now) else { return Vec::new() };
    let until = ask.expires_at.map(|at| format!(", {} left", words::duration(words::between(now, at))));
    let mut lines = vec![format!("      waits for {}{}", ask.whom(), until.unwrap_or_default())];
    lines.extend(ask.commands.first().map(|command| format!("      {}", paint.bold(command))));
    lines
}

/// How far a running step has come, if it tells.
fn how_far(watch: &Watch, run: &RunId, view: &StepView<'_>, paint: Paint) -> Option<String> {
    let progress = watch.progress(run, &view.rule().id).filter(|_| view.state() == StepState::Running)?;
    Some(format!("      {}{}", bar(progress.done, progress.total, paint), progress_words(progress)))
}

fn step_line(name: &str, view: &StepView<'_>, now: Timestamp, paint: Paint) -> String {
    let state = view.state();
    let time = match (state, view.retry_at()) {
        (StepState::Ready | StepState::Undoing, Some(at)) => {
            format!("again in {}", words::duration(words::between(now, at)))
        }
        (StepState::Ready, None) => "ready".to_owned(),
        _ => view.started_at().map(|at| words::duration(words::between(at, now))).unwrap_or_default(),
    };
    let attempt = if view.attempts() > 1 { format!("  attempt {}", view.attempts()) } else { String::new() };
    let last = match view.error() {
        Some(error) if view.retry_at().is_some() => format!("  {}", paint.bad(&words::cut(error, 60))),
        _ => String::new(),
    };
    let name = words::pad(name, 24);
    format!("{} {} {time}{attempt}{last}", paint.state(state, words::mark(state)), paint.state(state, &name))
}

/// A bar of twenty characters for work of a known size.
fn bar(done: u64, total: Option<u64>, paint: Paint) -> String {
    let Some(total) = total.filter(|total| *total > 0) else { return String::new() };
    let filled = usize::try_from((u128::from(done.min(total)) * 20) / u128::from(total)).unwrap_or(20);
    let percent = u128::from(done.min(total)) * 100 / u128::from(total);
    format!("{}{} {percent:>3}%  ", paint.good(&"━".repeat(filled)), paint.faint(&"─".repeat(20 - filled)))
}

fn run_line(watch: &Watch, state: &State, now: Timestamp, paint: Paint) -> String {
    let (mut done, mut all) = (0, 0);
    for view in state.steps() {
        all += 1;
        done += usize::from(matches!(view.state(), StepState::Succeeded | StepState::Skipped));
    }
    let elapsed = state.started_at().map(|at| words::duration(words::between(at, now))).unwrap_or_default();
    let mode = if state.is_rolling_back() {
        paint.bad("  turning back")
    } else if state.is_cancelling() {
        paint.warn("  stopping")
    } else {
        String::new()
    };
    let text = format!("  {} of {all} steps  {elapsed}  run {}", done, watch.subject.run);
    format!("{}{mode}", paint.faint(&text))
}
