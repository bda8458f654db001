//! Signed runbooks and sites: every way around the rules that we could think of is refused, and says what it was.
//!
//! Keys are made by `ssh-keygen`, and lists are signed and verified by it as well as by the program.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;

use super::cli::{Desk, Said};
use crate::support::keys::keygen;

mod ways;

/// People with a key; `mal` is on no list, the key of `old` has ended, that of `git` is for something else.
const KEYS: [&str; 7] = ["ann", "bob", "ops", "mal", "old", "git", "eve"];

const SITE: &str =
    "apiVersion: piton/v1\nkind: Site\nname: here\ndatabases: { app: { url: 'sqlite:app.db' } }\nsigners: allowed\n";

/// Runbooks need a signature of `ann` or `bob`.
const RULE: &str = "runbooks: { signed: { groups: [reviewers] } }\n";

/// A runbook that uses a file of every kind.
const STEPS: &str = "steps:
  - { id: go, approval: { prompt: 'Sure?' } }
  - { id: sql, needs: [go], db.query: { database: app, sql: sql/look.sql } }
  - { id: tables, needs: [go], db.migrate: { database: app, folder: migrations } }
  - { id: script, needs: [go], uses: [lib/*.sh], exec: { argv: [./act.sh] }, idempotent: yes }
  - { id: child, needs: [tables], runbook: { path: sub/child.yaml } }
  - { id: hand, needs: [child], manual: { instructions: by-hand.md } }
";

/// A project with a site, a runbook and people, in which everything is as it should be.
pub struct Project {
    pub desk: Desk,
}

impl Project {
    /// `rule`: what the site says besides people.
    pub fn new(rule: &str) -> Self {
        let project = Self { desk: Desk::new() };
        let desk = &project.desk;
        for name in KEYS {
            keygen(&desk.path(""), &["-q", "-t", "ed25519", "-N", "", "-C", name, "-f", name], "");
        }
        for folder in ["sql", "migrations", "lib", "sub", "sub/sql"] {
            std::fs::create_dir(desk.path(folder)).expect("made");
        }
        desk.write(
            "allowed",
            &format!(
                "old valid-before=\"20200101Z\" {}\ngit namespaces=\"git\" {}\n",
                project.key("old"),
                project.key("git")
            ),
        );
        desk.write("app.db", "");
        desk.write("sql/look.sql", "SELECT 1 AS one");
        desk.write("migrations/1_t.sql", "CREATE TABLE t (a INT);");
        desk.write("lib/one.sh", "touch acted\n");
        desk.write("by-hand.md", "Look at it.");
        project.script("act.sh", "#!/bin/sh\n. ./lib/one.sh\n");
        desk.write("sub/sql/1_u.sql", "SELECT 1;");
        project.child("steps: [{ id: a, db.query: { database: app, sql: sql/1_u.sql } }]\n");
        project.site("site.yaml", rule);
        desk.runbook("job", STEPS);
        project
    }

    /// The same, with a runbook that `ann` signed.
    pub fn signed() -> Self {
        let project = Self::new(RULE);
        project.sign("job.yaml", "ann");
        project
    }

    pub fn key(&self, name: &str) -> String {
        std::fs::read_to_string(self.desk.path(&format!("{name}.pub"))).expect("a key").trim().to_owned()
    }

    pub fn script(&self, name: &str, text: &str) {
        self.desk.write(name, text);
        std::fs::set_permissions(self.desk.path(name), std::fs::Permissions::from_mode(0o755)).expect("is ours");
    }

    pub fn child(&self, steps: &str) {
        self.desk.write("sub/child.yaml", &format!("apiVersion: piton/v1\nkind: Runbook\nname: child\n{steps}"));
    }

    pub fn site(&self, file: &str, more: &str) {
        let person =
            |name: &str, groups: &str| format!("  {name}: {{ groups: [{groups}], keys: ['{}'] }}\n", self.key(name));
        let people = [
            person("ann", "reviewers"),
            person("bob", "reviewers"),
            person("eve", "operators"),
            "  old: { groups: [reviewers] }\n  git: { groups: [reviewers] }\n".to_owned(),
        ];
        self.desk.write(file, &format!("{SITE}{more}people:\n{}", people.concat()));
    }

    pub fn piton(&self, args: &[&str]) -> Said {
        self.desk.piton(args)
    }

    pub fn sign(&self, file: &str, key: &str) -> Said {
        self.piton(&["sign", file, "--sign", key]).exits(0)
    }

    /// Signs a list by hand, with this key and in this namespace.
    pub fn sign_by_hand(&self, file: &str, key: &str, namespace: &str) {
        let list = format!("{file}.signed");
        // It asks before it writes over a signature.
        let _ = std::fs::remove_file(self.desk.path(&format!("{list}.sig")));
        keygen(&self.desk.path(""), &["-q", "-Y", "sign", "-n", namespace, "-f", key, &list], "");
    }

    pub fn starts(&self, more: &[&str]) -> Said {
        self.piton(&[&["run", "job.yaml", "--site", "site.yaml", "--run-id", "r"], more].concat())
    }

    /// Every command that goes by a runbook refuses it for this reason, and nothing is recorded.
    #[track_caller]
    pub fn is_refused(&self, why: &str, more: &[&str]) {
        for command in [
            &["check", "job.yaml", "--site", "site.yaml"][..],
            &["plan", "job.yaml", "--offline", "--site", "site.yaml"],
            &["run", "job.yaml", "--site", "site.yaml", "--run-id", "r"],
        ] {
            let said = self.piton(&[command, if command[0] == "check" { &[] } else { more }].concat()).exits(3);
            assert!(said.err.contains(why), "{command:?}: {}", said.err);
        }
        self.desk.piton(&["show", "r"]).exits(2);
    }

    /// The run goes to its end.
    pub fn goes_through(&self) {
        self.piton(&["approve", "r", "go"]).exits(0);
        self.piton(&["resume", "r"]).exits(6);
        self.piton(&["answer", "r", "hand"]).exits(0);
        self.piton(&["resume", "r"]).exits(0);
    }
}

#[test]
fn what_was_signed_runs_and_says_who_signed_it() {
    let project = Project::signed();
    let check = project.piton(&["check", "job.yaml", "--site", "site.yaml"]).exits(0);
    assert!(check.out.contains("signed by ann"), "{}", check.out);
    let plan = project.piton(&["plan", "job.yaml", "--offline", "--site", "site.yaml"]).exits(0);
    assert!(plan.out.contains("runbook signed by ann (SHA256:"), "{}", plan.out);
    project.starts(&[]).exits(6);
    project.goes_through();
    assert!(project.desk.path("acted").exists());
    let print = keygen(&project.desk.path(""), &["-l", "-f", "ann.pub"], "");
    let print = print.split(' ').nth(1).expect("a fingerprint").to_owned();
    for command in [&["show", "r"][..], &["audit", "r"]] {
        let said = project.piton(command).exits(0).out;
        assert!(said.contains(&format!("runbook signed by ann ({print}); 8 files")), "{command:?}: {said}");
    }
    let show = project.piton(&["show", "r", "--json"]).exits(0).json();
    assert_eq!(show["signed"]["runbook"][0]["name"], "ann", "{show:#}");
    // The run that a step started is covered by the same list.
    let child = project.piton(&["show", "r.child", "--json"]).exits(0).json();
    assert_eq!(child["signed"]["runbook"][0]["name"], "ann", "{child:#}");
    let verified = project.piton(&["audit", "verify", "--all"]).exits(0).out;
    assert_eq!(verified.matches("signed lists of what it went by: 1").count(), 2, "{verified}");
    project.piton(&["report", "r", "--to", "page"]).exits(0);
    let page = std::fs::read_to_string(project.desk.path("page/report.html")).expect("a page");
    assert!(page.contains("runbook signed by ann"), "{page}");
    project.piton(&["audit", "verify", "--bundle", "page/bundle.jsonl", "--key", ".piton/keys/seal.pub"]).exits(0);
    // By the keys of somebody else it is nobody's.
    project.desk.write("others", &format!("bob {}\n", project.key("bob")));
    let others = project.piton(&["audit", "verify", "r", "--signers", "others"]).exits(1);
    assert!(others.err.contains("is not that of `ann`"), "{}", others.err);
}

#[test]
fn standard_tools_sign_and_verify_as_well() {
    let project = Project::new(RULE);
    let told = project.piton(&["sign", "job.yaml"]).exits(0).out;
    assert!(told.contains("ssh-keygen -Y sign -n piton-file -f KEY job.yaml.signed"), "{told}");
    project.is_refused("there is no signature in `job.yaml.signed.sig`", &[]);
    project.sign_by_hand("job.yaml", "bob", "piton-file");
    project.starts(&[]).exits(6);
    let folder = project.desk.path("");
    project.sign("job.yaml", "ann");
    let sums = Command::new("sha256sum").args(["--strict", "-c", "job.yaml.signed"]).current_dir(&folder).output();
    assert!(sums.expect("is there").status.success());
    std::fs::remove_file(project.desk.path("job.yaml.signed.sig")).expect("was there");
    project.sign("job.yaml", "ann");
    project.desk.write("allowed-signers", &format!("ann {}\n", project.key("ann")));
    let list = std::fs::read_to_string(project.desk.path("job.yaml.signed")).expect("a list");
    let verify =
        ["-Y", "verify", "-n", "piton-file", "-I", "ann", "-f", "allowed-signers", "-s", "job.yaml.signed.sig"];
    keygen(&folder, &verify, &list);
}

#[test]
fn a_list_is_signed_by_as_many_people_as_the_site_asks_for() {
    let project = Project::new("runbooks: { signed: { groups: [reviewers], people: [eve], quorum: 2 } }\n");
    project.sign("job.yaml", "ann");
    project.is_refused("2 signature(s) of `ann`, `bob`, `eve`, `git`, `old` are asked for, and there is `ann`", &[]);
    // The same person twice is one.
    project.sign("job.yaml", "ann");
    project.is_refused("and there is `ann`", &[]);
    project.sign("job.yaml", "mal");
    project.is_refused("and there is `ann`", &[]);
    let both = project.sign("job.yaml", "eve");
    assert_eq!(both.out.matches("SHA256:").count(), 3, "{}", both.out);
    project.starts(&[]).exits(6);
    let show = project.piton(&["show", "r"]).exits(0).out;
    assert!(show.contains("signed by ann (") && show.contains(", eve (") && !show.contains("mal"), "{show}");
    // What is signed anew after a change is signed by those who sign it then.
    project.desk.runbook("job", &STEPS.replace("Sure?", "Really?"));
    project.sign("job.yaml", "eve");
    let anew = project.piton(&["check", "job.yaml", "--site", "site.yaml"]).exits(3);
    assert!(anew.err.contains("and there is `eve`"), "{}", anew.err);
}

#[test]
fn where_nobody_asks_a_signature_is_shown_and_no_reason_to_refuse() {
    let project = Project::new("");
    project.piton(&["check", "job.yaml", "--site", "site.yaml"]).exits(0);
    project.sign("job.yaml", "ann");
    let fits = project.piton(&["check", "job.yaml"]).exits(0).out;
    assert!(fits.contains("its list of files fits, with 1 signature(s)"), "{fits}");
    let by = project.piton(&["check", "job.yaml", "--site", "site.yaml", "--json"]).exits(0).json();
    assert_eq!(by["files"][0]["signed"]["what"], "signed by ann");
    project.desk.write("sql/look.sql", "SELECT 2 AS one");
    let stale = project.piton(&["check", "job.yaml", "--site", "site.yaml"]).exits(0);
    assert!(
        stale
            .err
            .contains("warning: the signature of runbook `job` does not hold any more: `sql/look.sql` was changed"),
        "{}",
        stale.err
    );
    let run = project.starts(&[]).exits(6);
    assert!(run.err.contains("`sql/look.sql` was changed since"), "{}", run.err);
    let show = project.piton(&["show", "r", "--json"]).exits(0).json();
    assert!(show["signed"].is_null(), "{show:#}");
}

/// Also on mocked actions the rules of the site hold, with people who are made up.
#[test]
fn a_runbook_can_be_tried_out_before_it_is_signed() {
    let project = Project::new(RULE);
    project.piton(&["test", "job.yaml", "--site", "site.yaml", "--sweep"]).exits(0);
}

#[test]
fn a_link_is_followed_and_what_it_points_to_counts() {
    let project = Project::signed();
    project.desk.write("sql/other.sql", "SELECT 2 AS one");
    std::fs::remove_file(project.desk.path("sql/look.sql")).expect("was there");
    symlink("other.sql", project.desk.path("sql/look.sql")).expect("linked");
    project.is_refused("`sql/look.sql` was changed since", &[]);
    project.desk.write("sql/other.sql", "SELECT 1 AS one");
    project.starts(&[]).exits(6);
    // A runbook under another name is another one.
    symlink("job.yaml", project.desk.path("alias.yaml")).expect("linked");
    let alias = project.piton(&["run", "alias.yaml", "--site", "site.yaml"]).exits(3);
    assert!(alias.err.contains("there is no `alias.yaml.signed`"), "{}", alias.err);
    for ending in ["signed", "signed.sig"] {
        symlink(format!("job.yaml.{ending}"), project.desk.path(&format!("alias.yaml.{ending}"))).expect("linked");
    }
    let alias = project.piton(&["run", "alias.yaml", "--site", "site.yaml"]).exits(3);
    assert!(alias.err.contains("it is a signature of `job.yaml`, not of `alias.yaml`"), "{}", alias.err);
}
