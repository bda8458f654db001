//! The ways to answer as somebody else, or as somebody who may not.

use super::cases::{UNSIGNED, account, approves};
use super::*;

const EXCLUDED: &str = "excluded from answering";

/// One try at a run that waits, as a command.
macro_rules! tries {
    ($($arg:expr),+ $(,)?) => {
        || {
            let stage = Stage::waits();
            let said = stage.piton(&[$($arg),+]);
            (stage, said)
        }
    };
}

pub(super) const WHO: [Case; 18] = [
    Case {
        name: "the starter, signed",
        why: EXCLUDED,
        by: "sue",
        word: "approved",
        tries: tries!["approve", RUN, "go", "--sign", "sue"],
    },
    Case {
        name: "the starter under another name",
        why: UNSIGNED,
        by: "ann",
        word: "approved",
        tries: tries!["approve", RUN, "go", "--as", "ann"],
    },
    Case {
        name: "the account alone",
        why: "an account of the operating system",
        by: "root",
        word: "approved",
        tries: || {
            let stage = Stage::waits();
            let by = Actor::identified("root", How::Local(account()));
            let said = stage.says(&approves("go", by), &Clock::System);
            (stage, said)
        },
    },
    Case {
        name: "another's key for a name",
        why: "belongs to `bob`, not to `ann`",
        by: "ann",
        word: "approved",
        tries: tries!["approve", RUN, "go", "--as", "ann", "--sign", "bob"],
    },
    Case {
        name: "the starter's own key for another name",
        why: "belongs to `sue`, not to `ann`",
        by: "ann",
        word: "approved",
        tries: tries!["approve", RUN, "go", "--as", "ann", "--sign", "sue"],
    },
    Case {
        name: "a key that nobody has",
        why: "is not listed on this site",
        by: "ann",
        word: "approved",
        tries: tries!["approve", RUN, "go", "--as", "ann", "--sign", "mal"],
    },
    Case {
        name: "somebody whom the site does not know",
        why: "belongs to `ann`, not to `nobody`",
        by: "nobody",
        word: "approved",
        tries: tries!["approve", RUN, "go", "--as", "nobody", "--sign", "ann"],
    },
    Case {
        name: "somebody in none of the groups",
        why: "not among those who may answer",
        by: "zoe",
        word: "approved",
        tries: tries!["approve", RUN, "go", "--sign", "zoe"],
    },
    Case {
        name: "somebody in none of the groups says no",
        why: "not among those who may answer",
        by: "zoe",
        word: "rejected",
        tries: tries!["approve", RUN, "go", "--reject", "--sign", "zoe"],
    },
    Case {
        name: "the author",
        why: EXCLUDED,
        by: "walt",
        word: "approved",
        tries: tries!["approve", RUN, "go", "--sign", "walt"],
    },
    Case {
        name: "a key that is over",
        why: "until 2020-01-01",
        by: "carl",
        word: "approved",
        tries: tries!["approve", RUN, "go", "--sign", "carl"],
    },
    Case {
        name: "a key that does not count yet",
        why: "from 2099-01-01",
        by: "cleo",
        word: "approved",
        tries: tries!["approve", RUN, "go", "--sign", "cleo"],
    },
    Case {
        name: "a key for other things",
        why: "listed for other namespaces",
        by: "fred",
        word: "approved",
        tries: tries!["approve", RUN, "go", "--sign", "fred"],
    },
    Case {
        name: "a key that two people have",
        why: "tells nobody apart",
        by: "ann",
        word: "approved",
        tries: || {
            let stage = Stage::new("");
            stage.desk.write("signers", &format!("bob {}\n", stage.key("ann")));
            stage.starts(RUN, &["--as", "sue"]);
            let said = stage.piton(&["approve", RUN, "go", "--as", "ann", "--sign", "ann"]);
            (stage, said)
        },
    },
    Case {
        name: "the starter passes the question over",
        why: EXCLUDED,
        by: "sue",
        word: "skip_requested",
        tries: tries!["skip", RUN, "go", "--reason", "no need", "--sign", "sue"],
    },
    Case {
        name: "somebody passes it over without a signature",
        why: UNSIGNED,
        by: "ann",
        word: "skip_requested",
        tries: tries!["skip", RUN, "go", "--reason", "no need", "--as", "ann"],
    },
    Case {
        name: "a name for another account where the account is asked for",
        why: "leave out `--as`",
        by: "ann",
        word: "approved",
        tries: || {
            let stage = Stage::new("");
            stage.book("job", "steps:\n  - { id: go, approval: { prompt: '{{ params.what }}', identity: local } }\n");
            stage.starts(RUN, &[]);
            let said = stage.piton(&["approve", RUN, "go", "--as", "ann"]);
            (stage, said)
        },
    },
    Case {
        name: "the starter, who started under another name, by the account",
        why: EXCLUDED,
        by: "page",
        word: "approved",
        tries: || {
            let stage = Stage::new("");
            stage.book(
                "job",
                "steps:\n  - { id: go, approval: { prompt: '{{ params.what }}', exclude: [run.starter] } }\n",
            );
            let (journal, starter) = (stage.journal(), Actor::identified("sue", How::Claimed(account())));
            let base = stage.desk.path("");
            let site = piton::plan::load_site(&base.join("site.yaml")).expect("a site");
            let plan = piton::plan::Plan::load(&base.join("job.yaml"), site, &[].into()).expect("a runbook");
            let options = Options::new(starter, base.join(".piton"));
            let run = RunId::new(RUN);
            stage.runtime.block_on(driver::start(plan, &journal, run, options)).expect("waits");
            let by = Actor::identified("page", How::Local(account()));
            let said = stage.says(&approves("go", by), &Clock::System);
            (stage, said)
        },
    },
];
