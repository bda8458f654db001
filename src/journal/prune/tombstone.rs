//! Tombstones: what was pruned, by whom and why, signed with the key that seals.
//!
//! Owned here: the text, its signature, and whether the tombstones of a store are those that were put there, in their order.
//! Whether a run is what its tombstones say is judged in `judge`. `docs/design/retention.md` has the form.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::event::{Outcome, Record};
use crate::ids::{Actor, LockName, Milestone, RunId};
use crate::journal::chain::FIRST;
use crate::journal::proof::Wrong;
use crate::journal::seal::{SealKey, fingerprint, holds};
use crate::journal::{JournalError, RunSummary};
use crate::plan::sha256_hex;

/// Namespace of the signatures: `ssh-keygen -Y verify -n piton-tombstone`.
pub const NAMESPACE: &str = "piton-tombstone";
/// Version of the form.
const VERSION: u32 = 1;

/// What a text holds that tells of ends.
pub(in crate::journal) const HAS_ENDS: &str = "\"ends\":[{";

/// What is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// What commands said.
    Transcripts,
    /// Files that people handed in.
    Evidence,
    /// Both, and the payload of records.
    Contents,
    /// Everything but the latest record's place and hash.
    Run,
}

impl What {
    /// Its name in texts that programs read.
    pub fn word(self) -> &'static str {
        match self {
            Self::Transcripts => "transcripts",
            Self::Evidence => "evidence",
            Self::Contents => "contents",
            Self::Run => "run",
        }
    }

    /// What it is, for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Transcripts => "what its commands said",
            Self::Evidence => "its evidence files",
            Self::Contents => "the contents of its records",
            Self::Run => "all but its summary",
        }
    }

    /// The same as the beginning of a sentence.
    pub fn went(self) -> &'static str {
        match self {
            Self::Transcripts => "what its commands said was pruned",
            Self::Evidence => "its evidence files were pruned",
            Self::Contents => "the contents of its records were pruned",
            Self::Run => "all but its summary was pruned",
        }
    }

    /// Whether the run can no longer be read back.
    pub fn is_grave(self) -> bool {
        match self {
            Self::Contents | Self::Run => true,
            Self::Transcripts | Self::Evidence => false,
        }
    }

    /// Whether this takes away what commands said.
    pub fn takes_texts(self) -> bool {
        self != Self::Evidence
    }
}

/// A run as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Name of its runbook.
    pub runbook: String,
    /// Version of its runbook.
    pub version: String,
    /// Its site.
    pub site: String,
    /// Who started it.
    pub by: Actor,
    /// When it started.
    pub started_at: Timestamp,
    /// When anything was last recorded.
    pub last_at: Timestamp,
    /// How it ended or why it rested.
    pub outcome: Option<Outcome>,
    /// Digest of its plan when it began.
    pub digest: String,
}

impl Summary {
    /// As it stands in the list of runs.
    pub(in crate::journal) fn listed(&self, run: &RunId, pruned: u64) -> RunSummary {
        RunSummary {
            run: run.clone(),
            runbook: self.runbook.clone(),
            version: self.version.clone(),
            site: self.site.clone(),
            by: self.by.clone(),
            started_at: self.started_at,
            last_at: self.last_at,
            outcome: self.outcome,
            pruned: Some(pruned),
        }
    }
}

/// The latest record of a run when it was pruned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRecord {
    /// Its place.
    pub seq: u64,
    /// Its time, in milliseconds since 1970.
    pub at_ms: i64,
    /// Generation of the driver that recorded it.
    pub generation: u64,
    /// Its kind.
    pub kind: String,
    /// Its hash.
    pub hash: String,
}

/// Records without payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// How many lost it, those that are gone altogether included.
    pub records: u64,
    /// SHA-256 over a line for each one that stayed: `seq at_ms generation kind hash`.
    pub hash: String,
}

/// One end of a run: what it did to milestones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Place of its record.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// How.
    pub outcome: Outcome,
    /// What it established.
    pub milestones: Vec<Milestone>,
    /// What it took back.
    pub revoked: Vec<Milestone>,
}

/// What other runs' ways back must know of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandsOn {
    /// What it required.
    pub milestones: Vec<Milestone>,
    /// Named things that it worked on.
    pub locks: Vec<LockName>,
    /// Whether it left, or may have left, anything behind.
    pub changed: bool,
}

