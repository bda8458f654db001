//! Every name in templates and expressions: it must exist, be upstream, and be allowed where it stands.

use std::collections::{BTreeSet, HashMap};

use super::graph::Graph;
use super::render::may_hold_secret;
use crate::site::Site;
use crate::spec::actions::{ActionKind, ActionSpec, RULES};
use crate::spec::problem::{Problem, Source, Span, did_you_mean};
use crate::spec::reference::{Expression, Reference, malformed_part, template_references};
use crate::spec::runbook::{ParamType, Runbook, Step, Undo};
use crate::spec::yaml::{Key, Node, Value};

/// Roots of names that are no value by themselves, with what to write.
const ROOTS: [(&str, &str); 6] = [
    ("lock", "lock.fence"),
    ("params", "params.NAME"),
    ("site", "site.name"),
    ("steps", "steps.ID.outputs.NAME"),
    ("run", "run.id"),
    ("secrets", "secrets.NAME"),
];

/// Where a name stands.
#[expect(clippy::struct_excessive_bools, reason = "each is one thing about the place and independent of the others")]
struct Place<'a> {
    /// The step, and whether it is in `finally`.
    step: Option<(&'a Step, bool)>,
    /// Whether `item` has a value.
    in_foreach: bool,
    /// Whether a secret may stand here.
    secrets: bool,
    /// Whether the step's own outputs have a value.
    own_outputs: bool,
    /// Whether it is decided before the run what stands here.
    decided: bool,
    /// Text to find the name in.
    span: Span,
}

impl Place<'_> {
    /// A place of no step, decided before the run.
    fn before_the_run(in_foreach: bool, span: Span) -> Self {
        Self { step: None, in_foreach, secrets: false, own_outputs: false, decided: true, span }
    }
}

/// A step that uses an output of another, which must come before it.
struct Use<'a> {
    target: &'a Step,
    step: &'a Step,
    at: Span,
}

