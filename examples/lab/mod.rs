//! The lab: a workforce-management site to migrate, small enough for a laptop and made of real processes.
//!
//! It plays the parts of a two-release migration: a statistics source with a ledger of the truth, the 6.5 and 7.6 data
//! aggregators, servers and other components, the Database Utility with its two passes, and an option store. Because the
//! truth is known, a run's loss can be *measured* ([`loss`]) and what must hold can be checked ([`invariants`]).
//!
//! Nothing here is needed to run runbooks; `piton lab` and `piton demo` call it so that an installed binary can show itself.
//! The real product's table names are not public: the schemas in `schemas/wfm/` follow the style of its ETL reference.

mod aggregator;
mod command;
mod component;
mod db;
mod error;
pub mod invariants;
pub mod loss;
mod seed;
mod session;
mod settings;
mod site;
mod source;
mod truth;
mod utility;

pub use aggregator::WriteMode;
pub use command::{LabCommand, run};
pub use component::ComponentName;
pub use db::{Arg, LabDb};
pub use error::LabError;
pub use seed::{create, seed};
pub use settings::{Database, Engine, Lab, LabOptions, Release, now_ms};
pub use site::site_yaml;
pub use truth::{Load, Observation};
pub use utility::Operation;
