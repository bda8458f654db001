//! Integration tests: one binary, one module per subject.

mod simulation;
mod support;
mod transfer_copy;
mod transfer_statement;
