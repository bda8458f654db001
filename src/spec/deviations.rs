//! Who must agree before something is done against the runbook. Declared for a whole runbook and for single steps.

use super::actions::Require;
use super::decode::Decoder;
use super::rules::more_than_zero;
use super::values::Millis;
use super::yaml::Node;
use crate::record;

record! {
    /// Who must agree before something is done against the runbook: a step skipped, forced, marked as done or left, a budget
    /// extended, the runbook changed.
    #[check(check_quorum)]
    pub struct Deviations("`deviations`") {
        /// How many people must stand behind it, whoever wants it included if their voice counts.
        quorum: u32 = 1,
        /// Whose voice counts: groups of the site; anybody's when left out.
        groups: Vec<String>,
        /// Whose voice counts: people of the site.
        people: Vec<String>,
        /// Whose voice does not count: `run.starter`, `runbook.author` or people.
        exclude: Vec<String>,
        /// After this long with too few voices it is forgotten.
        expires: Option<Millis>,
        /// How whoever wants it or agrees must be identified, if that is more than the site requires.
        identity: Option<Require>,
    }
}

fn check_quorum(node: &Node, d: &mut Decoder) {
    more_than_zero("quorum", node, d);
    more_than_zero("expires", node, d);
}
