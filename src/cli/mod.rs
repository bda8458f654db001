//! The command line: reads arguments, calls the library, prints, chooses the exit code. Decides nothing about runs.
//!
//! One file for each command. `docs/reference/cli.md` and `docs/reference/exit-codes.md` are its reference.

pub mod error;
pub mod exit;
pub mod out;

mod agree;
mod anchor;
mod answer;
mod approvals;
mod approve;
mod assign;
mod audit;
mod cancel;
mod check;
mod completions;
mod decide;
pub mod demo;
mod deviate;
mod diff;
mod doc;
mod done;
mod extend;
mod fault;
mod force;
mod graph;
mod lists;
mod logs;
mod new;
mod panics;
mod place;
mod plan;
mod prune;
mod report;
mod resume;
mod rollback;
mod run;
mod runs;
mod schema;
mod show;
mod sign;
mod skip;
mod test;
mod voice;
mod watch;
mod withdraw;
mod word;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use error::CliError;
use exit::Exit;
use out::{ColorChoice, Out};

/// Runs runbooks: durable, audited graphs of steps over databases, services and people.
#[derive(Debug, Parser)]
#[command(
    name = "piton",
    version,
    arg_required_else_help = true,
    after_help = "RUN is a run id, the unique beginning of one, or `last`.\n\
        Exit codes: 0 succeeded, 1 bug, 2 usage, 3 invalid runbook or site, 4 rolled back or failed, 5 stuck (a person must\n\
        decide), 6 waiting for a person, 130 cancelled."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: Global,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Where runs are recorded: the path of a file, or `postgres://...` [default: .piton/piton.db of the project]
    #[arg(long, global = true, env = "PITON_STORE", hide_env_values = true, value_name = "PATH-OR-URL")]
    store: Option<String>,
    /// The site file: databases, services, option stores and people of the place to work on
    #[arg(long, global = true, env = "PITON_SITE", value_name = "FILE")]
    site: Option<PathBuf>,
    /// An OpenSSH allowed-signers file: the site must be signed by one of them, beside what host and store ask for
    #[arg(long, global = true, env = "PITON_SITE_SIGNERS", value_name = "FILE")]
    site_signers: Option<PathBuf>,
    /// A folder outside of its project that the runbook may read its files from; may be given many times
    #[arg(long, global = true, value_name = "FOLDER")]
    allow_reads: Vec<PathBuf>,
    /// A parameter of the runbook; may be given many times
    #[arg(long, global = true, value_name = "NAME=VALUE")]
    param: Vec<String>,
    /// A YAML file of parameters; `--param` overrides it
    #[arg(long, global = true, value_name = "FILE")]
    params: Vec<PathBuf>,
    /// Print JSON for programs instead of text for people
    #[arg(long, global = true)]
    json: bool,
    /// Start without asking for confirmation; answers nothing else that needs a person
    #[arg(long, global = true)]
    yes: bool,
    /// When to use colours
    #[arg(long, global = true, value_enum, default_value = "auto", value_name = "WHEN")]
    color: ColorChoice,
    /// Log to standard error; twice for more; PITON_LOG takes a filter such as `piton=trace`
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Look for mistakes in runbooks and sites
    Check(check::Check),
    /// List what a runbook or site is made of, and sign the list
    Sign(sign::Sign),
    /// Show what a run would do, in order, without doing anything
    Plan(plan::PlanArgs),
    /// Start a run and follow it to its end
    Run(run::Run),
    /// Take a run up again where it stopped or was interrupted
    Resume(resume::Resume),
    /// Undo a run that has ended or rests, the last step first
    Rollback(rollback::Rollback),
    /// Compare a run with a changed runbook: what is kept, what was changed, what needs a decision
    Diff(diff::Diff),
    /// List runs, the latest first
    Runs(runs::Runs),
    /// Show how a run stands, what it waits for and how to answer
    Show(show::Show),
    /// Approve (or reject) a step that waits for approval
    Approve(approve::Approve),
    /// Take back an approval that is not used yet
    Withdraw(withdraw::Withdraw),
    /// List what waits for whom, over all runs
    Approvals(approvals::Approvals),
    /// Report a step done that a person does by hand
    Answer(answer::AnswerArgs),
    /// Hand work by hand over to somebody
    Assign(assign::Assign),
    /// Say whether a step whose result is unknown did its work
    Decide(decide::Decide),
    /// Pass over a step that has not started
    Skip(skip::Skip),
    /// Have a step start that was passed over
    Force(force::Force),
    /// Declare a step done that has not started or has failed
    Done(done::Done),
    /// Allow more time or more attempts than the runbook does
    Extend(extend::Extend),
    /// Agree to a deviation that another person wants
    Agree(agree::Agree),
    /// End a run; it can be resumed
    Cancel(cancel::Cancel),
    /// Tell who did what when in a run, or check that its record was not changed
    Audit(audit::Audit),
    /// Write a run as a page to read, print and hand on, with the bundle that proves it
    Report(report::Report),
    /// Print what the commands of a run said
    Logs(logs::Logs),
    /// Try a runbook out on mocked actions: its test file, or every failure and crash
    Test(test::Test),
    /// Draw a runbook as SVG, Mermaid or DOT
    Graph(graph::Graph),
    /// Write a runbook as a page to read and follow
    Doc(doc::Doc),
    /// List the locks that runs hold
    Locks,
    /// List the milestones that runs have established
    Milestones,
    /// Show the flagship migration in a lab of real processes and databases, with the evidence
    Demo(demo::DemoArgs),
    /// Start commands for a driver and keep their results; for Piton itself
    #[command(hide = true)]
    HoldCommands,
    /// Run one part of the lab that `piton demo` is made of
    #[command(subcommand, hide = true)]
    Lab(crate::lab::LabCommand),
    /// Print the JSON Schema for editors
    Schema(schema::Schema),
    /// Write a commented runbook to start from
    New(new::New),
    /// Print the completions of a shell
    Completions(completions::Completions),
}

