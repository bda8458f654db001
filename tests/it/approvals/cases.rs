//! The ways around what signatures, plans and paths are about.

use piton::driver::Choices;
use piton::event::Answer;

use super::*;

pub(super) const UNSIGNED: &str = "wants a signature";
const VOID: &str = "the signature does not hold";

/// An approval as an event.
pub(super) fn approves(step: &str, by: Actor) -> Event {
    Event::StepAnswered { step: step.into(), by, answer: Answer::Approved { comment: None } }
}

/// Somebody who signed, as the signature in `file` says.
pub(super) fn signed(stage: &Stage, name: &str, file: &str) -> Actor {
    let text = std::fs::read_to_string(stage.desk.path(file)).expect("a signature");
    let Signed { key, fingerprint, signature } = Signed::read(&text).expect("a signature");
    Actor::identified(name, How::Ssh { account: account(), key, fingerprint, signature })
}

pub(super) fn account() -> Account {
    Account { user: "page".into(), uid: 7, host: "h".into() }
}

/// Hands in a signature of `ann` that was made over `made` for `used`.
fn hands_in(made: &[&str], used: &[&str]) -> (Stage, Said) {
    let stage = Stage::waits();
    stage.signs("ann", "signature", made);
    let said = stage.piton(&[used, &["--signature", "signature"]].concat());
    (stage, said)
}

/// A clock that is `hours` ahead.
fn ahead(hours: i64) -> Clock {
    Clock::leaping(jiff::Timestamp::now() + jiff::SignedDuration::from_hours(hours))
}

/// A site that wants everything signed, and a run that did one step and waits.
fn strict() -> Stage {
    let stage = Stage::new("identity: { require: ssh }\n");
    stage.book(
        "job",
        "steps:
  - { id: act, exec: { argv: ['true'] }, undo: { exec: { argv: ['true'] } } }
  - { id: ask, needs: [act], approval: { prompt: '{{ params.what }}?', identity: claimed } }
  - { id: hand, needs: [act], manual: { instructions: 'Count', form: { rows: { type: integer } } } }
  - { id: later, needs: [ask], exec: { argv: ['true'] } }
",
    );
    stage.starts(RUN, &[]);
    stage
}

fn strictly(args: &[&str]) -> (Stage, Said) {
    let stage = strict();
    let said = stage.piton(args);
    (stage, said)
}

