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

fn head(name: &str, parallel: usize) -> String {
    format!("apiVersion: piton/v1\nkind: Runbook\nname: {name}\nlimits: {{ parallel: {parallel} }}\nsteps:\n")
}

/// Each step needs the one before.
pub(crate) fn chain(steps: usize, work: Work) -> String {
    let mut text = head("chain", 1);
    for step in 0..steps {
        let needs = if step == 0 { String::new() } else { format!(", needs: [s{}]", step - 1) };
        text.push_str(&format!("  - {{ id: s{step}{needs}, {} }}\n", work.yaml()));
    }
    text
}

/// No step needs another.
pub(crate) fn independent(steps: usize, parallel: usize, work: Work) -> String {
    let mut text = head("independent", parallel);
    for step in 0..steps {
        text.push_str(&format!("  - {{ id: s{step}, {} }}\n", work.yaml()));
    }
    text
}

/// Layers of steps; every step needs all of the layer before.
pub(crate) fn layers(layers: usize, width: usize, parallel: usize, work: Work) -> String {
    let mut text = head("layers", parallel);
    for layer in 0..layers {
        for place in 0..width {
            let needs = if layer == 0 { String::new() } else { format!(", needs: [{}]", all(layer - 1, width)) };
            text.push_str(&format!("  - {{ id: s{layer}_{place}{needs}, {} }}\n", work.yaml()));
        }
    }
    text
}

fn all(layer: usize, width: usize) -> String {
    (0..width).map(|place| format!("s{layer}_{place}")).collect::<Vec<_>>().join(", ")
}

/// The same layers for `make`.
pub(crate) fn makefile(layers: usize, width: usize) -> String {
    let last = layers - 1;
    let targets = |layer: usize| (0..width).map(|p| format!("s{layer}_{p}")).collect::<Vec<_>>().join(" ");
    let mut text = format!("all: {}\n", targets(last));
    for layer in 0..layers {
        let needs = if layer == 0 { String::new() } else { targets(layer - 1) };
        for place in 0..width {
            text.push_str(&format!("s{layer}_{place}: {needs}\n\t@true\n"));
        }
    }
    text.push_str(".PHONY: all\n");
    text
}
