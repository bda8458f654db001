//! A plan as an SVG picture: top-down, one box for each step, no script, no outside font.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::layout::{Layout, lay_out};
use super::{States, colours};
use crate::ids::StepId;
use crate::plan::PlanStep;
use crate::report::words;
use crate::scheduler::StepState;
use crate::spec::runbook::Phase;

/// Free room around the picture.
const MARGIN: f64 = 24.0;
/// Room for the title.
const TITLE: f64 = 52.0;
/// Room between the steps in order and those at the end.
const END_GAP: f64 = 56.0;
/// Height of a box.
const BOX_HEIGHT: f64 = 62.0;
/// Width of one character of the bold id and of the smaller lines.
const CHARACTER: (f64, f64) = (8.4, 6.6);
/// Most characters of a line in a box.
const LINE_CHARS_MAX: usize = 36;

/// The picture.
pub fn draw(title: &str, steps: &[PlanStep], states: Option<&States>) -> String {
    // Steps of `finally` stand below everything else.
    let (before, at_end): (Vec<&PlanStep>, Vec<&PlanStep>) = steps.iter().partition(|step| !step.is_finally);
    let parts = [part(&before), part(&at_end)];
    let has_end = !at_end.is_empty() && !before.is_empty();
    let gap = if has_end { END_GAP } else { 0.0 };
    let (wide, tall) = (parts[0].width.max(parts[1].width), parts[0].height + gap + parts[1].height);
    let legend = legend(steps, states);
    let width = (wide + 2.0 * MARGIN).max(420.0);
    let height = tall + 2.0 * MARGIN + TITLE + if legend.is_empty() { 0.0 } else { 30.0 };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\" \
         font-family=\"system-ui, 'DejaVu Sans', sans-serif\" role=\"img\">\n<title>{title}</title>\n\
         <defs><marker id=\"arrow\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\">\
         <path d=\"M0,0 L8,4 L0,8 z\" fill=\"#6b7280\"/></marker></defs>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"{MARGIN}\" y=\"{y:.0}\" font-size=\"18\" font-weight=\"600\" fill=\"#111827\">{title}</text>\n",
        title = escape(title),
        y = MARGIN + 14.0,
    );
    let mut top = MARGIN + TITLE;
    for (steps, layout) in [&before, &at_end].into_iter().zip(&parts) {
        let left = (width - layout.width) / 2.0;
        for line in &layout.lines {
            svg.push_str(&curve(line, left, top));
        }
        for (step, centre) in steps.iter().zip(&layout.centres) {
            let state = states.and_then(|states| states.get(&step.id).copied());
            svg.push_str(&draw_box(step, state, (centre.0 + left, centre.1 + top), size(step)));
        }
        top += layout.height + gap;
    }
    if has_end {
        svg.push_str(&end_line(width, MARGIN + TITLE + parts[0].height + gap / 2.0));
    }
    if !legend.is_empty() {
        let y = height - MARGIN + 4.0;
        let _ = writeln!(
            svg,
            "<text x=\"{MARGIN}\" y=\"{y:.0}\" font-size=\"11\" fill=\"#6b7280\">{}</text>",
            escape(&legend)
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// Some of the steps, laid out.
fn part(steps: &[&PlanStep]) -> Layout {
    let sizes: Vec<(f64, f64)> = steps.iter().map(|step| size(step)).collect();
    let place: HashMap<&StepId, usize> = steps.iter().enumerate().map(|(place, step)| (&step.id, place)).collect();
    let needs = steps.iter().enumerate().flat_map(|(to, step)| step.needs.iter().map(move |(need, _)| (need, to)));
    let mut edges: Vec<(usize, usize)> =
        needs.filter_map(|(need, to)| place.get(need).map(|from| (*from, to))).collect();
    edges.sort_unstable();
    edges.dedup();
    lay_out(&sizes, &edges)
}

/// Divides what happens in order from what happens at the end.
fn end_line(width: f64, y: f64) -> String {
    format!(
        "<path d=\"M{MARGIN},{y:.1} H{:.1}\" stroke=\"#d1d5db\" stroke-dasharray=\"2 4\"/>\n\
         <text x=\"{MARGIN}\" y=\"{:.1}\" font-size=\"11\" fill=\"#6b7280\">at the end, whatever happened</text>\n",
        width - MARGIN,
        y + 14.0
    )
}

/// What marks mean, as far as the picture has them.
fn legend(steps: &[PlanStep], states: Option<&States>) -> String {
    let mut parts = Vec::new();
    if steps.iter().any(|step| step.optional.is_some()) {
        parts.push("dashed: may be skipped");
    }
    if steps.iter().any(|step| step.point_of_no_return.is_some()) {
        parts.push("red bar: point of no return");
    }
    if states.is_some() {
        parts.push("colour: state");
    }
    parts.join("   ·   ")
}

fn lines_of(step: &PlanStep) -> (String, String) {
    let second = step.name.as_deref().unwrap_or_else(|| step.action.kind.key()).to_owned();
    (words::cut(step.id.as_str(), LINE_CHARS_MAX), words::cut(&second, LINE_CHARS_MAX))
}

/// The small line at the bottom of a box.
fn third_of(step: &PlanStep) -> String {
    let key = if step.name.is_some() { step.action.kind.key() } else { "" };
    let phase = match step.phase {
        Phase::Preflight => "preflight",
        Phase::Main => "",
    };
    [key, phase].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" · ")
}

#[expect(clippy::cast_precision_loss, reason = "a few dozen characters")]
fn size(step: &PlanStep) -> (f64, f64) {
    let (id, second) = lines_of(step);
    let wide = |text: &str, one: f64| text.chars().count() as f64 * one;
    let width = wide(&id, CHARACTER.0).max(wide(&second, CHARACTER.1)).max(wide(&third_of(step), CHARACTER.1));
    ((width + 30.0).max(110.0), BOX_HEIGHT)
}

fn draw_box(step: &PlanStep, state: Option<StepState>, centre: (f64, f64), size: (f64, f64)) -> String {
    let (fill, line) = colours(state);
    let (x, y) = (centre.0 - size.0 / 2.0, centre.1 - size.1 / 2.0);
    let dash = if step.optional.is_some() { " stroke-dasharray=\"6 4\"" } else { "" };
    let about = match (&step.point_of_no_return, &step.optional) {
        (Some(why), _) => format!("point of no return: {why}"),
        (None, Some(optional)) => format!("optional: {}", optional.consequence),
        (None, None) => super::super::plan::action_words(step, 300),
    };
    let (first, second) = lines_of(step);
    let mut svg = format!(
        "<g><title>{}</title><rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"8\" fill=\"{fill}\" stroke=\"{line}\" stroke-width=\"1.6\"{dash}/>\n",
        escape(about.trim()),
        size.0,
        size.1
    );
    let mut text = |offset: f64, size: u32, weight: u32, colour: &str, text: &str| {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"{size}\" font-weight=\"{weight}\" fill=\"{colour}\">{}</text>",
            centre.0,
            y + offset,
            escape(text)
        );
    };
    let third = third_of(step);
    let shift = if third.is_empty() { 7.0 } else { 0.0 };
    text(20.0 + shift, 14, 600, "#111827", &first);
    text(37.0 + shift, 12, 400, "#374151", &second);
    text(53.0, 11, 400, "#6b7280", &third);
    if step.point_of_no_return.is_some() {
        let _ = writeln!(
            svg,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"5\" rx=\"2\" fill=\"#dc2626\"/>",
            x + 6.0,
            y + size.1 - 2.5,
            size.0 - 12.0
        );
    }
    svg.push_str("</g>\n");
    svg
}

/// A smooth line through its points: upright where it leaves, passes and enters.
fn curve(points: &[(f64, f64)], left: f64, top: f64) -> String {
    let mut path = String::new();
    for (place, (x, y)) in points.iter().map(|(x, y)| (x + left, y + top)).enumerate() {
        if place == 0 {
            path = format!("M{x:.1},{y:.1}");
        } else if place % 2 == 1 {
            let (from_x, from_y) = (points[place - 1].0 + left, points[place - 1].1 + top);
            let y = if place == points.len() - 1 { y - 2.0 } else { y };
            let middle = f64::midpoint(from_y, y);
            let _ = write!(path, " C{from_x:.1},{middle:.1} {x:.1},{middle:.1} {x:.1},{y:.1}");
        } else {
            let _ = write!(path, " L{x:.1},{y:.1}");
        }
    }
    format!("<path d=\"{path}\" fill=\"none\" stroke=\"#6b7280\" stroke-width=\"1.4\" marker-end=\"url(#arrow)\"/>\n")
}

/// A text as it stands inside an element or a quoted attribute.
pub(in crate::report) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
