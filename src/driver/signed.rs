//! Whether what a run is to go by is signed as it says: lists of files against what a plan is made of, signatures against keys.
//!
//! Owned here: judging that when a run starts and when it is amended, and judging the record of it once more. How many people
//! must sign, and who, is the scheduler's rule. Refused: a list that fits no more, and what the rules about sites do not admit.
//! `docs/design/signed-files.md`.

use std::path::Path;

use jiff::Timestamp;

mod again;
mod standing;

use super::trust::{self, Trusted};
use super::{DriverError, Options, Told, workflow};
use crate::event::{Event, FileSigner, Record, Signed, SignedFiles};
use crate::identity::{self, FileList, Offered, Signers};
use crate::ids::Actor;
use crate::plan::{Digests, Plan, from_folder_of};
use crate::scheduler::{RunRule, SignRule};
use crate::site::LoadedSite;

pub(super) use again::again;
pub use standing::{Standing, runbook_standing, site_standing};

/// What covers the runs of other runbooks that the steps of a run start.
#[derive(Debug, Clone, Default)]
pub struct Cover {
    /// Who signed what the run that starts them goes by.
    pub signed: Signed,
    /// The path of their runbook from the folder of its runbook.
    pub path: String,
}

/// What was found out about signatures.
#[derive(Debug, Default)]
pub struct Vouched {
    /// Those that hold.
    pub signed: Option<Box<Signed>>,
    /// Why others do not; nobody asks for them.
    pub notes: Vec<String>,
}

/// A file with all that belongs to it, and what lies beside it.
struct Thing<'a> {
    /// What it is, for people.
    what: String,
    /// Its path, for people.
    path: &'a str,
    parts: &'a Digests,
    offered: Option<&'a Offered>,
}

impl<'a> Thing<'a> {
    fn runbook(plan: &'a Plan, parts: &'a Digests) -> Self {
        let path = plan.source.name.as_str();
        Self { what: format!("runbook `{}`", plan.name), path, parts, offered: plan.offered.as_deref() }
    }

    fn site(site: &'a LoadedSite, parts: &'a Digests) -> Self {
        let path = site.source.name.as_str();
        Self { what: format!("site `{}`", site.site.name), path, parts, offered: site.offered.as_deref() }
    }

    /// What lies beside it, and the entry of the list that is meant; why the list is none of what the thing is made of.
    fn list(&self) -> Result<(&'a Offered, String), String> {
        let Self { what, path, parts, offered } = self;
        let Some(offered) = offered else {
            return Err(format!("{what} is not signed: there is no `{path}.signed`; `piton sign` makes one"));
        };
        let list = FileList::read(&offered.list)
            .map_err(|why| format!("{what} is not signed: `{path}.signed` is no list of files: {why}"))?;
        let entry = offered.entry.clone().unwrap_or_else(|| list.entry.clone());
        fits(&list, &entry, parts, path).map_err(|why| {
            format!("the signature of {what} does not hold any more: {why}; if that is right, sign it again")
        })?;
        Ok((offered, entry))
    }

    /// Why nobody can have signed it.
    fn without_signature(&self) -> String {
        format!("no signature of {} counts: there is no signature in `{}.signed.sig`", self.what, self.path)
    }

    /// Whose signatures hold at `at`, and why others do not.
    fn judge(&self, signers: &Signers, at: Timestamp) -> Result<(SignedFiles, Vec<String>), String> {
        let (offered, entry) = self.list()?;
        let (mut by, mut whys) = (Vec::new(), Vec::new());
        for signature in &offered.signatures {
            match identity::signer(signers, &offered.list, signature, at) {
                Ok(owned) => by.push(signer_of(owned)),
                Err(error) => whys.push(error.to_string()),
            }
        }
        by.dedup_by(|one, other| one.name == other.name && one.key == other.key);
        if by.is_empty() {
            return Err(if whys.is_empty() {
                self.without_signature()
            } else {
                format!("no signature of {} counts: {}", self.what, whys.join("; "))
            });
        }
        Ok((SignedFiles { list: offered.list.clone(), entry, by, trusted: Vec::new() }, whys))
    }
}

fn signer_of(owned: identity::Owned) -> FileSigner {
    let identity::Owned { name, signed } = owned;
    let identity::Signed { key, fingerprint, signature } = signed;
    FileSigner { name: Actor::new(name), key, fingerprint, signature }
}

