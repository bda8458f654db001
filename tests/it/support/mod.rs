//! What the integration tests share.

pub(crate) mod lab;
pub(crate) mod postgres;
