//! `piton extend`: allows more time or more attempts than the runbook does.

use clap::Args;

use super::Global;
use super::decide::reason_of;
use super::deviate;
use super::error::CliError;
use super::exit::Exit;
use super::out::Out;
use super::voice::Voice;
use super::word;
use crate::driver::Told;
use crate::event::{Budget, Departure};
use crate::spec::problem::did_you_mean;
use crate::spec::values::Millis;

/// Arguments of `piton extend`.
#[derive(Debug, Args)]
#[command(
    after_help = "Each is how much there is in all from now on. A step at work is told at once. This is a deviation: it marks the run\n\
    for ever, and the runbook may want more people to agree to it. Another plan (`resume --runbook`) ends it.",
    group = clap::ArgGroup::new("budget").required(true)
)]
pub struct Extend {
    /// The run: its id, the unique beginning of it, or `last`
    run: String,
    /// The step; without it, --timeout is that of the run
    step: Option<String>,
    /// Longest time of one attempt of the step, or of the run: `90m`
    #[arg(long, value_name = "LENGTH", group = "budget")]
    timeout: Option<String>,
    /// Most attempts of the step, the first included
    #[arg(long, value_name = "COUNT", group = "budget", requires = "step")]
    attempts: Option<u32>,
    /// Longest time of a window
    #[arg(long, value_name = "NAME=LENGTH", group = "budget", conflicts_with = "step")]
    window: Option<String>,
    /// Why; kept for the audit
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    voice: Voice,
}

pub(super) async fn run(global: &Global, args: Extend, out: Out) -> Result<Exit, CliError> {
    let place = global.store().await?;
    let (run, told) = place.told(&args.run).await?;
    let step = args.step.as_deref().map(|step| word::step_of(&told, step)).transpose()?;
    let budget = match (&args.timeout, args.attempts, &args.window) {
        (Some(length), ..) => {
            let ms = length_ms(length)?;
            if step.is_some() { Budget::Timeout { ms } } else { Budget::Run { ms } }
        }
        (_, Some(count), _) => Budget::Attempts { count },
        (_, _, Some(window)) => window_budget(&told, window)?,
        (None, None, None) => return Err(CliError::Usage("say what is extended, and to how much".into())),
    };
    let wanted = (step, Departure::Extend(budget), reason_of(&args.reason)?);
    deviate::want(&place, (&run, &told), &args.voice, wanted, out).await
}

fn length_ms(text: &str) -> Result<i64, CliError> {
    let length = Millis::parse(text).and_then(|length| i64::try_from(length.0).ok());
    length.ok_or_else(|| CliError::Usage(format!("`{text}` is no length of time; write one like `90m` or `1h30m`")))
}

fn window_budget(told: &Told, text: &str) -> Result<Budget, CliError> {
    let Some((name, length)) = text.rsplit_once('=') else {
        return Err(CliError::Usage(format!("`--window {text}` has no length; write `--window name=90m`")));
    };
    let known: Vec<&str> = told.plan.windows.iter().map(|window| window.name.as_str()).collect();
    if !known.contains(&name) {
        let help = did_you_mean(name, known.iter().copied()).map(|help| format!("; {help}")).unwrap_or_default();
        return Err(CliError::Usage(format!("this run has no window `{name}`{help}")));
    }
    Ok(Budget::Window { name: name.to_owned(), ms: length_ms(length)? })
}