/// Whether `parts` of the file at `path` are what the list says about its entry; why not.
fn fits(list: &FileList, entry: &str, parts: &Digests, path: &str) -> Result<(), String> {
    let own = Path::new(path).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let named = Path::new(entry).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if own != named {
        return Err(format!("it is a signature of `{named}`, not of `{own}`"));
    }
    let is_part = entry != list.entry;
    let differs = if is_part { list.differs(&from_folder_of(entry, parts), true) } else { list.differs(parts, false) };
    differs.map_or(Ok(()), Err)
}

/// The rule of a plan about who must have signed its runbook.
fn rule_of(plan: &Plan) -> Option<SignRule> {
    workflow::run_rule(plan).signed
}

fn keys_of(site: &LoadedSite) -> Result<Signers, DriverError> {
    site.keys().map_err(|error| DriverError::Unsigned(error.to_string()))
}

/// Judges what a run of `plan` would go by.
///
/// # Errors
/// [`DriverError::Unsigned`] when the site, the store or the host asks for more than there is.
pub fn vouch_files(plan: &Plan, options: &Options) -> Result<Vouched, DriverError> {
    if options.hooks.pretends() {
        return Ok(Vouched { signed: made_up(&workflow::run_rule(plan)), notes: Vec::new() });
    }
    let at = options.clock.now();
    let (mut signed, mut notes) = (Signed::default(), Vec::new());
    let parts = plan.parts();
    signed.runbook = runbook(plan, &parts, options.cover.as_deref(), at, &mut notes)?;
    signed.site = match &options.cover {
        // The site of the run that starts this one was judged when it came in.
        Some(cover) => cover.signed.site.clone(),
        None => site(&plan.site, &trust::trusted(options)?, at)?,
    };
    let signed = (signed != Signed::default()).then(|| Box::new(signed));
    workflow::run_rule(plan).may_start(signed.as_deref()).map_err(|error| {
        let whys: Vec<String> = std::iter::once(error.to_string()).chain(notes.iter().cloned()).collect();
        DriverError::Unsigned(whys.join("; "))
    })?;
    Ok(Vouched { signed, notes })
}

/// Who signed the runbook of a plan; by a signature of its own, or by that of the runbook that runs it.
fn runbook(
    plan: &Plan,
    parts: &Digests,
    cover: Option<&Cover>,
    at: Timestamp,
    notes: &mut Vec<String>,
) -> Result<Option<SignedFiles>, DriverError> {
    let rule = rule_of(plan);
    let keys = keys_of(&plan.site)?;
    if let (Some(_), Some(program)) = (&rule, plan.absent.first()) {
        let why = format!("program `{program}` is not there, so no signature can cover it");
        return Err(DriverError::Unsigned(why));
    }
    let own = Thing::runbook(plan, parts);
    let covering = cover.and_then(|cover| Some((cover, cover.signed.runbook.as_ref()?)));
    let by_cover = covering.map(|(cover, files)| {
        let entry = Some(crate::plan::beside(&files.entry, &cover.path));
        let offered = Offered { entry, ..offered_again(files) };
        Thing { offered: Some(&offered), ..Thing::runbook(plan, parts) }.judge(&keys, at)
    });
    let judged = match (own.judge(&keys, at), by_cover) {
        (Ok(judged), _) | (Err(_), Some(Ok(judged))) => Ok(judged),
        (Err(_), Some(Err(why))) if own.offered.is_none() => Err(why),
        (Err(why), None | Some(Err(_))) => Err(why),
    };
    match judged {
        Ok((files, whys)) => {
            notes.extend(whys);
            Ok(Some(files))
        }
        Err(why) if rule.is_some() => Err(DriverError::Unsigned(why)),
        Err(why) => {
            notes.extend(own.offered.is_some().then_some(why));
            Ok(None)
        }
    }
}

/// Who signed the site, by each of the lists that hold here.
fn site(site: &LoadedSite, trusted: &[Trusted], at: Timestamp) -> Result<Option<SignedFiles>, DriverError> {
    let mut found: Option<SignedFiles> = None;
    let parts = site.parts();
    for one in trusted {
        let place = one.place.display();
        if !site.is_given() {
            let why = format!("sites must be signed here (`{place}`), and none is given; name one with `--site`");
            return Err(DriverError::Unsigned(why));
        }
        let judged = Thing::site(site, &parts).judge(&one.signers, at);
        let (files, _) = judged.map_err(|why| DriverError::Unsigned(format!("{why} (asked for by `{place}`)")))?;
        let all = found.get_or_insert_with(|| SignedFiles { by: Vec::new(), ..files.clone() });
        all.by.extend(files.by.into_iter().filter(|new| !all.by.contains(new)).collect::<Vec<_>>());
        all.trusted.push(one.text.clone());
    }
    Ok(found)
}

