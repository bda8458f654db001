//! Rules between the parts of a runbook: ids, needs, circles, retries, undos, windows, what the site provides.

use std::collections::{BTreeSet, HashMap, HashSet};

use globset::Glob;

use super::graph::Graph;
use super::names::{Names, repeated};
use super::params;
use crate::ids::Actor;
use crate::site::Site;
use crate::spec::actions::{ActionKind, ActionSpec, CrashDefault};
use crate::spec::deviations::Deviations;
use crate::spec::problem::{Problem, Source, Span, did_you_mean};
use crate::spec::runbook::{Idempotent, NeedOutcome, OnFailure, Phase, Runbook, SeenStep, Step, Undo};
use crate::spec::yaml::{Node, Value};

/// Most steps of a circle that a message names.
const CYCLE_SHOWN_MAX: usize = 20;

/// Everything that is wrong between the parts of a runbook, and against `site` when there is one.
///
/// `is_partial` says that some of the runbook could not be read.
pub fn check(
    runbook: &Runbook,
    source: &Source,
    site: Option<&Site>,
    steps_seen: &[SeenStep],
    is_partial: bool,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let seen: BTreeSet<&str> = steps_seen.iter().map(|step| step.id.as_str()).collect();
    let steps = || runbook.steps.iter().chain(&runbook.finally);
    for (id, first, again) in repeated(steps().map(|step| (step.id().as_str(), step.fields.id.span))) {
        let problem = Problem::new("plan::duplicate_id", format!("step id `{id}` is used twice"), again);
        problems.push(problem.label("again here").other(first, "first here").help("give one of them another id"));
    }
    if runbook.steps.is_empty() && seen.is_empty() {
        let problem =
            Problem::new("plan::no_steps", "the runbook has no steps", runbook.name.span).label("this runbook");
        problems.push(problem.help("add a step under `steps`"));
    }
    check_needs(runbook, &seen, &mut problems);
    check_needs_of_unread(runbook, steps_seen, &seen, &mut problems);
    let graph = graph_of(steps_seen);
    for cycle in graph.cycles() {
        problems.push(cycle_problem(runbook, &cycle));
    }
    check_deviation_authors(runbook.deviations.as_ref(), runbook.name.span, runbook, &mut problems);
    steps().for_each(|step| check_step(step, runbook, &mut problems));
    check_windows(runbook, &seen, &mut problems);
    params::check_declarations(runbook, &mut problems);
    if let Some(site) = site {
        check_site(runbook, site, &mut problems);
    }
    Names::new(runbook, source, site, &graph, &seen, is_partial, &mut problems).check();
    problems
}

/// The graph of all steps, also of those that cannot be read: what comes before what is known all the same.
fn graph_of(steps: &[SeenStep]) -> Graph<'_> {
    let known = || steps.iter().filter(|step| !step.id.is_empty());
    let edges = known().flat_map(|step| step.needs.iter().map(|(need, _)| (need.as_str(), step.id.as_str())));
    Graph::new(known().map(|step| step.id.as_str()), edges)
}

fn check_needs(runbook: &Runbook, seen: &BTreeSet<&str>, problems: &mut Vec<Problem>) {
    let by_id: HashMap<&str, &Step> = runbook.steps.iter().map(|step| (step.id().as_str(), step)).collect();
    let last: HashSet<&str> = runbook.finally.iter().map(|step| step.id().as_str()).collect();
    for (step, in_finally) in runbook.steps.iter().map(|s| (s, false)).chain(runbook.finally.iter().map(|s| (s, true)))
    {
        for need in &step.fields.needs {
            let name = need.step.value.as_str();
            let span = need.step.span;
            let exists = by_id.contains_key(name) || last.contains(name) || seen.contains(name);
            if !exists {
                problems.push(unknown_need(name, span, step.id().as_str(), seen));
            } else if in_finally != last.contains(name) {
                let message = format!("step `{}` and step `{name}` are not in the same part", step.id());
                let problem = Problem::new("plan::need_across_finally", message, span).label("other part");
                problems.push(problem.help("`finally` runs after all steps by itself; drop the need"));
            }
            let Some(target) = by_id.get(name) else { continue };
            check_need_outcome(step, target, need.outcome, span, runbook, problems);
        }
    }
}

