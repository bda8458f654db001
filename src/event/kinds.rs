//! The kinds of events by name.

/// Every kind, as it stands in the journal.
pub const KINDS: [&str; 27] = [
    "run_started",
    "run_resumed",
    "run_amended",
    "step_skipped",
    "attempt_started",
    "attempt_succeeded",
    "attempt_failed",
    "attempt_probed",
    "step_waiting",
    "undo_waiting",
    "step_assigned",
    "step_answered",
    "word_refused",
    "step_expired",
    "people_told",
    "skip_requested",
    "deviation_requested",
    "deviation_answered",
    "cancel_requested",
    "run_timed_out",
    "secret_too_short",
    "rollback_requested",
    "rollback_started",
    "undo_started",
    "undo_succeeded",
    "undo_failed",
    "run_finished",
];

/// Whether a kind has this name.
pub fn is_kind(word: &str) -> bool {
    KINDS.contains(&word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;

    #[test]
    fn these_are_all_kinds() {
        let error = serde_json::from_str::<Event>(r#"{"kind":"none"}"#).expect_err("is none").to_string();
        let (_, known) = error.split_once("expected one of ").expect("serde names them");
        let known: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
        assert_eq!(known, KINDS);
        assert!(is_kind("step_answered") && !is_kind("none"));
    }
}
