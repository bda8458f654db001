//! What is fuzzed: each function takes any bytes, and must neither panic nor contradict itself.
//!
//! Shared by the fuzzing programs and by the test that runs every kept seed.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use piton::event::{Event, LockChange};
use piton::identity::{Signed, Signers};
use piton::ids::RunId;
use piton::journal::{Append, Inscription, Journal, PrunedRun, Tombstone, Trust, judge_bundle, trusted_keys};
use piton::plan::{Files, Given, Plan, PlanSource};
use piton::spec::problem::Source;
use piton::spec::reference::{self, Expression};

fn text(data: &[u8]) -> Option<String> {
    std::str::from_utf8(data).ok().map(str::to_owned)
}

/// Runbooks and sites: read, checked, and every problem shown.
pub fn loader(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let source = Arc::new(Source { name: "fuzzed.yaml".into(), text });
    let nowhere = Path::new("/nonexistent");
    match piton::plan::check(&source, nowhere, None, &[]) {
        Ok(_) => {
            let again = piton::plan::check(&source, nowhere, None, &[]);
            assert!(again.is_ok(), "what was right is wrong the second time");
        }
        Err(problems) => assert!(!problems.render().is_empty(), "refused without a word"),
    }
    if let Err(problems) = piton::site::read(&source, nowhere) {
        assert!(!problems.render().is_empty(), "refused without a word");
    }
    if let Err(problems) = piton::spec::retention::read(&source) {
        assert!(!problems.render().is_empty(), "refused without a word");
    }
}

/// Templates and expressions, over a scope that has a bit of everything.
pub fn template(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let scope = serde_json::json!({
        "params": { "name": "a \"b\" {{ c }}", "count": 7, "list": [1, "two", null], "none": null, "deep": { "er": true } },
        "steps": { "a": { "outputs": { "x": -0.5, "y": "é\u{0}" }, "state": "succeeded" } },
        "site": { "name": "north", "vars": {}, "tags": ["t"] },
    });
    let references = reference::template_references(&text);
    let _ = reference::malformed_part(&text);
    let rendered = reference::render(&text, &scope);
    let value = reference::evaluate_template(&text, &scope);
    if rendered.is_ok() && !text.contains("{{") {
        assert!(references.is_ok_and(|references| references.is_empty()), "no braces, but references");
    }
    // What a value says is data: rendering does not read it again.
    if let (Ok(rendered), Ok(serde_json::Value::String(value))) = (rendered, value) {
        assert_eq!(rendered, value, "one text, two values");
    }
    if let Ok(expression) = Expression::parse(&text) {
        let _ = expression.references();
        let _ = expression.evaluate(&scope);
    }
    let yaml = format!(
        "apiVersion: piton/v1\nkind: Runbook\nname: fuzzed\nsteps:\n  - id: a\n    when: {0}\n    exec: {{ argv: [echo, {0}] }}\n",
        serde_json::Value::String(text)
    );
    loader(yaml.as_bytes());
}

const RUNBOOK: &str = "apiVersion: piton/v1
kind: Runbook
name: fuzzed
on_failure: rollback
locks: [north]
steps:
  - { id: a, exec: { argv: ['true'] }, undo: { exec: { argv: ['true'] } } }
  - { id: b, needs: [a], approval: { prompt: Sure?, quorum: 2 } }
  - { id: c, needs: [b], retry: { attempts: 3 }, idempotent: yes, exec: { argv: ['true'] } }
  - { id: d, needs: [a], manual: { instructions: Do it. } }
";

static STARTED: LazyLock<Event> = LazyLock::new(|| {
    let kept = PlanSource {
        runbook_path: "/fuzzed.yaml".into(),
        runbook: RUNBOOK.into(),
        site_path: None,
        site: None,
        signers: None,
        files: Files::default(),
        pins: None,
        walls: None,
    };
    let plan = Plan::restore(kept, &Given::new()).expect("a runbook");
    let started = serde_json::json!({
        "kind": "run_started", "runbook": "fuzzed", "version": "", "digest": plan.digest, "site": "local", "by": "local:ann@here",
        "params": {}, "piton": "0", "source": plan.kept(), "parent": null,
    });
    serde_json::from_value(started).expect("a start")
});