/// The needs of steps of which only their names could be read; all else about them waits until they can be.
fn check_needs_of_unread(
    runbook: &Runbook,
    steps_seen: &[SeenStep],
    seen: &BTreeSet<&str>,
    problems: &mut Vec<Problem>,
) {
    let read: HashSet<&str> = runbook.steps.iter().chain(&runbook.finally).map(|step| step.id().as_str()).collect();
    for step in steps_seen.iter().filter(|step| !read.contains(step.id.as_str())) {
        let unknown = step.needs.iter().filter(|(name, _)| !name.is_empty() && !seen.contains(name.as_str()));
        problems.extend(unknown.map(|(name, span)| unknown_need(name, *span, &step.id, seen)));
    }
}

fn unknown_need(name: &str, span: Span, step: &str, seen: &BTreeSet<&str>) -> Problem {
    let whose = if step.is_empty() { "a step without an id".to_owned() } else { format!("`{step}`") };
    let message = format!("unknown step `{name}` in `needs` of {whose}");
    let problem = Problem::new("plan::unknown_need", message, span).label("no step has this id");
    problem.help_if(did_you_mean(name, seen.iter().copied().filter(|id| !id.is_empty())))
}

fn check_need_outcome(
    step: &Step,
    target: &Step,
    outcome: Option<NeedOutcome>,
    span: Span,
    runbook: &Runbook,
    problems: &mut Vec<Problem>,
) {
    let goes_on = target.fields.optional.is_some()
        || target.fields.on_failure.unwrap_or(runbook.on_failure) == OnFailure::Continue;
    if outcome == Some(NeedOutcome::Failed) && !goes_on {
        let message =
            format!("step `{}` can never run: after a failure of `{}` nothing new starts", step.id(), target.id());
        let problem = Problem::new("plan::need_never_met", message, span).label("this outcome ends the run");
        problems.push(problem.help(format!("add `on_failure: continue` to `{}`", target.id())));
    }
    if step.fields.phase == Phase::Preflight && target.fields.phase != Phase::Preflight {
        let message = format!("preflight step `{}` needs `{}`, which runs later", step.id(), target.id());
        problems.push(
            Problem::new("plan::preflight_order", message, span)
                .label("not a preflight step")
                .help("add `phase: preflight` there, or drop it here"),
        );
    }
}

fn cycle_problem(runbook: &Runbook, cycle: &[String]) -> Problem {
    let need = |(at, id): (usize, &String)| {
        let step = runbook.steps.iter().chain(&runbook.finally).find(|step| step.id().as_str() == id)?;
        let next = &cycle[(at + 1) % cycle.len()];
        step.fields.needs.iter().find(|need| need.step.value == *next).map(|need| need.step.span)
    };
    let span = cycle.iter().enumerate().find_map(need).unwrap_or_default();
    if let [only] = cycle {
        let problem = Problem::new("plan::cycle", format!("step `{only}` needs itself"), span);
        return problem.label("the step itself").help("drop this need");
    }
    let hidden = cycle.len().saturating_sub(CYCLE_SHOWN_MAX);
    let shown = cycle[..cycle.len() - hidden].join("` needs `");
    let rest = if hidden > 0 { format!(" needs {hidden} more, the last of which") } else { String::new() };
    let message = format!("steps need each other in a circle: `{shown}`{rest} needs `{}`", cycle[0]);
    Problem::new("plan::cycle", message, span).label("part of the circle").help("drop one of these needs")
}

/// What a crash in the middle of the step means, said or by default.
pub fn idempotency(step: &Step) -> Idempotent {
    if let Some(said) = &step.fields.idempotent {
        return said.value.0;
    }
    match step.action.kind.crash_default() {
        CrashDefault::Safe => Idempotent::Yes,
        CrashDefault::Resumable => Idempotent::Resumable,
        CrashDefault::Ask if is_safe_request(&step.action) => Idempotent::Yes,
        CrashDefault::Probe | CrashDefault::Ask => Idempotent::No,
    }
}

fn is_safe_request(action: &ActionSpec) -> bool {
    let method = action.args.get("method").and_then(Node::text).unwrap_or("GET");
    action.kind == ActionKind::HttpRequest && matches!(method, "GET" | "HEAD" | "OPTIONS")
}

