//! What a person wants against the runbook, said like any other word. Called by the commands for single deviations.

use super::error::CliError;
use super::exit::Exit;
use super::out::Out;
use super::place::Place;
use super::voice::Voice;
use super::word;
use crate::driver::Told;
use crate::event::{Departure, Event};
use crate::ids::{RunId, StepId};

/// Says that it is wanted: done at once, or proposed, as the runbook says.
pub(super) async fn want(
    place: &Place,
    (run, told): (&RunId, &Told),
    voice: &Voice,
    (step, what, reason): (Option<StepId>, Departure, String),
    out: Out,
) -> Result<Exit, CliError> {
    out.note("this is a deviation from the runbook and stays in the record of the run");
    let (step, what, reason) = (&step, &what, &reason);
    let word = |by| Event::DeviationRequested { step: step.clone(), by, what: what.clone(), reason: reason.clone() };
    word::speak(place, (run, told), voice, word, out).await
}
