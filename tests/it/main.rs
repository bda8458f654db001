//! Integration tests: one binary, one module per subject.

mod architecture;
mod cli;
mod cli_rollback;
mod cli_stops;
mod diagnostics;
mod faults;
mod held;
mod interrupted;
mod journal_drivers;
mod journal_faults;
mod locks;
mod reference;
mod reference_words;
mod scale;
mod schemas;
mod simulation;
mod support;
mod sweep;
mod transfer_copy;
mod transfer_statement;
mod trial;
mod turns;
mod wfm_crash;
mod wfm_gate;
mod wfm_procedures;
mod yaml_oracle;
