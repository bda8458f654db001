//! What a run may go by: a runbook, and of an amendment a site, that enough people signed.
//!
//! Whether a signature holds is decided before; here it is counted. An amendment is judged by the rule before it as well, and a
//! site that it brings, too: it could bring another rule or other keys. `docs/design/signed-files.md`.

use super::mutant::Mutant;
use super::refusal::IllegalEvent;
use super::state::State;
use super::workflow::{RunRule, SignRule};
use crate::event::{Signed, SignedFiles};

/// Counts the signatures of one thing by one rule.
fn count(rule: Option<&SignRule>, what: &'static str, signed: Option<&SignedFiles>) -> Result<(), IllegalEvent> {
    let unsigned = |why| IllegalEvent::Unsigned { what, why };
    rule.map_or(Ok(()), |rule| rule.admits(signed).map_err(unsigned))
}

impl RunRule {
    /// Whether a run may start by what was signed like this.
    ///
    /// # Errors
    /// What is not signed by enough people.
    pub fn may_start(&self, signed: Option<&Signed>) -> Result<(), IllegalEvent> {
        count(self.signed.as_ref(), "runbook", signed.and_then(|signed| signed.runbook.as_ref()))
    }
}

impl State {
    /// Whether the run may start like this.
    pub(super) fn check_start_signed(&self, signed: Option<&Signed>) -> Result<(), IllegalEvent> {
        if self.is(Mutant::TakesUnsigned) { Ok(()) } else { self.flow.run().may_start(signed) }
    }

    /// Whether the run may go on like this, under the rules `new`.
    pub(super) fn check_amended_signed(&self, signed: Option<&Signed>, new: &RunRule) -> Result<(), IllegalEvent> {
        if self.is(Mutant::TakesUnsigned) {
            return Ok(());
        }
        let runbook = signed.and_then(|signed| signed.runbook.as_ref());
        let rule = self.flow.run().signed.as_ref();
        count(rule, "runbook", runbook)?;
        if signed.is_some_and(|signed| signed.brings_site) && !self.is(Mutant::TakesUnsignedSite) {
            count(rule, "site", signed.and_then(|signed| signed.new_site.as_ref()))?;
        }
        count(new.signed.as_ref(), "runbook", runbook)
    }
}
