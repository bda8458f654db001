//! Waiting that would never end, seen before anything runs: a child run that needs what its parent keeps until the child
//! has ended, and steps whose child runs need what the other one keeps.
//!
//! Looked at are this file and the runbooks that it runs, as they are now; names of locks that are known only in a run
//! are left to the journal, which refuses the waiting then (`docs/design/locks.md`). Called by `check` and for a plan.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json, json};

use super::graph::Graph;
use super::material::Walls;
use super::read_source;
use super::render::render_node;
use crate::config::folder_of;
use crate::spec::actions::ActionKind;
use crate::spec::decode::Spanned;
use crate::spec::problem::{Problem, Source, Span};
use crate::spec::reference::render;
use crate::spec::runbook::{self, Loaded, Runbook, Step};
use crate::spec::yaml::Node;

/// Most steps of a circle that are looked for: more than a person would find, few enough to be found at once.
const CIRCLE_MAX: usize = 6;

/// A lock that is needed somewhere below a step.
struct Wanted {
    name: String,
    /// File, line and column, for people.
    place: String,
}

/// What the runbook of a step needs, with everything that it runs itself.
#[derive(Default)]
struct Child {
    wants: Vec<Wanted>,
    /// A lock that a run below keeps while a step below waits for another.
    keeps: Vec<(String, String)>,
}

/// A step that keeps locks while its child run waits for others.
struct Keeper<'a> {
    step: &'a Step,
    /// Where the runbook of the step is named.
    path: String,
    /// Each lock that is kept, where, and one that is waited for meanwhile.
    edges: Vec<(String, Span, String)>,
}

/// Everything that would wait for ever in this runbook, as far as `scope` gives its locks names.
pub(super) fn check(runbook: &Runbook, source: &Source, (base, walls): (&Path, &Walls), scope: &Json) -> Vec<Problem> {
    let mut problems = Vec::new();
    let of_run = named(&runbook.locks, scope);
    let mut keepers = Vec::new();
    let own = std::path::absolute(&source.name).unwrap_or_default();
    for step in runbook.steps.iter().chain(&runbook.finally) {
        let Some((path, params)) = child_of(step, scope) else { continue };
        let mut child = Child::default();
        below((&base.join(&path), walls), &params, scope, &mut vec![own.clone()], &mut child);
        let of_step = named(&step.fields.locks, scope);
        for (name, span) in of_step.iter().chain(&of_run) {
            if let Some(wanted) = child.wants.iter().find(|wanted| wanted.name == *name) {
                problems.push(held_for_child(step, &path, name, *span, wanted));
            }
        }
        let mut edges = Vec::new();
        for (held, span) in &of_step {
            let others = child.wants.iter().filter(|wanted| wanted.name != *held);
            edges.extend(others.map(|wanted| (held.clone(), *span, wanted.name.clone())));
        }
        let at = step.action.key;
        edges.extend(child.keeps.into_iter().map(|(held, wanted)| (held, at, wanted)));
        keepers.push(Keeper { step, path, edges });
    }
    if runbook.limits.parallel > 1 {
        problems.extend(circles(runbook, &keepers));
    }
    problems
}

fn held_for_child(step: &Step, path: &str, name: &str, span: Span, wanted: &Wanted) -> Problem {
    let message = format!("`{path}`, which step `{}` runs, would wait for lock `{name}` for ever", step.id());
    let problem = Problem::new("plan::lock_of_parent", message, span).label("kept until that run has ended");
    problem.help(format!("drop it here, or there: {} takes it itself", wanted.place))
}

/// The locks of a list whose names are known now.
fn named(locks: &[Spanned<String>], scope: &Json) -> Vec<(String, Span)> {
    locks.iter().filter_map(|lock| Some((render(&lock.value, scope).ok()?, lock.span))).collect()
}

/// The file that a step runs and the parameters that it gives, as far as they are known now.
fn child_of(step: &Step, scope: &Json) -> Option<(String, Map<String, Json>)> {
    if step.action.kind != ActionKind::Runbook {
        return None;
    }
    let path = render(step.action.args.get("path")?.text()?, scope).ok()?;
    let mut params = Map::new();
    if let Some(Json::Object(written)) = step.action.args.get("params").map(Node::to_json) {
        for name in written.keys() {
            let node = step.action.args.get("params").and_then(|params| params.get(name));
            if let Some(value) = node.and_then(|node| render_node(node, scope).ok()) {
                params.insert(name.clone(), value.to_json());
            }
        }
    }
    Some((path, params))
}

