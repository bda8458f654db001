//! The files that an action names: which, how they are used, and where that is written.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value as Json};

use crate::plan::render::render_node;
use crate::spec::actions::{ActionKind, ActionSpec};
use crate::spec::problem::Span;
use crate::spec::reference::render;
use crate::spec::yaml::{Node, Value};

/// How the name of a file of SQL ends.
const SQL: &str = ".sql";

/// The parameters that a runbook gets from the step that runs it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Params {
    /// Those whose values are known before the run.
    pub known: Map<String, Json>,
    /// All others.
    pub unknown: BTreeSet<String>,
}

/// How a file is used.
#[derive(Debug, Clone, PartialEq)]
pub enum Use {
    /// Its text is read.
    Text,
    /// All migrations in it are read.
    Folder,
    /// It is started.
    Program,
    /// It is run as a runbook, with these parameters.
    Runbook(Params),
}

/// A file that an action names.
#[derive(Debug, Clone, PartialEq)]
pub struct Named {
    /// Its path from the folder of the runbook.
    pub path: String,
    /// How it is used.
    pub used: Use,
    /// Where it is named.
    pub span: Span,
    /// Whether a template is part of its name.
    pub is_template: bool,
    /// Whether its name has all its values; otherwise only the run can name it, and `path` is the text as it is written.
    pub is_known: bool,
}

/// Whether the text holds a template.
fn is_template(text: &str) -> bool {
    text.contains("{{")
}

/// The files that an action names, with the values of their names as far as `values` has them.
pub fn named(action: &ActionSpec, values: &Json) -> Vec<Named> {
    let find = Finder { action, values };
    let mut all = Vec::new();
    match action.kind {
        ActionKind::DbExecute | ActionKind::DbQuery | ActionKind::DbAssert => all.extend(find.sql("sql")),
        ActionKind::DbCopy | ActionKind::DbCompare | ActionKind::DbPreflight => all.extend(find.text("map", "")),
        ActionKind::DbMigrate => all.extend(find.field("folder", Use::Folder)),
        ActionKind::Manual => all.extend(find.text("instructions", ".md")),
        ActionKind::DbWatermark => all.extend(find.sql("active")),
        ActionKind::Exec | ActionKind::NotifyCommand => all.extend(find.program()),
        ActionKind::Runbook => all.extend(find.field("path", Use::Runbook(find.params()))),
        ActionKind::WaitUntil => all.extend(action.nested().iter().flat_map(|check| named(check, values))),
        ActionKind::ServiceStart
        | ActionKind::ServiceStop
        | ActionKind::ServiceRestart
        | ActionKind::ServiceCheck
        | ActionKind::OptionSet
        | ActionKind::OptionUnset
        | ActionKind::OptionCheck
        | ActionKind::DbGaps
        | ActionKind::DbSessions
        | ActionKind::DbBackup
        | ActionKind::DbRestore
        | ActionKind::WaitFor
        | ActionKind::WaitBoundary
        | ActionKind::WaitAt
        | ActionKind::Approval
        | ActionKind::FileWrite
        | ActionKind::HttpRequest
        | ActionKind::NotifyWebhook => {}
    }
    if let Some(sql) = action.args.get("throttle").and_then(|node| node.get("pause_while")?.get("sql")) {
        all.extend(sql_of(sql));
    }
    all
}

/// SQL is never a template, so what looks like one is SQL.
fn sql_of(node: &Node) -> Option<Named> {
    let text = node.text().filter(|text| text.ends_with(SQL) && !is_template(text) && !text.contains('\n'))?;
    Some(Named { path: text.to_owned(), used: Use::Text, span: node.span, is_template: false, is_known: true })
}

/// Looks at the arguments of one action.
struct Finder<'a> {
    action: &'a ActionSpec,
    values: &'a Json,
}

impl Finder<'_> {
    fn arg(&self, name: &str) -> Option<&Node> {
        self.action.args.get(name)
    }

    /// The text of an argument with its values, and whether it has all of them.
    fn value(&self, node: &Node) -> Option<(String, bool)> {
        let text = node.text()?;
        Some(render(text, self.values).map_or_else(|_| (text.to_owned(), false), |text| (text, true)))
    }

    fn sql(&self, name: &str) -> Option<Named> {
        sql_of(self.arg(name)?)
    }

    fn text(&self, name: &str, suffix: &str) -> Option<Named> {
        let found = self.field(name, Use::Text)?;
        (found.path.ends_with(suffix) && !found.path.contains('\n')).then_some(found)
    }

    fn field(&self, name: &str, used: Use) -> Option<Named> {
        let node = self.arg(name)?;
        let (path, is_known) = self.value(node)?;
        Some(Named { path, used, span: node.span, is_template: node.text().is_some_and(is_template), is_known })
    }

    /// The program of a command, if its path starts at the folder that the command runs in, and that at the runbook's.
    fn program(&self) -> Option<Named> {
        let Value::List(argv) = &self.arg("argv")?.value else { return None };
        let node = argv.first()?;
        let (program, program_known) = self.value(node)?;
        let (cwd, cwd_known) = self.arg("cwd").and_then(|cwd| self.value(cwd)).unwrap_or_else(|| (String::new(), true));
        let path = program_path(&cwd, &program)?;
        let is_template = [Some(node), self.arg("cwd")].into_iter().flatten().filter_map(Node::text).any(is_template);
        let is_known = program_known && cwd_known;
        Some(Named { path, used: Use::Program, span: node.span, is_template, is_known })
    }

    fn params(&self) -> Params {
        let mut params = Params::default();
        if let Some(Value::Map(pairs)) = self.arg("params").map(|node| &node.value) {
            for (key, node) in pairs {
                match render_node(node, self.values) {
                    Ok(value) => drop(params.known.insert(key.text.clone(), value.to_json())),
                    Err(_) => drop(params.unknown.insert(key.text.clone())),
                }
            }
        }
        params
    }
}

/// The path of a program from the folder of the runbook; nothing for one of the host.
pub fn program_path(cwd: &str, program: &str) -> Option<String> {
    let is_own = program.contains('/') && !program.starts_with('/') && !cwd.starts_with('/');
    is_own.then(|| super::normalized(&Path::new(cwd).join(program).to_string_lossy()))
}
