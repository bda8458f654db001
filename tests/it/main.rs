//! Integration tests: one binary, one module per subject.

mod diagnostics;
mod simulation;
mod support;
mod transfer_copy;
mod transfer_statement;