/// Whether an action can find out what became of an attempt.
pub fn has_probe(kind: ActionKind) -> bool {
    kind.crash_default() == CrashDefault::Probe
}

/// Whether an action leaves nothing behind that could be undone.
pub fn only_looks(kind: ActionKind) -> bool {
    kind.crash_default() == CrashDefault::Safe && kind != ActionKind::Manual
}

/// Whether an action knows its inverse.
pub fn has_inverse(kind: ActionKind) -> bool {
    matches!(
        kind,
        ActionKind::ServiceStart
            | ActionKind::ServiceStop
            | ActionKind::OptionSet
            | ActionKind::OptionUnset
            | ActionKind::FileWrite
    )
}

fn check_step(step: &Step, runbook: &Runbook, problems: &mut Vec<Problem>) {
    let (id, fields, kind) = (step.id(), &step.fields, step.action.kind);
    if let Some(retry) = &fields.retry
        && retry.value.attempts > 1
        && idempotency(step) == Idempotent::No
        && !has_probe(kind)
    {
        let message =
            format!("step `{id}` asks for retries, but `{}` may not be repeated unless it is idempotent", kind.key());
        let problem = Problem::new("plan::retry_not_idempotent", message, retry.span).label("would repeat it");
        problems.push(problem.help("add `idempotent: yes` if running it twice does no harm, or drop `retry`"));
    }
    if fields.retry.as_ref().is_some_and(|retry| retry.value.attempts == 0) {
        let span = fields.retry.as_ref().map_or(step.span, |retry| retry.span);
        problems.push(
            Problem::new("plan::no_attempts", "`attempts` counts from 1", span)
                .label("never runs")
                .help("write the number of attempts in all"),
        );
    }
    if let Some(Undo::Auto(span)) = &fields.undo
        && !has_inverse(kind)
    {
        let problem = Problem::new("plan::no_inverse", format!("`{}` does not know its inverse", kind.key()), *span);
        problems.push(
            problem
                .label("cannot be automatic")
                .help("write the action that goes back: `undo: { exec: { argv: [...] } }`"),
        );
    }
    if fields.phase == Phase::Preflight && !step.action.is_check() {
        let message = format!("preflight step `{id}` would change something: `{}`", kind.key());
        problems.push(
            Problem::new("plan::preflight_changes", message, step.action.key)
                .label("changes things")
                .help("preflight steps only look; use `db.assert`, `service.check`, `option.check`"),
        );
    }
    if fields.on_failure == Some(OnFailure::Rollback) && runbook.finally.iter().any(|last| last.id() == id) {
        problems.push(
            Problem::new(
                "plan::rollback_in_finally",
                format!("step `{id}` in `finally` cannot roll the run back"),
                fields.id.span,
            )
            .label("too late")
            .help("use `on_failure: continue`"),
        );
    }
    check_authors(step, runbook, problems);
    check_sub_actions(step, problems);
}

/// Who wrote the runbook can be excluded only if it says who did.
fn check_authors(step: &Step, runbook: &Runbook, problems: &mut Vec<Problem>) {
    check_deviation_authors(step.fields.deviations.as_ref(), step.fields.id.span, runbook, problems);
    let Some(Value::List(names)) = step.action.args.get("exclude").map(|node| &node.value) else { return };
    let asks = names.iter().find(|name| name.text() == Some("runbook.author"));
    if let Some(name) = asks.filter(|_| runbook.authors.is_empty()) {
        let problem = Problem::new("plan::no_authors", "the runbook does not say who wrote it", name.span);
        problems.push(problem.label("excludes nobody").help("add `authors: [login]` at the top of the runbook"));
    }
}

fn check_deviation_authors(rule: Option<&Deviations>, span: Span, runbook: &Runbook, problems: &mut Vec<Problem>) {
    let asks = rule.is_some_and(|rule| rule.exclude.iter().any(|name| name == "runbook.author"));
    if asks && runbook.authors.is_empty() {
        let what = "`deviations` excludes who wrote the runbook, and it does not say who did";
        let problem = Problem::new("plan::no_authors", what, span).label("here");
        problems.push(problem.help("add `authors: [login]` at the top of the runbook"));
    }
}

