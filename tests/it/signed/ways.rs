//! The ways around: files that were changed, added or taken away, signatures of others, rules that somebody would rather not have.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::{Project, RULE, STEPS};

/// A signed project, something that is done to it, and what is said about that.
struct Way {
    name: &'static str,
    does: fn(&Project),
    why: &'static str,
}

const WAYS: &[Way] = &[
    Way {
        name: "the runbook is edited",
        does: |project| project.desk.runbook("job", &STEPS.replace("Sure?", "Sure!")),
        why: "`job.yaml` was changed since",
    },
    Way {
        name: "a comment is added",
        does: |project| {
            let text = fs::read_to_string(project.desk.path("job.yaml")).expect("is there");
            project.desk.write("job.yaml", &format!("{text}# nothing\n"));
        },
        why: "`job.yaml` was changed since",
    },
    Way {
        name: "an SQL file is edited",
        does: |project| project.desk.write("sql/look.sql", "DROP TABLE t"),
        why: "`sql/look.sql` was changed since",
    },
    Way {
        name: "a migration is edited",
        does: |project| project.desk.write("migrations/1_t.sql", "CREATE TABLE u (a INT);"),
        why: "`migrations/1_t.sql` was changed since",
    },
    Way {
        name: "a migration is added",
        does: |project| project.desk.write("migrations/2_u.sql", "CREATE TABLE u (a INT);"),
        why: "`migrations/2_u.sql` is not in the list",
    },
    Way {
        name: "a migration is taken away",
        does: |project| {
            project.desk.write("migrations/2_u.sql", "CREATE TABLE u (a INT);");
            project.sign("job.yaml", "ann");
            fs::remove_file(project.desk.path("migrations/2_u.sql")).expect("was there");
        },
        why: "`migrations/2_u.sql` is listed and not used any more",
    },
    Way {
        name: "a program is edited",
        does: |project| project.script("act.sh", "#!/bin/sh\ntouch slipped-in\n"),
        why: "`act.sh` was changed since",
    },
    Way {
        name: "a file that a program reads is edited",
        does: |project| project.desk.write("lib/one.sh", "touch slipped-in\n"),
        why: "`lib/one.sh` was changed since",
    },
    Way {
        name: "a file is added to those that a program may read",
        does: |project| project.desk.write("lib/two.sh", "touch slipped-in\n"),
        why: "`lib/two.sh` is not in the list",
    },
    Way {
        name: "the instructions are edited",
        does: |project| project.desk.write("by-hand.md", "Drop it."),
        why: "`by-hand.md` was changed since",
    },
    Way {
        name: "a runbook that a step runs is edited",
        does: |project| project.child("steps: [{ id: a, exec: { argv: ['true'] } }]\n"),
        why: "`sub/child.yaml` was changed since",
    },
    Way {
        name: "a file of a runbook that a step runs is edited",
        does: |project| project.desk.write("sub/sql/1_u.sql", "SELECT 2;"),
        why: "`sub/sql/1_u.sql` was changed since",
    },
    Way {
        name: "the signature is taken away",
        does: |project| fs::remove_file(project.desk.path("job.yaml.signed.sig")).expect("was there"),
        why: "there is no signature in `job.yaml.signed.sig`",
    },
    Way {
        name: "list and signature are taken away",
        does: |project| {
            fs::remove_file(project.desk.path("job.yaml.signed.sig")).expect("was there");
            fs::remove_file(project.desk.path("job.yaml.signed")).expect("was there");
        },
        why: "runbook `job` is not signed: there is no `job.yaml.signed`",
    },
    Way {
        name: "the list is mended to fit",
        does: |project| {
            let list = fs::read_to_string(project.desk.path("job.yaml.signed")).expect("a list");
            project.desk.write("sql/look.sql", "DROP TABLE t");
            project.piton(&["sign", "job.yaml"]).exits(0);
            let mended = fs::read_to_string(project.desk.path("job.yaml.signed")).expect("a list");
            assert_ne!(list, mended);
            // The old signature is put beside the new list.
            project.desk.write("job.yaml.signed", &list);
            project.sign_by_hand("job.yaml", "ann", "piton-file");
            project.desk.write("job.yaml.signed", &mended);
        },
        why: "it is of another list, or one of the two was changed",
    },
    Way {
        name: "the signature of another runbook is put in its place",
        does: |project| {
            project.desk.runbook("other", "steps: [{ id: a, exec: { argv: ['true'] } }]\n");
            project.sign("other.yaml", "ann");
            for ending in ["signed", "signed.sig"] {
                let (from, to) = (format!("other.yaml.{ending}"), format!("job.yaml.{ending}"));
                fs::copy(project.desk.path(&from), project.desk.path(&to)).expect("copied");
            }
        },
        why: "it is a signature of `other.yaml`, not of `job.yaml`",
    },
    Way {
        name: "a word that somebody signed is handed in as a signature of files",
        does: |project| project.sign_by_hand("job.yaml", "ann", "piton"),
        why: "the signature is for `piton`, not for `piton-file`",
    },
    Way {
        name: "the key is nobody's",
        does: |project| project.sign_by_hand("job.yaml", "mal", "piton-file"),
        why: "is not listed on this site",
    },
    Way {
        name: "the key is that of somebody who does not count",
        does: |project| project.sign_by_hand("job.yaml", "eve", "piton-file"),
        why: "are asked for, and there is `eve`",
    },
    Way {
        name: "the key has ended",
        does: |project| project.sign_by_hand("job.yaml", "old", "piton-file"),
        why: "is valid until 2020-01-01T00:00:00Z only",
    },
    Way {
        name: "the key is for something else",
        does: |project| project.sign_by_hand("job.yaml", "git", "piton-file"),
        why: "is listed for other namespaces than `piton-file`",
    },
    Way {
        name: "the key is that of two people",
        does: |project| {
            let allowed = fs::read_to_string(project.desk.path("allowed")).expect("a list");
            project.desk.write("allowed", &format!("{allowed}mal {}\n", project.key("ann")));
        },
        why: "tells nobody apart",
    },
    Way {
        name: "one letter of the signature is changed",
        does: |project| {
            let text = fs::read_to_string(project.desk.path("job.yaml.signed.sig")).expect("a signature");
            let lines: Vec<&str> = text.lines().collect();
            let line = lines[lines.len() - 2];
            let other = if line.starts_with('A') { "B" } else { "A" };
            project.desk.write("job.yaml.signed.sig", &text.replace(line, &format!("{other}{}", &line[1..])));
        },
        why: "no signature of runbook `job` counts",
    },
    Way {
        name: "a program is planted that was not there",
        does: |project| {
            project.desk.runbook("job", &STEPS.replace("./act.sh", "./later.sh"));
            let none = project.piton(&["sign", "job.yaml", "--sign", "ann"]).exits(3);
            assert!(none.err.contains("program `later.sh` is not there, so no signature can cover it"), "{}", none.err);
            fs::rename(project.desk.path("act.sh"), project.desk.path("later.sh")).expect("moved");
            project.sign("job.yaml", "ann");
            fs::remove_file(project.desk.path("later.sh")).expect("was there");
        },
        why: "program `later.sh` is not there, so no signature can cover it",
    },
];

