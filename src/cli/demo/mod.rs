//! `piton demo`: the flagship migration in a lab of real processes and databases, with the evidence at its end.
//!
//! Everything it needs is inside the binary: runbooks, schemas and the lab. It stops what it started, also when it is
//! interrupted.

mod evidence;
mod facts;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use include_dir::{Dir, include_dir};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::error::CliError;
use super::exit::Exit;
use super::out::Out;
use super::watch::watch;
use crate::driver::{self, DriverError, Ended, Options};
use crate::event::Outcome;
use crate::ids::RunId;
use crate::journal::{Journal, JournalError, RunFilter, SealError, SealKey};
use crate::lab::loss::{self, Procedure};
use crate::lab::{self, Lab, LabError, LabOptions};
use crate::plan::{Given, Plan, PlanError};
use crate::report::Subject;
use evidence::Evidence;
use facts::Facts;

static RUNBOOKS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/runbooks/wfm");
static SCHEMAS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/schemas");

/// How many timesteps the vendor's pass over the history takes.
const PASS_TIMESTEPS: i64 = 3;
/// How the names of the runbooks begin that start and stop the lab.
const LAB_RUNBOOKS: &str = "wfm-lab-";

/// What the demo shows.
#[derive(Debug, Clone, clap::Args)]
pub struct DemoArgs {
    /// Which way to migrate
    #[arg(long, value_enum, default_value = "two-step-guarded")]
    procedure: Procedure,
    /// Run all four procedures, each in a lab of its own, and compare what they lose
    #[arg(long, conflicts_with = "procedure")]
    compare: bool,
    /// Use this PostgreSQL database (its schemas wfm65, wfm76, truth and genesys are made anew) instead of SQLite files
    #[arg(long, value_name = "URL")]
    postgres_url: Option<String>,
    /// How many activities are collected
    #[arg(long, default_value_t = 50)]
    entities: i64,
    /// Closed timesteps of history per activity; 200000 with 100 activities are 20 million rows
    #[arg(long, default_value_t = 2_000)]
    history: i64,
    /// Length of a timestep in seconds
    #[arg(long, default_value_t = 2)]
    timestep: i64,
    /// Folder for the lab; it and its journal are kept
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Only make the lab and start 6.5 in it; prints how to go on by hand
    #[arg(long, requires = "dir", conflicts_with = "compare")]
    prepare: bool,
    /// Only show the evidence for a finished run in the lab of --dir
    #[arg(long, value_name = "RUN", requires = "dir", conflicts_with_all = ["prepare", "compare"])]
    evidence: Option<String>,
    /// Only stop every process of the lab of --dir
    #[arg(long, requires = "dir", conflicts_with_all = ["prepare", "compare", "evidence"])]
    stop: bool,
}

/// Why the demo could not be shown.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The lab failed.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// A runbook of the demo is wrong.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A run failed.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The display failed.
    #[error("{0}")]
    Display(String),
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The key to seal with is not to be had.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// A file or folder of the lab cannot be written.
    #[error("the lab's folder cannot be written: {0}; give another one with `--dir`")]
    Io(#[from] std::io::Error),
    /// A run that the demo needs did not succeed.
    #[error("run `{run}` did not succeed ({outcome}); `piton --store {store} show {run}` says why")]
    Unsuccessful {
        /// Which.
        run: RunId,
        /// How it ended.
        outcome: String,
        /// The journal.
        store: String,
    },
}

/// Where the demo shows itself, and what stops it.
struct Stage {
    out: Out,
    stop: CancellationToken,
}

impl Stage {
    /// Writes a line for people; nothing in JSON.
    fn line(&self, text: &str) {
        if !self.out.json {
            // A reader that is gone does not end the demo: it still has to stop what it started.
            let _ = self.out.line(text);
        }
    }
}

/// Runs `piton demo`.
///
/// # Errors
/// When the lab cannot be made or a run cannot be driven.
pub(super) async fn run(args: &DemoArgs, out: Out) -> Result<Exit, CliError> {
    let stage = Stage { out, stop: CancellationToken::new() };
    let shown = show(args, &stage).await?;
    Ok(Exit::of(shown))
}

/// The outcome of the demo's run, or of the worst of its runs.
async fn show(args: &DemoArgs, stage: &Stage) -> Result<Outcome, DemoError> {
    if let Some(run) = &args.evidence {
        let scene = Scene::open(args.dir.as_deref().unwrap_or(Path::new(".")), args.procedure).await?;
        let run = scene.find(run).await?;
        let evidence = scene.evidence(&run).await?;
        evidence.show(stage, scene.store.as_path(), &run);
        return Ok(if evidence.holds() { Outcome::Succeeded } else { Outcome::Failed });
    }
    if args.stop {
        let scene = Scene::open(args.dir.as_deref().unwrap_or(Path::new(".")), args.procedure).await?;
        scene.down(stage).await?;
        return Ok(Outcome::Succeeded);
    }
    if args.prepare {
        let scene = Scene::make(args, args.procedure, stage).await?;
        scene.up(stage).await?;
        let (dir, store) = (scene.lab.dir.display(), scene.store.display());
        let piton = own_path()?;
        stage.line(&format!("lab {dir}"));
        stage.line(&format!(
            "{} --store {store} --site {dir}/site.yaml run {dir}/runbooks/wfm/two-step-guarded.yaml --yes",
            piton.display()
        ));
        return Ok(Outcome::Succeeded);
    }
    if !args.compare {
        return one(args, args.procedure, stage).await.map(|(outcome, _)| outcome);
    }
    compare(args, stage).await
}

