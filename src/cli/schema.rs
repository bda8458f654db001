//! `piton schema`: what editors check runbooks and sites with.

use clap::{Args, ValueEnum};

use super::error::CliError;
use super::exit::Exit;
use super::out::Out;

/// Arguments of `piton schema`.
#[derive(Debug, Args)]
#[command(
    after_help = "Use it in an editor with a first line like\n  # yaml-language-server: $schema=runbook.schema.json"
)]
pub struct Schema {
    /// Of which kind of file
    kind: Kind,
}

/// A kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A runbook
    Runbook,
    /// A site
    Site,
    /// A test of a runbook
    Test,
    /// A retention policy
    Retention,
}

pub(super) fn run(args: &Schema, out: Out) -> Result<Exit, CliError> {
    let schema = match args.kind {
        Kind::Runbook => crate::spec::runbook::json_schema(),
        Kind::Site => crate::site::json_schema(),
        Kind::Test => crate::spec::case::json_schema(),
        Kind::Retention => crate::spec::retention::json_schema(),
    };
    out.json_pretty(&schema)?;
    Ok(Exit::SUCCEEDED)
}