/// A journal: any facts behind the start of a run, read back, folded and told.
pub fn journal(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let events: Vec<Event> = text.lines().take(64).filter_map(|line| serde_json::from_str(line).ok()).collect();
    for event in &events {
        let again: Event =
            serde_json::from_str(&serde_json::to_string(event).expect("can be written")).expect("can be read");
        assert_eq!(again, *event, "a fact changes when it is kept");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let (journal, run, at) = (Journal::memory(), RunId::new("r"), jiff::Timestamp::UNIX_EPOCH);
        journal.create(&run, at, &STARTED, &[]).await.expect("is new");
        let append = Append { run: &run, expected_seq: 1, generation: None, at, events: &events, texts: &[] };
        let appended = journal.append(append, &LockChange::default()).await;
        assert!(appended.is_ok() || events.is_empty());
        // Facts that do not follow from each other are refused, whatever they are.
        if let Ok(told) = piton::driver::read(&journal, &run).await {
            let view =
                piton::report::status::Run { run: &run, plan: &told.plan, state: &told.state, records: &told.records };
            let stages = piton::driver::stages(&told.records).expect("it was just folded");
            let zone = jiff::tz::TimeZone::UTC;
            assert!(
                !piton::report::audit::to_text(view, &stages, &zone, piton::report::words::Paint::default()).is_empty()
            );
        }
    });
}

/// A bundle: judged with and without a key that is trusted.
pub fn bundle(data: &[u8]) {
    let keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f".to_owned()];
    for unsigned in [false, true] {
        let plain = judge_bundle(data, Trust::default(), unsigned);
        let strict = judge_bundle(data, Trust { keys: &keys, anchors: &[] }, unsigned);
        assert_eq!(plain.is_ok(), strict.is_ok(), "trust does not decide whether it is a bundle");
        if let (Ok(plain), Ok(strict)) = (plain, strict) {
            // A tombstone of a key that is not trusted is told of once, and not read: what it says of the rest is not judged.
            assert!(plain.holds() || !strict.holds(), "whom one trusts makes a bundle whole");
        }
    }
}

/// The text of a tombstone: read, told, and written as it was read.
pub fn tombstone(data: &[u8]) {
    let Some(body) = text(data) else { return };
    let run = serde_json::from_str::<Inscription>(&body).map_or_else(|_| RunId::new("r"), |text| text.run);
    let number = serde_json::from_str::<Inscription>(&body).map_or(1, |text| text.number);
    let stone = Tombstone { number, run, body, key: String::new(), signature: String::new() };
    assert!(stone.judged(&[]).is_err(), "nobody signed it");
    let Ok(text) = stone.read() else { return };
    let again = Tombstone { body: serde_json::to_string(&text).expect("can be written"), ..stone };
    assert_eq!(again.read().as_ref(), Ok(&text), "it says something else when it is written again");
    let (zone, pruned) = (jiff::tz::TimeZone::UTC, [PrunedRun::from(&text)]);
    assert!(!piton::report::pruned::tombstone(&text, &zone).is_empty());
    assert!(!piton::report::pruned::run(&text, &pruned, &zone, piton::report::words::Paint::default()).is_empty());
    assert!(piton::report::pruned::run_json(&text, &pruned).is_object());
}

/// Files of allowed signers and of public keys, and signatures.
pub fn signers(data: &[u8]) {
    let Some(text) = text(data) else { return };
    if let Err(error) = Signed::read(&text) {
        assert!(!error.to_string().is_empty(), "refused without a word");
    }
    let keys = trusted_keys(&text).unwrap_or_else(|why| {
        assert!(!why.is_empty(), "refused without a word");
        Vec::new()
    });
    let mut once = Signers::default();
    if let Err(error) = once.add_file(&text) {
        assert!(!error.to_string().is_empty(), "refused without a word");
        return;
    }
    // Told twice, nobody has another key, and what keys are shared by is the same.
    let mut twice = once.clone();
    twice.add_file(&text).expect("it was read before");
    assert_eq!(once.shared(), twice.shared());
    for key in &keys {
        assert_eq!(once.owners(key), twice.owners(key));
    }
    // A line that names a person and a key has both.
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut own = Signers::default();
        own.add_file(line).expect("every line was read");
        assert!(!own.is_empty(), "a line that says nothing was taken");
    }
}
