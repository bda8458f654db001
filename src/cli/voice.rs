//! Who says a word at the command line: the account, a name that is given, or a signature made here or elsewhere.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;

use super::error::CliError;
use crate::driver::{Told, statement};
use crate::event::Event;
use crate::identity::{NAMESPACE, Signed, sign};
use crate::ids::{Actor, How, RunId};

/// Who says it.
#[derive(Debug, Clone, Args)]
pub struct Voice {
    /// Who says it: a claim, unless it is signed [default: whose key signs, or the user of this process]
    #[arg(long = "as", value_name = "NAME")]
    pub(super) by: Option<String>,
    /// Sign it with this SSH key: a private key, or a public one whose private half `ssh-add` holds
    #[arg(long, value_name = "KEY")]
    sign: Option<PathBuf>,
    /// Hand in a signature that was made elsewhere over what --print-statement prints
    #[arg(long, value_name = "FILE", conflicts_with = "sign")]
    signature: Option<PathBuf>,
    /// Only print what has to be signed: `ssh-keygen -Y sign -n piton -f KEY`
    #[arg(long, conflicts_with_all = ["sign", "signature"])]
    print_statement: bool,
}

/// What is to be said, or only the text to sign.
pub(super) enum Spoken {
    /// The fact, said by whom it says.
    Word(Box<Event>),
    /// The text, with its last line feed.
    Statement(String),
}

impl Voice {
    /// Has `event` said by whoever this is.
    pub(super) fn speak(&self, run: &RunId, told: &Told, event: impl Fn(Actor) -> Event) -> Result<Spoken, CliError> {
        let plain = crate::config::actor(self.by.as_deref());
        let text = |by: &Actor| statement(run, &told.records, &event(by.clone()), by).unwrap_or_default();
        if self.print_statement {
            return Ok(Spoken::Statement(text(&plain)));
        }
        let signature = match (&self.sign, &self.signature) {
            (Some(key), _) => {
                let by = self.named(told, || public_half(key))?;
                sign_with(key, NAMESPACE, &text(&by))?
            }
            (_, Some(file)) => read(file)?,
            (None, None) => return Ok(Spoken::Word(Box::new(event(plain)))),
        };
        let Signed { key, fingerprint, signature } =
            Signed::read(&signature).map_err(|error| CliError::Usage(error.to_string()))?;
        let by = self.named(told, || Ok(key.clone()))?;
        let how = How::Ssh { account: crate::config::account(), key, fingerprint, signature };
        Ok(Spoken::Word(Box::new(event(Actor::identified(by.as_str(), how)))))
    }

    /// Whether only the statement is wanted, and nothing else on standard output.
    pub(super) fn only_prints(&self) -> bool {
        self.print_statement
    }

    /// Whether the word is, or is to be, signed.
    pub(super) fn is_signed(&self) -> bool {
        self.sign.is_some() || self.signature.is_some() || self.print_statement
    }

    /// The name that is given, or whose key it is.
    fn named(&self, told: &Told, key: impl Fn() -> Result<String, CliError>) -> Result<Actor, CliError> {
        if let Some(name) = &self.by {
            return Ok(Actor::new(name));
        }
        let keys = told.plan.site.keys().map_err(|error| CliError::Usage(error.to_string()))?;
        let key = key()?;
        let owners = keys.owners(&key);
        match owners.first() {
            Some(one) if owners.len() == 1 => Ok(Actor::new(one)),
            // Nobody's or several people's: it is said, and refused, as the word of the account.
            _ => Ok(crate::config::actor(None)),
        }
    }
}

fn read(path: &Path) -> Result<String, CliError> {
    std::fs::read_to_string(path).map_err(|error| CliError::unreadable(path, &error))
}

/// The public key that belongs to a key file: itself, or what lies beside it.
fn public_half(path: &Path) -> Result<String, CliError> {
    let text = read(path)?;
    if let Ok(key) = ssh_key::PrivateKey::from_openssh(&text) {
        let key = key.public_key().to_openssh().map_err(|error| CliError::Usage(error.to_string()))?;
        return Ok(key);
    }
    Ok(text.trim().to_owned())
}

/// A signature by a key file; by `ssh-keygen` where that needs a passphrase or the agent.
pub(super) fn sign_with(path: &Path, namespace: &str, text: &str) -> Result<String, CliError> {
    if let Some(signature) = sign(&read(path)?, namespace, text).map_err(|error| CliError::Usage(error.to_string()))? {
        return Ok(signature);
    }
    let failed = |why: String| CliError::Usage(format!("`{}` cannot be signed with: {why}", path.display()));
    let mut child = Command::new("ssh-keygen")
        .args(["-Y", "sign", "-n", namespace, "-f"])
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(format!("`ssh-keygen` does not start: {error}")))?;
    if let Some(mut input) = child.stdin.take() {
        // A program that ended early says why itself.
        let _ = input.write_all(text.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    String::from_utf8(output.stdout).map_err(|_| failed("`ssh-keygen` wrote no signature".into()))
}
