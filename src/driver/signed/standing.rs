//! How the signatures of a file stand before anything is run, for `piton check`.

use std::path::Path;

use jiff::Timestamp;

use super::{Thing, admits, site};
use crate::driver::{Options, trust, workflow};
use crate::plan::Digests;
use crate::site::LoadedSite;

/// What can be said of the signatures of a file before anything is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// There are none, and nobody asks for any.
    Unsigned,
    /// They hold; whose they are, in words.
    Holds(String),
    /// They do not hold, and nobody asks for any; why not.
    Fails(String),
    /// Somebody asks for them, and they do not hold; why not.
    Refused(String),
}

/// How the signatures of a runbook stand, on a site if there is one.
pub fn runbook_standing(
    (name, path): (&str, &str),
    parts: &Digests,
    absent: Option<&String>,
    site: Option<&LoadedSite>,
    at: Timestamp,
) -> Standing {
    let offered = match crate::plan::offered(Path::new(path)) {
        Ok(offered) => offered,
        Err(error) => return Standing::Refused(error.to_string()),
    };
    let thing = Thing { what: format!("runbook `{name}`"), path, parts, offered: offered.as_deref() };
    let rule = site.and_then(|site| workflow::sign_rule(&site.site));
    let keys = match site.map(LoadedSite::keys).transpose() {
        Ok(keys) => keys,
        Err(error) => return Standing::Refused(error.to_string()),
    };
    if let (Some(_), Some(program)) = (&rule, absent) {
        return Standing::Refused(format!("program `{program}` is not there, so no signature can cover it"));
    }
    let judged = match keys {
        Some(keys) => thing.judge(&keys, at).map(|(files, _)| files),
        None => return thing.standing_without_keys(),
    };
    match (judged, rule) {
        (Ok(files), Some(rule)) => match admits(&rule, "runbook", Some(&files)) {
            Ok(()) => Standing::Holds(format!("signed by {}", files.names())),
            Err(error) => Standing::Refused(error.to_string()),
        },
        (Ok(files), None) => Standing::Holds(format!("signed by {}", files.names())),
        (Err(why), Some(_)) => Standing::Refused(why),
        (Err(_), None) if offered.is_none() => Standing::Unsigned,
        (Err(why), None) => Standing::Fails(why),
    }
}

impl Thing<'_> {
    /// Whether its list fits, as long as nobody's keys are known.
    fn standing_without_keys(&self) -> Standing {
        if self.offered.is_none() {
            return Standing::Unsigned;
        }
        match self.list() {
            Ok((offered, _)) if offered.signatures.is_empty() => Standing::Fails(self.without_signature()),
            Ok((offered, _)) => {
                let count = offered.signatures.len();
                Standing::Holds(format!("its list of files fits, with {count} signature(s); whose shows a site"))
            }
            Err(why) => Standing::Fails(why),
        }
    }
}

/// How the signatures of a site stand where these options hold.
pub fn site_standing(loaded: &LoadedSite, options: &Options) -> Standing {
    let judged = trust::trusted(options).and_then(|trusted| site(loaded, &trusted, options.clock.now()));
    match judged {
        Ok(Some(files)) => Standing::Holds(format!("signed by {}", files.names())),
        Ok(None) => Thing::site(loaded, &loaded.parts()).standing_without_keys(),
        Err(error) => Standing::Refused(error.to_string()),
    }
}