async fn compare(args: &DemoArgs, stage: &Stage) -> Result<Outcome, DemoError> {
    let mut rows = Vec::new();
    let mut worst = Outcome::Succeeded;
    let all = [Procedure::OneStep, Procedure::TwoStep, Procedure::TwoStepSkip7, Procedure::TwoStepGuarded];
    for procedure in all {
        let (outcome, evidence) = one(args, procedure, stage).await?;
        if outcome != Outcome::Succeeded {
            worst = outcome;
        }
        rows.extend(evidence);
        if stage.stop.is_cancelled() {
            break;
        }
    }
    if !stage.out.json {
        evidence::table(&rows, stage);
    }
    Ok(worst)
}

/// One procedure in a lab of its own.
async fn one(args: &DemoArgs, procedure: Procedure, stage: &Stage) -> Result<(Outcome, Option<Evidence>), DemoError> {
    let scene = Scene::make(args, procedure, stage).await?;
    let shown = scene.play(stage).await;
    // What was started is stopped whatever happened.
    let down = scene.down(stage).await;
    let (ended, evidence) = shown?;
    down?;
    if let Some(evidence) = &evidence {
        evidence.show(stage, &scene.store, &ended.run);
        let proven = evidence.holds();
        let outcome = if ended.outcome == Outcome::Succeeded && !proven { Outcome::Failed } else { ended.outcome };
        return Ok((outcome, Some(evidence.clone())));
    }
    Ok((ended.outcome, None))
}

fn own_path() -> Result<PathBuf, DemoError> {
    Ok(std::env::current_exe()?)
}

/// A lab, its journal and the procedure that is shown in it.
struct Scene {
    lab: Lab,
    store: PathBuf,
    journal: Journal,
    procedure: Procedure,
}

impl Scene {
    /// Makes the folder, the runbooks, the databases and the site file.
    async fn make(args: &DemoArgs, procedure: Procedure, stage: &Stage) -> Result<Self, DemoError> {
        let name = procedure_name(procedure);
        let dir = match &args.dir {
            Some(dir) if args.compare => dir.join(name),
            Some(dir) => dir.clone(),
            None => {
                let stamp = crate::config::now().strftime("%Y%m%d-%H%M%S");
                PathBuf::from(".piton").join("demo").join(format!("{name}-{stamp}"))
            }
        };
        std::fs::create_dir_all(&dir)?;
        let dir = dir.canonicalize()?;
        let rows = args.entities * args.history;
        let options = LabOptions {
            // A vendor's pass takes a few timesteps, whatever the size of the lab, so that what it loses can be seen.
            dbu_rows_per_second: (rows / (PASS_TIMESTEPS * args.timestep.max(1))).max(100),
            engine: if args.postgres_url.is_some() { lab::Engine::Postgres } else { lab::Engine::Sqlite },
            entities: args.entities,
            history_steps: args.history,
            timestep_s: args.timestep,
            postgres_url: args.postgres_url.clone(),
            ..LabOptions::default()
        };
        if !stage.out.json {
            stage.line(&format!("making a lab in {} ({rows} rows of history)", dir.display()));
        }
        let lab = lab::create(&dir, options).await?;
        let lab = lab::seed(&lab).await?;
        for (target, files) in [("runbooks/wfm", &RUNBOOKS), ("schemas", &SCHEMAS)] {
            let target = dir.join(target);
            std::fs::create_dir_all(&target)?;
            files.extract(&target)?;
        }
        std::fs::write(dir.join("site.yaml"), lab::site_yaml(&lab, &own_path()?))?;
        Self::of(lab, procedure).await
    }

    /// A lab that is there already.
    async fn open(dir: &Path, procedure: Procedure) -> Result<Self, DemoError> {
        Self::of(Lab::open(dir)?, procedure).await
    }

    async fn of(lab: Lab, procedure: Procedure) -> Result<Self, DemoError> {
        let store = lab.dir.join(".piton").join("piton.db");
        let key = SealKey::open(&store.with_file_name("keys").join("seal"))?;
        let journal = Journal::open(&store.display().to_string()).await?.with_seals(key);
        Ok(Self { lab, store, journal, procedure })
    }

