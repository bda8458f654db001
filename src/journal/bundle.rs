//! A run as one file that proves itself: its records, its seals, what its commands said, and a signature of all of it.
//!
//! JSON Lines; every byte of it counts, so that no change goes unnoticed. Written from a store, judged without one. The
//! last line is a DSSE envelope around an in-toto statement, for tools that read those. `docs/design/seals.md` has the form.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::chain::{self, Row};
use super::proof::{self, Proof, Trust};
use super::prune::{Stones, Tombstone};
use super::seal::{self, Seal, SealKey, fingerprint};
use super::{Journal, JournalError};
use crate::event::Record;
use crate::ids::RunId;
use crate::plan::sha256_hex;

/// Version of the form.
const VERSION: u32 = 1;
/// That of a run of which something was pruned.
const VERSION_PRUNED: u32 = 2;
/// What the envelope holds.
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// What the statement says.
const PREDICATE: &str = "urn:piton:run:v1";

/// Why a text is no bundle at all.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A line.
    #[error("line {line} of the bundle is not as it was written: {why}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// The form.
    #[error("the bundle has version {found}, this Piton knows {VERSION_PRUNED}; use a newer Piton")]
    Newer {
        /// Its version.
        found: u32,
    },
    /// The end.
    #[error(
        "the bundle has no envelope at its end: it was cut off, or written without a key; say `--unsigned` to judge it all the same"
    )]
    NoEnvelope,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case", deny_unknown_fields)]
enum Line {
    /// First.
    Bundle { version: u32, run: RunId, piton: String, exported_at: Timestamp },
    /// One record, byte for byte.
    Record { seq: u64, at_ms: i64, generation: u64, kind: String, hash: String, payload: String },
    /// One seal.
    Seal { seq: u64, hash: String, at_ms: i64, key: String, signature: String },
    /// What was pruned.
    Tombstone { number: u64, body: String, key: String, signature: String },
    /// What a command said, in base64.
    Transcript { digest: String, bytes: String },
    /// Last: a DSSE envelope.
    Envelope {
        #[serde(rename = "payloadType")]
        payload_type: String,
        payload: String,
        signatures: Vec<Signed>,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    /// The public key.
    keyid: String,
    /// The signature, in base64.
    sig: String,
}

/// What DSSE signs: the type and the content, each with its length.
fn pre_authentication(payload: &[u8]) -> Vec<u8> {
    let mut text = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len()).into_bytes();
    text.extend_from_slice(payload);
    text
}

fn statement(run: &RunId, digest: &str, proof: &Proof) -> Json {
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "name": format!("run/{run}"), "digest": { "sha256": digest } }],
        "predicateType": PREDICATE,
        "predicate": { "run": run, "records": proof.records, "hash": proof.hash },
    })
}

fn push(text: &mut String, line: &Line) {
    text.push_str(&serde_json::to_string(line).expect("a line has texts and numbers only"));
    text.push('\n');
}