/// Adds what the runbook at `path` needs. One that cannot be read says so when it is run.
fn below(
    (path, walls): (&Path, &Walls),
    given: &Map<String, Json>,
    outer: &Json,
    open: &mut Vec<PathBuf>,
    child: &mut Child,
) {
    let place = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    if open.contains(&place) {
        return;
    }
    // What lies outside is refused where the files of a runbook are read.
    if walls.admit(path).is_err() {
        return;
    }
    let Ok(source) = read_source(path) else { return };
    let Ok(Loaded { runbook: Some(runbook), problems, .. }) = runbook::read(&source) else { return };
    if !problems.is_empty() {
        return;
    }
    let mut params = given.clone();
    for (key, param) in &runbook.params.0 {
        if let Some(default) = &param.default {
            params.entry(key.text.clone()).or_insert_with(|| default.value.clone());
        }
    }
    let scope = json!({ "params": params, "site": outer.get("site") });
    let first = child.wants.len();
    let wanted = |(name, span): (String, Span)| {
        let (line, column) = source.position(span.start);
        let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Wanted { name, place: format!("`{file}`, line {line}, column {column},") }
    };
    let of_run = named(&runbook.locks, &scope);
    open.push(place);
    for step in runbook.steps.iter().chain(&runbook.finally) {
        child.wants.extend(named(&step.fields.locks, &scope).into_iter().map(wanted));
        if let Some((path, params)) = child_of(step, &scope) {
            let folder = folder_of(Path::new(&source.name));
            below((&folder.join(path), &walls.of_child(folder)), &params, &scope, open, child);
        }
    }
    open.pop();
    // What the run holds itself its steps need not wait for.
    let waits: BTreeSet<&str> = child.wants[first..].iter().map(|wanted| wanted.name.as_str()).collect();
    let others = waits.into_iter().filter(|name| of_run.iter().all(|(held, _)| held != name));
    let keeps: Vec<(String, String)> =
        others.flat_map(|name| of_run.iter().map(move |(held, _)| (held.clone(), name.to_owned()))).collect();
    child.keeps.extend(keeps);
    child.wants.extend(of_run.into_iter().map(wanted));
}

/// Steps that may run at the same time and wait for each other: each keeps what the one before it needs.
fn circles(runbook: &Runbook, keepers: &[Keeper<'_>]) -> Vec<Problem> {
    if keepers.iter().filter(|keeper| !keeper.edges.is_empty()).count() < 2 {
        return Vec::new();
    }
    let steps = || runbook.steps.iter().chain(&runbook.finally);
    let ids = steps().map(|step| step.id().as_str());
    let edges =
        steps().flat_map(|step| step.fields.needs.iter().map(|need| (need.step.value.as_str(), step.id().as_str())));
    let graph = Graph::new(ids, edges);
    let is_last: BTreeMap<&str, bool> = runbook
        .steps
        .iter()
        .map(|step| (step.id().as_str(), false))
        .chain(runbook.finally.iter().map(|step| (step.id().as_str(), true)))
        .collect();
    let meet = |a: &Keeper<'_>, b: &Keeper<'_>| {
        let (a, b) = (a.step.id().as_str(), b.step.id().as_str());
        is_last[a] == is_last[b] && !graph.come_before(&[(a, b), (b, a)]).contains(&true)
    };
    let mut problems = Vec::new();
    for (first, keeper) in keepers.iter().enumerate() {
        let later = &keepers[first..];
        let found = keeper.edges.iter().find_map(|edge| closing(later, &meet, &mut vec![(0, edge)]));
        problems.extend(found);
    }
    problems
}

type Edge = (String, Span, String);

/// The problem of a circle that begins with `way`, whose first step stands first in the file.
fn closing<'k>(
    keepers: &'k [Keeper<'_>],
    meet: &impl Fn(&Keeper<'_>, &Keeper<'_>) -> bool,
    way: &mut Vec<(usize, &'k Edge)>,
) -> Option<Problem> {
    let (_, (start, ..)) = way.first()?;
    let (_, (.., wanted)) = way.last()?;
    if wanted == start && way.len() > 1 {
        return Some(circle(keepers, way));
    }
    if way.len() == CIRCLE_MAX {
        return None;
    }
    for (number, next) in keepers.iter().enumerate().skip(1) {
        let mut edges = next.edges.iter().filter(|(held, ..)| held == wanted).peekable();
        let joins = || way.iter().all(|&(other, _)| other != number && meet(&keepers[other], next));
        if edges.peek().is_none() || !joins() {
            continue;
        }
        for edge in edges {
            way.push((number, edge));
            if let Some(problem) = closing(keepers, meet, way) {
                return Some(problem);
            }
            way.pop();
        }
    }
    None
}

fn circle(keepers: &[Keeper<'_>], way: &[(usize, &Edge)]) -> Problem {
    let names: Vec<String> = way.iter().map(|&(number, _)| format!("`{}`", keepers[number].step.id())).collect();
    let tell = |&(number, (held, _, wanted)): &(usize, &Edge)| {
        format!("`{held}` is kept while `{}` needs `{wanted}`", keepers[number].path)
    };
    let message = format!("steps {} could wait for each other's locks for ever", names.join(", "));
    let mut problem = Problem::new("plan::lock_circle", message, way[0].1.1).label(tell(&way[0]));
    for edge in &way[1..] {
        problem = problem.other(edge.1.1, tell(edge));
    }
    problem
        .help("let one of them need the other, or have each take all it needs at once, in one step without a runbook")
}
