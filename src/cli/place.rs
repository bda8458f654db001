//! Where a command works: the store, the site, the parameters. Reads what global options and environment say.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value as Json;

use super::Global;
use super::error::CliError;
use super::out::Out;
use crate::action::held::Commands;
use crate::config::folder_of;
use crate::driver::{Options, Told};
use crate::ids::RunId;
use crate::journal::{Journal, Left, RunFilter, SealKey, exposed, trusted_keys};
use crate::plan::{Given, Plan};
use crate::report::pruned;
use crate::site::LoadedSite;
use crate::spec::problem::Source;

/// What a store is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// To read it, or to say a word.
    Read,
    /// To carry out what it says.
    Driven,
}

/// The store that a command works on.
pub struct Place {
    /// The journal.
    pub journal: Journal,
    /// Folder for Piton's own state.
    pub state_dir: PathBuf,
    /// The store as it can be named: without the password of an address.
    pub store: String,
}

impl Global {
    /// The store's place; `start` is the runbook's folder, or the current one.
    fn store_place(&self, start: &Path) -> String {
        if let Some(store) = &self.store {
            store.clone()
        } else {
            let start = std::path::absolute(start).unwrap_or_else(|_| start.to_path_buf());
            crate::config::default_store(&start).display().to_string()
        }
    }

    /// Opens the store and makes it if there is none; for commands that start runs.
    pub async fn make_store(&self, runbook: &Path) -> Result<Place, CliError> {
        let folder = folder_of(runbook);
        self.open(self.store_place(folder), Use::Driven).await?.sealed()
    }

    /// Opens the store of runs that exist, for commands that drive one of them.
    pub async fn driven_store(&self) -> Result<Place, CliError> {
        self.known_store(Use::Driven).await?.sealed()
    }

    /// Opens the store of runs that exist.
    pub async fn store(&self) -> Result<Place, CliError> {
        self.known_store(Use::Read).await
    }

    async fn known_store(&self, used: Use) -> Result<Place, CliError> {
        let store = self.store_place(Path::new("."));
        if !store.contains("://") && store != "memory:" && !Path::new(&store).exists() {
            let message = format!("there is no store at `{store}`; name the one of the run with `--store PATH`");
            return Err(CliError::Usage(message));
        }
        self.open(store, used).await
    }

    /// Warns of what others can read or change, and drives nothing that others can change.
    fn check_rights(&self, store: &str, used: Use) -> Result<(), CliError> {
        let seal = crate::config::variable("PITON_SEAL_KEY").filter(|path| path != "none").map(PathBuf::from);
        let path = Path::new(store);
        let own = path.parent().map(|folder| folder.join("keys").join("seal"));
        let exposed = exposed(path, seal.or(own).as_deref());
        if used == Use::Driven
            && let Some(grave) = exposed.iter().find(|exposed| exposed.is_grave)
        {
            let why = "whoever can change what a store says has it done with your rights";
            return Err(CliError::Usage(format!("no run is driven from `{store}`: {grave} ({why})")));
        }
        let out = Out::new(self.json, self.color);
        for one in &exposed {
            out.note(&format!("{} {one}", out.error_paint.warn("warning:")));
        }
        Ok(())
    }

    async fn open(&self, store: String, used: Use) -> Result<Place, CliError> {
        if !store.contains("://") && store != "memory:" {
            self.check_rights(&store, used)?;
        }
        let journal = Journal::open(&store).await?;
        let is_file = !store.contains("://") && store != "memory:";
        let beside = if is_file { PathBuf::from(&store) } else { PathBuf::from(Self::default_here()) };
        let folder = beside.parent().map(Path::to_path_buf).unwrap_or_default();
        let state_dir = std::path::absolute(&folder).unwrap_or(folder);
        Ok(Place { journal, state_dir, store: crate::journal::shown_place(&store) })
    }

    /// Folder of Piton's own state beside the store, whether that is there or not.
    pub fn state_dir(&self, runbook: &Path) -> PathBuf {
        let folder = folder_of(runbook);
        let store = self.store_place(folder);
        let store = if store.contains("://") { Self::default_here() } else { store };
        Path::new(&store).parent().map(Path::to_path_buf).unwrap_or_default()
    }

    fn default_here() -> String {
        let here = std::path::absolute(".").unwrap_or_default();
        crate::config::default_store(&here).display().to_string()
    }

    /// Options of a driver that nobody watches, for what is only looked at.
    pub fn plain_options(&self, runbook: &Path) -> Options {
        Options {
            site_signers: self.site_signers(),
            ..Options::new(crate::config::actor(None), self.state_dir(runbook))
        }
    }

    /// Lists of signers of sites that options and environment name.
    pub fn site_signers(&self) -> Vec<PathBuf> {
        let of_environment = crate::config::variable("PITON_SITE_SIGNERS").map(PathBuf::from);
        let mut all: Vec<PathBuf> = self.site_signers.iter().cloned().chain(of_environment).collect();
        all.dedup();
        all
    }

    /// Whether a site is given.
    pub fn has_site(&self) -> bool {
        self.site.is_some()
    }

    /// The site, or the one that provides nothing.
    pub fn load_site(&self) -> Result<LoadedSite, CliError> {
        let site = match &self.site {
            Some(path) => crate::plan::load_site(path)?,
            None => LoadedSite::empty(),
        };
        Ok(site.reading(self.allow_reads.iter().cloned()))
    }

