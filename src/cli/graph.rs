//! `piton graph`: a runbook as a picture.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Global;
use super::error::CliError;
use super::exit::Exit;
use super::out::Out;
use crate::report::graph::{states_of, svg, text};

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
    let (plan, states) = match (&args.run, &args.runbook) {
        (Some(run), _) => {
            let (_, told) = global.store().await?.told(run).await?;
            let states = states_of(&told.state);
            (told.plan, Some(states))
        }
        (None, Some(runbook)) => (global.load_plan(runbook)?, None),
        (None, None) => return Err(CliError::Usage("name a runbook, or a run with `--run`".into())),
    };
    let drawn = match args.format {
        Format::Svg => svg::draw(&plan, states.as_ref()),
        Format::Mermaid => text::mermaid(&plan, states.as_ref()),
        Format::Dot => text::dot(&plan, states.as_ref()),
    };
    match &args.output {
        Some(path) => std::fs::write(path, drawn).map_err(|error| CliError::unwritable(path, &error))?,
        None => out.text(&drawn)?,
    }
    Ok(Exit::SUCCEEDED)
}
