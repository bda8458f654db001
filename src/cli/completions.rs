//! `piton completions`: what a shell needs to complete commands.

use clap::{Args, CommandFactory};

use super::error::CliError;
use super::exit::Exit;
use super::out::Out;

/// Arguments of `piton completions`.
#[derive(Debug, Args)]
#[command(after_help = "For bash: piton completions bash > ~/.local/share/bash-completion/completions/piton")]
pub struct Completions {
    /// The shell
    shell: clap_complete::Shell,
}

pub(super) fn run(args: &Completions, out: Out) -> Result<Exit, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), "piton", &mut script);
    out.text(&String::from_utf8_lossy(&script))?;
    Ok(Exit::SUCCEEDED)
}
