//! The moments of a chunk at which a copy can be hurt on purpose: before it is read, before it is committed, behind its commit.
//!
//! A copy without a hook pays one comparison for each. Refused here: to know what happens there; the `fault` module says it, through the
//! `db.copy` action. Awaited by `copy`.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

/// A place in the work on one chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkMoment {
    /// Nothing of the chunk was read yet.
    BeforeRead,
    /// Its rows and its checkpoint are written, and not committed.
    BeforeCommit,
    /// It is committed; nobody has been told.
    AfterCommit,
}

/// What a hook does; the copy goes on when it is over.
type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What is awaited at each moment of each chunk; nothing by default.
#[derive(Clone, Default)]
pub struct ChunkHook(Option<Arc<dyn Fn(ChunkMoment) -> Work + Send + Sync>>);

impl ChunkHook {
    /// Awaits what `at` says for each moment.
    pub fn new(at: impl Fn(ChunkMoment) -> Work + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(at)))
    }

    /// Whether anybody is waiting for a moment; a copy then reads no chunk of values before the one before it is committed.
    pub(super) fn is_set(&self) -> bool {
        self.0.is_some()
    }

    /// To be awaited by whoever copies.
    pub(super) async fn at(&self, moment: ChunkMoment) {
        if let Some(hook) = &self.0 {
            hook(moment).await;
        }
    }
}

impl fmt::Debug for ChunkHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "ChunkHook(set)" } else { "ChunkHook(none)" })
    }
}
