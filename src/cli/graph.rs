//! `piton graph`: a runbook as a picture.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::Global;
use super::error::CliError;
use super::exit::Exit;
use super::out::Out;
use crate::plan::PlanStep;
use crate::report::graph::{States, sketch, states_of, svg, text};

/// Arguments of `piton graph`.
#[derive(Debug, Args)]
pub struct Graph {
    /// The runbook; may be left out with --run
    #[arg(required_unless_present = "run")]
    runbook: Option<PathBuf>,
    /// What to write
    #[arg(long, value_enum, default_value = "svg")]
    format: Format,
    /// The file to write to [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Colour the steps by their state in this run
    #[arg(long, value_name = "RUN")]
    run: Option<String>,
}

/// A format of graphs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A picture
    Svg,
    /// Text that GitHub and GitLab draw
    Mermaid,
    /// Text for Graphviz
    Dot,
}

pub(super) async fn run(global: &Global, args: &Graph, out: Out) -> Result<Exit, CliError> {
    let drawing = match (&args.run, &args.runbook) {
        (Some(run), _) => {
            let (_, told) = global.store().await?.told(run).await?;
            let states = Some(states_of(&told.state));
            Drawing { name: told.plan.name, version: told.plan.version, steps: told.plan.steps, states }
        }
        (None, Some(runbook)) => of_runbook(global, runbook)?,
        (None, None) => return Err(CliError::Usage("name a runbook, or a run with `--run`".into())),
    };
    let Drawing { name, version, steps, states } = drawing;
    let drawn = match args.format {
        Format::Svg => svg::draw(&format!("{name} {version}"), &steps, states.as_ref()),
        Format::Mermaid => text::mermaid(&steps, states.as_ref()),
        Format::Dot => text::dot(&name, &steps, states.as_ref()),
    };
    match &args.output {
        Some(path) => std::fs::write(path, drawn).map_err(|error| CliError::unwritable(path, &error))?,
        None => out.text(&drawn)?,
    }
    Ok(Exit::SUCCEEDED)
}

/// What is drawn.
struct Drawing {
    name: String,
    version: String,
    steps: Vec<PlanStep>,
    states: Option<States>,
}

/// A runbook with its site, or without one, as its author sees it.
fn of_runbook(global: &Global, path: &Path) -> Result<Drawing, CliError> {
    if global.site.is_some() {
        let plan = global.load_plan(path)?;
        return Ok(Drawing { name: plan.name, version: plan.version, steps: plan.steps, states: None });
    }
    let source = crate::plan::read_source(path)?;
    let base = crate::config::folder_of(path);
    let checked = crate::plan::check(&source, base, None, &global.load_site()?.reads)
        .map_err(|problems| CliError::Problems(vec![problems]))?;
    let runbook = checked.runbook;
    let steps = sketch(&runbook);
    Ok(Drawing { name: runbook.name.value, version: runbook.version, steps, states: None })
}
