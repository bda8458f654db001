//! The integration tests, one binary: real files, real processes, real servers.

mod support;
mod transfer_copy;
mod transfer_statement;
