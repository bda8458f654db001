//! What is chosen: every reason to stay, families, and rules that go together.

use super::*;
use crate::ids::LockName;
use crate::journal::HeldLock;

fn day(day: i64) -> Timestamp {
    Timestamp::from_second(day * 86_400).expect("in range")
}

/// A run of the runbook `move` on `north` that succeeded on this day.
fn run(id: &str, on: i64) -> RunSummary {
    RunSummary {
        run: id.into(),
        runbook: "move".into(),
        version: "1".into(),
        site: "north".into(),
        by: "ann".into(),
        started_at: day(on),
        last_at: day(on),
        outcome: Some(Outcome::Succeeded),
        pruned: None,
    }
}

fn facts(runs: Vec<RunSummary>) -> Facts {
    let heads = runs.iter().map(|run| (run.run.clone(), 10)).collect();
    Facts { runs, heads, ..Facts::default() }
}

fn rule(prune: What) -> Rule {
    Rule {
        name: "r".into(),
        prune,
        before: Some(day(100)),
        runs: vec![],
        runbooks: vec![],
        sites: vec![],
        keep_last: 0,
        failed: false,
        kinds: vec![],
    }
}

/// What went of all kinds of records up to this one.
fn pruned(what: What, until: u64) -> PrunedRun {
    PrunedRun { tombstone: 1, what, kinds: Some(vec![]), until, at: day(95), by: "bob".into(), reason: "x".into() }
}

/// `run:what` of each choice, families apart; then `run: why` of what stays.
fn told(rules: &[Rule], facts: &Facts) -> (String, String) {
    let chosen = choose(rules, facts);
    let family = |family: &Vec<Choice>| {
        family.iter().map(|choice| format!("{}:{}", choice.run, choice.what.word())).collect::<Vec<_>>().join("+")
    };
    let goes: Vec<String> = chosen.families.iter().map(family).collect();
    let stays: Vec<String> = chosen.kept.iter().map(|kept| format!("{}: {}", kept.run, kept.why)).collect();
    (goes.join(" "), stays.join("; "))
}

#[test]
fn age_runbook_site_and_the_latest_decide() {
    let mut all = vec![run("e", 200), run("d", 90), run("c", 80), run("b", 70), run("a", 60)];
    all[3].runbook = "other".into();
    all[4].site = "south".into();
    let facts = facts(all);
    let goes = |rule: Rule| told(&[rule], &facts).0;
    let base = rule(What::Run);
    assert_eq!(goes(base.clone()), "a:run b:run c:run d:run", "the oldest first; `e` is too young");
    assert_eq!(goes(Rule { keep_last: 1, ..base.clone() }), "c:run d:run", "the latest of each runbook on each site");
    assert_eq!(goes(Rule { keep_last: 2, ..base.clone() }), "c:run");
    assert_eq!(goes(Rule { runbooks: vec!["other".into()], ..base.clone() }), "b:run");
    assert_eq!(goes(Rule { sites: vec!["south".into()], ..base.clone() }), "a:run");
    assert_eq!(goes(Rule { runs: vec!["e".into(), "c".into()], ..base.clone() }), "c:run");
    assert_eq!(goes(Rule { runs: vec!["e".into()], before: None, ..base }), "e:run");
}

#[test]
fn every_reason_to_stay_is_said() {
    let mut facts = facts(["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"].map(|id| run(id, 1)).to_vec());
    facts.runs[0].outcome = None;
    facts.runs[1].outcome = Some(Outcome::Waiting);
    facts.runs[2].outcome = Some(Outcome::Stuck);
    facts.runs[3].outcome = Some(Outcome::Failed);
    facts.runs[4].outcome = Some(Outcome::Cancelled);
    facts.except.insert("f".into());
    facts.locks.driven_until.insert("g".into(), day(2));
    facts.locks.held.push(HeldLock {
        name: LockName::new("north/db"),
        run: "h".into(),
        step: None,
        since: day(1),
        fence: 1,
        stays: true,
    });
    facts.standing.push(("i".into(), "db/moved".into()));
    facts.established = vec![("j".into(), "db/open".into()), ("k".into(), "db/closed".into())];
    let required = |milestone: Option<&str>, site: &str| Required {
        by: "a".into(),
        site: site.into(),
        milestone: milestone.map(Milestone::new),
    };
    facts.required = vec![required(Some("db/open"), "north"), required(None, "south")];
    let (goes, stays) = told(&[rule(What::Run)], &facts);
    assert_eq!(goes, "k:run l:run", "nobody requires what `k` established, and `l` established nothing");
    for why in [
        "a: it is open",
        "b: it waits for a person",
        "c: it is stuck",
        "d: it failed or was cancelled",
        "e: it failed or was cancelled",
        "f: somebody excepted it",
        "g: a driver has it",
        "h: it holds the lock `north/db`",
        "i: its milestone `db/moved` stands",
        "j: run a, which is not over, requires `db/open`",
    ] {
        assert!(stays.contains(why), "{why} in {stays}");
    }
    // A run that cannot be read may require anything.
    facts.required[1].site = "north".into();
    assert!(told(&[rule(What::Run)], &facts).1.contains("k: run a, which is not over, may require"));
    // What nobody needs to know may go all the same.
    assert_eq!(
        told(&[rule(What::Transcripts)], &facts).0,
        ["i", "j", "k", "l"].map(|id| format!("{id}:transcripts")).join(" ")
    );
    let failed = Rule { failed: true, ..rule(What::Run) };
    assert!(told(&[failed], &facts).0.starts_with("d:run e:run"));
}

