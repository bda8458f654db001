//! Reading the texts of runbooks and sites, and what lies beside them to show who signed them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::PlanError;
use crate::config::folder_of;
use crate::identity::{self, Offered};
use crate::site::LoadedSite;
use crate::spec::problem::Source;

/// Reads a text file to be parsed.
///
/// # Errors
/// When it cannot be read as UTF-8 text.
pub fn read_source(path: &Path) -> Result<Arc<Source>, PlanError> {
    let fail = |reason: String| PlanError::NoFile { path: path.display().to_string(), reason };
    let bytes = std::fs::read(path).map_err(|error| fail(error.to_string().to_lowercase()))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let before = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = before.split(|byte| *byte == b'\n').count();
        let column =
            String::from_utf8_lossy(before.rsplit(|byte| *byte == b'\n').next().unwrap_or_default()).chars().count()
                + 1;
        fail(format!("line {line}, column {column} is not UTF-8 text; save the file as UTF-8"))
    })?;
    Ok(Arc::new(Source { name: path.display().to_string(), text }))
}

/// Reads a site file.
///
/// # Errors
/// When it cannot be read, with everything that is wrong with it.
pub fn load_site(path: &Path) -> Result<LoadedSite, PlanError> {
    let source = read_source(path)?;
    let mut loaded = crate::site::read(&source, folder_of(path)).map_err(PlanError::Problems)?;
    if let Some(signers) = &loaded.site.signers {
        let text = read_source(&folder_of(path).join(signers))?;
        loaded.signers = Some(text.text.as_str().into());
        let wrong = |error: crate::identity::IdentityError| PlanError::Value(format!("`{}`: {error}", text.name));
        loaded.keys().map_err(wrong)?;
    }
    loaded.offered = offered(path)?;
    Ok(loaded)
}

/// Where a list of files that belong to the file at `path` lies, and signatures of it.
pub fn signed_paths(path: &Path) -> (PathBuf, PathBuf) {
    let beside = |ending: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    };
    (beside(".signed"), beside(".signed.sig"))
}

/// What lies beside a file to show who signed it; nothing if there is no list.
///
/// # Errors
/// When it is there and cannot be read as text.
pub fn offered(path: &Path) -> Result<Option<Arc<Offered>>, PlanError> {
    let (list, signatures) = signed_paths(path);
    let Some(list) = text_if_there(&list)? else { return Ok(None) };
    let signatures = text_if_there(&signatures)?.map(|text| identity::signatures(&text)).unwrap_or_default();
    Ok(Some(Arc::new(Offered { list, signatures, entry: None })))
}

fn text_if_there(path: &Path) -> Result<Option<String>, PlanError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            Err(PlanError::NoFile { path: path.display().to_string(), reason: error.to_string().to_lowercase() })
        }
    }
}