    /// Runs one of the lab's runbooks.
    async fn drive(&self, runbook: &str, given: &Given, stage: &Stage, quiet: bool) -> Result<Ended, DemoError> {
        let site = crate::plan::load_site(&self.lab.dir.join("site.yaml"))?;
        let plan = Plan::load(&self.lab.dir.join("runbooks/wfm").join(runbook), site, given)?;
        let state_dir = self.store.parent().unwrap_or(Path::new(".")).to_path_buf();
        let mut options = Options::new(crate::config::actor(None), state_dir);
        let run = RunId::fresh(crate::config::now(), &mut |bound| fastrand::usize(..bound));
        if quiet {
            return Ok(driver::start(plan, &self.journal, run, options).await?);
        }
        stage.line(&format!("run {run}"));
        let watched = watch(stage.out.for_people(), Subject { run: run.clone(), plan: Arc::new(plan.clone()) });
        if !stage.out.json {
            options.observer = Arc::clone(&watched.observer);
        }
        options.stop = watched.stop.clone();
        options.stop_now = watched.stop_now.clone();
        let ended = driver::start(plan, &self.journal, run.clone(), options).await;
        if watched.stop.is_cancelled() {
            stage.stop.cancel();
        }
        match ended {
            Ok(ended) if stage.out.json => Ok(ended),
            Ok(ended) => {
                watched
                    .close(stage.out, (&run, &self.journal), Ok(ended.clone()))
                    .await
                    .map_err(|error| DemoError::Display(error.to_string()))?;
                Ok(ended)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn must_succeed(&self, runbook: &str, stage: &Stage) -> Result<(), DemoError> {
        let ended = self.drive(runbook, &Given::new(), stage, true).await?;
        if ended.outcome == Outcome::Succeeded {
            return Ok(());
        }
        let outcome = json!(ended.outcome).as_str().unwrap_or_default().to_owned();
        Err(DemoError::Unsuccessful { run: ended.run, outcome, store: self.store.display().to_string() })
    }

    async fn up(&self, stage: &Stage) -> Result<(), DemoError> {
        self.must_succeed("lab-up.yaml", stage).await
    }

    async fn down(&self, stage: &Stage) -> Result<(), DemoError> {
        self.must_succeed("lab-down.yaml", stage).await
    }

    /// Starts 6.5, migrates, and gathers the evidence.
    async fn play(&self, stage: &Stage) -> Result<(Ended, Option<Evidence>), DemoError> {
        self.up(stage).await?;
        let mut given = Given::new();
        let runbook = match self.procedure {
            Procedure::OneStep => "one-step.yaml",
            Procedure::TwoStep => "two-step.yaml",
            Procedure::TwoStepSkip7 => {
                given.insert("stop_old_collector".into(), json!(false));
                given.insert("procedure".into(), json!("two-step-skip-7"));
                "two-step.yaml"
            }
            Procedure::TwoStepGuarded => "two-step-guarded.yaml",
        };
        let settle = 2 * self.lab.timestep_ms() + self.lab.options.write_lag_ms + 1_000;
        given.insert("settle".into(), json!(format!("{settle}ms")));
        let ended = self.drive(runbook, &given, stage, false).await?;
        if ended.outcome != Outcome::Succeeded {
            return Ok((ended, None));
        }
        let evidence = self.evidence(&ended.run).await?;
        Ok((ended, Some(evidence)))
    }

    /// The run that a person means; `last` is the latest that is more than a start or stop of the lab.
    async fn find(&self, run: &str) -> Result<RunId, DemoError> {
        if run != "last" {
            return Ok(self.journal.find_run(run).await?);
        }
        let runs = self.journal.runs(&RunFilter::default()).await?;
        let last = runs.into_iter().find(|summary| !summary.runbook.starts_with(LAB_RUNBOOKS));
        let last = last.ok_or_else(|| JournalError::UnknownRun(run.to_owned()))?;
        Ok(last.run)
    }

    /// What the run did, measured in the lab's databases.
    async fn evidence(&self, run: &RunId) -> Result<Evidence, DemoError> {
        let told = driver::read(&self.journal, run).await?;
        let facts = Facts::new(&told.plan, &told.state, &told.records);
        let established = self.journal.milestones(&told.plan.site.site.name).await?;
        let milestone =
            established.iter().any(|(name, by, _)| name.as_str() == "wfm76/performance-migrated" && by == run);
        let ended_ms = told.state.finished_at().map_or_else(lab::now_ms, jiff::Timestamp::as_millisecond);
        let all = facts.all(milestone, ended_ms);
        let measured = loss::measure(&self.lab, all.started_ms, ended_ms).await?;
        let predicted = facts.loss("predict").unwrap_or_default();
        Ok(Evidence {
            procedure: procedure_name(self.procedure),
            measured,
            predicted,
            rows_moved: facts.rows_moved(),
            invariants: lab::invariants::check(&self.lab, &all).await?,
            history: evidence::option_history(&self.lab).await?,
            guarded: self.procedure == Procedure::TwoStepGuarded,
            audit: self.store.display().to_string(),
        })
    }
}

fn procedure_name(procedure: Procedure) -> &'static str {
    match procedure {
        Procedure::OneStep => "one-step",
        Procedure::TwoStep => "two-step",
        Procedure::TwoStepSkip7 => "two-step-skip-7",
        Procedure::TwoStepGuarded => "two-step-guarded",
    }
}
