//! What the tests of actions share: a place to act in, and waiting for an observed fact.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::Context;
use super::databases::Databases;
use super::mask::Masker;
use crate::ids::{Actor, RunId, StepId};
use crate::site::{self, LoadedSite};
use crate::spec::problem::Source;

/// A temporary folder with a context in it.
pub(crate) struct Place {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) cx: Context,
}

impl Place {
    /// At a site that provides nothing.
    pub(crate) fn new() -> Self {
        Self::at(|_| String::new())
    }

    /// At a site whose file ends with this text; the text may name the folder.
    pub(crate) fn at(rest: impl FnOnce(&Path) -> String) -> Self {
        let folder = tempfile::tempdir().expect("a temp dir");
        let text = format!("apiVersion: piton/v1\nkind: Site\nname: lab\n{}", rest(folder.path()));
        let source = Arc::new(Source { name: "site.yaml".into(), text });
        let site: LoadedSite = site::read(&source, folder.path()).expect("a valid site");
        let cx = Context {
            run: RunId::new("r1"),
            step: StepId::new("s1"),
            attempt: 1,
            actor: Actor::new("local:eve@host"),
            databases: Databases::new(site.clone()),
            site,
            state_dir: folder.path().join(".piton"),
            base: folder.path().to_path_buf(),
            cancel: CancellationToken::new(),
            progress: Arc::new(|_| ()),
            masker: Masker::default(),
        };
        Self { folder, cx }
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// Waits until `fact` is observed; fails loudly after half a minute.
pub(crate) async fn until(what: &str, fact: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !fact() {
        assert!(Instant::now() < deadline, "never observed: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