/// Judges what an amended run would go by: by the rule and the keys before it, and by those that it brings.
///
/// # Errors
/// As [`vouch_files`].
pub fn vouch_amendment(told: &Told, plan: &Plan, options: &Options) -> Result<Vouched, DriverError> {
    if options.hooks.pretends() {
        return Ok(Vouched { signed: made_up(&workflow::run_rule(plan)), notes: Vec::new() });
    }
    let at = super::outside::moment(&options.clock, &told.records);
    let (was, is) = (&told.plan.site, &plan.site);
    let brings_site = brings_site(told, plan);
    let (mut signed, mut notes) = (Signed { brings_site, ..Signed::default() }, Vec::new());
    let parts = plan.parts();
    signed.runbook = runbook(plan, &parts, None, at, &mut notes)?;
    let old_rule = rule_of(&told.plan);
    if let Some(rule) = &old_rule {
        let keys = keys_of(was)?;
        let unsigned = |why: String| DriverError::Unsigned(why);
        let (files, _) = Thing::runbook(plan, &parts).judge(&keys, at).map_err(unsigned)?;
        // Who is known by the keys before and by those after.
        let known = |signer: &FileSigner| files.by.contains(signer);
        match &mut signed.runbook {
            Some(runbook) => runbook.by.retain(known),
            None => signed.runbook = Some(files),
        }
        admits(rule, "runbook", signed.runbook.as_ref())?;
        if brings_site {
            let (files, _) = Thing::site(is, &is.parts()).judge(&keys, at).map_err(unsigned)?;
            admits(rule, "site", Some(&files))?;
            signed.new_site = Some(files);
        }
    }
    signed.site = if brings_site {
        site(is, &trust::trusted(options)?, at)?
    } else {
        latest(&told.records).and_then(|signed| signed.site.clone())
    };
    if let Some(rule) = rule_of(plan) {
        admits(&rule, "runbook", signed.runbook.as_ref())?;
    }
    let signed = (signed != Signed::default()).then(|| Box::new(signed));
    Ok(Vouched { signed, notes })
}

/// Whether a plan has another site than the run.
pub(super) fn brings_site(told: &Told, plan: &Plan) -> bool {
    let (was, is) = (&told.plan.site, &plan.site);
    was.source.text != is.source.text || was.signers != is.signers
}

fn admits(rule: &SignRule, what: &str, signed: Option<&SignedFiles>) -> Result<(), DriverError> {
    let unsigned = |why| DriverError::Unsigned(format!("the {what} is not signed as the site asks for it: {why}"));
    rule.admits(signed).map_err(unsigned)
}

/// What the latest record about it says who signed what the run goes by.
pub(super) fn latest(records: &[Record]) -> Option<&Signed> {
    records.iter().rev().find_map(|record| match &record.event {
        Event::RunStarted { signed, .. } | Event::RunAmended { signed, .. } => Some(signed.as_deref()),
        _ => None,
    })?
}

/// What lies beside a runbook or site, as an event kept it.
pub(super) fn offered_again(files: &SignedFiles) -> Offered {
    Offered {
        list: files.list.clone(),
        signatures: files.by.iter().map(|signer| signer.signature.clone()).collect(),
        entry: Some(files.entry.clone()),
    }
}

/// Signatures of people who are made up, as many as the rule asks for.
fn made_up(rule: &RunRule) -> Option<Box<Signed>> {
    let rule = rule.signed.as_ref()?;
    let anybody = (0..rule.quorum).map(|number| Actor::new(format!("mock:{number}"))).collect();
    let people = rule.allowed.clone().unwrap_or(anybody);
    let signer = |name| FileSigner { name, key: String::new(), fingerprint: String::new(), signature: String::new() };
    let by = people.into_iter().map(signer).collect();
    let runbook = SignedFiles { list: String::new(), entry: String::new(), by, trusted: Vec::new() };
    Some(Box::new(Signed { runbook: Some(runbook), ..Signed::default() }))
}