pub(super) const SIGNATURES: [Case; 15] = [
    Case {
        name: "of another namespace",
        why: "is for `git`, not for `piton`",
        by: "ann",
        word: "approved",
        tries: || {
            let stage = Stage::waits();
            let text = stage.well(&["approve", RUN, "go", "--as", "ann", "--print-statement"]);
            let signature = keygen(&stage.desk.path(""), &["-q", "-Y", "sign", "-n", "git", "-f", "ann"], &text);
            stage.desk.write("signature", &signature);
            let said = stage.piton(&["approve", RUN, "go", "--signature", "signature"]);
            (stage, said)
        },
    },
    Case {
        name: "of another run",
        why: VOID,
        by: "ann",
        word: "approved",
        tries: || {
            let stage = Stage::waits();
            stage.starts(OTHER, &["--as", "sue"]);
            stage.signs("ann", "signature", &["approve", OTHER, "go"]);
            stage.well(&["approve", OTHER, "go", "--signature", "signature"]);
            let said = stage.piton(&["approve", RUN, "go", "--signature", "signature"]);
            (stage, said)
        },
    },
    Case {
        name: "of another step",
        why: VOID,
        by: "ann",
        word: "approved",
        tries: || hands_in(&["approve", RUN, "also"], &["approve", RUN, "go"]),
    },
    Case {
        name: "of a yes for a no",
        why: VOID,
        by: "ann",
        word: "rejected",
        tries: || hands_in(&["approve", RUN, "go"], &["approve", RUN, "go", "--reject"]),
    },
    Case {
        name: "of a no for a yes",
        why: VOID,
        by: "ann",
        word: "approved",
        tries: || hands_in(&["approve", RUN, "go", "--reject"], &["approve", RUN, "go"]),
    },
    Case {
        name: "of an approval for a skip",
        why: VOID,
        by: "ann",
        word: "skip_requested",
        tries: || hands_in(&["approve", RUN, "go"], &["skip", RUN, "go", "--reason", "no need"]),
    },
    Case {
        name: "with another comment",
        why: VOID,
        by: "ann",
        word: "approved",
        tries: || {
            let comment = ["approve", RUN, "go", "--comment", "only after the backup"];
            hands_in(&comment, &["approve", RUN, "go"])
        },
    },
    Case {
        name: "handed in twice",
        why: VOID,
        by: "ann",
        word: "approved",
        tries: || {
            let (stage, first) = hands_in(&["approve", RUN, "go"], &["approve", RUN, "go"]);
            first.exits(0);
            let said = stage.piton(&["approve", RUN, "go", "--signature", "signature"]);
            (stage, said)
        },
    },
    Case {
        name: "of an approval that was taken back",
        why: VOID,
        by: "ann",
        word: "approved",
        tries: || {
            let (stage, first) = hands_in(&["approve", RUN, "go"], &["approve", RUN, "go"]);
            first.exits(0);
            stage.well(&["withdraw", RUN, "go", "--sign", "ann"]);
            let said = stage.piton(&["approve", RUN, "go", "--signature", "signature"]);
            (stage, said)
        },
    },
    Case {
        name: "of a withdrawal, for the next approval",
        why: VOID,
        by: "ann",
        word: "withdrawn",
        tries: || {
            let stage = Stage::waits();
            stage.well(&["approve", RUN, "go", "--sign", "ann"]);
            stage.signs("ann", "signature", &["withdraw", RUN, "go"]);
            stage.well(&["withdraw", RUN, "go", "--signature", "signature"]);
            stage.well(&["approve", RUN, "go", "--sign", "ann"]);
            let said = stage.piton(&["withdraw", RUN, "go", "--signature", "signature"]);
            (stage, said)
        },
    },
    Case {
        name: "with one byte changed",
        why: VOID,
        by: "ann",
        word: "approved",
        tries: || {
            let stage = Stage::waits();
            stage.signs("ann", "signature", &["approve", RUN, "go"]);
            let text = std::fs::read_to_string(stage.desk.path("signature")).expect("a signature");
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            // The line before the last is inside the signature itself.
            let line = lines.len() - 3;
            let old = lines[line].remove(9);
            lines[line].insert(9, if old == 'A' { 'B' } else { 'A' });
            stage.desk.write("signature", &format!("{}\n", lines.join("\n")));
            let said = stage.piton(&["approve", RUN, "go", "--signature", "signature"]);
            (stage, said)
        },
    },
    Case {
        name: "under the name of somebody else",
        why: "belongs to `ann`, not to `bob`",
        by: "bob",
        word: "approved",
        tries: || hands_in(&["approve", RUN, "go"], &["approve", RUN, "go", "--as", "bob"]),
    },
    Case {
        name: "with the key of somebody else beside it",
        why: VOID,
        by: "ann",
        word: "approved",
        tries: || {
            let stage = Stage::waits();
            stage.signs("bob", "signature", &["approve", RUN, "go"]);
            let Some(How::Ssh { account, fingerprint, signature, .. }) =
                signed(&stage, "bob", "signature").how().cloned()
            else {
                panic!("it is signed")
            };
            let how = How::Ssh { account, key: stage.key("ann"), fingerprint, signature };
            let said = stage.says(&approves("go", Actor::identified("ann", how)), &Clock::System);
            (stage, said)
        },
    },
    Case {
        name: "that is none",
        why: "cannot be read",
        by: "ann",
        word: "approved",
        tries: || {
            let stage = Stage::waits();
            let how = How::Ssh {
                account: account(),
                key: stage.key("ann"),
                fingerprint: String::new(),
                signature: String::new(),
            };
            let said = stage.says(&approves("go", Actor::identified("ann", how)), &Clock::System);
            (stage, said)
        },
    },
    Case {
        name: "of a form that was filled in differently",
        why: VOID,
        by: "ann",
        word: "completed",
        tries: || {
            let stage = strict();
            stage.signs("ann", "signature", &["answer", RUN, "hand", "--set", "rows=1"]);
            let said = stage.piton(&["answer", RUN, "hand", "--set", "rows=2", "--signature", "signature"]);
            (stage, said)
        },
    },
];

