//! Runbooks of 10,000 steps: checked and planned right, their circles and their misplaced uses found.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use piton::plan::{self, Given, Plan};
use piton::site::LoadedSite;
use piton::spec::problem::Source;

const STEPS: usize = 10_000;

/// A runbook in which step `n` needs what `needs` says and uses an output of the first of them.
fn runbook(needs: impl Fn(usize) -> Vec<usize>) -> String {
    runbook_with_uses(&needs, |n| needs(n).first().copied())
}

/// A runbook in which step `n` needs what `needs` says and uses an output of what `uses` says.
fn runbook_with_uses(needs: impl Fn(usize) -> Vec<usize>, uses: impl Fn(usize) -> Option<usize>) -> String {
    let mut text = String::from("apiVersion: piton/v1\nkind: Runbook\nname: large\nsteps:\n");
    for n in 0..STEPS {
        let listed: Vec<String> = needs(n).iter().map(|need| format!("s{need}")).collect();
        let word = uses(n).map_or_else(|| "none".to_owned(), |used| format!("{{{{ steps.s{used}.outputs.v }}}}"));
        writeln!(
            text,
            "  - id: s{n}\n    needs: [{}]\n    exec: {{ argv: [echo, \"{word}\"], outputs: {{ v: {{ stdout: true }} }} }}",
            listed.join(", ")
        )
        .expect("a string takes any text");
    }
    text
}

fn planned(text: String) -> Plan {
    let folder = tempfile::tempdir().expect("a temp folder");
    let path = folder.path().join("large.yaml");
    std::fs::write(&path, text).expect("written");
    Plan::load(&path, LoadedSite::empty(), &Given::new()).expect("a valid runbook")
}

#[test]
fn a_chain_a_fan_and_layers_of_ten_thousand_steps_are_planned() {
    let chain = planned(runbook(|n| n.checked_sub(1).into_iter().collect()));
    assert_eq!(chain.steps.len(), STEPS);
    let sorted = chain.sorted();
    assert_eq!((sorted[0].as_str(), sorted[STEPS - 1].as_str()), ("s0", "s9999"));

    let fan = planned(runbook(|n| if n == 0 { Vec::new() } else { vec![0] }));
    assert_eq!(fan.steps.iter().filter(|step| step.needs.len() == 1).count(), STEPS - 1);

    let layers = planned(runbook(|n| if n < 100 { Vec::new() } else { vec![n - 100, n - n % 100 - 1] }));
    assert_eq!(layers.steps.iter().map(|step| step.needs.len()).sum::<usize>(), 2 * (STEPS - 100));
}

#[test]
fn outputs_of_steps_far_before_are_found_and_of_others_refused() {
    // Every step of a chain uses one far before it; the last one of a column beside the chain does so in vain.
    let needs = |n: usize| {
        n.checked_sub(if n % 10 == 9 { 10 } else { 1 + usize::from(n.is_multiple_of(10)) }).into_iter().collect()
    };
    let uses = |n: usize| {
        if n % 10 == 9 { (n + 1 == STEPS).then_some(0) } else { (n > 0).then(|| 7919 * (n / 2 + 1) % n / 10 * 10) }
    };
    let source = Arc::new(Source { name: "far.yaml".into(), text: runbook_with_uses(needs, uses) });
    let problems = plan::check(&source, Path::new("."), None, &[]).expect_err("one use in vain");
    let found: Vec<&str> = problems.list.iter().map(|problem| problem.message.as_str()).collect();
    assert_eq!(found, ["step `s9999` uses an output of `s0`, which does not come before it"]);
}

#[test]
fn a_list_of_ten_thousand_items_becomes_as_many_steps() {
    let items: Vec<String> = (0..STEPS).map(|n| format!("{{ name: t{n} }}")).collect();
    let text = format!(
        "apiVersion: piton/v1\nkind: Runbook\nname: items\nparams:\n  tables: {{ type: list, default: [{}] }}\nsteps:\n  \
         - id: each\n    foreach: {{ items: params.tables, key: item.name }}\n    locks: [\"table/{{{{ item.name }}}}\"]\n    \
         exec: {{ argv: [echo, \"{{{{ item.name }}}}\"] }}\n  - id: last\n    needs: [each]\n    exec: {{ argv: [echo, end] }}\n",
        items.join(", ")
    );
    let plan = planned(text);
    assert_eq!((plan.instances("each").len(), plan.instances("last").len()), (STEPS, 1));
    assert_eq!(plan.instances("each[t7]").len(), 0);
    let last = plan.step(&"last".into()).expect("a step");
    assert_eq!((last.needs.len(), last.needs[7].0.as_str()), (STEPS, "each[t7]"));
    let seventh = plan.step(&"each[t7]".into()).expect("a step");
    assert_eq!((seventh.locks[0].as_str(), plan.in_order().len()), ("table/t7", STEPS + 1));
}

#[test]
fn a_circle_through_ten_thousand_steps_is_found() {
    let text = runbook(|n| vec![(n + STEPS - 1) % STEPS]);
    let source = Arc::new(Source { name: "circle.yaml".into(), text });
    let problems = plan::check(&source, Path::new("."), None, &[]).expect_err("a circle");
    assert_eq!(problems.list.iter().filter(|problem| problem.code == "plan::cycle").count(), 1);
}
