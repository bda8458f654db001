//! Judging once more who signed what a run went by: the lists against the texts of the records, the signatures against keys.

use jiff::Timestamp;

use super::{fits, rule_of};
use crate::driver::{DriverError, outside};
use crate::event::{Event, Record, Signed, SignedFiles};
use crate::identity::{self, FileList, Signers};
use crate::plan::{Digests, Plan};
use crate::site::LoadedSite;

/// Judges once more what the records of a run say about signatures of what it goes by: how many, and what is wrong, by record.
///
/// `signers`: keys to judge by, instead of those that the run itself went by.
pub(in crate::driver) fn again(
    records: &[Record],
    signers: Option<&Signers>,
) -> Result<(usize, Vec<(u64, String)>), DriverError> {
    let (mut count, mut wrong) = (0, Vec::new());
    let mut before: Option<Plan> = None;
    for record in records {
        let (Event::RunStarted { signed, .. } | Event::RunAmended { signed, .. }) = &record.event else { continue };
        let plan = outside::brought(&record.event)?;
        if let Some(signed) = signed {
            count += [&signed.runbook, &signed.site, &signed.new_site].into_iter().flatten().count();
            let found = Again { plan: &plan, before: before.as_ref(), signers, at: record.at }.judge(signed);
            wrong.extend(found.err().map(|why| (record.seq, why)));
        }
        before = Some(plan);
    }
    Ok((count, wrong))
}

/// One record to be judged again.
struct Again<'a> {
    plan: &'a Plan,
    /// The plan before it.
    before: Option<&'a Plan>,
    signers: Option<&'a Signers>,
    at: Timestamp,
}

impl Again<'_> {
    fn judge(&self, signed: &Signed) -> Result<(), String> {
        let keys = |site: &LoadedSite| match self.signers {
            Some(signers) => Ok(signers.clone()),
            None => site.keys().map_err(|error| error.to_string()),
        };
        let (plan, site_parts) = (self.plan, self.plan.site.parts());
        let (own, site) = (&plan.source.name, &plan.site.source.name);
        if let Some(files) = &signed.runbook {
            let mut sets = vec![keys(&plan.site)?];
            // What a run went by under the keys before, it may go by without a rule of its own.
            if let Some(before) = self.before.filter(|_| rule_of(plan).is_none()) {
                sets.push(keys(&before.site)?);
            }
            self.holds(files, &plan.parts(), (own, "runbook"), &sets)?;
        }
        if let Some(files) = &signed.site {
            let mut sets = Vec::new();
            for text in &files.trusted {
                let mut signers = Signers::default();
                signers.add_file(text).map_err(|error| error.to_string())?;
                sets.push(signers);
            }
            sets.extend(self.signers.cloned());
            self.holds(files, &site_parts, (site, "site"), &sets)?;
        }
        if let Some(files) = &signed.new_site {
            let sets = self.before.map(|before| keys(&before.site)).transpose()?;
            self.holds(files, &site_parts, (site, "site"), sets.as_slice())?;
        }
        let was = self.before.map(|before| (&before.site.source.text, &before.site.signers));
        let brings = was.is_some_and(|was| was != (&plan.site.source.text, &plan.site.signers));
        if brings && !signed.brings_site {
            return Err("it brings another site and does not say so".to_owned());
        }
        Ok(())
    }

    /// Whether the list is that of what the run went by, and each signature is one by a key of whom it names.
    fn holds(
        &self,
        files: &SignedFiles,
        parts: &Digests,
        (path, what): (&str, &str),
        sets: &[Signers],
    ) -> Result<(), String> {
        let of = |why: String| format!("the {what} is not what was signed: {why}");
        let list = FileList::read(&files.list).map_err(of)?;
        fits(&list, &files.entry, parts, path).map_err(of)?;
        for signer in &files.by {
            let judge = |keys: &Signers| identity::signer(keys, &files.list, &signer.signature, self.at);
            let judged: Vec<_> = sets.iter().map(judge).collect();
            let is_it = |owned: &identity::Owned| {
                owned.name == signer.name.as_str()
                    && owned.signed.key == signer.key
                    && owned.signed.fingerprint == signer.fingerprint
            };
            if !judged.iter().flatten().any(is_it) {
                let why =
                    judged.into_iter().find_map(Result::err).map(|error| format!(": {error}")).unwrap_or_default();
                return Err(format!("the signature of the {what} is not that of `{}`{why}", signer.name));
            }
        }
        Ok(())
    }
}