pub(super) const PLANS: [Case; 9] = [
    Case {
        name: "the same person through two groups",
        why: "has approved already",
        by: "ann",
        word: "approved",
        tries: || {
            let stage = Stage::waits();
            stage.well(&["approve", RUN, "go", "--sign", "ann"]);
            let said = stage.piton(&["approve", RUN, "go", "--sign", "ann"]);
            (stage, said)
        },
    },
    Case {
        name: "a signature of before the plan was changed",
        why: VOID,
        by: "ann",
        word: "approved",
        tries: || {
            let stage = Stage::waits();
            stage.signs("ann", "signature", &["approve", RUN, "go"]);
            let amend = ["--param", "what=everything", "--reason", "more", "--yes"];
            stage.piton(&[&["resume", RUN, "--runbook", "job.yaml"], &amend[..]].concat()).exits(6);
            let said = stage.piton(&["approve", RUN, "go", "--signature", "signature"]);
            (stage, said)
        },
    },
    Case {
        name: "a key that was taken off the site",
        why: "is not listed on this site",
        by: "ann",
        word: "approved",
        tries: || {
            let stage = Stage::waits();
            let path = stage.desk.path("site.yaml");
            let text = std::fs::read_to_string(&path).expect("a site");
            stage.desk.write("site.yaml", &text.replace(&format!(", keys: ['{}']", stage.key("ann")), ""));
            let amend = ["resume", RUN, "--runbook", "job.yaml", "--site", "site.yaml", "--reason", "stolen", "--yes"];
            stage.piton(&amend).exits(6);
            let said = stage.piton(&["approve", RUN, "go", "--as", "ann", "--sign", "ann"]);
            (stage, said)
        },
    },
    Case {
        name: "after its time",
        why: "the time to answer is over",
        by: "ann",
        word: "approved",
        tries: || {
            let stage = Stage::waits();
            stage.signs("ann", "signature", &["approve", RUN, "go"]);
            let said = stage.says(&approves("go", signed(&stage, "ann", "signature")), &ahead(2));
            (stage, said)
        },
    },
    Case {
        name: "after its time, with the clock moved back",
        why: "the time to answer is over",
        by: "bob",
        word: "approved",
        tries: || {
            let stage = Stage::waits();
            stage.signs("ann", "signature", &["approve", RUN, "go"]);
            assert_eq!(stage.says(&approves("go", signed(&stage, "ann", "signature")), &ahead(2)).code, 2);
            let said = stage.piton(&["approve", RUN, "go", "--sign", "bob"]);
            (stage, said)
        },
    },
    Case {
        name: "a withdrawal of what was used",
        why: "does not wait for this answer",
        by: "ann",
        word: "withdrawn",
        tries: || {
            let stage = Stage::waits();
            stage.well(&["approve", RUN, "also", "--sign", "ann"]);
            let said = stage.piton(&["withdraw", RUN, "also", "--sign", "ann"]);
            (stage, said)
        },
    },
    Case {
        name: "a withdrawal of what was never given",
        why: "has given no approval",
        by: "bob",
        word: "withdrawn",
        tries: || {
            let stage = Stage::waits();
            stage.well(&["approve", RUN, "go", "--sign", "ann"]);
            let said = stage.piton(&["withdraw", RUN, "go", "--sign", "bob"]);
            (stage, said)
        },
    },
    Case {
        name: "a withdrawal of another's approval",
        why: UNSIGNED,
        by: "ann",
        word: "withdrawn",
        tries: || {
            let stage = Stage::waits();
            stage.well(&["approve", RUN, "go", "--sign", "ann"]);
            let said = stage.piton(&["withdraw", RUN, "go", "--as", "ann"]);
            (stage, said)
        },
    },
    Case {
        name: "when the run is over",
        why: "does not wait for this answer",
        by: "ann",
        word: "approved",
        tries: || {
            let stage = Stage::waits();
            stage.well(&["approve", RUN, "also", "--sign", "bob"]);
            stage.well(&["approve", RUN, "go", "--sign", "bob"]);
            stage.piton(&["approve", RUN, "go", "--reject", "--sign", "ann"]).exits(0);
            stage.piton(&["resume", RUN]).exits(4);
            let said = stage.piton(&["approve", RUN, "go", "--sign", "ann"]);
            (stage, said)
        },
    },
];

