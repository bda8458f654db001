//! Every rule about people's words and every way around it that we could think of: each is refused, and the refusal is on record.
//!
//! Each case has a store of its own, made by the real program, with people whose keys `ssh-keygen` made. `who` and `cases` list the ways.

use piton::config::Clock;
use piton::driver::{self, Options};
use piton::event::{Event, LockChange};
use piton::identity::Signed;
use piton::ids::{Account, Actor, How, RunId};
use piton::journal::{Append, Journal};
use serde_json::{Value as Json, json};
use tokio::runtime::Runtime;

use super::cli::{Desk, Said};
use crate::support::keys::keygen;

mod cases;
mod who;

/// The run that is asked about, and another one of the same plan.
const RUN: &str = "r";
const OTHER: &str = "other";

/// People with a key of their own; `mal` is on no list.
const KEYS: [&str; 9] = ["ann", "bob", "sue", "walt", "zoe", "carl", "cleo", "fred", "mal"];

const STEPS: &str = "authors: [walt]
steps:
  - id: go
    approval: { prompt: 'Move {{ params.what }}?', groups: [ops, dba], quorum: 2, exclude: [run.starter, runbook.author], identity: ssh, expires: 1h }
  - id: also
    approval: { prompt: 'Really?', groups: [ops, dba], identity: ssh }
  - { id: act, needs: [go, also], exec: { argv: [echo, '{{ params.what }}'] } }
";

/// A store with a run that waits for people.
struct Stage {
    desk: Desk,
    runtime: Runtime,
}

