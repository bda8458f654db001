//! The timeline of a run as an SVG picture: a bar for each attempt, wait and undo, windows and interruptions behind them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::event::{Event, Outcome};
use crate::ids::StepId;
use crate::report::graph::svg::escape;
use crate::report::status::Run;
use crate::report::{windows, words};

/// Width of the picture.
const WIDTH: f64 = 1000.0;
/// Room for the names of the steps.
const NAMES: f64 = 210.0;
/// Height of a row.
const ROW: f64 = 17.0;
/// Room above the rows, and below.
const HEAD: f64 = 24.0;
/// Narrowest bar.
const BAR_MIN: f64 = 2.0;
/// Steps beyond which the rest is left out.
const ROWS_MAX: usize = 300;
/// Colour of a window, and of a time in which nobody drove the run.
const WINDOW: &str = "#fef3c7";
const GAP: &str = "#e5e7eb";
/// Characters of a name.
const NAME_CHARS_MAX: usize = 32;

/// What a bar stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Done,
    Failed,
    Unknown,
    Waited,
    Undone,
    UnderWay,
}

impl Kind {
    fn colour(self) -> &'static str {
        match self {
            Self::Done => "#16a34a",
            Self::Failed => "#dc2626",
            Self::Unknown => "#a21caf",
            Self::Waited => "#eab308",
            Self::Undone => "#4f46e5",
            Self::UnderWay => "#2563eb",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Unknown => "result unknown",
            Self::Waited => "waited for people",
            Self::Undone => "undone",
            Self::UnderWay => "under way",
        }
    }
}

/// A stretch of time of one step.
#[derive(Debug, PartialEq, Eq)]
struct Bar {
    from: Timestamp,
    to: Timestamp,
    kind: Kind,
}

/// What happened when.
#[derive(Debug, Default)]
struct Course {
    /// Steps in the order in which they began.
    order: Vec<StepId>,
    bars: BTreeMap<StepId, Vec<Bar>>,
    /// Times in which nobody drove the run.
    gaps: Vec<(Timestamp, Timestamp)>,
}

impl Course {
    fn of(run: Run<'_>, now: Timestamp) -> Self {
        let mut course = Self::default();
        let mut open: BTreeMap<StepId, (Timestamp, Kind)> = BTreeMap::new();
        let mut before: Option<Timestamp> = None;
        for record in run.records {
            let at = record.at;
            match &record.event {
                Event::AttemptStarted { step, .. } | Event::UndoStarted { step, .. } => {
                    course.begin(&mut open, step, at, Kind::UnderWay);
                }
                Event::StepWaiting { step, .. } => course.begin(&mut open, step, at, Kind::Waited),
                Event::AttemptSucceeded { step, .. } => course.end(&mut open, step, at, Kind::Done),
                Event::AttemptFailed { step, .. } | Event::UndoFailed { step, .. } | Event::StepExpired { step } => {
                    course.end(&mut open, step, at, Kind::Failed);
                }
                Event::UndoSucceeded { step, .. } => course.end(&mut open, step, at, Kind::Undone),
                Event::StepAnswered { step, .. } => {
                    let kind = open.get(step).map_or(Kind::Waited, |(_, kind)| *kind);
                    course.end(&mut open, step, at, if kind == Kind::Waited { Kind::Waited } else { Kind::Unknown });
                }
                Event::RunResumed { held, .. } => {
                    // What a dead driver left behind is unknown from its last word on, but for what went on.
                    course.gaps.extend(before.map(|before| (before, at)));
                    let lost = open.iter().filter(|(step, (_, kind))| *kind != Kind::Waited && !held.contains(step));
                    for step in lost.map(|(step, _)| step.clone()).collect::<Vec<_>>() {
                        course.end(&mut open, &step, before.unwrap_or(at), Kind::Unknown);
                    }
                }
                Event::RollbackRequested { .. } => course.gaps.extend(before.map(|before| (before, at))),
                _ => {}
            }
            before = Some(at);
        }
        let rests = run.state.outcome().is_some_and(|outcome| outcome != Outcome::Waiting);
        let end = if rests { run.state.finished_at().or(before).unwrap_or(now) } else { now };
        for (step, (from, kind)) in std::mem::take(&mut open) {
            course.bars.entry(step).or_default().push(Bar { from, to: end, kind });
        }
        course
    }