#[test]
fn every_way_around_a_signed_runbook_is_refused() {
    assert!(WAYS.len() >= 20);
    for way in WAYS {
        let project = Project::signed();
        (way.does)(&project);
        let said = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| project.is_refused(way.why, &[])));
        assert!(said.is_ok(), "{}", way.name);
    }
}

/// What parameters name is as good as what the runbook names.
#[test]
fn a_parameter_cannot_bring_in_what_was_not_signed() {
    let project = Project::new(RULE);
    let steps = |uses: &str| {
        format!(
            "params: {{ map: {{ type: string, default: migrations }} }}
steps: [{{ id: a, {uses}db.migrate: {{ database: app, folder: '{{{{ params.map }}}}' }} }}]\n"
        )
    };
    fs::create_dir(project.desk.path("theirs")).expect("made");
    project.desk.write("theirs/1_x.sql", "CREATE TABLE x (a INT);");
    project.desk.runbook("job", &steps(""));
    project.sign("job.yaml", "ann");
    project.piton(&["check", "job.yaml", "--site", "site.yaml"]).exits(0);
    let refused = project.starts(&["--param", "map=theirs"]).exits(3);
    assert!(refused.err.contains("`theirs/1_x.sql` is not in the list"), "{}", refused.err);
    let refused = project.starts(&[]).exits(3);
    assert!(refused.err.contains("`migrations/1_t.sql` is not in the list"), "{}", refused.err);
    // What is listed under `uses` may be chosen.
    project.desk.runbook("job", &steps("uses: ['migrations/*.sql'], "));
    project.sign("job.yaml", "ann");
    project.starts(&["--param", "map=theirs"]).exits(3);
    project.starts(&[]).exits(0);
}

