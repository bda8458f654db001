//! `piton lab ...`: every process of the lab, and the questions that a demonstration asks of it.

use std::path::{Path, PathBuf};

use super::aggregator::{self, WriteMode};
use super::component::{self, ComponentName};
use super::error::LabError;
use super::invariants::{self, RunFacts};
use super::loss::{self, Procedure};
use super::seed;
use super::session::say;
use super::settings::{Engine, Lab, LabOptions, Release};
use super::site;
use super::source;
use super::utility::{self, Operation};

/// The parts of the lab; each runs in the foreground until SIGTERM unless it says otherwise.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum LabCommand {
    /// Make a lab: databases, history, site file; returns when it is there
    Create(CreateArgs),
    /// Print the lab's site file
    Site(LabArgs),
    /// The statistics source with the ledger of the truth
    Source(LabArgs),
    /// The data aggregator of a release
    Aggregator(AggregatorArgs),
    /// A server, builder, web or daemon of a release
    Component(ComponentArgs),
    /// The Database Utility
    Dbu(LabArgs),
    /// Ask the running Database Utility for a migration pass and wait for its end
    DbuCall(DbuCallArgs),
    /// Predict or measure loss
    #[command(subcommand)]
    Loss(LossCommand),
    /// Measure I1 to I17 and print them; fails if one does not hold
    Invariants(InvariantArgs),
}

/// Which lab.
#[derive(Debug, Clone, clap::Args)]
pub struct LabArgs {
    /// The lab's directory
    #[arg(long)]
    dir: PathBuf,
}

/// How to make a lab.
#[derive(Debug, Clone, clap::Args)]
pub struct CreateArgs {
    /// Where; must not hold a lab yet
    #[arg(long)]
    dir: PathBuf,
    /// How many activities are collected
    #[arg(long, default_value_t = 50)]
    entities: i64,
    /// Closed timesteps of history per activity
    #[arg(long, default_value_t = 2_000)]
    history_steps: i64,
    /// Length of a timestep in seconds
    #[arg(long, default_value_t = 2)]
    timestep: i64,
    /// When data aggregators write
    #[arg(long, value_enum, default_value = "close")]
    mode: WriteMode,
    /// Write lag of the data aggregators in milliseconds
    #[arg(long, default_value_t = 200)]
    lag_ms: i64,
    /// Speed of the Database Utility
    #[arg(long, default_value_t = 20_000)]
    rows_per_second: i64,
    /// Decides the load
    #[arg(long, default_value_t = 6_576)]
    seed: u64,
    /// Make the databases as schemas of this PostgreSQL database
    #[arg(long)]
    postgres_url: Option<String>,
}

/// Which data aggregator.
#[derive(Debug, Clone, clap::Args)]
pub struct AggregatorArgs {
    /// The lab's directory
    #[arg(long)]
    dir: PathBuf,
    /// 65 or 76
    #[arg(long, value_enum)]
    release: Release,
    /// When it writes, if not as the lab says
    #[arg(long, value_enum)]
    mode: Option<WriteMode>,
    /// Its write lag in milliseconds, if not the lab's
    #[arg(long)]
    lag_ms: Option<i64>,
}

/// Which component.
#[derive(Debug, Clone, clap::Args)]
pub struct ComponentArgs {
    /// The lab's directory
    #[arg(long)]
    dir: PathBuf,
    /// Which one
    #[arg(long, value_enum)]
    name: ComponentName,
    /// 65 or 76
    #[arg(long, value_enum)]
    release: Release,
}

/// Which operation.
#[derive(Debug, Clone, clap::Args)]
pub struct DbuCallArgs {
    /// The operation
    #[arg(value_enum)]
    operation: Operation,
    /// The lab's directory
    #[arg(long)]
    dir: PathBuf,
}

/// Questions about loss; each prints one JSON object.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum LossCommand {
    /// The most that a procedure can lose if it starts now
    Predict {
        /// The lab's directory
        #[arg(long)]
        dir: PathBuf,
        /// Which procedure
        #[arg(long, value_enum)]
        procedure: Procedure,
    },
    /// What was lost of the timesteps between two moments
    Measure {
        /// The lab's directory
        #[arg(long)]
        dir: PathBuf,
        /// The run's start: RFC 3339, or epoch seconds or milliseconds
        #[arg(long)]
        from: String,
        /// Up to when; now if absent
        #[arg(long)]
        to: Option<String>,
    },
}