impl Journal {
    /// Writes a run as a bundle, signed with `key` as a whole if there is one, and gives the proof that went before.
    ///
    /// # Errors
    /// When the run is not what was recorded: a bundle does not make that right.
    pub async fn export(
        &self,
        run: &RunId,
        key: Option<&SealKey>,
        at: Timestamp,
    ) -> Result<(String, Proof), JournalError> {
        let (proof, found) = self.proved(run, Trust::default()).await?;
        if let Some(wrong) = proof.wrong.first() {
            let (seq, why) = (wrong.seq.unwrap_or(0), wrong.what.clone());
            return Err(JournalError::Broken { run: run.clone(), seq, why });
        }
        let mut text = String::new();
        let piton = env!("CARGO_PKG_VERSION").to_owned();
        let version = if found.stones.is_empty() { VERSION } else { VERSION_PRUNED };
        push(&mut text, &Line::Bundle { version, run: run.clone(), piton, exported_at: at });
        let stones = Stones::read(&found.stones);
        // By its digest, and the latest record that names it.
        let mut said = BTreeMap::new();
        for row in found.rows {
            if row.names_texts() {
                let event = chain::event(run, &row)?;
                said.extend(event.said().iter().map(|said| (said.digest.clone(), (said.clone(), row.seq))));
            }
            let Row { seq, at_ms, generation, kind, payload, hash } = row;
            push(&mut text, &Line::Record { seq, at_ms, generation, kind, hash, payload });
        }
        for Seal { seq, hash, at_ms, key, signature } in found.seals {
            push(&mut text, &Line::Seal { seq, hash, at_ms, key, signature });
        }
        for Tombstone { number, body, key, signature, .. } in found.stones {
            push(&mut text, &Line::Tombstone { number, body, key, signature });
        }
        for (digest, (said, seq)) in said {
            let bytes = match self.transcript(&said).await {
                Err(JournalError::Transcript { .. }) if stones.texts_taken(seq).is_some() => continue,
                kept => STANDARD.encode(kept?),
            };
            push(&mut text, &Line::Transcript { digest, bytes });
        }
        if let Some(key) = key {
            let payload = statement(run, &sha256_hex(text.as_bytes()), &proof).to_string().into_bytes();
            let broken = |why: ssh_key::Error| JournalError::Broken { run: run.clone(), seq: 0, why: why.to_string() };
            let sig = STANDARD.encode(key.sign(&pre_authentication(&payload)).map_err(broken)?);
            let signatures = vec![Signed { keyid: key.public().to_owned(), sig }];
            let (payload_type, payload) = (PAYLOAD_TYPE.to_owned(), STANDARD.encode(payload));
            push(&mut text, &Line::Envelope { payload_type, payload, signatures });
        }
        Ok((text, proof))
    }
}

/// A bundle that was read.
#[derive(Debug, Default)]
struct Bundle {
    run: Option<RunId>,
    rows: Vec<Row>,
    seals: Vec<Seal>,
    stones: Vec<Tombstone>,
    transcripts: BTreeMap<String, Vec<u8>>,
    /// The envelope, with the digest of everything before it.
    envelope: Option<(String, Vec<u8>, Vec<Signed>)>,
}

/// Judges a bundle; `unsigned`: also one without an envelope, of which only what seals cover is proved.
///
/// # Errors
/// When it is no bundle: a line that cannot be read, or was written differently.
pub fn judge(bytes: &[u8], trust: Trust<'_>, unsigned: bool) -> Result<Proof, BundleError> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].split(|byte| *byte == b'\n').count();
        BundleError::Line { line, why: "it is not UTF-8".into() }
    })?;
    let bundle = read(text)?;
    let Some(run) = bundle.run.clone() else {
        return Err(BundleError::Line { line: 1, why: "it does not begin with the line of a bundle".into() });
    };
    let stones = Stones::judged(&bundle.stones, trust.keys);
    let mut proof = proof::judge(&run, &bundle.rows, &bundle.seals, &stones, trust);
    bundle.judge_transcripts(&run, &stones, &mut proof);
    match &bundle.envelope {
        Some(envelope) => judge_envelope(&run, envelope, trust, &mut proof),
        None if unsigned => {}
        None => return Err(BundleError::NoEnvelope),
    }
    Ok(proof)
}

/// The records of a bundle that was judged; none where the content of some was pruned.
///
/// # Errors
/// When it is no bundle, or a record is none.
pub fn records(bytes: &[u8]) -> Result<Vec<Record>, BundleError> {
    let wrong = |line: usize, why: String| BundleError::Line { line, why };
    let text = std::str::from_utf8(bytes).map_err(|error| wrong(1, error.to_string()))?;
    let Bundle { run: Some(run), rows, .. } = read(text)? else { return Ok(Vec::new()) };
    if rows.iter().any(|row| row.payload.is_empty()) {
        return Ok(Vec::new());
    }
    // Records stand behind the line of the bundle, in their order.
    let record = |(at, row): (usize, Row)| chain::record(&run, row).map_err(|error| wrong(at + 2, error.to_string()));
    rows.into_iter().enumerate().map(record).collect()
}

