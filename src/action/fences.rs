//! The locks that a step holds, with the fence of each, for whatever the locks guard.
//!
//! A fence grows with each taking of its lock, so that a target which remembers the highest one can refuse a holder that
//! lost the lock without knowing. Commands get fences in their environment, templates as `lock`. `docs/design/locks.md`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::ids::LockName;

/// What stands in a record for a fence: the next attempt has another one and is the same work all the same.
const HIDDEN: &str = "*";

/// The locks of a step and, behind them, those that its run holds from beginning to end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fences {
    /// The locks of the step itself; those of the run if it has none.
    own: Vec<LockName>,
    held: BTreeMap<LockName, u64>,
}

impl Fences {
    /// Of a step with these locks in a run with those; `held` has what is held, with its fences.
    pub fn new(of_step: &[LockName], of_run: &[LockName], held: BTreeMap<LockName, u64>) -> Self {
        let own = if of_step.is_empty() { of_run } else { of_step };
        Self { own: own.to_vec(), held }
    }

    /// The one lock that is meant when none is named, and its fence.
    fn only(&self) -> Option<(&LockName, u64)> {
        let [name] = self.own.as_slice() else { return None };
        Some((name, *self.held.get(name)?))
    }

    fn list(&self) -> String {
        let pairs: Vec<String> = self.held.iter().map(|(name, fence)| format!("{name}={fence}")).collect();
        pairs.join(" ")
    }

    /// What a command finds in its environment; nothing without locks.
    pub fn variables(&self) -> BTreeMap<String, String> {
        let mut variables = BTreeMap::new();
        if let Some((name, fence)) = self.only() {
            variables.insert("PITON_LOCK".to_owned(), name.to_string());
            variables.insert("PITON_LOCK_FENCE".to_owned(), fence.to_string());
        }
        if !self.held.is_empty() {
            variables.insert("PITON_LOCK_FENCES".to_owned(), self.list());
        }
        variables
    }

    /// What templates see as `lock`.
    pub fn scope(&self) -> Value {
        let mut scope = json!({});
        if let Some((name, fence)) = self.only() {
            scope = json!({ "name": name, "fence": fence });
        }
        if !self.held.is_empty() {
            scope["fences"] = self.list().into();
        }
        scope
    }

    /// The same for the journal, without what differs from attempt to attempt.
    pub fn masked_scope(&self) -> Value {
        let mut scope = json!({ "fences": HIDDEN });
        if let [name] = self.own.as_slice() {
            scope["name"] = json!(name);
            scope["fence"] = HIDDEN.into();
        }
        scope
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<LockName> {
        names.iter().map(|&name| name.into()).collect()
    }

    #[test]
    fn one_lock_needs_no_name_and_several_are_listed() {
        let held = |pairs: &[(&str, u64)]| pairs.iter().map(|&(name, fence)| (name.into(), fence)).collect();
        let one = Fences::new(&names(&["db"]), &names(&["site"]), held(&[("db", 7), ("site", 2)]));
        let variables: Vec<String> =
            one.variables().into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(variables, ["PITON_LOCK=db", "PITON_LOCK_FENCE=7", "PITON_LOCK_FENCES=db=7 site=2"]);
        assert_eq!(one.scope(), json!({ "name": "db", "fence": 7, "fences": "db=7 site=2" }));
        assert_eq!(one.masked_scope(), json!({ "name": "db", "fence": "*", "fences": "*" }));
        let of_run = Fences::new(&[], &names(&["site"]), held(&[("site", 2)]));
        assert_eq!(of_run.scope(), json!({ "name": "site", "fence": 2, "fences": "site=2" }));
        let two = Fences::new(&names(&["db", "app"]), &[], held(&[("app", 1), ("db", 7)]));
        assert_eq!(two.scope(), json!({ "fences": "app=1 db=7" }));
        assert_eq!(Fences::default().variables(), BTreeMap::new());
    }
}