    fn begin(&mut self, open: &mut BTreeMap<StepId, (Timestamp, Kind)>, step: &StepId, at: Timestamp, kind: Kind) {
        if !self.bars.contains_key(step) {
            self.order.push(step.clone());
            self.bars.insert(step.clone(), Vec::new());
        }
        open.insert(step.clone(), (at, kind));
    }

    fn end(&mut self, open: &mut BTreeMap<StepId, (Timestamp, Kind)>, step: &StepId, to: Timestamp, kind: Kind) {
        if let Some((from, _)) = open.remove(step) {
            self.bars.entry(step.clone()).or_default().push(Bar { from, to, kind });
        }
    }
}

/// The picture.
pub fn draw(run: Run<'_>, now: Timestamp, zone: &TimeZone) -> String {
    let course = Course::of(run, now);
    let from = run.state.started_at().unwrap_or(now);
    let last = run.records.last().map_or(now, |record| record.at);
    let ends = course.bars.values().flatten().map(|bar| bar.to);
    let scale = Scale { from, to: ends.chain([last]).max().unwrap_or(last) };
    let shown = course.order.len().min(ROWS_MAX);
    let height = HEAD + rows(shown) + 30.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH:.0} {height:.0}\" font-family=\"system-ui, 'DejaVu Sans', sans-serif\" \
         font-size=\"11\" role=\"img\"><title>Timeline</title>\n"
    );
    let bottom = HEAD + rows(shown);
    behind(&mut svg, run, &course, &scale, bottom);
    axis(&mut svg, &scale, zone, bottom);
    for (row, step) in course.order.iter().take(ROWS_MAX).enumerate() {
        let top = HEAD + rows(row);
        let name = words::cut(step.as_str(), NAME_CHARS_MAX);
        let _ = writeln!(
            svg,
            "<text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#374151\">{}</text>",
            NAMES - 8.0,
            top + 12.0,
            escape(&name)
        );
        for bar in &course.bars[step] {
            let (x, width) = scale.span(bar.from, bar.to);
            let length = words::duration(words::between(bar.from, bar.to));
            let told = format!("{step}: {} ({length}, from {})", bar.kind.words(), words::clock(bar.from, zone));
            let _ = writeln!(
                svg,
                "<rect x=\"{x:.2}\" y=\"{:.1}\" width=\"{width:.2}\" height=\"10\" rx=\"1.5\" fill=\"{}\"><title>{}</title></rect>",
                top + 3.0,
                bar.kind.colour(),
                escape(&told)
            );
        }
    }
    let windows = windows::measure(run.plan, run.state).iter().any(|window| window.opened_at.is_some());
    legend(&mut svg, &course, (bottom + 22.0, windows), course.order.len() - shown);
    svg.push_str("</svg>\n");
    svg
}

/// Height of so many rows.
#[expect(clippy::cast_precision_loss, reason = "a place in a picture")]
fn rows(count: usize) -> f64 {
    count as f64 * ROW
}

/// About the width of a text.
#[expect(clippy::cast_precision_loss, reason = "a place in a picture")]
fn width_of(text: &str) -> f64 {
    text.len() as f64 * 6.0
}

/// Where a time stands in the picture.
struct Scale {
    from: Timestamp,
    to: Timestamp,
}

impl Scale {
    fn length(&self) -> i64 {
        words::between(self.from, self.to).max(1)
    }