#[test]
fn a_family_goes_as_a_whole_or_stays() {
    let mut facts = facts(["r", "r.copy", "r.copy.x", "s.copy"].map(|id| run(id, 1)).to_vec());
    let whole = told(&[rule(What::Run)], &facts);
    assert_eq!(whole, ("r:run+r.copy:run+r.copy.x:run s.copy:run".into(), String::new()));
    facts.runs[2].outcome = None;
    let (goes, stays) = told(&[rule(What::Contents)], &facts);
    assert_eq!(goes, "s.copy:contents");
    assert!(stays.contains("r: run r.copy.x, which is of its family, stays"), "{stays}");
    assert!(stays.contains("r.copy.x: it is open"), "{stays}");
    // One that the rules do not choose keeps the others.
    facts.runs[2] = run("r.copy.x", 200);
    let (goes, stays) = told(&[rule(What::Run), rule(What::Transcripts)], &facts);
    assert_eq!(goes, "r:transcripts+r.copy:transcripts s.copy:run", "their texts may go all the same");
    assert!(stays.contains("r.copy: run r.copy.x, which is of its family, stays"), "{stays}");
}

#[test]
fn the_rule_that_takes_most_counts_and_nothing_goes_twice() {
    let mut facts = facts(vec![run("a", 90), run("b", 1)]);
    let old = Rule { before: Some(day(50)), name: "old".into(), ..rule(What::Run) };
    let rules = [rule(What::Transcripts), rule(What::Evidence), rule(What::Contents), old];
    assert_eq!(told(&rules, &facts).0, "b:run a:contents");
    assert_eq!(told(&rules[..2], &facts).0, "b:transcripts+b:evidence a:transcripts+a:evidence");
    facts.pruned = [("a".into(), vec![pruned(What::Contents, 10)]), ("b".into(), vec![pruned(What::Run, 10)])].into();
    assert_eq!(told(&rules, &facts).0, "");
    assert_eq!(told(&[rule(What::Run)], &facts).0, "a:run", "more of it");
    // What was said since then is to be pruned again.
    facts.pruned = [("a".into(), vec![pruned(What::Transcripts, 8)])].into();
    assert_eq!(told(&rules[..1], &facts).0, "b:transcripts a:transcripts");
}

#[test]
fn a_rule_that_cannot_take_a_run_does_not_hide_one_that_can() {
    let mut facts = facts(["a", "b", "c"].map(|id| run(id, 1)).to_vec());
    facts.runs[0].outcome = Some(Outcome::Failed);
    facts.runs[1].outcome = Some(Outcome::Cancelled);
    let rules = [rule(What::Run), Rule { failed: true, ..rule(What::Run) }];
    assert_eq!(told(&rules, &facts), ("a:run b:run c:run".into(), String::new()));
    let lesser = [rule(What::Run), Rule { failed: true, ..rule(What::Transcripts) }];
    assert_eq!(told(&lesser, &facts), ("a:transcripts b:transcripts c:run".into(), String::new()));
    // If none can, this is said once, of the most that would have gone; and only if nothing else keeps the run.
    let neither = [rule(What::Transcripts), rule(What::Run), rule(What::Evidence)];
    facts.except.insert("a".into());
    let chosen = choose(&neither, &facts);
    let kept: Vec<(&str, What)> = chosen.kept.iter().map(|kept| (kept.run.as_str(), kept.what)).collect();
    assert_eq!(kept, [("a", What::Run), ("b", What::Run)]);
    assert_eq!(chosen.kept[0].why, "somebody excepted it");
    assert!(chosen.kept[1].why.starts_with("it failed or was cancelled"), "{}", chosen.kept[1].why);
    facts.locks.driven_until.insert("b".into(), day(2));
    assert_eq!(told(&neither, &facts).1, "a: somebody excepted it; b: a driver has it");
    // A family still waits for one that no rule takes.
    facts.runs[1].run = "c.copy".into();
    let (goes, stays) = told(&neither[1..2], &facts);
    assert_eq!(goes, "");
    assert!(stays.contains("c: run c.copy, which is of its family, stays"), "{stays}");
    assert!(stays.contains("c.copy: it failed or was cancelled"), "{stays}");
}

