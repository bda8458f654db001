//! A runbook as a page in Markdown that a person can read, print and follow by hand.

use super::plan::{action_words, in_order};
use super::words;
use crate::plan::Plan;
use crate::report::graph;
use std::fmt::Write as _;

/// The page.
pub fn to_markdown(plan: &Plan) -> String {
    let mut page = format!("# {} {}\n\n", plan.name, plan.version);
    if let Some(text) = &plan.description {
        let _ = write!(page, "{}\n\n", text.trim());
    }
    let _ = write!(page, "Plan `{}` for site `{}`.\n\n", plan.digest, plan.site.site.name);
    if !plan.params.is_empty() {
        page.push_str("## Parameters\n\n| name | value |\n|---|---|\n");
        for (name, value) in &plan.params {
            let _ = writeln!(page, "| `{name}` | `{}` |", words::short(value, 80).replace('|', "\\|"));
        }
        page.push('\n');
    }
    let _ = write!(page, "## Overview\n\n```mermaid\n{}```\n\n## Steps\n\n", graph::text::mermaid(&plan.steps, None));
    for (place, step) in in_order(plan).into_iter().enumerate() {
        let name = step.name.as_ref().map(|name| format!(": {name}")).unwrap_or_default();
        let _ = write!(page, "### {}. `{}`{name}\n\n", place + 1, step.id);
        let _ = writeln!(page, "- [ ] `{}`", action_words(step, 400).replace('`', "'"));
        if !step.needs.is_empty() {
            let needs: Vec<String> = step.needs.iter().map(|(need, _)| format!("`{need}`")).collect();
            let _ = writeln!(page, "- after {}", needs.join(", "));
        }
        if let Some(when) = &step.when {
            let _ = writeln!(page, "- only when `{}`", when.text);
        }
        if let Some(optional) = &step.optional {
            let _ = writeln!(page, "- optional; left out, it means: {}", optional.consequence.trim());
        }
        if let Some(why) = &step.point_of_no_return {
            let _ = writeln!(page, "- **point of no return**: {}", why.trim());
        }
        page.push('\n');
    }
    page
}
