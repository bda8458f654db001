//! `piton doc`: a runbook as a page.

use std::path::PathBuf;

use clap::Args;

use super::Global;
use super::error::CliError;
use super::exit::Exit;
use super::out::Out;
use crate::report::page;

/// Arguments of `piton doc`.
#[derive(Debug, Args)]
pub struct Doc {
    /// The runbook
    runbook: PathBuf,
    /// The Markdown file to write to [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn run(global: &Global, args: &Doc, out: Out) -> Result<Exit, CliError> {
    let page = page::to_markdown(&global.load_plan(&args.runbook)?);
    match &args.output {
        Some(path) => std::fs::write(path, page).map_err(|error| CliError::unwritable(path, &error))?,
        None => out.text(&page)?,
    }
    Ok(Exit::SUCCEEDED)
}
