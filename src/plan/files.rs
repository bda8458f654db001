//! Files that a runbook uses: read when it is planned, so that a later change cannot slip into a run.

use std::collections::BTreeMap;
use std::path::Path;

use crate::spec::actions::{ActionKind, ActionSpec};
use crate::spec::problem::{Problem, Span};
use crate::spec::yaml::{Node, Value};

/// Texts by the path that the runbook uses.
pub type Files = BTreeMap<String, String>;

/// Paths in the arguments of an action that name files to read, with their places.
pub(super) fn paths(action: &ActionSpec) -> Vec<(String, Span)> {
    let named = |node: &Node, suffix: &str| {
        let text = node.text()?;
        (text.ends_with(suffix) && !text.contains("{{") && !text.contains('\n')).then(|| (text.to_owned(), node.span))
    };
    let field = |name: &str, suffix: &str| named(action.args.get(name)?, suffix);
    let found = match action.kind {
        ActionKind::DbExecute | ActionKind::DbQuery | ActionKind::DbAssert => field("sql", ".sql"),
        ActionKind::DbCopy | ActionKind::DbCompare | ActionKind::DbPreflight => field("map", ""),
        ActionKind::Manual => field("instructions", ".md"),
        ActionKind::DbWatermark => field("active", ".sql"),
        _ => None,
    };
    let mut all: Vec<_> = found.into_iter().collect();
    if let Some(sql) = action.args.get("throttle").and_then(|node| node.get("pause_while")?.get("sql")) {
        all.extend(named(sql, ".sql"));
    }
    if action.kind == ActionKind::WaitUntil {
        all.extend(nested(&action.args).iter().flat_map(paths));
    }
    all
}

/// The check inside a `wait.until`.
fn nested(args: &Node) -> Option<ActionSpec> {
    let Value::Map(pairs) = &args.value else { return None };
    pairs.iter().find_map(|(key, args)| {
        ActionKind::of_key(&key.text).map(|kind| ActionSpec { kind, key: key.span, args: args.clone() })
    })
}

/// Reads every file that `actions` name.
pub fn read<'a>(base: &Path, actions: impl Iterator<Item = &'a ActionSpec>, problems: &mut Vec<Problem>) -> Files {
    let mut files = Files::new();
    for (path, span) in actions.flat_map(paths) {
        if files.contains_key(&path) {
            continue;
        }
        match std::fs::read_to_string(base.join(&path)) {
            Ok(text) => {
                files.insert(path, text);
            }
            Err(error) => {
                let message = format!("file `{path}` cannot be read: {}", plain(&error));
                let problem = Problem::new("plan::no_file", message, span).label("named here");
                problems.push(problem.help("paths start at the folder of the runbook"));
            }
        }
    }
    files
}

fn plain(error: &std::io::Error) -> String {
    if error.kind() == std::io::ErrorKind::InvalidData {
        return "it is not UTF-8 text".to_owned();
    }
    let text = error.to_string().to_lowercase();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}
