//! `piton check`: every mistake of every file, with places and what to do.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde_json::{Value as Json, json};

use super::Global;
use super::error::CliError;
use super::exit::Exit;
use super::out::Out;
use crate::spec::problem::{Problems, Source};

/// Arguments of `piton check`.
#[derive(Debug, Args)]
#[command(after_help = "With `--site FILE`, runbooks are also checked against what that site provides.")]
pub struct Check {
    /// Runbook and site files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// What a file is and what it says of itself.
struct Good {
    kind: &'static str,
    name: String,
    steps: usize,
}

pub(super) fn run(global: &Global, args: &Check, out: Out) -> Result<Exit, CliError> {
    let site = global.load_site()?;
    let site = global.site.is_some().then_some(&*site.site);
    let mut found: Vec<Json> = Vec::new();
    let mut exit = Exit::SUCCEEDED;
    for path in &args.files {
        let source = match crate::plan::read_source(path) {
            Ok(source) => source,
            Err(error) => {
                exit = Exit::INVALID;
                out.error(&CliError::from(error));
                found.push(json!({ "file": path, "ok": false, "problems": [] }));
                continue;
            }
        };
        match check_one(&source, path, site) {
            Ok(good) => {
                let steps = if good.kind == "runbook" { format!(", {} steps", good.steps) } else { String::new() };
                if !out.json {
                    out.line(format!(
                        "{} {} ({} {}{steps})",
                        out.paint.good("ok"),
                        path.display(),
                        good.kind,
                        good.name
                    ))?;
                }
                found.push(json!({ "file": path, "ok": true, "kind": good.kind, "name": good.name, "problems": [] }));
            }
            Err(problems) => {
                exit = Exit::INVALID;
                if !out.json {
                    out.problems(&problems);
                }
                found.push(json!({ "file": path, "ok": false, "problems": problems.to_json() }));
            }
        }
    }
    if out.json {
        out.json_pretty(&json!({ "files": found }))?;
    }
    Ok(exit)
}

fn check_one(source: &Arc<Source>, path: &Path, site: Option<&crate::site::Site>) -> Result<Good, Problems> {
    let base = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if source.text.lines().any(|line| line.trim_end() == "kind: Site") {
        let site = crate::site::read(source, base)?;
        return Ok(Good { kind: "site", name: site.site.name.clone(), steps: 0 });
    }
    let runbook = crate::plan::check(source, base, site)?.runbook;
    let steps = runbook.steps.len() + runbook.finally.len();
    Ok(Good { kind: "runbook", name: runbook.name.value, steps })
}
