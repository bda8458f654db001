//! A plan as Mermaid or DOT.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::{States, colours};
use crate::ids::StepId;
use crate::plan::PlanStep;

/// What stands in a node.
fn label(step: &PlanStep, line_break: &str) -> String {
    let name = step.name.as_ref().map(|name| format!("{line_break}{name}")).unwrap_or_default();
    let mark =
        if step.point_of_no_return.is_some() { format!("{line_break}point of no return") } else { String::new() };
    format!("{}{name}{line_break}{}{mark}", step.id, step.action.kind.key())
}

/// Edges by the places of their steps.
fn edges(steps: &[PlanStep]) -> Vec<(usize, usize)> {
    let places: HashMap<&StepId, usize> = steps.iter().enumerate().map(|(place, step)| (&step.id, place)).collect();
    let of_step = |(to, step): (usize, &PlanStep)| -> Vec<(usize, usize)> {
        step.needs.iter().filter_map(|(need, _)| places.get(need).map(|&from| (from, to))).collect()
    };
    steps.iter().enumerate().flat_map(of_step).collect()
}

/// Mermaid.
pub fn mermaid(steps: &[PlanStep], states: Option<&States>) -> String {
    let mut text = "flowchart TD\n".to_owned();
    for (place, step) in steps.iter().enumerate() {
        let label = label(step, "<br/>").replace('"', "#quot;");
        let _ = writeln!(text, "  s{place}[\"{label}\"]");
        let (fill, line) = colours(states.and_then(|states| states.get(&step.id).copied()));
        let dash = if step.optional.is_some() { ",stroke-dasharray:6 4" } else { "" };
        let width = if step.point_of_no_return.is_some() { ",stroke-width:4px" } else { "" };
        let _ = writeln!(text, "  style s{place} fill:{fill},stroke:{line}{dash}{width}");
    }
    for (from, to) in edges(steps) {
        let _ = writeln!(text, "  s{from} --> s{to}");
    }
    text
}

/// DOT, for Graphviz.
pub fn dot(name: &str, steps: &[PlanStep], states: Option<&States>) -> String {
    let quote = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"));
    let mut text =
        format!("digraph {} {{\n  node [shape=box, style=\"rounded,filled\", fontname=\"sans-serif\"];\n", quote(name));
    for step in steps {
        let (fill, line) = colours(states.and_then(|states| states.get(&step.id).copied()));
        let style = if step.optional.is_some() { "rounded,filled,dashed" } else { "rounded,filled" };
        let width = if step.point_of_no_return.is_some() { 3 } else { 1 };
        let _ = writeln!(
            text,
            "  {} [label={}, fillcolor=\"{fill}\", color=\"{line}\", style=\"{style}\", penwidth={width}];",
            quote(step.id.as_str()),
            quote(&label(step, "\n")),
        );
    }
    for (from, to) in edges(steps) {
        let name = |place: usize| quote(steps[place].id.as_str());
        let _ = writeln!(text, "  {} -> {};", name(from), name(to));
    }
    text.push_str("}\n");
    text
}