fn read(text: &str) -> Result<Bundle, BundleError> {
    let mut bundle = Bundle::default();
    let mut at = 0;
    for (number, whole) in (1..).zip(text.split_inclusive('\n')) {
        let wrong = |why: &str| BundleError::Line { line: number, why: why.to_owned() };
        let body = whole.strip_suffix('\n').ok_or_else(|| wrong("it has no end"))?;
        let line: Line = serde_json::from_str(body).map_err(|error| wrong(&error.to_string()))?;
        if serde_json::to_string(&line).ok().as_deref() != Some(body) {
            return Err(wrong("it says the same in another form"));
        }
        if bundle.envelope.is_some() {
            return Err(wrong("something stands behind the envelope"));
        }
        if (number == 1) != matches!(line, Line::Bundle { .. }) {
            return Err(wrong("the line of the bundle is the first one, once"));
        }
        bundle.take(line, &text[..at]).map_err(|error| match error {
            Some(newer) => newer,
            None => wrong("it is no base64, or an envelope around something else"),
        })?;
        at += whole.len();
    }
    Ok(bundle)
}

impl Bundle {
    /// Takes a line in; an error without a text is one of its content.
    fn take(&mut self, line: Line, before: &str) -> Result<(), Option<BundleError>> {
        let decoded = |text: &str| STANDARD.decode(text).map_err(|_| None);
        match line {
            Line::Bundle { version, run, .. } => {
                if version > VERSION_PRUNED {
                    return Err(Some(BundleError::Newer { found: version }));
                }
                self.run = Some(run);
            }
            Line::Record { seq, at_ms, generation, kind, hash, payload } => {
                self.rows.push(Row { seq, at_ms, generation, kind, payload, hash });
            }
            Line::Seal { seq, hash, at_ms, key, signature } => {
                self.seals.push(Seal { seq, hash, at_ms, key, signature });
            }
            Line::Tombstone { number, body, key, signature } => {
                let run = self.run.clone().ok_or(None)?;
                self.stones.push(Tombstone { number, run, body, key, signature });
            }
            Line::Transcript { digest, bytes } => drop(self.transcripts.insert(digest, decoded(&bytes)?)),
            Line::Envelope { payload_type, .. } if payload_type != PAYLOAD_TYPE => return Err(None),
            Line::Envelope { payload, signatures, .. } => {
                self.envelope = Some((sha256_hex(before.as_bytes()), decoded(&payload)?, signatures));
            }
        }
        Ok(())
    }

    fn judge_transcripts(&self, run: &RunId, stones: &Stones, proof: &mut Proof) {
        for row in &self.rows {
            let Ok(event) = chain::event(run, row) else { continue };
            for said in event.said() {
                let found = self.transcripts.get(&said.digest).map(Vec::as_slice);
                if found.is_none() && stones.texts_taken(row.seq).is_some() {
                    continue;
                }
                if let Some(wrong) = super::transcripts::wrong(&said.digest, found) {
                    let stream = said.stream.words();
                    proof.add(row.seq, format!("what its command said on {stream} {wrong} ({})", said.digest));
                }
            }
        }
    }
}

fn judge_envelope(
    run: &RunId,
    (digest, payload, signatures): &(String, Vec<u8>, Vec<Signed>),
    trust: Trust<'_>,
    proof: &mut Proof,
) {
    let said: Json = serde_json::from_slice(payload).unwrap_or_default();
    if said != statement(run, digest, proof) {
        proof.add(None, "the bundle is not the one that its envelope is about");
    }
    let text = pre_authentication(payload);
    let is_good =
        |signed: &Signed| STANDARD.decode(&signed.sig).is_ok_and(|sig| seal::is_signed(&text, &signed.keyid, &sig));
    if signatures.is_empty() || !signatures.iter().all(is_good) {
        proof.add(None, "the signature of the bundle does not hold");
    }
    for signed in signatures.iter().filter(|signed| !trust.keys.is_empty() && !trust.keys.contains(&signed.keyid)) {
        let whose = fingerprint(&signed.keyid);
        proof.add(None, format!("the bundle is signed by {whose}, which is not a key that you trust"));
    }
}
