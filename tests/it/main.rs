//! Integration tests: one binary, one module per subject.

mod cli;
mod cli_stops;
mod simulation;
mod support;
mod transfer_copy;
mod transfer_statement;