fn check_sub_actions(step: &Step, problems: &mut Vec<Problem>) {
    let inner = match &step.fields.undo {
        Some(Undo::Action(undo)) => Some(("undo", undo)),
        Some(Undo::Auto(_)) | None => None,
    };
    if let Some((what, action)) = inner
        && action.kind == ActionKind::Approval
    {
        let message = format!("`{}` cannot stand in `{what}`", action.kind.key());
        problems.push(
            Problem::new("plan::bad_place", message, action.key)
                .label("not here")
                .help("make it a step of its own; work by hand is `manual`"),
        );
    }
}

fn check_windows(runbook: &Runbook, seen: &BTreeSet<&str>, problems: &mut Vec<Problem>) {
    for window in &runbook.windows {
        for end in [&window.opens, &window.closes] {
            if !seen.contains(end.value.as_str()) {
                let message = format!("window `{}` names unknown step `{}`", window.name, end.value);
                let problem = Problem::new("plan::unknown_window_step", message, end.span).label("no step has this id");
                problems.push(problem.help_if(did_you_mean(&end.value, seen.iter().copied())));
            }
        }
    }
}

/// What the runbook requires and names against what the site provides.
fn check_site(runbook: &Runbook, site: &Site, problems: &mut Vec<Problem>) {
    let mut missing = |what: &str, name: &str, span: Span, known: Vec<&str>, label: &str| {
        let problem =
            Problem::new("plan::missing_resource", format!("site `{}` has no {what} `{name}`", site.name), span);
        let help = did_you_mean(name, known.iter().copied())
            .unwrap_or_else(|| "add it to the site file, or give another site with `--site`".into());
        problems.push(problem.label(label).help(help));
    };
    let is_plain = |name: &&crate::spec::decode::Spanned<String>| !name.value.contains("{{");
    for name in
        runbook.requires.databases.iter().filter(is_plain).filter(|name| site.databases.get(&name.value).is_none())
    {
        missing("database", &name.value, name.span, site.databases.names().collect(), "required here");
    }
    for name in runbook.requires.options.iter().filter(is_plain).filter(|name| site.options.get(&name.value).is_none())
    {
        missing("option store", &name.value, name.span, site.options.names().collect(), "required here");
    }
    for pattern in runbook.requires.services.iter().filter(is_plain) {
        let matcher = Glob::new(&pattern.value).map(|glob| glob.compile_matcher());
        if !matcher.is_ok_and(|matcher| site.services.names().any(|name| matcher.is_match(name))) {
            missing("service", &pattern.value, pattern.span, site.services.names().collect(), "required here");
        }
    }
    for action in super::actions_of(runbook) {
        for (what, node) in resources(action.kind, &action.args) {
            let Some(name) = node.text().filter(|text| !text.contains("{{")) else { continue };
            let known: Vec<&str> = match what {
                "database" => site.databases.names().collect(),
                "option store" => site.options.names().collect(),
                "group" => site.services.0.iter().filter_map(|(_, service)| service.group.as_deref()).collect(),
                _ => site.services.names().collect(),
            };
            let is_there = known.contains(&name)
                || what == "service" && {
                    let glob = Glob::new(name).map(|glob| glob.compile_matcher());
                    glob.is_ok_and(|glob| known.iter().any(|known| glob.is_match(known)))
                };
            if !is_there {
                missing(what, name, node.span, known, "named here");
            }
        }
    }
    sessions_of_files(runbook, site, problems);
    assignees(runbook, site, problems);
}

/// Whose work by hand it is must be one who may answer, or nobody can. What a template says shows only when the run is planned.
fn assignees(runbook: &Runbook, site: &Site, problems: &mut Vec<Problem>) {
    for action in super::actions_of(runbook).filter(|action| action.kind == ActionKind::Manual) {
        let names = |node: Option<&Node>| match node.map(|node| &node.value) {
            None => Some(Vec::new()),
            Some(Value::List(items)) => {
                let plain = |item: &Node| item.text().filter(|text| !text.contains("{{")).map(str::to_owned);
                items.iter().map(plain).collect::<Option<Vec<_>>>()
            }
            Some(_) => None,
        };
        let Some(node) = action.args.get("assignee") else { continue };
        let Some(name) = node.text().filter(|text| !text.contains("{{") && *text != "run.starter") else { continue };
        let among = |groups, people| Some(site.people_in(&names(groups)?, &names(people)?));
        let Some(Some(people)) = among(action.args.get("groups"), action.args.get("people")) else { continue };
        if !people.contains(&Actor::new(name)) {
            let message = format!("`{name}` is not among those who may answer, so nobody could");
            let known: Vec<&str> = people.iter().map(Actor::as_str).collect();
            let help = did_you_mean(name, known.iter().copied())
                .unwrap_or_else(|| "name one of them, or add the person to `people`".into());
            let problem = Problem::new("plan::unfit_assignee", message, node.span).label("may not answer");
            problems.push(problem.help(help));
        }
    }
}