/// What only the run can name is refused in the run, unless it was listed.
#[test]
fn the_run_cannot_bring_in_what_was_not_signed() {
    let project = Project::new(RULE);
    let steps = |uses: &str| {
        format!(
            "steps:
  - {{ id: name, exec: {{ argv: [echo, migrations], outputs: {{ x: {{ stdout: true }} }} }} }}
  - {{ id: tables, needs: [name], {uses}db.migrate: {{ database: app, folder: '{{{{ steps.name.outputs.x }}}}' }}, on_failure: continue }}
  - {{ id: act, needs: [name], exec: {{ argv: ['./{{{{ steps.name.outputs.x }}}}/act.sh'] }}, on_failure: continue }}
  - {{ id: sub, needs: [name], runbook: {{ path: '{{{{ steps.name.outputs.x }}}}/child.yaml' }} }}\n"
        )
    };
    project.script("migrations/act.sh", "#!/bin/sh\ntouch acted\n");
    project.desk.write(
        "migrations/child.yaml",
        "apiVersion: piton/v1\nkind: Runbook\nname: child\nsteps: [{ id: a, exec: { argv: ['true'] } }]\n",
    );
    project.desk.runbook("job", &steps(""));
    project.sign("job.yaml", "ann");
    project.starts(&[]).exits(4);
    let show = project.piton(&["show", "r", "--json"]).exits(0).json();
    let error = |step: usize| show["steps"][step]["error"].as_str().unwrap_or_default().to_owned();
    assert!(error(1).contains("`migrations/1_t.sql` is covered by no signature"), "{show:#}");
    assert!(error(2).contains("`migrations/act.sh` is covered by no signature"), "{show:#}");
    assert!(error(3).contains("`migrations/child.yaml` is not in the list"), "{show:#}");
    assert!(!project.desk.path("acted").exists());
    project.piton(&["show", "r.sub"]).exits(2);

    project.desk.runbook("job", &steps("uses: ['migrations/*'], "));
    project.sign("job.yaml", "ann");
    project.piton(&["run", "job.yaml", "--site", "site.yaml", "--run-id", "r2"]).exits(0);
    assert!(project.desk.path("acted").exists());
}

/// A runbook that a step runs may have a signature of its own.
#[test]
fn a_runbook_that_a_step_runs_may_be_signed_by_itself() {
    let project = Project::new(RULE);
    project.desk.runbook(
        "job",
        "steps:
  - { id: name, exec: { argv: [echo, sub], outputs: { x: { stdout: true } } } }
  - { id: sub, needs: [name], runbook: { path: '{{ steps.name.outputs.x }}/child.yaml' } }\n",
    );
    project.sign("job.yaml", "ann");
    project.starts(&[]).exits(4);
    project.sign("sub/child.yaml", "bob");
    project.piton(&["run", "job.yaml", "--site", "site.yaml", "--run-id", "r2"]).exits(0);
    let child = project.piton(&["show", "r2.sub", "--json"]).exits(0).json();
    assert_eq!(child["signed"]["runbook"][0]["name"], "bob");
}

/// The files may change once the run has started: texts are kept, all else is compared.
#[test]
fn what_is_changed_after_the_start_does_not_slip_in() {
    let project = Project::signed();
    project.starts(&[]).exits(6);
    project.desk.write("sql/look.sql", "DROP TABLE t");
    project.script("act.sh", "#!/bin/sh\ntouch slipped-in\n");
    project.child("steps: [{ id: a, exec: { argv: [touch, slipped-in] } }]\n");
    project.piton(&["approve", "r", "go"]).exits(0);
    project.piton(&["resume", "r"]).exits(4);
    let show = project.piton(&["show", "r"]).exits(0).out;
    assert!(show.contains("`act.sh` was changed since"), "{show}");
    assert!(!project.desk.path("slipped-in").exists());
}

