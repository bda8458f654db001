//! Piton: a declarative runbook orchestrator.
//!
//! The way through the house, in the order in which a runbook travels:
//!
//! ```text
//! YAML text -> spec -> plan -> scheduler <-> driver -> action -> the world
//!                                 |             |
//!                              journal  ->  report (terminal, JSON lines, audit)
//! ```
//!
//! A module uses only modules that stand before it in the list below; `tests/it/architecture.rs` enforces it.

pub mod event;
pub mod ids;

#[path = "../examples/lab/mod.rs"]
pub mod lab;