/// SQLite has no sessions; where the address is a secret, that shows only when the step runs.
fn sessions_of_files(runbook: &Runbook, site: &Site, problems: &mut Vec<Problem>) {
    for action in super::actions_of(runbook).flat_map(with_inner) {
        let (ActionKind::DbSessions, Some(node)) = (action.0, action.1.get("database")) else { continue };
        let database = node.text().and_then(|name| site.databases.get(name));
        if database.and_then(|database| database.url.as_deref()).is_some_and(|url| url.starts_with("sqlite:")) {
            let message = format!("`{}` is a SQLite file, which has no sessions", node.text().unwrap_or_default());
            let problem = Problem::new("plan::no_sessions", message, node.span).label("no server");
            problems.push(problem.help("name a database on PostgreSQL or MariaDB; who has a file open shows `lsof`"));
        }
    }
}

/// An action, or the check that it waits on.
fn with_inner(action: &ActionSpec) -> Vec<(ActionKind, &Node)> {
    match &action.args.value {
        Value::Map(pairs) if action.kind == ActionKind::WaitUntil => {
            pairs.iter().filter_map(|(key, args)| Some((ActionKind::of_key(&key.text)?, args))).collect()
        }
        _ => vec![(action.kind, &action.args)],
    }
}

/// The resources that an action names, as (kind, place).
fn resources(kind: ActionKind, args: &Node) -> Vec<(&'static str, &Node)> {
    let field = |what, key| args.get(key).map(|node| (what, node));
    let listed = |key| match args.get(key).map(|node| &node.value) {
        Some(Value::List(items)) => items.iter().map(|node| ("service", node)).collect(),
        _ => Vec::new(),
    };
    match kind {
        ActionKind::ServiceStart | ActionKind::ServiceStop | ActionKind::ServiceRestart | ActionKind::ServiceCheck => {
            let mut all = [listed("services"), listed("except")].concat();
            all.extend(field("service", "service"));
            all.extend(field("group", "group"));
            all
        }
        ActionKind::OptionSet | ActionKind::OptionUnset | ActionKind::OptionCheck => {
            field("option store", "store").into_iter().collect()
        }
        ActionKind::DbExecute
        | ActionKind::DbQuery
        | ActionKind::DbAssert
        | ActionKind::DbMigrate
        | ActionKind::DbGaps
        | ActionKind::DbWatermark
        | ActionKind::DbSessions
        | ActionKind::DbBackup
        | ActionKind::DbRestore => field("database", "database").into_iter().collect(),
        ActionKind::DbCopy | ActionKind::DbCompare | ActionKind::DbPreflight => {
            let asked = args.get("throttle").and_then(|node| node.get("pause_while")?.get("database"));
            let sides = field("database", "from").into_iter().chain(field("database", "to"));
            sides.chain(asked.map(|node| ("database", node))).collect()
        }
        ActionKind::WaitUntil => match &args.value {
            Value::Map(pairs) => {
                let inner = pairs.iter().filter_map(|(key, args)| Some((ActionKind::of_key(&key.text)?, args)));
                inner.filter(|(kind, _)| kind.is_check()).flat_map(|(kind, args)| resources(kind, args)).collect()
            }
            _ => Vec::new(),
        },
        ActionKind::Exec
        | ActionKind::WaitFor
        | ActionKind::WaitBoundary
        | ActionKind::WaitAt
        | ActionKind::Approval
        | ActionKind::Manual
        | ActionKind::FileWrite
        | ActionKind::HttpRequest
        | ActionKind::NotifyWebhook
        | ActionKind::NotifyCommand
        | ActionKind::Runbook => Vec::new(),
    }
}
