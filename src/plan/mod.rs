//! From a runbook, a site and parameters to a plan: names resolved, graph checked, lists expanded, a digest over
//! everything that decides what will happen. Nothing is left to choose at run time.

mod check;
mod digest;
mod expand;
mod graph;
mod inserted;
mod locks;
mod material;
mod names;
mod params;
mod render;
mod sources;
mod upstream;
mod used;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use crate::config::folder_of;
use crate::identity::Offered;
use crate::ids::{Actor, LockName, Milestone, StepId};
use crate::site::{LoadedSite, Site};
use crate::spec::actions::ActionSpec;
use crate::spec::deviations::Deviations;
use crate::spec::problem::{Problem, Problems, Source};
use crate::spec::reference::{Expression, Malformed, render};
use crate::spec::runbook::{
    self, Idempotent, Limits, Loaded, NeedOutcome, OnFailure, Optional, ParamType, Phase, Retry, Runbook, SeenStep,
    Undo, Window,
};
use crate::spec::values::Millis;

pub use crate::identity::sha256_hex;
pub use check::{has_inverse, has_probe, only_looks};
pub use digest::{canonical, digest};
pub use material::{
    Digests, Files, Material, OUTSIDE_HELP, Pins, Unreachable, Walls, beside, from_folder_of, is_migration, normalized,
    parts, program_path,
};
pub use names::output_names;
pub use params::{Given, ParamError};
pub use render::{Rendered, render_action, render_node};
pub use sources::{load_site, offered, read_source, signed_paths};
pub use used::{Depth, in_folder};

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A file cannot be read.
    #[error("`{path}` cannot be read: {reason}")]
    NoFile {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// A file is wrong.
    #[error("{0}")]
    Problems(Problems),
    /// Parameters are wrong.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Params(Vec<ParamError>),
    /// A value that is only known now is wrong.
    #[error("{0}")]
    Value(String),
}

/// One step, ready to run.
#[derive(Debug, Clone)]
pub struct PlanStep {
    /// Its id; with `[key]` for an item of a `foreach`.
    pub id: StepId,
    /// The id the author wrote.
    pub declared: StepId,
    /// What it is called in reports.
    pub name: Option<Box<str>>,
    /// The item of a `foreach`.
    pub item: Option<Box<Json>>,
    /// The action.
    pub action: ActionSpec,
    /// The postcondition.
    pub verify: Option<Box<ActionSpec>>,
    /// The inverse.
    pub undo: Option<Box<Undo>>,
    /// The condition.
    pub when: Option<Box<Expression>>,
    /// Steps that come first.
    pub needs: Box<[(StepId, Option<NeedOutcome>)]>,
    /// Longest time of one attempt.
    pub timeout: Option<Millis>,
    /// How often it is tried.
    pub retry: Option<Box<Retry>>,
    /// What a crash in the middle means.
    pub idempotent: Idempotent,
    /// What happens after its final failure.
    pub on_failure: OnFailure,
    /// Set when an operator may skip it.
    pub optional: Option<Box<Optional>>,
    /// Who must agree to deviations about it, instead of what the runbook says.
    pub deviations: Option<Box<Deviations>>,
    /// Why there is no way back behind it.
    pub point_of_no_return: Option<Box<str>>,
    /// Named things that only one step may hold.
    pub locks: Box<[LockName]>,
    /// When it runs.
    pub phase: Phase,
    /// Whether it belongs to `finally`.
    pub is_finally: bool,
    /// Further outputs.
    pub outputs: BTreeMap<String, Expression>,
    /// Patterns of further files that it uses.
    pub uses: Box<[String]>,
}

/// A procedure with every choice made.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Name of the runbook.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it does.
    pub description: Option<String>,
    /// Who wrote it.
    pub authors: Vec<Actor>,
    /// Digest over everything that decides what will happen.
    pub digest: String,
    /// Values of the parameters; secrets by reference.
    pub params: BTreeMap<String, Json>,
    /// The site.
    pub site: LoadedSite,
    /// The text of the runbook.
    pub source: Arc<Source>,
    /// Folder of the runbook.
    pub base: Arc<Path>,
    /// Files that steps use, as they were when the plan was made.
    pub files: Arc<Files>,
    /// What was not taken in as text, and must be as it was; nothing in runs of earlier versions.
    pub pins: Option<Arc<Pins>>,
    /// The folders that its runbook reads its files from; nothing in runs of earlier versions, which read anywhere.
    pub walls: Option<Arc<Walls>>,
    /// Programs that were not there when it was made, so that nothing can be said about them.
    pub absent: BTreeSet<String>,
    /// What lies beside the runbook to show who signed it; not judged yet.
    pub offered: Option<Arc<Offered>>,
    /// All steps in the order of the file, those of `finally` last.
    pub steps: Vec<PlanStep>,
    /// Measured times.
    pub windows: Vec<Window>,
    /// Bounds of the run.
    pub limits: Limits,
    /// Who must agree before something is done against the runbook.
    pub deviations: Option<Deviations>,
    /// Named things that only one run may hold.
    pub locks: Vec<LockName>,
    /// What a success establishes.
    pub achieves: Vec<Milestone>,
    /// What a success takes back.
    pub revokes: Vec<Milestone>,
    /// What other runs must have established.
    pub milestones: Vec<Milestone>,
    /// What happens after a final failure.
    pub on_failure: OnFailure,
    /// Types of the parameters.
    pub param_types: BTreeMap<String, ParamType>,
    /// Places of steps by id, and of all items by the id the author wrote.
    index: StepIndex,
}