/// A rule for the contents of records of these kinds.
fn of_kinds(name: &str, kinds: &[&str]) -> Rule {
    let kinds = kinds.iter().map(|kind| (*kind).to_owned()).collect();
    Rule { name: name.into(), kinds, ..rule(What::Contents) }
}

/// What goes of the contents of the only run: kinds and rule.
fn kinds_that_go(rules: &[Rule], facts: &Facts) -> String {
    let chosen = choose(rules, facts);
    let told = |choice: &Choice| format!("{} [{}]", choice.kinds.join("+"), choice.rule);
    chosen.families.iter().flatten().map(told).collect::<Vec<_>>().join(" ")
}

#[test]
fn contents_are_done_only_as_far_as_kinds_went() {
    let mut facts = facts(vec![run("a", 1)]);
    let went = |kinds: Option<&[&str]>, until| PrunedRun {
        kinds: kinds.map(|kinds| kinds.iter().map(|kind| (*kind).to_owned()).collect()),
        ..pruned(What::Contents, until)
    };
    let (one, two, all) = (of_kinds("one", &["x"]), of_kinds("two", &["y", "x"]), of_kinds("all", &[]));
    let mut after = |earlier: Vec<PrunedRun>| {
        facts.pruned = [("a".into(), earlier)].into();
        [&one, &two, &all].map(|rule| kinds_that_go(std::slice::from_ref(rule), &facts))
    };
    assert_eq!(after(vec![]), ["x [one]", "y+x [two]", " [all]"]);
    assert_eq!(after(vec![went(Some(&["x"]), 10)]), ["", "y+x [two]", " [all]"]);
    assert_eq!(after(vec![went(Some(&["y"]), 10), went(Some(&["x"]), 10)]), ["", "", " [all]"], "one after the other");
    assert_eq!(after(vec![went(Some(&["y"]), 9), went(Some(&["x"]), 10)]), ["", "y+x [two]", " [all]"]);
    assert_eq!(after(vec![went(None, 10)]), ["x [one]", "y+x [two]", " [all]"], "nobody knows of which kinds");
    assert_eq!(after(vec![went(Some(&[]), 10)]), ["", "", ""]);
    assert_eq!(after(vec![pruned(What::Run, 10)]), ["", "", ""]);
    // What commands said, and files, went with the contents of any kinds.
    facts.pruned = [("a".into(), vec![went(None, 10)])].into();
    assert_eq!(told(&[rule(What::Transcripts), rule(What::Evidence)], &facts).0, "");
}

#[test]
fn rules_for_contents_of_one_run_go_together() {
    let mut facts = facts(vec![run("a", 1)]);
    let rules = [of_kinds("one", &["x"]), of_kinds("two", &["y", "x"]), of_kinds("three", &["z"])];
    assert_eq!(kinds_that_go(&rules, &facts), "x+y+z [one; two; three]");
    let all = [rules[0].clone(), of_kinds("all", &[]), rules[1].clone()];
    assert_eq!(kinds_that_go(&all, &facts), " [one; all; two]");
    assert_eq!(kinds_that_go(&[rules[0].clone(), rule(What::Run), rules[1].clone()], &facts), " [r]", "it takes most");
    // One that has nothing to do any more has no part in it.
    let went = PrunedRun { kinds: Some(vec!["x".to_owned()]), ..pruned(What::Contents, 10) };
    facts.pruned = [("a".into(), vec![went])].into();
    assert_eq!(kinds_that_go(&rules, &facts), "y+x+z [two; three]");
}
