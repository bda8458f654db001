//! Runbooks of 10,000 steps: checked and planned right, and their circles found.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use piton::plan::{self, Given, Plan};
use piton::site::LoadedSite;
use piton::spec::problem::Source;

const STEPS: usize = 10_000;

/// A runbook in which step `n` needs what `needs` says and uses an output of the first of them.
fn runbook(needs: impl Fn(usize) -> Vec<usize>) -> String {
    let mut text = String::from("apiVersion: piton/v1\nkind: Runbook\nname: large\nsteps:\n");
    for n in 0..STEPS {
        let needs = needs(n);
        let listed: Vec<String> = needs.iter().map(|need| format!("s{need}")).collect();
        let used = needs.first().map_or_else(|| "none".to_owned(), |need| format!("{{{{ steps.s{need}.outputs.v }}}}"));
        writeln!(
            text,
            "  - id: s{n}\n    needs: [{}]\n    exec: {{ argv: [echo, \"{used}\"], outputs: {{ v: {{ stdout: true }} }} }}",
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
fn a_circle_through_ten_thousand_steps_is_found() {
    let text = runbook(|n| vec![(n + STEPS - 1) % STEPS]);
    let source = Arc::new(Source { name: "circle.yaml".into(), text });
    let problems = plan::check(&source, Path::new("."), None).expect_err("a circle");
    assert_eq!(problems.list.iter().filter(|problem| problem.code == "plan::cycle").count(), 1);
}
