//! What the integration tests share.

pub(crate) mod databases;
pub(crate) mod keys;
pub(crate) mod lab;
pub(crate) mod mariadb;
pub(crate) mod perf;
pub(crate) mod postgres;
pub(crate) mod proxy;
mod server;