/// Most threads of the process that holds commands.
const HOLDER_THREADS_MAX: usize = 4;

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    panics::install();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to standard output, mistakes to standard error; a closed pipe is no mistake.
            let _ = error.print();
            return if error.use_stderr() { Exit::USAGE.into() } else { Exit::SUCCEEDED.into() };
        }
    };
    if matches!(cli.command, Command::HoldCommands) {
        return hold_commands();
    }
    log_to_stderr(cli.global.verbose);
    let out = Out::new(cli.global.json, cli.global.color);
    // One thread: a step that passes through several waits for each to be woken. Rows are moved by others.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            out.error(&CliError::Store(format!("threads cannot be started: {error}")));
            return Exit::BUG.into();
        }
    };
    let result = runtime.block_on(dispatch(cli, out));
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match result {
        Ok(exit) => exit.into(),
        Err(error) => {
            if out.json
                && let CliError::Problems(all) = &error
            {
                let list: Vec<_> =
                    all.iter().flat_map(|p| p.to_json().as_array().cloned().unwrap_or_default()).collect();
                let _ = out.json_line(&serde_json::json!({ "problems": list }));
            }
            out.error(&error);
            error.exit().into()
        }
    }
}

/// A small process that mostly waits. Starting a program holds up a thread until it is loaded, so one is not enough for many short ones.
fn hold_commands() -> ExitCode {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(HOLDER_THREADS_MAX);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(crate::action::held::serve())) {
        Ok(()) => Exit::SUCCEEDED.into(),
        Err(_) => Exit::USAGE.into(),
    }
}

async fn dispatch(cli: Cli, out: Out) -> Result<Exit, CliError> {
    let global = cli.global;
    match cli.command {
        Command::Check(args) => check::run(&global, &args, out),
        Command::Sign(args) => sign::run(&global, &args, out),
        Command::Plan(args) => plan::run(&global, &args, out).await,
        Command::Run(args) => run::run(&global, args, out).await,
        Command::Resume(args) => resume::run(&global, &args, out).await,
        Command::Rollback(args) => rollback::run(&global, args, out).await,
        Command::Diff(args) => diff::run(&global, &args, out).await,
        Command::Runs(args) => runs::run(&global, args, out).await,
        Command::Show(args) => show::run(&global, &args, out).await,
        Command::Approve(args) => approve::run(&global, args, out).await,
        Command::Withdraw(args) => withdraw::run(&global, args, out).await,
        Command::Approvals(args) => approvals::run(&global, &args, out).await,
        Command::Answer(args) => answer::run(&global, &args, out).await,
        Command::Assign(args) => assign::run(&global, args, out).await,
        Command::Decide(args) => decide::run(&global, args, out).await,
        Command::Skip(args) => skip::run(&global, args, out).await,
        Command::Force(args) => force::run(&global, args, out).await,
        Command::Done(args) => done::run(&global, args, out).await,
        Command::Extend(args) => extend::run(&global, args, out).await,
        Command::Agree(args) => agree::run(&global, args, out).await,
        Command::Cancel(args) => cancel::run(&global, args, out).await,
        Command::Audit(args) => audit::run(&global, &args, out).await,
        Command::Report(args) => report::run(&global, &args, out).await,
        Command::Logs(args) => logs::run(&global, &args, out).await,
        Command::Test(args) => Box::pin(test::run(&global, &args, out)).await,
        Command::Graph(args) => graph::run(&global, &args, out).await,
        Command::Doc(args) => doc::run(&global, &args, out),
        Command::Locks => lists::locks(&global, out).await,
        Command::Milestones => lists::milestones(&global, out).await,
        Command::Demo(args) => demo::run(&args, out).await,
        Command::HoldCommands => Ok(Exit::BUG),
        Command::Lab(command) => Ok(crate::lab::run(command).await.map(|()| Exit::SUCCEEDED)?),
        Command::Schema(args) => schema::run(&args, out),
        Command::New(args) => new::run(&args, out),
        Command::Completions(args) => completions::run(&args, out),
    }
}

/// Logs for whoever looks for a fault; off unless asked for, so that nothing mixes with reports.
fn log_to_stderr(verbose: u8) {
    let wanted = crate::config::variable("PITON_LOG").or_else(|| match verbose {
        0 => None,
        1 => Some("piton=info".to_owned()),
        2 => Some("piton=debug".to_owned()),
        _ => Some("debug".to_owned()),
    });
    let Some(wanted) = wanted else { return };
    let filter = tracing_subscriber::EnvFilter::new(wanted);
    // A second logger is refused; the first one goes on.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}