    /// The parameters of `--params` and, over them, of `--param`.
    pub fn given(&self) -> Result<Given, CliError> {
        let mut given = Given::new();
        for path in &self.params {
            let text = std::fs::read_to_string(path).map_err(|error| CliError::unreadable(path, &error))?;
            let source = Arc::new(Source { name: path.display().to_string(), text });
            let node = crate::spec::yaml::parse(&source).map_err(|problems| CliError::Problems(vec![problems]))?;
            match node.to_json() {
                Json::Object(map) => given.extend(map),
                Json::Null => {}
                Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Array(_) => {
                    let message = format!("`{}` is no mapping; write `name: value` lines", path.display());
                    return Err(CliError::Usage(message));
                }
            }
        }
        for text in &self.param {
            let Some((name, value)) = text.split_once('=').filter(|(name, _)| !name.is_empty()) else {
                return Err(CliError::Usage(format!("`--param {text}` has no name; write `--param name=value`")));
            };
            given.insert(name.to_owned(), Json::String(value.to_owned()));
        }
        Ok(given)
    }

    /// The plan of a file for a run that exists: `--site` and `--param` go before what the run has.
    pub fn plan_for_run(&self, runbook: &Path, told: &Told) -> Result<Plan, CliError> {
        let site = if self.site.is_some() {
            self.load_site()?
        } else {
            told.plan.site.clone().reading(self.allow_reads.iter().cloned())
        };
        Ok(Plan::load_for_run(runbook, site, &told.plan.params, &self.given()?)?)
    }

    /// The plan of a runbook with site and parameters.
    pub fn load_plan(&self, runbook: &Path) -> Result<Plan, CliError> {
        let plan = Plan::load(runbook, self.load_site()?, &self.given()?);
        Ok(plan?)
    }
}

/// Whether a step of another run started this one: children are named after the parent and its step.
fn is_child(run: &RunId, all: &[RunId]) -> bool {
    let dots = run.as_str().match_indices('.');
    dots.map(|(at, _)| &run.as_str()[..at]).any(|parent| all.iter().any(|other| other.as_str() == parent))
}

impl Place {
    /// Has what a driver records be sealed; makes the key where there is none yet.
    fn sealed(self) -> Result<Self, CliError> {
        let Some(path) = self.seal_key() else { return Ok(self) };
        let key = SealKey::open(&path)?;
        Ok(Self { journal: self.journal.with_seals(key), ..self })
    }

    /// The public key that seals in a store that is a file, if it is beside it; the private half may be out of reach of who asks. In a store on a
    /// server, drivers on other hosts have keys of their own.
    pub fn own_key(&self) -> Result<Vec<String>, CliError> {
        let public = self.seal_key().map(|path| path.with_extension("pub")).filter(|path| path.exists());
        let Some(path) = public.filter(|_| !self.store.contains("://")) else { return Ok(Vec::new()) };
        let text = std::fs::read_to_string(&path).map_err(|error| CliError::unreadable(&path, &error))?;
        trusted_keys(&text).map_err(|why| CliError::Usage(format!("`{}` holds no public key: {why}", path.display())))
    }

    /// Where the key to seal with lies; none where sealing is off or nothing lasts.
    pub fn seal_key(&self) -> Option<PathBuf> {
        let named = crate::config::variable("PITON_SEAL_KEY");
        match named.as_deref() {
            _ if self.store == "memory:" => None,
            Some("none") => None,
            Some(path) => Some(PathBuf::from(path)),
            None => Some(self.state_dir.join("keys").join("seal")),
        }
    }

    /// Has commands outlive the driver, where there is a journal to come back to.
    pub fn commands(&self) -> Option<Commands> {
        // The program as it runs now, even if the file has been replaced since.
        (self.store != "memory:").then(|| Commands::new(PathBuf::from("/proc/self/exe")))
    }

    /// The run that a person means: an id, the unique beginning of one, or `last` (the latest that no other run started).
    pub async fn find(&self, run: &str) -> Result<RunId, CliError> {
        if run == "last" {
            let runs: Vec<RunId> =
                self.journal.runs(&RunFilter::default()).await?.into_iter().map(|run| run.run).collect();
            let none = || CliError::Usage(format!("there is no run in `{}` yet", self.store));
            return runs.iter().find(|run| !is_child(run, &runs)).cloned().ok_or_else(none);
        }
        match self.journal.find_run(run).await {
            Ok(run) => Ok(run),
            Err(error) => match CliError::from(error) {
                CliError::Usage(text) => Err(CliError::Usage(format!("{text} (store: `{}`)", self.store))),
                other => Err(other),
            },
        }
    }

    /// Of a run that can no longer be read back: says what was pruned, and gives what is left. Of another: nothing, once it is said what
    /// of it was pruned.
    pub async fn remembered(&self, run: &RunId, out: Out) -> Result<Option<Vec<Left>>, CliError> {
        let all = self.journal.pruned(run).await?;
        let zone = jiff::tz::TimeZone::system();
        if !all.iter().any(|pruned| pruned.what.is_grave()) {
            for one in all.iter().filter(|_| !out.json) {
                out.line(out.paint.warn(&pruned::sentence(one, &zone)))?;
            }
            return Ok(None);
        }
        if let Some(grave) = self.journal.grave(run).await?.filter(|_| !out.json) {
            out.text(&pruned::run(&grave, &all, &zone, out.paint))?;
        }
        Ok(Some(self.journal.left(run).await?))
    }

    /// A run as the journal tells it.
    pub async fn told(&self, run: &str) -> Result<(RunId, Told), CliError> {
        let run = self.find(run).await?;
        let told = crate::driver::read(&self.journal, &run).await?;
        Ok((run, told))
    }
}
