//! Texts of the runbooks that are measured, of any size.

/// What a step does.
#[derive(Clone, Copy)]
pub(crate) enum Work {
    /// Nothing, inside the process.
    Nothing,
    /// The command `true`.
    True,
}

impl Work {
    fn yaml(self) -> &'static str {
        match self {
            Self::Nothing => "wait.for: { duration: 0s }",
            Self::True => "exec: { argv: [\"true\"] }",
        }
    }
}

fn runbook(name: &str, parallel: usize, steps: &[String]) -> String {
    let steps = steps.concat();
    format!("apiVersion: piton/v1\nkind: Runbook\nname: {name}\nlimits: {{ parallel: {parallel} }}\nsteps:\n{steps}")
}

fn step(id: &str, needs: &str, work: Work) -> String {
    let needs = if needs.is_empty() { String::new() } else { format!(", needs: [{needs}]") };
    format!("  - {{ id: {id}{needs}, {} }}\n", work.yaml())
}

/// Each step needs the one before.
pub(crate) fn chain(steps: usize, work: Work) -> String {
    let needs = |number: usize| number.checked_sub(1).map(|before| format!("s{before}")).unwrap_or_default();
    let steps: Vec<_> = (0..steps).map(|number| step(&format!("s{number}"), &needs(number), work)).collect();
    runbook("chain", 1, &steps)
}

/// No step needs another.
pub(crate) fn independent(steps: usize, parallel: usize, work: Work) -> String {
    let steps: Vec<_> = (0..steps).map(|number| step(&format!("s{number}"), "", work)).collect();
    runbook("independent", parallel, &steps)
}

/// The ids of a layer, none of a layer before the first.
fn layer(layer: Option<usize>, width: usize) -> Vec<String> {
    layer.map(|layer| (0..width).map(|place| format!("s{layer}_{place}")).collect()).unwrap_or_default()
}

/// Layers of steps; every step needs all of the layer before.
pub(crate) fn layers(layers: usize, width: usize, parallel: usize, work: Work) -> String {
    let steps_of = |number: usize| {
        let needs = layer(number.checked_sub(1), width).join(", ");
        let steps = layer(Some(number), width).into_iter();
        steps.map(move |id| step(&id, &needs, work)).collect::<Vec<_>>()
    };
    let steps: Vec<_> = (0..layers).flat_map(steps_of).collect();
    runbook("layers", parallel, &steps)
}

/// The same layers for `make`.
pub(crate) fn makefile(layers: usize, width: usize) -> String {
    let rules_of = |number: usize| {
        let needs = layer(number.checked_sub(1), width).join(" ");
        let targets = layer(Some(number), width).into_iter();
        targets.map(move |id| format!("{id}: {needs}\n\t@true\n")).collect::<Vec<_>>()
    };
    let all = layer(layers.checked_sub(1), width).join(" ");
    let rules: Vec<_> = (0..layers).flat_map(rules_of).collect();
    format!(".PHONY: all\nall: {all}\n{}", rules.concat())
}

/// A chain of `true` for doit.
pub(crate) fn doit(tasks: usize) -> String {
    format!(
        "def task_chain():\n    for i in range({tasks}):\n        before = ['chain:%d' % (i - 1)] if i else []\n        \
         yield {{'name': str(i), 'actions': [['true']], 'task_dep': before}}\n"
    )
}

/// Tasks that run `true`, one after the other, for Ansible.
pub(crate) fn playbook(tasks: usize) -> String {
    let head = "- hosts: localhost\n  connection: local\n  gather_facts: false\n  tasks:\n";
    format!("{head}{}", "    - ansible.builtin.command: \"true\"\n".repeat(tasks))
}

/// A chain of steps that print a file, with a variable to put secrets in (`HIDDEN`), and a site that has three.
pub(crate) fn talk(steps: usize, file: &std::path::Path) -> (String, String) {
    let step = |number: usize| {
        let needs = number.checked_sub(1).map(|before| format!("needs: [s{before}], ")).unwrap_or_default();
        let file = file.display();
        format!("  - {{ id: s{number}, {needs}exec: {{ argv: [cat, \"{file}\"], env: {{ SECRET: \"HIDDEN\" }} }} }}\n")
    };
    let steps: Vec<_> = (0..steps).map(step).collect();
    let secret = |name: &str| format!("  {}: {{ env: TALK_{name} }}\n", name.to_lowercase());
    let secrets: String = ["A", "B", "C"].into_iter().map(secret).collect();
    let site = format!("apiVersion: piton/v1\nkind: Site\nname: talk\nsecrets:\n{secrets}");
    (runbook("talk", 1, &steps), site)
}