/// Finds steps without looking at all of them.
#[derive(Debug, Clone, Default)]
struct StepIndex {
    by_id: HashMap<StepId, usize>,
    /// Where the declared id is not the id itself.
    by_declared: HashMap<StepId, Vec<usize>>,
}

impl StepIndex {
    fn new(steps: &[PlanStep]) -> Self {
        let mut index = Self { by_id: HashMap::with_capacity(steps.len()), by_declared: HashMap::new() };
        for (place, step) in steps.iter().enumerate() {
            index.by_id.insert(step.id.clone(), place);
            if step.declared != step.id {
                index.by_declared.entry(step.declared.clone()).or_default().push(place);
            }
        }
        index
    }
}

/// Everything a plan was made from, as the journal keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanSource {
    /// Path of the runbook.
    pub runbook_path: PathBuf,
    /// Its text.
    pub runbook: String,
    /// Path of the site file, if there is one.
    pub site_path: Option<PathBuf>,
    /// Its text.
    pub site: Option<String>,
    /// Text of the site's allowed-signers file, if it names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signers: Option<String>,
    /// Texts of the files that steps use.
    pub files: Files,
    /// What must be as it was when the plan was made; nothing in runs of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pins: Option<Pins>,
    /// The folders that the runbook reads its files from; nothing in runs of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub walls: Option<Vec<PathBuf>>,
}

/// A runbook with nothing wrong.
#[derive(Debug)]
pub struct Checked {
    /// The runbook.
    pub runbook: Runbook,
    /// What it is made of besides its text, as far as that is known without parameters.
    pub material: Material,
}

/// Everything that is wrong with a runbook, against a site if there is one. `reads`: folders outside of its project that it may
/// read its files from.
///
/// # Errors
/// All problems of the file at once.
pub fn check(source: &Arc<Source>, base: &Path, site: Option<&Site>, reads: &[PathBuf]) -> Result<Checked, Problems> {
    let Loaded { runbook, problems, seen, tree, .. } = runbook::read(source)?;
    // What follows needs the runbook only; the tree of a large file is large.
    drop(tree);
    examine(source, (base, &Walls::of(base, reads)), site, Found { runbook, problems, seen })
}

/// What was read of a runbook, without its tree.
struct Found {
    runbook: Option<Runbook>,
    problems: Vec<Problem>,
    seen: Vec<SeenStep>,
}

fn examine(
    source: &Arc<Source>,
    (base, walls): (&Path, &Walls),
    site: Option<&Site>,
    found: Found,
) -> Result<Checked, Problems> {
    let Found { runbook, mut problems, seen } = found;
    let Some(runbook) = runbook else { return Err(Problems::new(Arc::clone(source), problems)) };
    let is_partial = !problems.is_empty();
    problems.extend(check::check(&runbook, source, site, &seen, is_partial));
    let known = json!({ "site": site.map(Site::scope) });
    problems.extend(locks::check(&runbook, source, (base, walls), &known));
    let material = material::of_runbook((base, walls), &runbook, &known, &mut problems);
    if problems.is_empty() {
        Ok(Checked { runbook, material })
    } else {
        Err(Problems::new(Arc::clone(source), problems))
    }
}

fn actions_of(runbook: &Runbook) -> impl Iterator<Item = &ActionSpec> {
    runbook.steps.iter().chain(&runbook.finally).flat_map(material::actions)
}

/// What a run keeps of the files that its runbook uses.
struct Kept {
    files: Files,
    pins: Option<Pins>,
    walls: Option<Arc<Walls>>,
}

/// What a plan is put together from.
struct Parts<'a> {
    runbook: Runbook,
    params: BTreeMap<String, Json>,
    steps: Vec<PlanStep>,
    site: LoadedSite,
    source: &'a Arc<Source>,
    base: &'a Path,
    absent: BTreeSet<String>,
}