impl Stage {
    /// `more`: what the site says besides people.
    fn new(more: &str) -> Self {
        let desk = Desk::new();
        for name in KEYS {
            keygen(&desk.path(""), &["-q", "-t", "ed25519", "-N", "", "-C", name, "-f", name], "");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let stage = Self { desk, runtime };
        stage.site("site.yaml", more);
        let listed = [
            format!("carl valid-before=\"20200101Z\" {}", stage.key("carl")),
            format!("cleo valid-after=\"20990101Z\" {}", stage.key("cleo")),
            format!("fred namespaces=\"git\" {}", stage.key("fred")),
        ];
        stage.desk.write("signers", &format!("{}\n", listed.join("\n")));
        stage.book("job", STEPS);
        stage
    }

    fn book(&self, name: &str, steps: &str) {
        self.desk.runbook(name, &format!("params: {{ what: {{ type: string, default: tables }} }}\n{steps}"));
    }

    fn site(&self, file: &str, more: &str) {
        let person =
            |name: &str, groups: &str| format!("  {name}: {{ groups: [{groups}], keys: ['{}'] }}\n", self.key(name));
        let people = [
            person("ann", "ops, dba"),
            person("bob", "ops"),
            person("sue", "ops"),
            person("walt", "dba"),
            person("zoe", "guests"),
            "  carl: { groups: [ops] }\n  cleo: { groups: [ops] }\n  fred: { groups: [ops] }\n".to_owned(),
        ];
        let people = people.concat();
        self.desk.write(
            file,
            &format!("apiVersion: piton/v1\nkind: Site\nname: here\nsigners: signers\n{more}people:\n{people}"),
        );
    }

    fn key(&self, name: &str) -> String {
        std::fs::read_to_string(self.desk.path(&format!("{name}.pub"))).expect("a key").trim().to_owned()
    }

    fn piton(&self, args: &[&str]) -> Said {
        self.desk.piton(args)
    }

    /// Starts the run, as `sue` unless it is said otherwise.
    fn starts(&self, run: &str, more: &[&str]) {
        self.piton(&[&["run", "job.yaml", "--site", "site.yaml", "--run-id", run], more].concat()).exits(6);
    }

    fn waits() -> Self {
        let stage = Self::new("");
        stage.starts(RUN, &["--as", "sue"]);
        stage
    }

    /// Something that is taken.
    #[track_caller]
    fn well(&self, args: &[&str]) -> String {
        self.piton(args).exits(0).out
    }

    /// Signs what a command would have signed, and keeps the signature in `file`.
    fn signs(&self, key: &str, file: &str, args: &[&str]) {
        let text = self.well(&[args, &["--as", key, "--print-statement"]].concat());
        let signature = keygen(&self.desk.path(""), &["-q", "-Y", "sign", "-n", "piton", "-f", key], &text);
        self.desk.write(file, &signature);
    }

    fn approved(&self, step: &str) -> Json {
        let waiting = self.piton(&["show", RUN, "--json"]).exits(0).json()["waiting_for"].clone();
        let ask = waiting.as_array().into_iter().flatten().find(|ask| ask["step"] == step);
        ask.map_or(Json::Null, |ask| ask["approved"].clone())
    }

    fn journal(&self) -> Journal {
        let store = self.desk.path(".piton/piton.db").display().to_string();
        self.runtime.block_on(Journal::open(&store)).expect("opens")
    }

    /// Says `event` to the driver, as a page or another program would.
    fn says(&self, event: &Event, clock: &Clock) -> Said {
        let journal = self.journal();
        said(self.runtime.block_on(driver::say_by(clock, &journal, &RunId::new(RUN), event)).map(|_| ()))
    }

    /// Whatever `event` is, it is a record.
    fn forges(&self, event: &Event) {
        let (journal, run) = (self.journal(), RunId::new(RUN));
        self.runtime.block_on(async {
            let expected_seq = journal.head(&run).await.expect("is there").seq;
            let (at, events) = (jiff::Timestamp::now(), std::slice::from_ref(event));
            let append = Append { run: &run, expected_seq, generation: None, at, events, texts: &[] };
            journal.append(append, &LockChange::default()).await.expect("a file takes anything");
        });
    }

    fn records(&self) -> Vec<Json> {
        self.piton(&["audit", RUN, "--json"]).exits(0).json_lines()
    }
}

fn said(result: Result<(), driver::DriverError>) -> Said {
    match result {
        Ok(()) => Said { code: 0, out: String::new(), err: String::new() },
        Err(error) => Said { code: 2, out: String::new(), err: error.to_string() },
    }
}

/// A way around a rule.
struct Case {
    name: &'static str,
    /// What the refusal says.
    why: &'static str,
    /// Who it names.
    by: &'static str,
    /// What would have been said.
    word: &'static str,
    /// Prepares the place and tries it.
    tries: fn() -> (Stage, Said),
}

fn judge(cases: &[Case]) {
    for Case { name, why, by, word, tries } in cases {
        let (stage, said) = tries();
        assert_eq!(said.code, 2, "{name} went through: {}{}", said.out, said.err);
        assert!(said.err.contains(why), "{name}: {}", said.err);
        let records = stage.records();
        let last = records.iter().rfind(|record| record["kind"] == "word_refused");
        let last = last.unwrap_or_else(|| panic!("{name}: nothing of it is on record"));
        assert_eq!(last["seq"], records.last().expect("records")["seq"], "{name}: something came of it");
        let found = last["why"].as_str().expect("a reason");
        assert!(found.contains(why), "{name}: {found}");
        assert_eq!((last["by"].as_str(), last["word"].as_str()), (Some(*by), Some(*word)), "{name}");
        stage.piton(&["audit", "verify", RUN]).exits(0);
    }
}

#[test]
fn nobody_answers_as_somebody_else() {
    judge(&who::WHO);
}

#[test]
fn a_signature_is_good_for_one_word_once() {
    judge(&cases::SIGNATURES);
}

#[test]
fn an_approval_is_good_for_its_plan_and_its_time() {
    judge(&cases::PLANS);
}

#[test]
fn the_rules_hold_on_every_path() {
    judge(&cases::PATHS);
}

#[test]
fn there_are_many_ways() {
    let count = who::WHO.len() + cases::SIGNATURES.len() + cases::PLANS.len() + cases::PATHS.len();
    assert!(count >= 40, "{count}");
}

#[test]
fn two_people_who_sign_let_it_go_and_anybody_can_check_it() {
    let stage = Stage::waits();
    let listed = stage.piton(&["approvals", "--for", "bob", "--json"]).exits(0).json_lines();
    assert_eq!(listed.iter().map(|ask| ask["step"].clone()).collect::<Vec<_>>(), ["go", "also"]);
    assert_eq!(listed[0]["commands"][0], "piton approve r go --sign KEY");
    stage.well(&["approve", RUN, "go", "--sign", "ann", "--comment", "fine"]);
    stage.well(&["withdraw", RUN, "go", "--sign", "ann"]);
    assert_eq!(stage.approved("go"), json!([]));
    stage.signs("ann", "signature", &["approve", RUN, "go"]);
    stage.well(&["approve", RUN, "go", "--signature", "signature"]);
    assert!(stage.well(&["approvals", "--for", "ann"]).contains("also"));
    stage.well(&["approve", RUN, "go", "--sign", "bob"]);
    stage.well(&["approve", RUN, "also", "--sign", "sue"]);
    stage.well(&["resume", RUN]);
    let whole = stage.well(&["audit", "verify", RUN]);
    assert!(whole.contains("signed words of people: 5"), "{whole}");
    stage.piton(&["approve", RUN, "go", "--as", "mal"]).exits(2);
    stage.well(&["report", RUN, "--to", "page"]);
    let page = std::fs::read_to_string(stage.desk.path("page/report.html")).expect("a page");
    assert!(
        page.contains("approved by ann (signed by SHA256:") && page.contains("REFUSED"),
        "who said what is on the page"
    );
    stage.well(&["audit", "export", RUN, "--to", "run.jsonl"]);
    let bundle = ["audit", "verify", "--bundle", "run.jsonl", "--key", ".piton/keys/seal.pub"];
    assert!(stage.well(&bundle).contains("signed words of people: 5"));
    // An auditor who knows other keys does not take these for theirs.
    stage.desk.write("auditor", &format!("ann {}\n", stage.key("bob")));
    let other = stage.piton(&[&bundle[..], &["--signers", "auditor"]].concat()).exits(1);
    assert!(other.err.contains("it is not the word of `ann`"), "{}", other.err);
    assert!(stage.well(&["approvals"]).contains("nothing waits"));
}

#[test]
fn an_amendment_voids_what_was_approved_and_is_still_to_be_used() {
    let stage = Stage::waits();
    stage.well(&["approve", RUN, "also", "--sign", "ann"]);
    stage.well(&["approve", RUN, "go", "--sign", "ann"]);
    let amend = [
        "resume",
        RUN,
        "--runbook",
        "job.yaml",
        "--param",
        "what=rows",
        "--reason",
        "only rows",
        "--yes",
        "--sign",
        "bob",
    ];
    stage.piton(&amend).exits(6);
    assert_eq!((stage.approved("go"), stage.approved("also")), (json!([]), json!([])));
    let records = stage.records();
    let amended = records.iter().find(|record| record["kind"] == "run_amended").expect("is on record");
    assert_eq!((amended["voids"].clone(), amended["by"].clone()), (json!(["go", "also"]), json!("bob")));
    assert!(stage.well(&["audit", RUN]).contains("what was approved at go is void"));
    assert!(stage.well(&["audit", "verify", RUN]).contains("signed words of people: 3"));
}

#[test]
fn a_run_turns_back_on_a_signed_word() {
    let stage = Stage::new("identity: { require: ssh }\n");
    stage.book("job", "steps:\n  - { id: act, exec: { argv: ['true'] }, undo: { exec: { argv: ['true'] } } }\n  - { id: ask, needs: [act], approval: { prompt: '{{ params.what }}?' } }\n");
    stage.starts(RUN, &[]);
    stage.piton(&["rollback", RUN, "--reason", "no", "--yes", "--sign", "ann"]).exits(0);
    let whole = stage.well(&["audit", "verify", RUN]);
    assert!(whole.contains("signed words of people: 1"), "{whole}");
}

#[test]
fn an_answer_that_was_written_past_the_rules_is_found() {
    for by in [
        Actor::identified("ann", How::Local(Account { user: "ann".into(), uid: 7, host: "h".into() })),
        Actor::new("ann"),
    ] {
        let stage = Stage::waits();
        stage.forges(&cases::approves("also", by));
        let found = stage.piton(&["audit", "verify", RUN]).exits(1);
        assert!(found.err.contains("cannot all be true") && found.err.contains("wants a signature"), "{}", found.err);
    }
    let stage = Stage::waits();
    stage.signs("ann", "signature", &["approve", RUN, "go"]);
    stage.forges(&cases::approves("also", cases::signed(&stage, "ann", "signature")));
    let found = stage.piton(&["audit", "verify", RUN]).exits(1);
    assert!(found.err.contains("record 5") && found.err.contains("not the word of `ann`"), "{}", found.err);
}