    #[expect(clippy::cast_precision_loss, reason = "a place in a picture")]
    fn x(&self, at: Timestamp) -> f64 {
        let part = words::between(self.from, at) as f64 / self.length() as f64;
        NAMES + part.clamp(0.0, 1.0) * (WIDTH - NAMES - 12.0)
    }

    fn span(&self, from: Timestamp, to: Timestamp) -> (f64, f64) {
        let (left, right) = (self.x(from), self.x(to));
        (left, (right - left).max(BAR_MIN))
    }
}

/// Windows and interruptions.
fn behind(svg: &mut String, run: Run<'_>, course: &Course, scale: &Scale, bottom: f64) {
    let mut band = |from, to, colour: &str, told: &str| {
        let (x, width) = scale.span(from, to);
        let _ = writeln!(
            svg,
            "<rect x=\"{x:.2}\" y=\"{HEAD:.0}\" width=\"{width:.2}\" height=\"{:.1}\" fill=\"{colour}\"><title>{}</title></rect>",
            bottom - HEAD,
            escape(told)
        );
    };
    for (from, to) in &course.gaps {
        band(
            *from,
            *to,
            "#e5e7eb",
            &format!("nobody drove the run for {}", words::duration(words::between(*from, *to))),
        );
    }
    for window in windows::measure(run.plan, run.state) {
        if let (Some(from), Some(to)) = (window.opened_at, window.closed_at.or(Some(scale.to)))
            && to > from
        {
            let length = words::duration(words::between(from, to));
            band(from, to, WINDOW, &format!("window {}: {length}", window.name));
        }
    }
}

/// Times below and lines through the picture.
fn axis(svg: &mut String, scale: &Scale, zone: &TimeZone, bottom: f64) {
    const MARKS: i64 = 6;
    for mark in 0..=MARKS {
        let ms = scale.from.as_millisecond() + scale.length() * mark / MARKS;
        let Ok(at) = Timestamp::from_millisecond(ms) else { continue };
        let x = scale.x(at);
        let anchor = if mark == MARKS { "end" } else { "middle" };
        let _ = writeln!(
            svg,
            "<path d=\"M{x:.1},{HEAD:.0} V{bottom:.1}\" stroke=\"#e5e7eb\"/>\
             <text x=\"{x:.1}\" y=\"14\" text-anchor=\"{anchor}\" fill=\"#6b7280\">{}</text>",
            words::clock(at, zone)
        );
    }
}

/// What the colours that occur mean.
fn legend(svg: &mut String, course: &Course, (y, windows): (f64, bool), left_out: usize) {
    const ALL: [Kind; 6] = [Kind::Done, Kind::Failed, Kind::Unknown, Kind::Waited, Kind::Undone, Kind::UnderWay];
    let occurs = |kind: &Kind| course.bars.values().flatten().any(|bar| bar.kind == *kind);
    let mut entries: Vec<(&str, &str)> =
        ALL.iter().filter(|kind| occurs(kind)).map(|kind| (kind.colour(), kind.words())).collect();
    entries.extend(windows.then_some((WINDOW, "window")));
    entries.extend((!course.gaps.is_empty()).then_some((GAP, "nobody drove the run")));
    let mut x = NAMES;
    for (colour, words) in entries {
        let _ = writeln!(
            svg,
            "<rect x=\"{x:.0}\" y=\"{:.0}\" width=\"10\" height=\"10\" rx=\"1.5\" fill=\"{colour}\"/>\
             <text x=\"{:.0}\" y=\"{y:.0}\" fill=\"#6b7280\">{words}</text>",
            y - 9.0,
            x + 14.0,
        );
        x += 34.0 + width_of(words);
    }
    if left_out > 0 {
        let _ = writeln!(
            svg,
            "<text x=\"{x:.0}\" y=\"{y:.0}\" fill=\"#6b7280\">{left_out} more steps are in the list below</text>"
        );
    }
}
