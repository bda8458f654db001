//! What the tests of actions share: a place to act in, and waiting for an observed fact.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::databases::Databases;
use super::mask::Masker;
use super::{ChildRun, Context, Failure, RunChild};
use crate::event::Outcome;
use crate::ids::{Actor, RunId, StepId};
use crate::site::{self, LoadedSite};
use crate::spec::problem::Source;

/// For actions that start no other runbook.
struct NoChildren;

#[async_trait]
impl RunChild for NoChildren {
    async fn run_child(&self, child: ChildRun<'_>, _cancel: CancellationToken) -> Result<(RunId, Outcome), Failure> {
        Err(Failure::permanent(format!("step `{}` was not meant to start a run", child.step)))
    }
}

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
            databases: Databases::new(site.clone(), Arc::default()),
            site,
            state_dir: folder.path().join(".piton").into(),
            base: folder.path().into(),
            cancel: CancellationToken::new(),
            progress: Arc::new(|_| ()),
            files: Arc::default(),
            pins: None,
            walls: None,
            children: Arc::new(NoChildren),
            secrets: Arc::default(),
            masker: Masker::default(),
            swap: None,
            held: None,
            fences: crate::action::fences::Fences::default(),
            said: crate::action::said::Said::default(),
            chunks: crate::transfer::ChunkHook::default(),
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

/// A server that gives this answer to every request and hands on what it was sent; an empty answer hangs up.
pub(crate) async fn serve(answer: impl Into<String>) -> (String, tokio::sync::mpsc::UnboundedReceiver<String>) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let answer = answer.into();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("bound"));
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut peer, _)) = listener.accept().await {
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            while !is_whole(&request) {
                match peer.read(&mut buffer).await {
                    Ok(count @ 1..) => request.extend_from_slice(&buffer[..count]),
                    Ok(0) | Err(_) => break,
                }
            }
            // A test that does not look at requests, or hung up early, is fine.
            let _ = sender.send(String::from_utf8_lossy(&request).into_owned());
            let _ = peer.write_all(answer.as_bytes()).await;
            let _ = peer.shutdown().await;
        }
    });
    (url, receiver)
}

/// Whether a request has all of its head and body.
fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= length.and_then(|length| length.parse().ok()).unwrap_or(0)
}
