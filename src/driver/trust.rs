//! Who may sign sites here: OpenSSH allowed-signers files that are no part of any site, so that no site can change them.
//!
//! Refused: a file that cannot be read, or that others could change. `docs/design/signed-files.md`.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::{DriverError, Options};
use crate::config::rights::Rights;
use crate::identity::Signers;

/// The file that binds every store of a host.
const OF_HOST: &str = "/etc/piton/site-signers";

/// The name of the file beside a store.
const BESIDE_STORE: &str = "site-signers";

/// Signers of sites, and where they are listed.
#[derive(Debug, Clone)]
pub(super) struct Trusted {
    /// Where.
    pub(super) place: PathBuf,
    /// The text.
    pub(super) text: String,
    /// The signers.
    pub(super) signers: Signers,
}

/// All lists that hold for a driver with these options; each one binds.
pub(super) fn trusted(options: &Options) -> Result<Vec<Trusted>, DriverError> {
    let may_lack = [PathBuf::from(OF_HOST), options.state_dir.join(BESIDE_STORE)];
    let mut found = Vec::new();
    for (path, must) in may_lack.iter().map(|path| (path, false)).chain(options.site_signers.iter().map(|p| (p, true)))
    {
        found.extend(read(path, must).map_err(DriverError::Unsigned)?);
    }
    Ok(found)
}

fn read(path: &Path, must: bool) -> Result<Option<Trusted>, String> {
    let shown = path.display();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if !must && matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(format!("the signers of sites in `{shown}` cannot be read: {error}")),
    };
    let rights = Rights::of(path).map_err(|error| format!("`{shown}`: {error}"))?;
    if let Some(why) = rights.why_writable() {
        return Err(format!(
            "`{shown}` says who may sign sites and {why}; make it yours or root's, `chmod go-w {shown}`"
        ));
    }
    let mut signers = Signers::default();
    signers.add_file(&text).map_err(|error| format!("`{shown}`: {error}"))?;
    Ok(Some(Trusted { place: path.to_path_buf(), text, signers }))
}
