//! The mapping file: which tables and columns of one database become which of another.
//!
//! Only the text's own consistency is judged here ([`Mapping::validate`]); whether it fits two real databases is judged by `schema`.
//! Plain owned structs, so that any decoder can fill them. Read by the `db.copy` and `db.compare` actions.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::error::TransferError;

/// The only `apiVersion` that is read.
const API_VERSION: &str = "piton/v1";

/// A mapping between two schemas.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    /// Always `piton/v1`.
    #[serde(rename = "apiVersion")]
    pub api_version: String,
    /// Always `Mapping`.
    pub kind: String,
    /// What messages call it.
    pub name: String,
    /// What it is for, for people.
    #[serde(default)]
    pub description: Option<String>,
    /// Table set name to source tables, in the order in which they are copied.
    pub sets: BTreeMap<String, Vec<String>>,
    /// Source table to its mapping.
    #[serde(default)]
    pub tables: BTreeMap<String, TableMapping>,
    /// Tables that are left out on purpose.
    #[serde(default)]
    pub ignore: Ignore,
}

/// What becomes of one source table.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableMapping {
    /// The target table; default: the same name.
    #[serde(default)]
    pub to: Option<String>,
    /// Source columns that make a row unique; default: the source's primary key.
    #[serde(default)]
    pub key: Vec<String>,
    /// Target column to source column; default: every column that has the same name on both sides.
    #[serde(default)]
    pub columns: Option<BTreeMap<String, String>>,
    /// Target column to literal.
    #[serde(default)]
    pub constants: BTreeMap<String, serde_json::Value>,
    /// Target column to an SQL expression over the source's columns, evaluated by the source's engine.
    #[serde(default)]
    pub expressions: BTreeMap<String, String>,
    /// Target column to the key map through which its value goes.
    #[serde(default)]
    pub lookup: BTreeMap<String, Lookup>,
    /// The source column that holds the row's time (whole seconds since the epoch); needed for ranges, `split_at` and watermarks.
    #[serde(default)]
    pub time: Option<String>,
    /// Seconds of one bucket; range ends and `split_at` must lie on a boundary.
    #[serde(default)]
    pub timestep: Option<i64>,
    /// The target column that `best_coverage` compares.
    #[serde(default)]
    pub coverage: Option<String>,
    /// The target columns that `merge_additive` adds up.
    #[serde(default)]
    pub additive: Vec<String>,
    /// Columns that are left out on purpose.
    #[serde(default)]
    pub ignore: Ignore,
}

/// A key map that lives in the target database.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lookup {
    /// The map's table.
    pub table: String,
    /// Its column with the source's keys.
    pub from: String,
    /// Its column with the target's keys.
    pub to: String,
}

/// Names that are left out, by side.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ignore {
    /// Names of the source.
    #[serde(default)]
    pub source: Vec<String>,
    /// Names of the target.
    #[serde(default)]
    pub target: Vec<String>,
}

impl Mapping {
    /// Reads a mapping from YAML text and validates it.
    pub fn from_yaml(text: &str) -> Result<Self, TransferError> {
        let mapping: Self = serde_yaml::from_str(text)
            .map_err(|error| TransferError::Mapping { mapping: "?".to_owned(), problems: vec![error.to_string()] })?;
        mapping.validate()?;
        Ok(mapping)
    }

