//! Who must sign runbooks on a site, and what a signature of the site itself covers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{LoadedSite, Site};
use crate::identity::sha256_hex;
use crate::ids::Actor;
use crate::spec::decode::{Decoder, Spanned};
use crate::spec::problem::{Problem, did_you_mean};

/// A rule about signatures that nobody could keep.
pub(super) fn check(site: &Site, d: &mut Decoder) {
    let Some(rule) = site.runbooks.as_ref().and_then(|runbooks| runbooks.signed.as_ref()) else { return };
    let groups: BTreeSet<&str> =
        site.people.0.iter().flat_map(|(_, person)| &person.groups).map(String::as_str).collect();
    let people: BTreeSet<&str> = site.people.names().collect();
    let mut wrong = false;
    for (what, known, names) in [("group", &groups, &rule.groups), ("person", &people, &rule.people)] {
        for name in names.iter().filter(|name| !known.contains(name.value.as_str())) {
            wrong = true;
            let message = format!("no {what} of this site is called `{}`", name.value);
            let problem = Problem::new("site::unknown_person", message, name.span).label("unknown");
            d.problem(problem.help_if(did_you_mean(&name.value, known.iter().copied())));
        }
    }
    let place = rule.groups.iter().chain(&rule.people).next();
    if let (Some(place), Some(count)) = (place, site.may_sign_runbooks().map(|people| people.len()))
        && !wrong
        && count < rule.quorum as usize
    {
        let message = format!("{count} of these people cannot make up a quorum of {}", rule.quorum);
        let problem = Problem::new("site::quorum", message, place.span).label("too few");
        d.problem(problem.help("name more people or groups, or ask for fewer"));
    }
}

impl Site {
    /// The people whose signatures of runbooks count; nothing for anybody.
    pub fn may_sign_runbooks(&self) -> Option<BTreeSet<Actor>> {
        let rule = self.runbooks.as_ref()?.signed.as_ref()?;
        let texts =
            |names: &[Spanned<String>]| -> Vec<String> { names.iter().map(|name| name.value.clone()).collect() };
        self.people_in(&texts(&rule.groups), &texts(&rule.people))
    }
}

impl LoadedSite {
    /// What the site is made of: SHA-256, in hex, by path from its folder.
    pub fn parts(&self) -> BTreeMap<String, String> {
        let file = |name: &str| {
            Path::new(name).file_name().map_or_else(|| name.to_owned(), |name| name.to_string_lossy().into_owned())
        };
        let mut parts = BTreeMap::new();
        if let (Some(path), Some(text)) = (&self.site.signers, &self.signers) {
            parts.insert(path.clone(), sha256_hex(text.as_bytes()));
        }
        parts.insert(file(&self.source.name), sha256_hex(self.source.text.as_bytes()));
        parts
    }
}
