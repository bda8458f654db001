//! `piton check`: every mistake of every file, with places and what to do.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde_json::{Value as Json, json};

use super::Global;
use super::error::CliError;
use super::exit::Exit;
use super::out::Out;
use crate::driver::{self, Standing};
use crate::plan::PlanError;
use crate::site::LoadedSite;
use crate::spec::problem::{Problems, Source};

/// Arguments of `piton check`.
#[derive(Debug, Args)]
#[command(after_help = "With `--site FILE`, runbooks are also checked against what that site provides.")]
pub struct Check {
    /// Runbook and site files, and retention policies
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// What a file is and what it says of itself.
struct Good {
    kind: &'static str,
    name: String,
    steps: usize,
    standing: Standing,
}

pub(super) fn run(global: &Global, args: &Check, out: Out) -> Result<Exit, CliError> {
    let site = global.load_site()?;
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
        match check_one(global, &source, path, &site)? {
            Ok(good) => {
                let signed = match &good.standing {
                    Standing::Unsigned => json!(null),
                    Standing::Holds(text) => json!({ "holds": true, "what": text }),
                    Standing::Fails(why) | Standing::Refused(why) => json!({ "holds": false, "what": why }),
                };
                let is_refused = matches!(good.standing, Standing::Refused(_));
                if let (false, Standing::Refused(why)) = (out.json, &good.standing) {
                    out.error(&CliError::Invalid(why.clone()));
                }
                if let (false, Standing::Fails(why)) = (out.json, &good.standing) {
                    out.note(&format!("{} {why}", out.error_paint.warn("warning:")));
                }
                let by = match &good.standing {
                    Standing::Holds(text) => format!(", {text}"),
                    Standing::Unsigned | Standing::Fails(_) | Standing::Refused(_) => String::new(),
                };
                if is_refused {
                    exit = Exit::INVALID;
                }
                let steps = if good.kind == "runbook" { format!(", {} steps", good.steps) } else { String::new() };
                if !out.json && !is_refused {
                    out.line(format!(
                        "{} {} ({} {}{steps}{by})",
                        out.paint.good("ok"),
                        path.display(),
                        good.kind,
                        good.name
                    ))?;
                }
                found.push(json!({
                    "file": path, "ok": !is_refused, "kind": good.kind, "name": good.name, "signed": signed, "problems": [],
                }));
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

/// Whether a text is that of a site.
pub(super) fn is_site(text: &str) -> bool {
    text.lines().any(|line| line.trim_end() == "kind: Site")
}

fn check_one(
    global: &Global,
    source: &Arc<Source>,
    path: &Path,
    site: &LoadedSite,
) -> Result<Result<Good, Problems>, CliError> {
    let options = global.plain_options(path);
    if is_site(&source.text) {
        let loaded = match crate::plan::load_site(path) {
            Ok(loaded) => loaded,
            Err(PlanError::Problems(problems)) => return Ok(Err(problems)),
            Err(error) => return Err(error.into()),
        };
        let standing = driver::site_standing(&loaded, &options);
        return Ok(Ok(Good { kind: "site", name: loaded.site.name.clone(), steps: 0, standing }));
    }
    if source.text.lines().any(|line| line.trim_end() == "kind: Retention") {
        if let Err(problems) = crate::spec::retention::read(source) {
            return Ok(Err(problems));
        }
        let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        return Ok(Ok(Good { kind: "retention policy", name, steps: 0, standing: Standing::Unsigned }));
    }
    let base = crate::config::folder_of(path);
    let reads = &site.reads;
    let site = global.has_site().then_some(site);
    let checked = match crate::plan::check(source, base, site.map(|site| &*site.site), reads) {
        Ok(checked) => checked,
        Err(problems) => return Ok(Err(problems)),
    };
    let (runbook, material) = (checked.runbook, checked.material);
    let parts = crate::plan::parts(&source.name, &source.text, &material.files, &material.pins);
    let name = runbook.name.value;
    let standing =
        driver::runbook_standing((&name, &source.name), &parts, material.absent.first(), site, crate::config::now());
    let steps = runbook.steps.len() + runbook.finally.len();
    Ok(Ok(Good { kind: "runbook", name, steps, standing }))
}
