//! A runbook as a page in Markdown that a person can read, print and follow by hand.

use super::plan::{action_words, in_order};
use super::words;
use crate::plan::Plan;
use crate::report::graph;

/// The page.
pub fn to_markdown(plan: &Plan) -> String {
    let mut page = format!("# {} {}\n\n", plan.name, plan.version);
    if let Some(text) = &plan.description {
        page.push_str(&format!("{}\n\n", text.trim()));
    }
    page.push_str(&format!("Plan `{}` for site `{}`.\n\n", plan.digest, plan.site.site.name));
    if !plan.params.is_empty() {
        page.push_str("## Parameters\n\n| name | value |\n|---|---|\n");
        for (name, value) in &plan.params {
            page.push_str(&format!("| `{name}` | `{}` |\n", words::short(value, 80).replace('|', "\\|")));
        }
        page.push('\n');
    }
    page.push_str(&format!(
        "## Overview\n\n```mermaid\n{}```\n\n## Steps\n\n",
        graph::text::mermaid(&plan.steps, None)
    ));
    for (place, step) in in_order(plan).into_iter().enumerate() {
        let name = step.name.as_ref().map(|name| format!(": {name}")).unwrap_or_default();
        page.push_str(&format!("### {}. `{}`{name}\n\n", place + 1, step.id));
        page.push_str(&format!("- [ ] `{}`\n", action_words(step, 400).replace('`', "'")));
        if !step.needs.is_empty() {
            let needs: Vec<String> = step.needs.iter().map(|(need, _)| format!("`{need}`")).collect();
            page.push_str(&format!("- after {}\n", needs.join(", ")));
        }
        if let Some(when) = &step.when {
            page.push_str(&format!("- only when `{}`\n", when.text));
        }
        if let Some(optional) = &step.optional {
            page.push_str(&format!("- optional; left out, it means: {}\n", optional.consequence.trim()));
        }
        if let Some(why) = &step.point_of_no_return {
            page.push_str(&format!("- **point of no return**: {}\n", why.trim()));
        }
        page.push('\n');
    }
    page
}