/// Checks names and remembers which parameters are used.
pub struct Names<'a> {
    runbook: &'a Runbook,
    source: &'a Source,
    site: Option<&'a Site>,
    graph: &'a Graph<'a>,
    ids_seen: &'a BTreeSet<&'a str>,
    steps: HashMap<&'a str, (&'a Step, bool)>,
    used: BTreeSet<String>,
    uses: Vec<Use<'a>>,
    is_partial: bool,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Names<'a> {
    /// Ready to check; `is_partial` when some of the runbook could not be read.
    pub fn new(
        runbook: &'a Runbook,
        source: &'a Source,
        site: Option<&'a Site>,
        graph: &'a Graph<'a>,
        ids_seen: &'a BTreeSet<&'a str>,
        is_partial: bool,
        problems: &'a mut Vec<Problem>,
    ) -> Self {
        let main = runbook.steps.iter().map(|step| (step.id().as_str(), (step, false)));
        let last = runbook.finally.iter().map(|step| (step.id().as_str(), (step, true)));
        let steps = main.chain(last).collect();
        Self {
            runbook,
            source,
            site,
            graph,
            ids_seen,
            steps,
            used: BTreeSet::new(),
            uses: Vec::new(),
            is_partial,
            problems,
        }
    }

    /// Checks the whole runbook.
    pub fn check(mut self) {
        for lock in &self.runbook.locks {
            self.template(&lock.value, &Place::before_the_run(false, lock.span));
        }
        self.plain_names();
        for step in &self.runbook.steps {
            self.step(step, false);
        }
        for step in &self.runbook.finally {
            self.step(step, true);
        }
        self.uses_come_later();
        self.unused_params();
    }

    /// Names that are compared as they stand: a template among them would never match anything.
    fn plain_names(&mut self) {
        let requires = &self.runbook.requires;
        let resources = requires.databases.iter().chain(&requires.services).chain(&requires.options);
        let steps = self.runbook.steps.iter().chain(&self.runbook.finally);
        let names = resources.chain(&requires.milestones).chain(&self.runbook.achieves).chain(&self.runbook.revokes);
        let names = names.chain(steps.flat_map(|step| &step.fields.uses));
        for name in names.filter(|name| name.value.contains("{{")) {
            let problem = Problem::new("plan::no_template_here", "this name is taken as it stands", name.span);
            self.problems.push(problem.label("no template here").help("write the name itself"));
        }
    }

    fn step(&mut self, step: &'a Step, last: bool) {
        let fields = &step.fields;
        let place = |secrets, own_outputs, span| Place {
            step: Some((step, last)),
            in_foreach: fields.foreach.is_some(),
            secrets,
            own_outputs,
            decided: false,
            span,
        };
        self.action(&step.action, &place(false, false, step.span));
        if let Some(verify) = &fields.verify {
            self.action(&verify.0, &place(false, true, step.span));
        }
        if let Some(Undo::Action(undo)) = &fields.undo {
            self.action(undo, &place(false, true, step.span));
        }
        if let Some(when) = &fields.when {
            self.expression(&when.value, &place(false, false, when.span));
        }
        for rule in fields.outputs.values() {
            self.expression(&rule.value, &place(false, true, rule.span));
        }
        for lock in &fields.locks {
            self.template(&lock.value, &place(false, false, lock.span));
        }
        if let Some(items) = fields.foreach.as_ref().map(|foreach| &foreach.value.items)
            && let Some(text) = items.value.as_str()
        {
            self.expression(text, &Place::before_the_run(false, items.span));
        }
        if let Some(key) = fields.foreach.as_ref().and_then(|foreach| foreach.value.key.as_ref()) {
            self.expression(&key.value, &Place::before_the_run(true, key.span));
        }
    }

    fn action(&mut self, action: &'a ActionSpec, place: &Place<'a>) {
        self.arguments(action, &action.args, &mut Vec::new(), place);
    }

    fn arguments(&mut self, action: &'a ActionSpec, node: &'a Node, path: &mut Vec<&'a str>, place: &Place<'a>) {
        match &node.value {
            Value::Text(text) if text.contains("{{") => {
                if path.last() == Some(&"sql") {
                    let problem = Problem::new("plan::template_in_sql", "SQL is never a template", node.span);
                    self.problems
                        .push(problem.label("here").help("write `:name` in the SQL and give its value under `bind`"));
                    return;
                }
                let kind = action.kind;
                let secrets = may_hold_secret(kind, path)
                    || kind == ActionKind::WaitUntil
                        && path
                            .split_first()
                            .and_then(|(key, rest)| ActionKind::of_key(key).map(|k| may_hold_secret(k, rest)))
                            .unwrap_or(false);
                let decided = kind.is_wait_for_people() && path.first().is_some_and(|key| RULES.contains(key));
                self.template(text, &Place { span: node.span, secrets, decided, ..*place });
            }
            Value::Map(pairs) => {
                for (key, child) in pairs {
                    path.push(&key.text);
                    self.arguments(action, child, path, place);
                    path.pop();
                }
            }
            Value::List(items) => {
                for item in items {
                    path.push("");
                    self.arguments(action, item, path, place);
                    path.pop();
                }
            }
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(..) | Value::Text(_) => {}
        }
    }

    fn template(&mut self, text: &str, place: &Place<'a>) {
        match template_references(text) {
            Ok(references) => references.iter().for_each(|reference| self.reference(reference, place)),
            Err(error) => {
                let at = malformed_part(text).and_then(|part| self.find(part, place.span)).unwrap_or(place.span);
                let problem = Problem::new("plan::bad_template", error.0, at).label("here");
                self.problems.push(problem.help("a template is text with names in double braces: `{{ params.x }}`"));
            }
        }
    }

    fn expression(&mut self, text: &str, place: &Place<'a>) {
        if let Some(id) = self.dashed_step(text) {
            let message = format!("an expression takes the dash in `steps.{id}` for a minus");
            let at = self.find(&format!("steps.{id}"), place.span).unwrap_or(place.span);
            let problem = Problem::new("plan::dash_in_expression", message, at).label("here");
            return self.problems.push(problem.help(format!("write `steps[\"{id}\"]`")));
        }
        match Expression::parse(text) {
            Ok(expression) => expression.references().iter().for_each(|reference| self.reference(reference, place)),
            Err(_) if text.contains("{{") => {
                let message = "an expression names values without braces";
                let problem = Problem::new("plan::bad_expression", message, place.span).label("a template");
                self.problems.push(problem.help("write `params.x` instead of `{{ params.x }}`"));
            }
            Err(error) => {
                let problem = Problem::new("plan::bad_expression", error.0, place.span).label("here");
                self.problems.push(problem.help("for example `params.count > 3 && steps[\"check-it\"].outputs.ok`"));
            }
        }
    }

    /// The first step with a dash in its id that `text` names as `steps.ID`.
    fn dashed_step<'t>(&self, text: &'t str) -> Option<&'t str> {
        text.split("steps.").skip(1).find_map(|rest| {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '-' && c != '_').unwrap_or(rest.len());
            // What stands behind a later dash may well be meant as a number to subtract.
            let mut id = &rest[..end];
            while id.contains('-') && !self.steps.contains_key(id) {
                id = &id[..id.rfind('-').unwrap_or(0)];
            }
            id.contains('-').then_some(id)
        })
    }

    fn reference(&mut self, reference: &Reference, place: &Place<'a>) {
        let root = reference.path[0].as_str();
        let at = self.find(&reference.written, place.span).or_else(|| self.find(root, place.span));
        let at = at.unwrap_or(place.span);
        let rest: Vec<&str> = reference.path.iter().skip(1).map(String::as_str).collect();
        if let (Some((_, example)), []) = (ROOTS.iter().find(|(name, _)| *name == root), rest.as_slice()) {
            let problem = Problem::new("plan::unknown_name", format!("`{root}` needs a name behind it"), at);
            return self.problems.push(problem.label("names no value").help(format!("write `{example}`")));
        }
        if place.decided && matches!(root, "steps" | "run" | "outputs") {
            let message = format!("`{root}` has no value yet: this is decided before the run");
            let problem = Problem::new("plan::too_early", message, at).label("no value here");
            return self.problems.push(problem.help("use `params`, `site`, or the `item` of a `foreach`"));
        }
        match reference.path[0].as_str() {
            "params" => self.param(&rest, at, place),
            "site" => self.site(&rest, at),
            "steps" => self.step_output(&rest, at, place),
            "outputs" if place.own_outputs => {}
            "run" => self.known("run", &rest, &["id", "starter", "started_at", "runbook", "version", "outcome"], at),
            "item" if place.in_foreach => {}
            "secrets" => self.secret(&rest, at, place),
            "lock" => self.lock(&rest, at, place),
            "item" => {
                let problem =
                    Problem::new("plan::item_outside_foreach", "`item` has a value inside `foreach` only", at);
                self.problems
                    .push(problem.label("no value here").help("add `foreach` to the step, or use another name"));
            }
            other => {
                let mut roots = vec!["params", "site", "steps", "run", "secrets", "lock"];
                roots.extend(place.in_foreach.then_some("item"));
                roots.extend(place.own_outputs.then_some("outputs"));
                let problem =
                    Problem::new("plan::unknown_name", format!("unknown name `{other}`"), at).label("no such name");
                self.problems.push(problem.help_if(did_you_mean(other, roots.iter().copied())));
            }
        }
    }

    fn param(&mut self, rest: &[&str], at: Span, place: &Place<'a>) {
        let Some(name) = rest.first() else { return };
        self.used.insert((*name).to_owned());
        match self.runbook.params.get(name) {
            Some(param) if param.r#type == ParamType::Secret && !place.secrets => {
                self.secret_here(&format!("params.{name}"), at);
            }
            Some(_) => {}
            None => {
                let problem = Problem::new("plan::unknown_param", format!("unknown parameter `{name}`"), at)
                    .label("not declared");
                let help = did_you_mean(name, self.runbook.params.names())
                    .unwrap_or_else(|| "declare it under `params`".into());
                self.problems.push(problem.help(help));
            }
        }
    }

    fn secret_here(&mut self, name: &str, at: Span) {
        let problem = Problem::new("plan::secret_exposed", format!("secret `{name}` may not stand here"), at)
            .label("would be visible");
        self.problems
            .push(problem.help("secrets may stand in `env`, `stdin`, `content`, `headers`, `body` and `url` only"));
    }

    fn secret(&mut self, rest: &[&str], at: Span, place: &Place<'a>) {
        let name = rest.first().copied().unwrap_or_default();
        if !place.secrets {
            self.secret_here(&format!("secrets.{name}"), at);
        } else if let Some(site) = self.site
            && site.secrets.get(name).is_none()
        {
            let problem =
                Problem::new("plan::missing_secret", format!("the site has no secret `{name}`"), at).label("unknown");
            self.problems.push(problem.help_if(did_you_mean(name, site.secrets.names())));
        }
    }

    /// `lock` is what the step itself holds, or what its run holds if it holds nothing.
    fn lock(&mut self, rest: &[&str], at: Span, place: &Place<'a>) {
        self.known("lock", rest, &["name", "fence", "fences"], at);
        let asks_people = place.step.is_some_and(|(step, _)| step.action.kind.is_wait_for_people());
        let of_step = place.step.filter(|_| !asks_people);
        let own = of_step.map_or(0, |(step, _)| step.fields.locks.len());
        let count = if own == 0 && of_step.is_some() { self.runbook.locks.len() } else { own };
        let (message, help) = match (count, rest.first().copied()) {
            (0, _) if asks_people => ("a step for people holds no lock", "name the lock in words"),
            (0, _) => ("`lock` has a value only where a lock is held", "add `locks` to the step"),
            (2.., Some("name" | "fence")) => {
                ("several locks are held here", "write `lock.fences`, which lists them all")
            }
            _ => return,
        };
        self.problems.push(Problem::new("plan::which_lock", message, at).label("no value here").help(help));
    }

    fn site(&mut self, rest: &[&str], at: Span) {
        self.known("site", rest, &["name", "vars", "tags"], at);
        if let (Some(site), ["vars", name, ..]) = (self.site, rest)
            && !site.vars.contains_key(*name)
        {
            let problem =
                Problem::new("plan::unknown_var", format!("the site has no variable `{name}`"), at).label("unknown");
            self.problems.push(problem.help_if(did_you_mean(name, site.vars.keys().map(String::as_str))));
        }
    }

    fn known(&mut self, root: &str, rest: &[&str], known: &[&str], at: Span) {
        let name = rest.first().copied().unwrap_or_default();
        if !known.contains(&name) {
            let problem =
                Problem::new("plan::unknown_name", format!("`{root}` has no `{name}`"), at).label("no such name");
            self.problems.push(problem.help_if(did_you_mean(name, known.iter().copied())));
        }
    }

    fn step_output(&mut self, rest: &[&str], at: Span, place: &Place<'a>) {
        let id = rest.first().copied().unwrap_or_default();
        if rest.len() == 1 && (self.steps.contains_key(id) || self.ids_seen.contains(id)) {
            let problem = Problem::new("plan::unknown_name", format!("`steps.{id}` is no value by itself"), at);
            let help = format!("write `steps.{id}.outputs.NAME` or `steps.{id}.state`");
            return self.problems.push(problem.label("names no value").help(help));
        }
        let Some(&(target, target_last)) = self.steps.get(id) else {
            if !self.ids_seen.contains(id) {
                let problem =
                    Problem::new("plan::unknown_step", format!("unknown step `{id}`"), at).label("no step has this id");
                self.problems.push(problem.help_if(did_you_mean(id, self.ids_seen.iter().copied())));
            }
            return;
        };
        if let Some((step, last)) = place.step
            && (!last || target_last)
            && !(place.own_outputs && step.id() == target.id())
        {
            self.uses.push(Use { target, step, at });
        }
        match rest.get(1).copied() {
            Some("outputs") => self.output_name(target, rest.get(2).copied(), at),
            Some("state") => {}
            other => {
                let name = other.unwrap_or_default();
                let problem =
                    Problem::new("plan::unknown_name", format!("a step has no `{name}`"), at).label("no such name");
                self.problems.push(problem.help(format!("write `steps.{id}.outputs.NAME` or `steps.{id}.state`")));
            }
        }
    }

    /// Every step that uses an output must come behind the step that has it.
    fn uses_come_later(&mut self) {
        let pairs: Vec<_> = self.uses.iter().map(|u| (u.target.id().as_str(), u.step.id().as_str())).collect();
        let answers = self.graph.come_before(&pairs);
        for (Use { target, step, at }, _) in self.uses.iter().zip(answers).filter(|(_, is_before)| !is_before) {
            let (id, user) = (target.id(), step.id());
            let message = format!("step `{user}` uses an output of `{id}`, which does not come before it");
            let problem = Problem::new("plan::not_upstream", message, *at).label("has no value yet");
            self.problems.push(problem.help(format!("add `{id}` to the `needs` of `{user}`")));
        }
    }

    fn output_name(&mut self, target: &Step, name: Option<&str>, at: Span) {
        let Some(name) = name else { return };
        if target.fields.foreach.is_some() {
            return;
        }
        let known = output_names(target.fields.outputs.keys(), &target.action);
        if !known.iter().any(|known| known == name) {
            let message = format!("step `{}` has no output `{name}`", target.id());
            let problem = Problem::new("plan::unknown_output", message, at).label("no such output");
            let help = did_you_mean(name, known.iter().map(String::as_str)).unwrap_or_else(|| {
                format!("the step has no outputs; declare them under `outputs` of `{}`", target.id())
            });
            self.problems.push(problem.help(help));
        }
    }

    fn unused_params(&mut self) {
        let unused = self.runbook.params.0.iter().filter(|(key, _)| !self.used.contains(&key.text));
        // A part that cannot be read may well use it.
        let unread = |key: &Key| self.is_partial && self.source.text.contains(&format!("params.{}", key.text));
        for (key, _) in unused.filter(|(key, _)| !unread(key)) {
            let problem =
                Problem::new("plan::unused_param", format!("parameter `{}` is never used", key.text), key.span)
                    .label("declared here");
            self.problems.push(problem.help("use it or drop it; an operator would believe that it does something"));
        }
    }

    /// The place of `words` inside the text that stands at `span`.
    fn find(&self, words: &str, span: Span) -> Option<Span> {
        let text = &self.source.text;
        let end = block_end(text, span).max(span.start + span.len);
        let offset = text.get(span.start..end)?.find(words)?;
        Some(Span { start: span.start + offset, len: words.len() })
    }
}

