//! `piton sign`: lists what a runbook or site is made of, and signs the list with an SSH key.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::Global;
use super::error::CliError;
use super::exit::Exit;
use super::out::Out;
use super::voice::sign_with;
use crate::action::durable;
use crate::config::folder_of;
use crate::identity::{self, FILE_NAMESPACE, FileList, Signed};
use crate::plan::{Digests, signed_paths};

/// Mode of lists and signatures: they are for everybody to read.
const MODE: u32 = 0o644;

/// Arguments of `piton sign`.
#[derive(Debug, Args)]
#[command(
    after_help = "Writes FILE.signed, the list of what FILE is made of (as `sha256sum` has it), and FILE.signed.sig, the signatures of that list.\n\
    Who signs a list that somebody signed already adds a signature. Without --sign only the list is written, for a key that is elsewhere:\n\
    ssh-keygen -Y sign -n piton-file -f KEY FILE.signed"
)]
pub struct Sign {
    /// Runbook and site files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The SSH key to sign with: a private key, or a public one whose private half `ssh-add` holds
    #[arg(long, value_name = "KEY")]
    sign: Option<PathBuf>,
}

pub(super) fn run(global: &Global, args: &Sign, out: Out) -> Result<Exit, CliError> {
    // All files are right before any of them is signed.
    let lists = args.files.iter().map(|path| list_of(global, path)).collect::<Result<Vec<_>, _>>()?;
    for (path, list) in args.files.iter().zip(lists) {
        let (list_path, signatures_path) = signed_paths(path);
        let text = list.text();
        let known = std::fs::read_to_string(&list_path).ok().filter(|known| *known == text);
        let mut signatures = match &known {
            Some(_) => identity::signatures(&std::fs::read_to_string(&signatures_path).unwrap_or_default()),
            None => Vec::new(),
        };
        if let Some(key) = &args.sign {
            let made = sign_with(key, FILE_NAMESPACE, &text)?;
            let new = read_signature(&made)?;
            signatures.retain(|old| Signed::read(old).map_or(true, |old| old.key != new.key));
            signatures.push(made);
        }
        if known.is_none() {
            // A list without signatures is nobody's; the other way round, old signatures would be of the new list.
            let _ = std::fs::remove_file(&signatures_path);
            replace(&list_path, &text)?;
        }
        if args.sign.is_some() {
            replace(&signatures_path, &signatures.concat())?;
        }
        tell(path, &list, &signatures, args.sign.is_some(), out)?;
    }
    Ok(Exit::SUCCEEDED)
}

fn tell(path: &Path, list: &FileList, signatures: &[String], is_signed: bool, out: Out) -> Result<(), CliError> {
    let keys: Vec<String> =
        signatures.iter().filter_map(|text| Signed::read(text).ok()).map(|signed| signed.fingerprint).collect();
    let (list_path, signatures_path) = signed_paths(path);
    if out.json {
        return out.json_line(&json!({
            "file": path, "list": list_path, "signatures": signatures_path, "files": list.files, "keys": keys,
        }));
    }
    let count = list.files.len();
    let files = if count == 1 { "1 file".to_owned() } else { format!("{count} files") };
    if is_signed {
        out.line(format!("{} is signed ({files}) by {}", path.display(), keys.join(", ")))
    } else {
        out.line(format!("{} lists {files}; sign it with:", list_path.display()))?;
        out.line(format!("  ssh-keygen -Y sign -n {FILE_NAMESPACE} -f KEY {}", list_path.display()))
    }
}

fn read_signature(text: &str) -> Result<Signed, CliError> {
    Signed::read(text).map_err(|error| CliError::Usage(error.to_string()))
}

/// What a file is made of.
fn list_of(global: &Global, path: &Path) -> Result<FileList, CliError> {
    let source = crate::plan::read_source(path)?;
    let site = global.load_site()?;
    let own = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let cannot = |why: String| CliError::Invalid(format!("`{}` cannot be signed: {why}", path.display()));
    let parts: Digests = if super::check::is_site(&source.text) {
        crate::plan::load_site(path)?.parts()
    } else {
        let given = global.has_site().then_some(&*site.site);
        let checked = crate::plan::check(&source, folder_of(path), given, &site.reads)
            .map_err(|problems| CliError::Problems(vec![problems]))?;
        if let Some(program) = checked.material.absent.first() {
            return Err(cannot(format!("program `{program}` is not there, so no signature can cover it")));
        }
        crate::plan::parts(&source.name, &source.text, &checked.material.files, &checked.material.pins)
    };
    FileList::new(&own, parts).map_err(cannot)
}

/// Puts a text in the place of a file, whole or not at all.
fn replace(path: &Path, text: &str) -> Result<(), CliError> {
    durable::replace(path, text.as_bytes(), Some(MODE)).map_err(|error| CliError::unwritable(path, &error))
}