/// The text of a tombstone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Inscription {
    /// Version of the form.
    pub version: u32,
    /// Its number in the store, from 1.
    pub number: u64,
    /// SHA-256 of the text of the one before.
    pub before: String,
    /// Which run.
    pub run: RunId,
    /// What was pruned.
    pub what: What,
    /// When.
    pub at: Timestamp,
    /// By whom.
    #[serde(with = "crate::ids::whole")]
    pub by: Actor,
    /// Why.
    pub reason: String,
    /// By which rule.
    pub rule: String,
    /// Version of Piton.
    pub piton: String,
    /// The run as it is remembered.
    pub summary: Summary,
    /// Its latest record then.
    pub head: LastRecord,
    /// Records that it had.
    pub records: u64,
    /// Those without payload; none where every record is whole.
    pub dropped: Option<Dropped>,
    /// Seals that it had, which stay.
    pub seals: u64,
    /// Which key the run said seals it, from which record on.
    pub keys: Vec<(u64, Option<String>)>,
    /// Its ends that did something to milestones, as far as their records lost their payload.
    pub ends: Vec<End>,
    /// None where that could not be read.
    pub stands_on: Option<StandsOn>,
    /// Transcripts that it named.
    pub texts: u64,
    /// Their bytes.
    pub text_bytes: u64,
    /// SHA-256 of its evidence files.
    pub evidence: Vec<String>,
    /// Words that people had signed, judged before.
    pub signed: u64,
    /// Of `contents`, the kinds of records that lost their payload; all if there are none. Older ones do not say.
    #[serde(default)]
    pub kinds: Option<Vec<String>>,
}

impl Inscription {
    /// The version of the form that is written.
    pub(super) const VERSION: u32 = VERSION;

    /// Kinds of records that lost their payload, all if there are none; where it does not say, only what follows from their number.
    pub(super) fn kinds_emptied(&self) -> Option<Vec<String>> {
        let all = self.dropped.as_ref().is_some_and(|dropped| dropped.records == self.records);
        self.kinds.clone().or_else(|| all.then(Vec::new))
    }

    /// The ends that records no longer tell.
    pub(in crate::journal) fn end_records(&self) -> impl Iterator<Item = Record> {
        self.ends.iter().map(|end| Record {
            run: self.run.clone(),
            seq: end.seq,
            at: end.at,
            generation: 0,
            event: crate::event::Event::RunFinished {
                outcome: end.outcome,
                milestones: end.milestones.clone(),
                revoked: end.revoked.clone(),
                note: None,
            },
            hash: String::new(),
        })
    }
}

/// A tombstone as a store keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    /// Its number.
    pub number: u64,
    /// Of which run.
    pub run: RunId,
    /// The text that is signed: an [`Inscription`].
    pub body: String,
    /// The public key: `ssh-ed25519 AAAA...`.
    pub key: String,
    /// The signature as `ssh-keygen -Y sign` writes it.
    pub signature: String,
}

/// As stores keep it.
impl From<(i64, String, String, String, String)> for Tombstone {
    fn from((number, run, body, key, signature): (i64, String, String, String, String)) -> Self {
        Self { number: number.cast_unsigned(), run: RunId::new(run), body, key, signature }
    }
}

impl Tombstone {
    /// The next one behind `last`.
    pub(super) fn make(text: &Inscription, last: Option<&Self>, key: &SealKey) -> Result<Self, JournalError> {
        let (number, before) = last.map_or((1, FIRST.to_owned()), |last| (last.number + 1, last.hash()));
        let text = Inscription { number, before, ..text.clone() };
        let unsealed = |why: String| JournalError::Unsealed { run: text.run.clone(), why };
        let body = serde_json::to_string(&text).map_err(|error| unsealed(error.to_string()))?;
        let signature = key.signed(NAMESPACE, body.as_bytes()).map_err(|error| unsealed(error.to_string()))?;
        Ok(Self { number, run: text.run, body, key: key.public().to_owned(), signature })
    }

    /// SHA-256 of its text.
    pub fn hash(&self) -> String {
        sha256_hex(self.body.as_bytes())
    }

    /// What it says, if it can be read and is about its run.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(&self) -> Result<Inscription, String> {
        let text: Inscription = serde_json::from_str(&self.body).map_err(|error| match self.version() {
            Some(found) if found > VERSION => {
                format!("it has version {found}, this Piton knows {VERSION}; use a newer Piton")
            }
            _ => format!("its text cannot be read ({error})"),
        })?;
        if text.run != self.run {
            return Err(format!("it is of run {}: it was moved", text.run));
        }
        if text.number != self.number {
            return Err(format!("it is tombstone {}: it was moved", text.number));
        }
        Ok(text)
    }

    fn version(&self) -> Option<u32> {
        let value: serde_json::Value = serde_json::from_str(&self.body).ok()?;
        value.get("version")?.as_u64().and_then(|version| u32::try_from(version).ok())
    }

    /// What it says, if all about it is as it should be; `trusted`: keys that alone may sign, or any.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn judged(&self, trusted: &[String]) -> Result<Inscription, String> {
        if !holds(NAMESPACE, self.body.as_bytes(), &self.key, &self.signature) {
            return Err(format!("its seal does not hold: {} did not sign it", fingerprint(&self.key)));
        }
        if !trusted.is_empty() && !trusted.contains(&self.key) {
            return Err(format!("it is sealed by {}, which is not a key that you trust", fingerprint(&self.key)));
        }
        self.read()
    }
}