pub(super) const PATHS: [Case; 9] = [
    Case {
        name: "a step that asks for less than its site",
        why: UNSIGNED,
        by: "ann",
        word: "approved",
        tries: || strictly(&["approve", RUN, "ask", "--as", "ann"]),
    },
    Case {
        name: "manual work without a signature",
        why: UNSIGNED,
        by: "ann",
        word: "completed",
        tries: || strictly(&["answer", RUN, "hand", "--set", "rows=1", "--as", "ann"]),
    },
    Case {
        name: "a skip of any step without a signature",
        why: UNSIGNED,
        by: "ann",
        word: "skip_requested",
        tries: || strictly(&["skip", RUN, "ask", "--reason", "no need", "--as", "ann"]),
    },
    Case {
        name: "a rollback without a signature",
        why: UNSIGNED,
        by: "ann",
        word: "rollback_requested",
        tries: || strictly(&["rollback", RUN, "--reason", "no", "--yes", "--as", "ann"]),
    },
    Case {
        name: "a rollback signed for another reason",
        why: VOID,
        by: "ann",
        word: "rollback_requested",
        tries: || {
            let stage = strict();
            stage.signs("ann", "signature", &["rollback", RUN, "--reason", "no", "--yes"]);
            let said = stage.piton(&["rollback", RUN, "--reason", "yes", "--yes", "--signature", "signature"]);
            (stage, said)
        },
    },
    Case {
        name: "an amendment without a signature",
        why: UNSIGNED,
        by: "ann",
        word: "run_amended",
        tries: || {
            let amend = ["resume", RUN, "--runbook", "job.yaml", "--param", "what=rows", "--reason", "x", "--yes"];
            strictly(&[&amend[..], &["--as", "ann"]].concat())
        },
    },
    Case {
        name: "an amendment by a key that is only on the new site",
        why: "is not listed on this site",
        by: "mal",
        word: "run_amended",
        tries: || {
            let stage = strict();
            let text = std::fs::read_to_string(stage.desk.path("site.yaml")).expect("a site");
            stage
                .desk
                .write("new.yaml", &format!("{text}  mal: {{ groups: [ops], keys: ['{}'] }}\n", stage.key("mal")));
            let amend = ["resume", RUN, "--runbook", "job.yaml", "--site", "new.yaml", "--reason", "me", "--yes"];
            let said = stage.piton(&[&amend[..], &["--as", "mal", "--sign", "mal"]].concat());
            (stage, said)
        },
    },
    Case {
        name: "an amendment signed for another plan",
        why: VOID,
        by: "ann",
        word: "run_amended",
        tries: || {
            let stage = strict();
            let amend = |what: &'static str| {
                ["resume", RUN, "--runbook", "job.yaml", "--reason", "x", "--yes", "--param", what]
            };
            stage.signs("ann", "signature", &amend("what=rows"));
            let said = stage.piton(&[&amend("what=everything")[..], &["--signature", "signature"]].concat());
            (stage, said)
        },
    },
    Case {
        name: "an amendment that keeps approvals of the old plan",
        why: "would count for another one",
        by: "bob",
        word: "run_amended",
        tries: || {
            let stage = Stage::waits();
            stage.well(&["approve", RUN, "also", "--sign", "ann"]);
            let (journal, run) = (stage.journal(), RunId::new(RUN));
            let told = stage.runtime.block_on(driver::read(&journal, &run)).expect("is there");
            let params = [("what".to_owned(), json!("rows"))].into();
            let base = stage.desk.path("");
            let plan =
                piton::plan::Plan::load(&base.join("job.yaml"), told.plan.site.clone(), &params).expect("a plan");
            let options = Options::new(Actor::identified("bob", How::Local(account())), base.join(".piton"));
            let diffs = driver::compare(&run, &told, &plan).expect("differs");
            let mut event =
                driver::amendment(&told, &plan, &diffs, &Choices::default(), (&options, "x")).expect("can be");
            let Event::RunAmended { voids, .. } = &mut event else { panic!("it is an amendment") };
            voids.clear();
            let result = stage.runtime.block_on(driver::resume_amended(&journal, run, plan, event, options));
            (stage, said(result.map(|_| ())))
        },
    },
];
