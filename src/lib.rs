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

pub mod ids;

pub mod event;

pub mod config;

pub mod spec;

pub mod identity;

pub mod site;

pub mod plan;

pub mod scheduler;

pub mod transfer;

pub mod action;

pub mod journal;

pub mod fault;

pub mod report;

pub mod driver;

pub mod trial;

#[path = "../examples/lab/mod.rs"]
pub mod lab;

pub mod cli;