/// Amendments go by the rule before them.
#[test]
fn an_amendment_must_be_signed_by_the_rule_before_it() {
    let project = Project::signed();
    project.starts(&[]).exits(6);
    project.desk.runbook("job", &STEPS.replace("./act.sh", "touch, theirs"));
    let amend = |more: &[&str]| {
        let base = ["resume", "r", "--runbook", "job.yaml", "--reason", "better", "--yes"];
        project.piton(&[&base, more].concat())
    };
    let refused = amend(&[]).exits(3);
    assert!(refused.err.contains("`job.yaml` was changed since"), "{}", refused.err);
    let audit = project.piton(&["audit", "r"]).exits(0).out;
    assert!(audit.contains("REFUSED") && audit.contains("`job.yaml` was changed since"), "{audit}");
    project.sign("job.yaml", "mal");
    assert!(amend(&[]).exits(3).err.contains("is not listed on this site"));

    // A site without the rule does not take it away, and one with another key for `ann` does not let that sign.
    project.site("free.yaml", "");
    assert!(amend(&["--site", "free.yaml"]).exits(3).err.contains("is not listed on this site"));
    project.sign("job.yaml", "ann");
    let site = amend(&["--site", "free.yaml"]).exits(3);
    assert!(site.err.contains("site `here` is not signed"), "{}", site.err);
    let stolen = fs::read_to_string(project.desk.path("site.yaml")).expect("a site");
    project.desk.write("free.yaml", &stolen.replace(&project.key("ann"), &project.key("mal")));
    project.sign("free.yaml", "mal");
    project.sign("job.yaml", "mal");
    let stolen = amend(&["--site", "free.yaml"]).exits(3).err;
    assert!(stolen.contains("the runbook is not signed as the site asks for it"), "{stolen}");

    // Signed by those who may, it goes on: with the new runbook, and then with a new site.
    project.sign("job.yaml", "ann");
    amend(&[]).exits(6);
    project.site("free.yaml", "vars: { x: 1 }\n");
    project.sign("free.yaml", "bob");
    amend(&["--site", "free.yaml"]).exits(6);
    let audit = project.piton(&["audit", "r"]).exits(0).out;
    assert!(audit.contains("new site, by the people before it signed by bob"), "{audit}");
    project.piton(&["audit", "verify", "r"]).exits(0);
    // From here on nobody asks for a signature.
    project.desk.runbook("job", &STEPS.replace("./act.sh", "touch, acted"));
    amend(&[]).exits(6);
}

/// What is only done again, or gone on with, was judged when it came in.
#[test]
fn a_run_goes_on_by_what_it_holds() {
    let project = Project::signed();
    project.desk.write("lib/one.sh", "test -f mended && touch acted\n");
    project.sign("job.yaml", "ann");
    project.starts(&[]).exits(6);
    project.piton(&["approve", "r", "go"]).exits(0);
    project.piton(&["resume", "r"]).exits(4);
    project.desk.write("mended", "");
    for file in ["job.yaml.signed", "job.yaml.signed.sig"] {
        fs::remove_file(project.desk.path(file)).expect("was there");
    }
    let again = ["resume", "r", "--redo", "sql", "--reason", "look again", "--yes"];
    project.piton(&again).exits(6);
    assert!(project.desk.path("acted").exists());
    project.piton(&["audit", "verify", "r"]).exits(0);
}

#[test]
fn sites_must_be_signed_where_the_store_says_so() {
    let project = Project::new(RULE);
    project.sign("job.yaml", "ann");
    project.desk.write(".piton/site-signers", &format!("ops {}\n", project.key("ops")));
    let site_is_refused = |why: &str| {
        let said = project.piton(&["check", "site.yaml"]).exits(3);
        assert!(said.err.contains(why), "{}", said.err);
        for command in [&["plan", "job.yaml", "--offline"][..], &["run", "job.yaml", "--run-id", "r"]] {
            let said = project.piton(&[command, &["--site", "site.yaml"]].concat()).exits(3);
            assert!(said.err.contains(why), "{command:?}: {}", said.err);
        }
    };
    site_is_refused("site `here` is not signed: there is no `site.yaml.signed`");
    project.sign("site.yaml", "ann");
    site_is_refused("is not listed");
    project.sign("site.yaml", "ops");
    project.starts(&[]).exits(6);
    let show = project.piton(&["show", "r"]).exits(0).out;
    assert!(show.contains("site signed by ops (SHA256:") && show.contains("; 2 files"), "{show}");
    project.goes_through();
    project.piton(&["audit", "verify", "--all"]).exits(0);

    // No site at all would be a way around the rule for runbooks.
    project.desk.runbook("free", "steps: [{ id: a, exec: { argv: [touch, theirs] } }]\n");
    let none = project.piton(&["run", "free.yaml"]).exits(3);
    assert!(none.err.contains("sites must be signed here") && none.err.contains("none is given"), "{}", none.err);
    // So would be one without the rule, other keys, or another file of signers.
    project.site("free-site.yaml", "");
    project.piton(&["run", "free.yaml", "--site", "free-site.yaml"]).exits(3);
    for ending in ["signed", "signed.sig"] {
        let (from, to) = (format!("site.yaml.{ending}"), format!("free-site.yaml.{ending}"));
        fs::copy(project.desk.path(&from), project.desk.path(&to)).expect("copied");
    }
    let swapped = project.piton(&["run", "free.yaml", "--site", "free-site.yaml"]).exits(3);
    assert!(swapped.err.contains("it is a signature of `site.yaml`, not of `free-site.yaml`"), "{}", swapped.err);
    project.site("site.yaml", "");
    site_is_refused("`site.yaml` was changed since");
    project.site("site.yaml", RULE);
    project.desk.write("allowed", "");
    site_is_refused("`allowed` was changed since");
    assert!(!project.desk.path("theirs").exists());
}