/// A tombstone as its store would make it.
#[cfg(test)]
pub(in crate::journal) fn make(text: &Inscription, last: Option<&Tombstone>, key: &SealKey) -> Tombstone {
    Tombstone::make(text, last, key).expect("is signed")
}

/// How far the tombstones of a store had come, noted outside of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotedTombstones {
    /// Number of the latest one.
    pub tombstones: u64,
    /// SHA-256 of its text.
    pub hash: String,
}

/// What is proved of the tombstones of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TombstoneProof {
    /// How many there are.
    pub tombstones: u64,
    /// SHA-256 of the text of the latest one.
    pub hash: String,
    /// What is wrong; `seq` is the number of a tombstone.
    pub wrong: Vec<Wrong>,
}

/// Judges all tombstones of a store, in the order of their numbers.
pub(in crate::journal) fn judge_all(
    stones: &[Tombstone],
    trusted: &[String],
    noted: &[NotedTombstones],
) -> TombstoneProof {
    let hash = stones.last().map_or_else(|| FIRST.to_owned(), Tombstone::hash);
    let mut proof = TombstoneProof { tombstones: stones.len() as u64, hash, wrong: Vec::new() };
    let mut add = |number: u64, what: String| proof.wrong.push(Wrong { seq: Some(number), what });
    let (mut next, mut before) = (1, Some(FIRST.to_owned()));
    for stone in stones {
        if stone.number != next {
            let rest = if stone.number == next + 1 { String::new() } else { format!(" up to {}", stone.number - 1) };
            add(next, format!("it is missing{rest}: it was taken away"));
            before = None;
        }
        match stone.judged(trusted) {
            Err(why) => add(stone.number, why),
            Ok(text) if before.as_ref().is_some_and(|before| *before != text.before) => {
                add(stone.number, format!("it does not stand behind the tombstone that is number {}", next - 1));
            }
            Ok(_) => {}
        }
        next = stone.number + 1;
        before = Some(stone.hash());
    }
    for note in noted {
        match stones.iter().find(|stone| stone.number == note.tombstones) {
            Some(stone) if stone.hash() == note.hash => {}
            Some(_) => add(note.tombstones, "it is not the one whose hash was noted elsewhere".into()),
            None if note.tombstones == 0 => {}
            None => add(
                note.tombstones,
                "it is missing: it was noted elsewhere, so it was taken away or an older copy was put back".into(),
            ),
        }
    }
    proof.wrong.sort_by_key(|wrong| wrong.seq);
    proof
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As it was written before it said of which kinds.
    const OLD: &str = r#"{"version":1,"number":1,"before":"00","run":"r","what":"contents","at":"2026-01-01T00:00:00Z","by":"bob","reason":"x","rule":"y","piton":"0.1.0","summary":{"runbook":"job","version":"1","site":"north","by":"ann","started_at":"2025-01-01T00:00:00Z","last_at":"2025-01-01T00:00:00Z","outcome":"succeeded","digest":"d"},"head":{"seq":5,"at_ms":1,"generation":1,"kind":"run_finished","hash":"h"},"records":5,"dropped":{"records":5,"hash":"d"},"seals":1,"keys":[],"ends":[],"stands_on":null,"texts":0,"text_bytes":0,"evidence":[],"signed":0}"#;

    #[test]
    fn an_older_tombstone_holds_and_says_no_more_than_its_numbers() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = SealKey::open(&folder.path().join("seal")).expect("is made");
        let stone = |body: String| Tombstone {
            number: 1,
            run: "r".into(),
            signature: key.signed(NAMESPACE, body.as_bytes()).expect("is signed"),
            body,
            key: key.public().to_owned(),
        };
        let trusted = [key.public().to_owned()];
        let all = stone(OLD.to_owned()).judged(&trusted).expect("holds");
        assert_eq!((&all.kinds, all.kinds_emptied()), (&None, Some(vec![])), "every record is without payload");
        for dropped in [r#"{"records":4,"hash":"d"}"#, "null"] {
            let body = OLD.replace(r#"{"records":5,"hash":"d"}"#, dropped);
            let some = stone(body).judged(&trusted).expect("holds");
            assert_eq!(some.kinds_emptied(), None, "nobody knows which");
        }
        let said = stone(OLD.replace(r#""signed":0"#, r#""signed":0,"kinds":["step_answered"]"#));
        let said = said.judged(&trusted).expect("holds");
        assert_eq!(said.kinds_emptied(), Some(vec!["step_answered".to_owned()]));
    }
}
