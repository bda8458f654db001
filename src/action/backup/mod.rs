//! What `db.backup` and `db.restore` share: backups as folders, the engines' tools and how they are told where to connect.

pub(super) mod address;
pub(super) mod store;
pub(super) mod tools;

use super::Context;

/// What tells this step of this run from every other: letters and digits.
pub(super) fn token(cx: &Context) -> String {
    let text = format!("{}\0{}", cx.run, cx.step);
    crate::plan::sha256_hex(text.as_bytes())[..32].to_owned()
}