#[test]
fn every_list_of_site_signers_binds() {
    let project = Project::new("");
    project.desk.write("of-ops", &format!("ops {}\n", project.key("ops")));
    project.desk.write("of-ann", &format!("ann {}\n", project.key("ann")));
    let with = |lists: &[&str]| {
        let mut command = project.desk.command(&["run", "job.yaml", "--site", "site.yaml"]);
        if let Some(option) = lists.first() {
            command.args(["--site-signers", option]);
        }
        if let Some(variable) = lists.get(1) {
            command.env("PITON_SITE_SIGNERS", project.desk.path(variable));
        }
        super::Said::from(command.output().expect("starts"))
    };
    with(&[]).exits(6);
    assert!(with(&["of-ops"]).exits(3).err.contains("asked for by `of-ops`"));
    project.sign("site.yaml", "ops");
    with(&["of-ops"]).exits(6);
    // An option does not take away what the environment asks for.
    assert!(with(&["of-ops", "of-ann"]).exits(3).err.contains("of-ann"));
    project.sign("site.yaml", "ann");
    with(&["of-ops", "of-ann"]).exits(6);
    assert!(with(&["nowhere"]).exits(3).err.contains("the signers of sites in `nowhere` cannot be read"));
    project.desk.write("broken", "*@host cert-authority ssh-ed25519 AAAA\n");
    assert!(with(&["broken"]).exits(3).err.contains("`broken`: line 1"));
    // What others can change says nothing about whom to trust.
    fs::set_permissions(project.desk.path("of-ops"), fs::Permissions::from_mode(0o666)).expect("is ours");
    let open = with(&["of-ops"]).exits(3);
    assert!(
        open.err.contains("can be changed by others (mode 0666)") && open.err.contains("chmod go-w"),
        "{}",
        open.err
    );
}

#[test]
fn an_amendment_cannot_bring_a_site_that_the_store_would_not_take() {
    let project = Project::new("");
    project.desk.write(".piton/site-signers", &format!("ops {}\n", project.key("ops")));
    project.sign("site.yaml", "ops");
    project.starts(&[]).exits(6);
    project.site("new.yaml", "vars: { x: 1 }\n");
    let amend = ["resume", "r", "--runbook", "job.yaml", "--site", "new.yaml", "--reason", "moved", "--yes"];
    let refused = project.piton(&amend).exits(3);
    assert!(refused.err.contains("there is no `new.yaml.signed`"), "{}", refused.err);
    project.sign("new.yaml", "ops");
    project.piton(&amend).exits(6);
    project.piton(&["audit", "verify", "r"]).exits(0);
}

/// Whoever writes the store cannot claim a signature: the audit judges again.
#[test]
fn a_forged_claim_of_signatures_is_found() {
    let project = Project::signed();
    project.starts(&[]).exits(6);
    let store = project.desk.path(".piton/piton.db").display().to_string();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (journal, run) = runtime.block_on(async {
        let journal = piton::journal::Journal::open(&store).await.expect("opens");
        (journal, piton::ids::RunId::new("r"))
    });
    let first = runtime.block_on(journal.read(&run, 1)).expect("is read").remove(0).event;
    let forge = |name: &str, change: &dyn Fn(&mut piton::event::Signed)| {
        let piton::event::Event::RunStarted { signed, .. } = &first else { panic!("it is a start") };
        let mut signed = signed.clone().expect("is signed");
        change(&mut signed);
        let run = piton::ids::RunId::new(name);
        let event = first.clone().with_signatures(Some(signed));
        let at = jiff::Timestamp::now();
        runtime.block_on(journal.create(&run, at, &event, &[])).expect("is written");
        project.piton(&["audit", "verify", name]).exits(1).err
    };
    let other = forge("name", &|signed| signed.runbook.as_mut().expect("is there").by[0].name = "bob".into());
    assert!(other.contains("record 1") && other.contains("is not that of `bob`"), "{other}");
    let list = forge("list", &|signed| {
        let files = signed.runbook.as_mut().expect("is there");
        files.list = files.list.replacen('a', "b", 1);
    });
    assert!(list.contains("the runbook is not what was signed"), "{list}");
    let none = forge("none", &|signed| signed.runbook = None);
    assert!(none.contains("the runbook is not signed as the site asks for it"), "{none}");
    let key = forge("key", &|signed| signed.runbook.as_mut().expect("is there").by[0].fingerprint = "SHA256:x".into());
    assert!(key.contains("is not that of `ann`"), "{key}");
}