/// The end of the block of text that begins at `span`, whose span covers its first line only: all lines that are
/// indented as far.
fn block_end(text: &str, span: Span) -> usize {
    let line = text.get(..span.start).and_then(|before| before.rfind('\n')).map_or(0, |end| end + 1);
    let indent = span.start - line;
    if !text.get(line..span.start).is_some_and(|before| before.chars().all(|c| c == ' ')) {
        return span.start + span.len;
    }
    let mut end = span.start;
    for (number, line) in text.get(span.start..).unwrap_or("").split_inclusive('\n').enumerate() {
        let is_inside =
            number == 0 || line.trim().is_empty() || line.bytes().take_while(|b| *b == b' ').count() >= indent;
        if !is_inside {
            break;
        }
        end += line.len();
    }
    end
}

/// Groups of equal ids with the places where they stand.
pub fn repeated<'a>(ids: impl Iterator<Item = (&'a str, Span)>) -> Vec<(&'a str, Span, Span)> {
    let mut seen: HashMap<&str, Span> = HashMap::new();
    let mut found = Vec::new();
    for (id, span) in ids {
        if let Some(first) = seen.get(id) {
            found.push((id, *first, span));
        } else {
            seen.insert(id, span);
        }
    }
    found
}

/// The outputs that a step can have: those of its action, and its `own`.
pub fn output_names<'a>(own: impl Iterator<Item = &'a String>, action: &ActionSpec) -> Vec<String> {
    let mut known: Vec<String> = own.cloned().collect();
    if let Some(names) = action.kind.outputs() {
        known.extend(names.iter().map(|&name| name.to_owned()));
        return known;
    }
    for list in ["outputs", "form"].into_iter().filter_map(|key| action.args.get(key)) {
        if let Value::Map(pairs) = &list.value {
            known.extend(pairs.iter().map(|(key, _)| key.text.clone()));
        }
    }
    known
}
