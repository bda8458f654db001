//! The hidden setting `PITON_FAULT`: faults on purpose in a whole process, for tests of crashes. Never set by accident:
//! the first line of the run names it.

use std::sync::Arc;

use super::error::CliError;
use crate::fault::{Crash, Hooks, Script};

/// The name of the setting.
const SETTING: &str = "PITON_FAULT";

/// The faults of the environment, and what was said to set them; none is the rule.
pub(super) fn of_environment() -> Result<(Hooks, Option<String>), CliError> {
    let Some(text) = crate::config::variable(SETTING).filter(|text| !text.trim().is_empty()) else {
        return Ok((Hooks::default(), None));
    };
    let script = Script::parse(&text).map_err(|error| CliError::Usage(format!("{SETTING}: {error}")))?;
    Ok((Hooks::new(Arc::new(script), Crash::Process), Some(text)))
}