impl Plan {
    /// Makes the plan of a runbook file.
    ///
    /// # Errors
    /// Everything that is wrong with the runbook or the parameters.
    pub fn load(path: &Path, site: LoadedSite, given: &Given) -> Result<Self, PlanError> {
        let source = read_source(path)?;
        Self::build(&source, folder_of(path), site, given, None)?.with_offered(path)
    }

    /// The same with what lies beside its runbook.
    fn with_offered(self, path: &Path) -> Result<Self, PlanError> {
        Ok(Self { offered: offered(path)?, ..self })
    }

    /// Makes the plan of a file for a run that was started with another: parameters that were not given anew keep the
    /// values that the run has, as far as the file still declares them.
    ///
    /// # Errors
    /// As [`Plan::load`].
    pub fn load_for_run(path: &Path, site: LoadedSite, of_run: &Given, given: &Given) -> Result<Self, PlanError> {
        let source = read_source(path)?;
        let checked = check(&source, folder_of(path), Some(&site.site), &site.reads).map_err(PlanError::Problems)?;
        let mut all = of_run.clone();
        all.retain(|name, _| checked.runbook.params.get(name).is_some());
        all.extend(given.iter().map(|(name, value)| (name.clone(), value.clone())));
        Self::build(&source, folder_of(path), site, &all, None)?.with_offered(path)
    }

    /// Makes the plan again from what the journal kept.
    ///
    /// # Errors
    /// As [`Plan::load`].
    pub fn restore(kept: PlanSource, given: &Given) -> Result<Self, PlanError> {
        let named = |path: &Path, text: String| Arc::new(Source { name: path.display().to_string(), text });
        let site = match (kept.site_path, kept.site) {
            (Some(path), Some(text)) => {
                let read = crate::site::read(&named(&path, text), folder_of(&path)).map_err(PlanError::Problems)?;
                LoadedSite { signers: kept.signers.map(Into::into), ..read }
            }
            _ => LoadedSite::empty(),
        };
        let source = named(&kept.runbook_path, kept.runbook);
        let walls = kept.walls.map(|folders| Walls::around(folders).into());
        let material = Kept { files: kept.files, pins: kept.pins, walls };
        Self::build(&source, folder_of(&kept.runbook_path), site, given, Some(material))
    }

    fn build(
        source: &Arc<Source>,
        base: &Path,
        site: LoadedSite,
        given: &Given,
        kept: Option<Kept>,
    ) -> Result<Self, PlanError> {
        let Loaded { runbook, problems, seen, tree, .. } = runbook::read(source).map_err(PlanError::Problems)?;
        let data = digest::canonical_node(&tree);
        drop(tree);
        let walls = Walls::of(base, &site.reads);
        let (mut runbook, mut found) = match &kept {
            None => {
                let Checked { runbook, material } =
                    examine(source, (base, &walls), Some(&site.site), Found { runbook, problems, seen })
                        .map_err(PlanError::Problems)?;
                (runbook, material)
            }
            // What could be read of a wrong file is good for messages only, never for a plan.
            Some(_) => match runbook {
                Some(runbook) if problems.is_empty() => (runbook, Material::default()),
                _ => return Err(PlanError::Problems(Problems::new(Arc::clone(source), problems))),
            },
        };
        let params = params::resolve(&runbook, given).map_err(PlanError::Params)?;
        let scope = json!({ "params": params, "site": site.site.scope() });
        let all_right = |problems: Vec<Problem>| {
            let wrong = || PlanError::Problems(Problems::new(Arc::clone(source), problems.clone()));
            if problems.is_empty() { Ok(()) } else { Err(wrong()) }
        };
        if kept.is_none() {
            all_right(locks::check(&runbook, source, (base, &walls), &scope))?;
        }
        let steps = expand::steps(&mut runbook, source, &scope)
            .map_err(|problem| PlanError::Problems(Problems::new(Arc::clone(source), vec![problem])))?;
        if kept.is_none() {
            let mut problems = Vec::new();
            found = material::of_steps((base, &walls), &steps, scope.clone(), found, &mut problems);
            all_right(problems)?;
        }
        let Material { files, pins, absent } = found;
        let new = Kept { files, pins: Some(pins), walls: Some(walls.into()) };
        let Kept { files, pins, walls } = kept.unwrap_or(new);
        let mut plan = Self::of(Parts { runbook, params, steps, site, source, base, absent }, &scope)?;
        (plan.files, plan.pins, plan.walls) = (Arc::new(files), pins.map(Arc::new), walls);
        plan.digest = plan.compute_digest(&data);
        Ok(plan)
    }

