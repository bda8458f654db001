//! What values may do inside of a path: name a file or folder below what the author wrote, never lead out of it.
//!
//! A path that begins with a template is the parameter's to choose, as its author wanted; inside of a path, a value that holds
//! `..` would turn `/srv/app/{{ params.name }}` into any other place. Called for every path that an action is given.

use serde_json::Value as Json;

use crate::spec::actions::{ActionKind, ActionSpec};
use crate::spec::reference::{Malformed, look_up, template_references};
use crate::spec::yaml::{Node, Value};

/// Arguments of an action that are paths.
fn paths(kind: ActionKind, args: &Node) -> Vec<&Node> {
    let named: &[&str] = match kind {
        ActionKind::FileWrite | ActionKind::Runbook => &["path"],
        ActionKind::DbBackup => &["to"],
        ActionKind::DbRestore => &["from"],
        ActionKind::DbMigrate => &["folder"],
        ActionKind::DbCopy | ActionKind::DbCompare | ActionKind::DbPreflight => &["map"],
        ActionKind::Exec => &["cwd"],
        _ => &[],
    };
    let program = match (kind, args.get("argv").map(|argv| &argv.value)) {
        (ActionKind::Exec | ActionKind::NotifyCommand, Some(Value::List(words))) => words.first(),
        _ => None,
    };
    named.iter().filter_map(|key| args.get(key)).chain(program).collect()
}

/// Refuses values that would lead out of the folder that a path of the action names.
///
/// # Errors
/// Naming the value and the path.
pub fn check(action: &ActionSpec, scope: &Json) -> Result<(), Malformed> {
    if let Some(repeated) = action.nested() {
        return check(&repeated, scope);
    }
    paths(action.kind, &action.args).into_iter().filter_map(Node::text).try_for_each(|path| one(path, scope))
}

fn one(path: &str, scope: &Json) -> Result<(), Malformed> {
    if !path.contains("{{") {
        return Ok(());
    }
    let leads = usize::from(path.trim_start().starts_with("{{"));
    for reference in template_references(path)?.iter().skip(leads) {
        let value = look_up(scope, &reference.path).and_then(Json::as_str).unwrap_or_default();
        if value.split('/').any(|part| part == "..") {
            let name = reference.path.join(".");
            return Err(Malformed(format!("`{name}` holds `..`, which would lead out of `{path}`")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(path: &str, value: &str) -> Result<(), String> {
        let scope = json!({ "params": { "dir": "/srv", "x": value, "n": 7 } });
        one(path, &scope).map_err(|error| error.0)
    }

    #[test]
    fn a_value_stays_below_what_the_author_wrote() {
        for path in ["/srv/{{ params.x }}", "conf-{{ params.x }}.ini", "{{ params.dir }}/{{ params.x }}/a"] {
            for fine in ["a", "a/b", "..a", "a..b", "...", "", "ü/x", "%2e%2e", "a b", "$(pwd)", "\n"] {
                assert_eq!(said(path, fine), Ok(()), "{path} {fine}");
            }
            for bad in ["..", "../etc", "a/../../b", "a/..", "/../x"] {
                let why = said(path, bad).expect_err(bad);
                assert!(why.contains("`params.x` holds `..`"), "{why}");
            }
        }
        assert_eq!(said("{{ params.x }}/a", "../elsewhere"), Ok(()), "it is the parameter's to choose");
        assert_eq!(said("a/{{ params.n }}", ""), Ok(()));
    }
}
