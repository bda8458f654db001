//! `piton test`: tries a runbook out on mocked actions, by the cases of its test file or by a sweep over every failure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value as Json, json};

use super::Global;
use super::error::CliError;
use super::exit::Exit;
use super::out::Out;
use crate::plan::Plan;
use crate::report::words;
use crate::spec::case::{self, TestFile};
use crate::trial::cases::{self, Judged};
use crate::trial::sweep::{self, Rules, Swept};
use crate::trial::{Lived, to_json};

/// Arguments of `piton test`.
#[derive(Debug, Args)]
#[command(
    after_help = "Nothing is run and nothing is recorded: actions are mocks, people answer at once, waits take no time.\n\
    Exit codes: 0 all as expected, 3 a file is wrong, 4 something is not as expected."
)]
pub struct Test {
    /// The runbook
    runbook: PathBuf,
    /// The test file [default: `NAME.test.yaml` beside the runbook]
    #[arg(value_name = "TEST-FILE")]
    file: Option<PathBuf>,
    /// Fail every step, crash before and after every record, repeat every idempotent step, and check that the rules hold
    #[arg(long)]
    sweep: bool,
}

pub(super) async fn run(global: &Global, args: &Test, out: Out) -> Result<Exit, CliError> {
    let plan = global.load_plan(&args.runbook)?;
    let path = args.file.clone().unwrap_or_else(|| cases::beside(&args.runbook));
    if args.file.is_none() && !path.exists() && !args.sweep {
        let message = format!("there is no `{}`; write one, or try the runbook with `--sweep`", path.display());
        return Err(CliError::Usage(message));
    }
    let mut all_well = true;
    let mut told = json!({ "runbook": args.runbook });
    let mut rules = Rules::new();
    if args.file.is_some() || path.exists() {
        let (file, judged) = judge_all(global, args, &plan, &path).await?;
        all_well &= judged.iter().all(is_well);
        if out.json {
            told["cases"] = judged.iter().map(case_json).collect();
        } else {
            show_cases(out, &judged)?;
        }
        // What the first case says of outputs also holds in the sweep; that nothing fails or crashes is the sweep's part.
        if let Some(first) = file.cases.into_iter().next() {
            let outputs = |(key, mock): (crate::spec::yaml::Key, case::Mock)| {
                (key.text, case::Mock { outputs: mock.outputs, form: mock.form, ..case::Mock::plain() })
            };
            rules = first.mocks.0.into_iter().map(outputs).collect();
        }
    }
    if args.sweep {
        let swept = sweep::sweep(&plan, &rules).await;
        all_well &= swept.broken().next().is_none();
        if out.json {
            told["sweep"] = sweep_json(&swept);
        } else {
            show_sweep(out, &swept)?;
        }
    }
    if out.json {
        told["passed"] = all_well.into();
        out.json_pretty(&told)?;
    }
    Ok(if all_well { Exit::SUCCEEDED } else { Exit::FAILED })
}

async fn judge_all(
    global: &Global,
    args: &Test,
    plan: &Plan,
    path: &Path,
) -> Result<(TestFile, Vec<Judged>), CliError> {
    let source = crate::plan::read_source(path)?;
    let wrong = |problems| CliError::Problems(vec![problems]);
    let file = case::read(&source).map_err(wrong)?;
    cases::check(&file, plan, &source).map_err(wrong)?;
    let given = global.given()?;
    let mut judged = Vec::new();
    for case in &file.cases {
        judged.push(cases::judge(&args.runbook, plan, &given, case, &source).await?);
    }
    Ok((file, judged))
}

fn is_well(judged: &Judged) -> bool {
    judged.unmet.is_empty() && judged.lived.broken.is_empty()
}

fn case_json(judged: &Judged) -> Json {
    let mut line = to_json(&judged.lived);
    line["unmet"] = json!(judged.unmet);
    line["passed"] = is_well(judged).into();
    line
}

fn show_cases(out: Out, judged: &[Judged]) -> Result<(), CliError> {
    for one in judged {
        let mark = if is_well(one) { out.paint.good("ok") } else { out.paint.bad("failed") };
        out.line(format!("{mark} {} ({})", one.lived.name, ended(&one.lived)))?;
        for line in one.unmet.iter().chain(&one.lived.broken) {
            out.line(format!("   {line}"))?;
        }
    }
    let well = judged.iter().filter(|one| is_well(one)).count();
    out.line(format!("{well} of {} cases as expected", judged.len()))
}

fn ended(lived: &Lived) -> &'static str {
    lived.outcome.map_or("no outcome", words::outcome)
}

fn sweep_json(swept: &Swept) -> Json {
    let scenarios: Vec<Json> = std::iter::once(&swept.calm).chain(&swept.scenarios).map(to_json).collect();
    json!({ "scenarios": scenarios, "branches": swept.edges, "never": swept.never })
}

/// A table: how scenarios of each kind ended, then those in which a rule did not hold, then what was never tried.
fn show_sweep(out: Out, swept: &Swept) -> Result<(), CliError> {
    let mut table: BTreeMap<String, (usize, BTreeMap<&'static str, usize>, usize)> = BTreeMap::new();
    for lived in std::iter::once(&swept.calm).chain(&swept.scenarios) {
        let row = table.entry(kind_of(&lived.name)).or_default();
        row.0 += 1;
        *row.1.entry(ended(lived)).or_default() += 1;
        row.2 += usize::from(!lived.broken.is_empty());
    }
    let width = table.keys().map(String::len).max().unwrap_or(0);
    for (kind, (count, ends, broken)) in &table {
        let ends: Vec<String> = ends.iter().map(|(end, count)| format!("{count} {end}")).collect();
        let verdict = match broken {
            0 => out.paint.good("ok"),
            broken => out.paint.bad(&format!("{broken} BROKEN")),
        };
        out.line(format!("{count:>5}  {kind:<width$}  {verdict}  {}", ends.join(", ")))?;
    }
    for (step, error) in &swept.calm.errors {
        out.line(format!("{} `{step}` fails on what was made up: {error}", out.paint.warn("note:")))?;
    }
    for lived in swept.broken() {
        for why in &lived.broken {
            out.line(format!("{} {}: {why}", out.paint.bad("broken:"), lived.name))?;
        }
    }
    let taken = swept.edges - swept.never.len();
    out.line(format!("{taken} of {} branches were taken", swept.edges))?;
    for words in &swept.never {
        out.line(format!("   {words}"))?;
    }
    Ok(())
}

/// The name of a scenario without its step or number.
fn kind_of(name: &str) -> String {
    let name = name.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end();
    match name.split_once('`').and_then(|(_, rest)| rest.split_once("` ")) {
        Some((_, rest)) => format!("a step {rest}"),
        None => name.to_owned(),
    }
}