    /// Checks everything that needs no database.
    pub fn validate(&self) -> Result<(), TransferError> {
        let mut problems = Vec::new();
        if self.api_version != API_VERSION {
            problems.push(format!("`apiVersion` is `{}`, not `{API_VERSION}`", self.api_version));
        }
        if self.kind != "Mapping" {
            problems.push(format!("`kind` is `{}`, not `Mapping`", self.kind));
        }
        let mut placed: BTreeMap<&str, &str> = BTreeMap::new();
        for (set, tables) in &self.sets {
            for table in tables {
                if let Some(other) = placed.insert(table, set) {
                    problems.push(format!("table `{table}` is in the sets `{other}` and `{set}`"));
                }
                if self.ignore.source.contains(table) {
                    problems.push(format!("table `{table}` is in the set `{set}` and ignored"));
                }
            }
        }
        let mut targets = BTreeSet::new();
        for table in placed.keys() {
            let target = self.table(table).target(table);
            if !targets.insert(target.clone()) {
                problems.push(format!("two tables go to `{target}`"));
            }
        }
        for (name, table) in &self.tables {
            if !placed.contains_key(name.as_str()) {
                problems.push(format!("table `{name}` is mapped but in no set"));
            }
            table.validate(name, &mut problems);
        }
        if problems.is_empty() {
            return Ok(());
        }
        Err(TransferError::Mapping { mapping: self.name.clone(), problems })
    }

    /// The source tables of a set in copy order.
    pub fn set(&self, name: &str) -> Result<&[String], TransferError> {
        self.sets.get(name).map(Vec::as_slice).ok_or_else(|| TransferError::Mapping {
            mapping: self.name.clone(),
            problems: vec![format!("there is no set `{name}`; known: {:?}", self.sets.keys().collect::<Vec<_>>())],
        })
    }

    /// The mapping of one source table; tables without an entry are copied column by column.
    pub fn table(&self, source: &str) -> TableMapping {
        self.tables.get(source).cloned().unwrap_or_default()
    }
}

impl TableMapping {
    /// The target table of `source`.
    pub fn target(&self, source: &str) -> String {
        self.to.clone().unwrap_or_else(|| source.to_owned())
    }

    fn validate(&self, name: &str, problems: &mut Vec<String>) {
        let mapped = self.columns.iter().flat_map(BTreeMap::keys);
        let mut filled = BTreeSet::new();
        for column in mapped.chain(self.constants.keys()).chain(self.expressions.keys()) {
            if !filled.insert(column) {
                problems.push(format!("`{name}`: target column `{column}` is filled twice"));
            }
            if self.ignore.target.contains(column) {
                problems.push(format!("`{name}`: target column `{column}` is filled and ignored"));
            }
        }
        if self.timestep.is_some_and(|seconds| seconds <= 0) {
            problems.push(format!("`{name}`: `timestep` must be above 0"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
apiVersion: piton/v1
kind: Mapping
name: wfm
sets: { configuration: [wfm_site], performance: [wfm_perf_item] }
tables:
  wfm_perf_item:
    key: [entity_id, step_start]
    columns: { entity_id: entity_id, step_start: step_start }
    constants: { src: "65" }
    expressions: { total: "handle_s * iv" }
    lookup: { entity_id: { table: map, from: old_id, to: new_id } }
    time: step_start
    timestep: 900
    additive: [iv]
    ignore: { target: [extra] }
ignore: { source: [audit] }
"#;

    #[test]
    fn a_whole_mapping_is_read() {
        let mapping = Mapping::from_yaml(TEXT).expect("valid");
        let table = mapping.table("wfm_perf_item");
        assert_eq!(table.target("wfm_perf_item"), "wfm_perf_item");
        assert_eq!(table.constants["src"], "65");
        assert_eq!(table.lookup["entity_id"].to, "new_id");
        assert_eq!(mapping.set("configuration").expect("there"), ["wfm_site"]);
        assert!(mapping.set("nope").is_err());
    }

    #[test]
    fn every_contradiction_is_named_at_once() {
        let text = TEXT
            .replace("configuration: [wfm_site]", "configuration: [wfm_site, wfm_perf_item]")
            .replace("src: \"65\"", "total: \"65\"")
            .replace("[extra]", "[total]");
        let TransferError::Mapping { problems, .. } = Mapping::from_yaml(&text).expect_err("contradictions") else {
            panic!("another error")
        };
        assert!(problems.len() >= 3, "{problems:?}");
    }

    #[test]
    fn an_unknown_field_is_refused() {
        let error = Mapping::from_yaml(&TEXT.replace("time: step_start", "tme: step_start")).expect_err("mistyped");
        assert!(error.to_string().contains("tme"), "{error}");
    }
}