/// What to check.
#[derive(Debug, Clone, clap::Args)]
pub struct InvariantArgs {
    /// The lab's directory
    #[arg(long)]
    dir: PathBuf,
    /// A JSON file with the run's facts
    #[arg(long)]
    facts: PathBuf,
}

/// Runs one part of the lab.
pub async fn run(command: LabCommand) -> Result<(), LabError> {
    match command {
        LabCommand::Create(args) => create(args).await,
        LabCommand::Site(args) => {
            say(site::site_yaml(&Lab::open(&args.dir)?, &own_binary()?).trim_end());
            Ok(())
        }
        LabCommand::Source(args) => source::serve(&Lab::open(&args.dir)?).await,
        LabCommand::Aggregator(args) => {
            aggregator::collect(&Lab::open(&args.dir)?, args.release, args.mode, args.lag_ms).await
        }
        LabCommand::Component(args) => component::serve(&Lab::open(&args.dir)?, args.name, args.release).await,
        LabCommand::Dbu(args) => utility::serve(&Lab::open(&args.dir)?).await,
        LabCommand::DbuCall(args) => {
            say(&utility::call(&Lab::open(&args.dir)?, args.operation).await?);
            Ok(())
        }
        LabCommand::Loss(LossCommand::Predict { dir, procedure }) => {
            say_json(&loss::predict_for(&Lab::open(&dir)?, procedure).await?)
        }
        LabCommand::Loss(LossCommand::Measure { dir, from, to }) => {
            let lab = Lab::open(&dir)?;
            // Nothing can be written yet of what is still to come.
            let to_ms = to.as_deref().map_or(Ok(super::now_ms()), moment)?.min(super::now_ms());
            say_json(&loss::measure(&lab, moment(&from)?, to_ms).await?)
        }
        LabCommand::Invariants(args) => check(&args).await,
    }
}

async fn create(args: CreateArgs) -> Result<(), LabError> {
    let options = LabOptions {
        engine: if args.postgres_url.is_some() { Engine::Postgres } else { Engine::Sqlite },
        entities: args.entities,
        history_steps: args.history_steps,
        timestep_s: args.timestep,
        write_mode: args.mode,
        write_lag_ms: args.lag_ms,
        dbu_rows_per_second: args.rows_per_second,
        seed: args.seed,
        postgres_url: args.postgres_url,
        ..LabOptions::default()
    };
    let lab = seed::create(&args.dir, options).await?;
    let lab = seed::seed(&lab).await?;
    let path = lab.dir.join("site.yaml");
    std::fs::write(&path, site::site_yaml(&lab, &own_binary()?)).map_err(LabError::file(&path))?;
    say(&path.display().to_string());
    Ok(())
}

async fn check(args: &InvariantArgs) -> Result<(), LabError> {
    let text = std::fs::read_to_string(&args.facts).map_err(LabError::file(&args.facts))?;
    let facts: RunFacts = serde_json::from_str(&text)
        .map_err(|source| LabError::Json { what: args.facts.display().to_string(), source })?;
    let results = invariants::check(&Lab::open(&args.dir)?, &facts).await?;
    for result in &results {
        say(&format!("{:<4} {:<5} {}", result.id, result.holds, result.measured));
    }
    match results.iter().filter(|result| !result.holds).count() {
        0 => Ok(()),
        violated => Err(LabError::Violated(violated)),
    }
}

fn own_binary() -> Result<PathBuf, LabError> {
    std::env::current_exe().map_err(LabError::file(Path::new("/proc/self/exe")))
}

fn moment(text: &str) -> Result<i64, LabError> {
    invariants::moment_ms(text).ok_or_else(|| LabError::Options(format!("`{text}` is no moment; give RFC 3339")))
}

fn say_json(value: &impl serde::Serialize) -> Result<(), LabError> {
    let text = serde_json::to_string(value).map_err(|source| LabError::Json { what: "answer".into(), source })?;
    say(&text);
    Ok(())
}
