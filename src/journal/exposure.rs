//! Who besides its owner can read or change a store that is a file, and what lies beside it.
//!
//! What a store says is carried out with the rights of whoever resumes a run, so a store that others can change hands them these
//! rights; what others can read tells them everything but secrets. Refused by nobody here: the command line refuses what is grave
//! before it drives a run, and warns of the rest.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::config::folder_of;
use crate::config::rights::Rights;

/// Folders beside a store, and whether what lies there is acted on, so that nobody else may change it.
const FOLDERS: [(&str, bool); 8] = [
    ("keys", true),
    ("commands", true),
    ("services", true),
    ("before", true),
    ("tools", true),
    ("evidence", false),
    ("options", false),
    ("compare", false),
];

/// Most files that are looked at in one of them.
const LOOKED_AT_MAX: usize = 2_000;

/// Something that is open to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposed {
    /// What.
    pub path: PathBuf,
    /// How, in words.
    pub why: String,
    /// What to do about it.
    pub fix: String,
    /// Whether no run should be driven as long as it is so.
    pub is_grave: bool,
}

impl fmt::Display for Exposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}; {}", self.path.display(), self.why, self.fix)
    }
}

/// Everything of the store at `store` that is open to others, the gravest first. `seal`: where the key to seal with lies.
pub fn exposed(store: &Path, seal: Option<&Path>) -> Vec<Exposed> {
    let mut found = Found::default();
    // The file itself, wherever a link leads, and the link: whoever can turn it has another store used.
    let real = store.canonicalize().unwrap_or_else(|_| store.to_path_buf());
    let folders = [folder_of(store), folder_of(&real)];
    for folder in folders.iter().take(if folders[0] == folders[1] { 1 } else { 2 }) {
        found.changes(folder, true);
    }
    let is_open = Rights::of(folders[1]).is_ok_and(|rights| rights.others_enter());
    for (ending, acted_on) in [("", true), ("-wal", true), ("-shm", true), ("-journal", true), ("-anchor", false)] {
        let mut path = real.as_os_str().to_owned();
        path.push(ending);
        found.changes(Path::new(&path), acted_on);
        if is_open {
            found.reads(Path::new(&path));
        }
    }
    let state = folder_of(store);
    let is_open = Rights::of(state).is_ok_and(|rights| rights.others_enter());
    for (name, acted_on) in FOLDERS {
        let folder = state.join(name);
        if folder.is_dir() {
            found.changes(&folder, acted_on);
            found.inside(&folder, acted_on, is_open);
        }
    }
    if let Some(seal) = seal.filter(|seal| seal.exists()) {
        found.changes(folder_of(seal), true);
        found.changes(seal, true);
        found.reads_seal(seal);
    }
    found.list.sort_by_key(|exposed| !exposed.is_grave);
    found.list.dedup();
    found.list
}

#[derive(Default)]
struct Found {
    list: Vec<Exposed>,
}

impl Found {
    /// Notes that others can change it.
    fn changes(&mut self, path: &Path, is_grave: bool) {
        let Ok(rights) = Rights::of(path) else { return };
        let Some(why) = rights.why_writable() else { return };
        let shown = path.display();
        let fix = match &rights.stranger {
            Some(owner) => format!("run Piton as {owner}, or take it over with `chown`"),
            None => format!("`chmod go-w {shown}`"),
        };
        self.list.push(Exposed { path: path.to_path_buf(), why, fix, is_grave });
    }

    /// Notes that others can read it.
    fn reads(&mut self, path: &Path) {
        if Rights::of(path).is_ok_and(|rights| rights.others_read()) {
            self.open_to_read(path, "can be read by others".to_owned());
        }
    }

    /// The same of the key to seal with, which is then refused when it is to seal.
    fn reads_seal(&mut self, path: &Path) {
        if Rights::of(path).is_ok_and(|rights| rights.mode & 0o077 != 0) {
            self.open_to_read(path, "can be read by others, who could sign with it".to_owned());
        }
    }

    fn open_to_read(&mut self, path: &Path, why: String) {
        let fix = format!("`chmod go-rwx {}`", path.display());
        self.list.push(Exposed { path: path.to_path_buf(), why, fix, is_grave: false });
    }

    /// Notes what is open of the files in a folder: how many can be changed, how many read.
    fn inside(&mut self, folder: &Path, acted_on: bool, is_open: bool) {
        let (mut writable, mut readable, mut looked_at) = (Vec::new(), Vec::new(), 0);
        let mut open = vec![(folder.to_path_buf(), is_open)];
        while let Some((folder, is_open)) = open.pop() {
            let is_open = is_open && Rights::of(&folder).is_ok_and(|rights| rights.others_enter());
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                looked_at += 1;
                if looked_at > LOOKED_AT_MAX {
                    break;
                }
                let path = entry.path();
                let Ok(rights) = Rights::of(&path) else { continue };
                if rights.why_writable().is_some() {
                    writable.push(path.clone());
                }
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    open.push((path, is_open));
                } else if is_open && rights.others_read() && path.extension().is_none_or(|ending| ending != "pub") {
                    readable.push(path);
                }
            }
        }
        let shown = folder.display();
        if let Some(first) = writable.first() {
            let why = format!("holds {} that others can change, such as `{}`", count(&writable), first.display());
            let fix = format!("`chmod -R go-w {shown}`, or `chown` what is not yours");
            self.list.push(Exposed { path: folder.to_path_buf(), why, fix, is_grave: acted_on });
        }
        if let Some(first) = readable.first() {
            let why = format!("holds {} that others can read, such as `{}`", count(&readable), first.display());
            let fix = format!("`chmod -R go-rwx {shown}`");
            self.list.push(Exposed { path: folder.to_path_buf(), why, fix, is_grave: false });
        }
    }
}

fn count(files: &[PathBuf]) -> String {
    if files.len() == 1 { "a file".to_owned() } else { format!("{} files", files.len()) }
}