    /// The plan of these parts, without its files and its digest.
    fn of(parts: Parts<'_>, scope: &Json) -> Result<Self, PlanError> {
        let Parts { runbook, params, steps, site, source, base, absent } = parts;
        let locks = runbook.locks.iter().map(|lock| render(&lock.value, scope).map(LockName::new));
        let locks = locks.collect::<Result<_, _>>().map_err(|error: Malformed| PlanError::Value(error.0))?;
        let names = |list: Vec<crate::spec::decode::Spanned<String>>| {
            list.into_iter().map(|name| Milestone::new(name.value)).collect()
        };
        Ok(Self {
            name: runbook.name.value,
            version: runbook.version,
            description: runbook.description,
            authors: runbook.authors.iter().map(Actor::new).collect(),
            digest: String::new(),
            params,
            site,
            source: Arc::clone(source),
            base: base.into(),
            files: Arc::default(),
            pins: None,
            walls: None,
            absent,
            offered: None,
            index: StepIndex::new(&steps),
            steps,
            windows: runbook.windows,
            limits: runbook.limits,
            deviations: runbook.deviations,
            locks,
            achieves: names(runbook.achieves),
            revokes: names(runbook.revokes),
            milestones: names(runbook.requires.milestones),
            on_failure: runbook.on_failure,
            param_types: runbook.params.0.iter().map(|(key, param)| (key.text.clone(), param.r#type)).collect(),
        })
    }

    /// Digest over the meaning of runbook and site, the parameters and every file that a step uses or runs; `data` is the
    /// canonical form of the runbook.
    fn compute_digest(&self, data: &str) -> String {
        let files: BTreeMap<_, _> = self.files.iter().map(|(path, text)| (path, sha256_hex(text.as_bytes()))).collect();
        let (files, params) = (canonical(&json!(files)), canonical(&json!(self.params)));
        let site = canonical(&self.site.tree);
        let pins = self.pins.as_deref().filter(|pins| !pins.is_empty()).map(|pins| canonical(&json!(pins)));
        let mut parts = vec![("files", &*files), ("params", &params)];
        parts.extend(pins.as_deref().map(|pins| ("pins", pins)));
        parts.extend([("piton", "\"plan-v1\""), ("runbook", data)]);
        let signers = self.site.signers.as_deref().map(|text| canonical(&json!(text)));
        parts.extend(signers.as_deref().map(|signers| ("signers", signers)));
        parts.push(("site", &site));
        digest::digest_of_parts(&parts)
    }

    /// What the journal keeps, so that the same plan can be made again.
    pub fn kept(&self) -> PlanSource {
        let has_site = !self.site.source.text.is_empty();
        let absolute = |path: &str| std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
        PlanSource {
            runbook_path: absolute(&self.source.name),
            runbook: self.source.text.clone(),
            site_path: has_site.then(|| absolute(&self.site.source.name)),
            site: has_site.then(|| self.site.source.text.clone()),
            signers: self.site.signers.as_deref().map(str::to_owned),
            files: (*self.files).clone(),
            pins: self.pins.as_deref().cloned(),
            walls: self.walls.as_deref().map(|walls| walls.folders().cloned().collect()),
        }
    }

    /// Every part that it is made of, with its digest: the runbook, and what that uses and runs.
    pub fn parts(&self) -> Digests {
        let none = Pins::default();
        material::parts(&self.source.name, &self.source.text, &self.files, self.pins.as_deref().unwrap_or(&none))
    }

    /// The step with this id.
    pub fn step(&self, id: &StepId) -> Option<&PlanStep> {
        self.place(id).map(|place| &self.steps[place])
    }

    /// Where a step stands among the steps.
    pub fn place(&self, id: &StepId) -> Option<usize> {
        self.index.by_id.get(id).copied()
    }

    /// The plan steps that a step of the runbook became: one, or one for every item of its `foreach`.
    pub fn instances(&self, declared: &str) -> Vec<&PlanStep> {
        match (self.index.by_declared.get(declared), self.index.by_id.get(declared)) {
            (Some(places), _) => places.iter().map(|&place| &self.steps[place]).collect(),
            (None, Some(&place)) if self.steps[place].declared.as_str() == declared => vec![&self.steps[place]],
            (None, _) => Vec::new(),
        }
    }

    /// The ids in an order in which they could run one by one.
    pub fn sorted(&self) -> Vec<StepId> {
        self.in_order().into_iter().map(|step| step.id.clone()).collect()
    }

    /// The steps in an order in which they could run one by one.
    pub fn in_order(&self) -> Vec<&PlanStep> {
        let edges = self.steps.iter().flat_map(|s| s.needs.iter().map(|(need, _)| (need.as_str(), s.id.as_str())));
        let graph = graph::Graph::new(self.steps.iter().map(|step| step.id.as_str()), edges);
        graph.sorted().into_iter().filter_map(|id| self.index.by_id.get(id)).map(|&place| &self.steps[place]).collect()
    }
}

/// A problem about a place in the runbook, for values that are only known once parameters are.
fn value_problem(span: crate::spec::problem::Span, error: Malformed) -> Problem {
    Problem::new("plan::bad_value", error.0, span).label("here")
}
