//! `piton audit prune` from outside: what a policy takes, what it leaves and says, what every other command says of it then, and
//! what a kill in the middle leaves.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value as Json;

use super::cli::Desk;
use super::journal_drivers::Post;

const JOB: &str = "params: { who: { type: string, default: 'Erika Mustermann' } }
steps:
  - { id: say, exec: { argv: [echo, 'hello {{ params.who }}'] } }
  - { id: hand, needs: [say], manual: { instructions: 'Click', form: { name: { type: string } }, evidence: required } }
  - { id: last, needs: [hand], exec: { argv: ['true'] } }
";

/// A run that is over, with a name in its parameters, its form, its evidence and in what its command said.
fn over(post: &Post, run: &str) {
    post.desk.runbook("job", JOB);
    post.desk.write("shot.txt", &format!("a picture of Erika Mustermann in {run}"));
    post.piton(&["run", "job.yaml", "--run-id", run, "--as", "ann"]).exits(6);
    post.piton(&["answer", run, "hand", "--set", "name=Erika Mustermann", "--evidence", "shot.txt", "--as", "ann"])
        .exits(0);
    post.piton(&["resume", run]).exits(0);
    settle(&post.desk);
}

/// Lets every file of evidence be an hour old.
fn settle(desk: &Desk) {
    for file in std::fs::read_dir(desk.path(".piton/evidence")).expect("is there").flatten() {
        let hour_ago = std::time::SystemTime::now() - Duration::from_hours(1);
        std::fs::File::open(file.path()).expect("opens").set_modified(hour_ago).expect("is ours");
    }
}

fn evidence(desk: &Desk) -> usize {
    std::fs::read_dir(desk.path(".piton/evidence")).map_or(0, Iterator::count)
}

const PRUNE: &[&str] = &["audit", "prune", "--yes", "--reason", "the policy says so", "--as", "bob"];

fn prune(post: &Post, more: &[&str]) -> String {
    post.piton(&[PRUNE, more].concat()).exits(0).out
}

/// Whether a file of the store holds the text.
fn holds(desk: &Desk, text: &str) -> bool {
    let folder = desk.path(".piton");
    let files = std::fs::read_dir(folder).expect("is there").flatten().filter(|entry| entry.path().is_file());
    files
        .map(|file| std::fs::read(file.path()).expect("can be read"))
        .any(|bytes| bytes.windows(text.len()).any(|some| some == text.as_bytes()))
}

/// Commands that would need what was pruned say so.
fn is_refused(post: &Post, by: &str) {
    for command in [
        &["report", "r-1"][..],
        &["resume", "r-1"],
        &["rollback", "r-1", "--reason", "x", "--yes"],
        &["logs", "r-1"],
        &["diff", "r-1"],
        &["audit", "export", "r-1", "--format", "csv"],
        &["approve", "r-1", "hand"],
        &["cancel", "r-1"],
    ] {
        let refused = post.piton(command).exits(2);
        assert!(refused.err.contains(by) && refused.err.contains("the policy says so"), "{command:?}: {}", refused.err);
    }
}

#[test]
fn of_a_pruned_run_every_command_says_what_was_pruned_by_whom() {
    for post in Post::each("prune_run") {
        over(&post, "r-1");
        over(&post, "r-2");
        let head = post.piton(&["audit", "head", "r-1"]).exits(0).out;
        let plan = post.piton(&["audit", "prune", "--run", "r-1", "--plan"]).exits(0).out;
        assert!(plan.contains("to be pruned, for good:\n  r-1  "), "{plan}");
        let unsure = post.piton(&["audit", "prune", "--run", "r-1", "--reason", "x"]).exits(2);
        assert!(unsure.err.contains("add `--yes`"), "{}", unsure.err);
        assert!(prune(&post, &["--run", "r-1"]).contains("pruned all but its summary of run r-1 (tombstone 1)"));

        let by = "was pruned by bob";
        let runs = post.piton(&["runs"]).exits(0).out;
        assert!(runs.contains("; all but its summary was pruned by bob on "), "{runs}");
        let listed = post.piton(&["runs", "--json"]).exits(0).json();
        let told: Vec<&Json> = listed.as_array().expect("rows").iter().map(|row| &row["pruned"][0]["by"]).collect();
        assert_eq!(told, [&Json::Null, &"bob".into()]);
        for command in [&["show", "r-1"][..], &["audit", "r-1"]] {
            let said = post.piton(command).exits(0).out;
            for part in ["run r-1  job 1.0.0 on", "started by ann", by, "the policy says so", "(tombstone 1)"] {
                assert!(said.contains(part), "{part} in {said}");
            }
            assert!(!said.contains("Mustermann"), "{said}");
        }
        let shown = post.piton(&["show", "r-1", "--json"]).exits(0).json();
        assert_eq!(
            (shown["outcome"].as_str(), shown["pruned"][0]["reason"].as_str()),
            (Some("succeeded"), Some("the policy says so"))
        );
        let left = post.piton(&["audit", "r-1", "--json"]).exits(0).json_lines();
        assert_eq!((left.len(), &left[0]["pruned"], left[0]["kind"].as_str()), (1, &true.into(), Some("run_finished")));
        is_refused(&post, by);
        post.piton(&["run", "job.yaml", "--run-id", "r-1"]).exits(2);
        for command in [&["approvals"][..], &["locks"], &["milestones"]] {
            post.piton(command).exits(0);
        }

        let verified = post.piton(&["audit", "verify", "--all"]).exits(0).out;
        assert!(verified.contains("run r-1: 1 records, all as they were left") && verified.contains(by), "{verified}");
        assert!(verified.contains("1 tombstones, sealed"), "{verified}");
        assert_eq!(post.piton(&["audit", "head", "r-1"]).exits(0).out, head, "it came as far as it came");
        let stones = post.piton(&["audit", "tombstones", "--json"]).exits(0).json_lines();
        assert_eq!(stones[0]["text"]["by"]["name"], "bob");
        let stones = post.piton(&["audit", "tombstones"]).exits(0).out;
        assert!(stones.contains("run r-1: all but its summary, by bob: the policy says so [--run r-1]"), "{stones}");
        // The bundle holds no more than that, and proves it without the store.
        post.piton(&["audit", "export", "r-1", "--to", "r-1.jsonl"]).exits(0);
        let bundle = post.piton(&["audit", "verify", "--bundle", "r-1.jsonl"]).exits(0).out;
        assert!(bundle.contains(by), "{bundle}");

        assert_eq!(evidence(&post.desk), 1, "that of the other run");
        prune(&post, &["--run", "r-2", "--contents-only"]);
        assert_eq!(evidence(&post.desk), 0);
        if post.database().is_none() {
            assert!(!holds(&post.desk, "Mustermann"));
        }
        post.verify("r-2");
    }
}

#[test]
fn texts_and_files_go_and_the_run_stays_as_it_was() {
    for post in Post::each("prune_texts") {
        over(&post, "r");
        let before =
            (post.piton(&["show", "r", "--json"]).exits(0).json(), post.piton(&["audit", "r", "--json"]).exits(0).out);
        assert!(post.piton(&["logs", "r"]).exits(0).out.contains("hello Erika Mustermann"));
        prune(&post, &["--older-than", "1ms", "--transcripts-only"]);
        let logs = post.piton(&["logs", "r"]).exits(0);
        assert!(logs.err.contains("what its commands said was pruned by bob") && logs.out.is_empty(), "{}", logs.err);
        let line = &post.piton(&["logs", "r", "--json"]).exits(0).json_lines()[0];
        assert_eq!((&line["pruned"]["by"], line["bytes"].as_u64()), (&"bob".into(), Some(23)));
        assert_eq!(evidence(&post.desk), 1);
        prune(&post, &["--older-than", "1ms", "--evidence-only"]);
        assert_eq!(evidence(&post.desk), 0);
        assert_eq!(prune(&post, &["--older-than", "1ms", "--evidence-only"]), "nothing is to be pruned\n");
        assert_eq!(post.piton(&["show", "r", "--json"]).exits(0).json(), before.0);
        assert_eq!(post.piton(&["audit", "r", "--json"]).exits(0).out, before.1);
        let audit = post.piton(&["audit", "r"]).exits(0).out;
        assert!(audit.starts_with("its evidence files were pruned by bob"), "{audit}");
        post.verify("r");
        post.piton(&["report", "r", "--to", "page"]).exits(0);
        let page = std::fs::read_to_string(post.desk.path("page/report.html")).expect("is there");
        assert!(page.contains("what its commands said was pruned by bob"), "the page says so");
        post.piton(&["audit", "verify", "--bundle", "page/bundle.jsonl"]).exits(0);
        // It can still be told, and so gone back on.
        post.piton(&["rollback", "r", "--reason", "x", "--plan"]).exits(0);
    }
}

#[test]
fn a_policy_says_what_goes_when_and_what_is_left() {
    let post = Post::file();
    let desk = &post.desk;
    desk.runbook("ask", "steps: [{ id: go, approval: { prompt: 'Sure?' } }]\n");
    desk.runbook("stone", "achieves: [db/moved]\nsteps: [{ id: a, exec: { argv: ['true'] } }]\n");
    desk.runbook("bad", "steps: [{ id: a, exec: { argv: ['false'] } }]\n");
    for run in ["r-1", "r-2", "r-3"] {
        over(&post, run);
    }
    post.piton(&["run", "ask.yaml", "--run-id", "open"]).exits(6);
    post.piton(&["run", "stone.yaml", "--run-id", "stone"]).exits(0);
    post.piton(&["run", "bad.yaml", "--run-id", "bad"]).exits(4);
    desk.write(
        "keep.yaml",
        "apiVersion: piton/v1
kind: Retention
except: [r-1]
rules:
  - { prune: run, older_than: 1ms, keep_last: 1, runbooks: [job] }
  - { prune: transcripts, older_than: 1ms }
  - { prune: contents, older_than: 1ms, runbooks: [ask, stone, bad], kinds: [attempt_failed] }
",
    );
    std::thread::sleep(Duration::from_millis(5));
    let plan = post.piton(&["audit", "prune", "--policy", "keep.yaml", "--plan", "--json"]).exits(0).json();
    let goes: Vec<String> = plan["prune"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|row| {
            format!(
                "{} {} {}",
                row["run"].as_str().expect("id"),
                row["prune"].as_str().expect("word"),
                row["rule"].as_str().expect("name")
            )
        })
        .collect();
    assert_eq!(
        goes,
        ["r-2 run keep.yaml, rule 1", "r-3 transcripts keep.yaml, rule 2", "stone transcripts keep.yaml, rule 2"]
    );
    let stays = plan["stays"].to_string();
    for why in
        ["somebody excepted it", "waits for a person", "its milestone `db/moved` stands", "failed or was cancelled"]
    {
        assert!(stays.contains(why), "{why} in {stays}");
    }
    let none = post.piton(&["audit", "prune", "--policy", "keep.yaml"]).exits(2);
    assert!(none.err.contains("--reason"), "{}", none.err);
    prune(&post, &["--policy", "keep.yaml"]);
    assert_eq!(prune(&post, &["--policy", "keep.yaml", "--json"]).lines().count(), 1, "nothing more to do");
    post.piton(&["audit", "verify", "--all"]).exits(0);
    // Whoever insists on a run that failed says so.
    let whole = ["--run", "bad", "--with-failed"];
    prune(&post, &whole);
    let refused = post.piton(&["resume", "bad"]).exits(2);
    assert!(refused.err.contains("was pruned by bob"), "{}", refused.err);
    assert!(post.piton(&["runs", "--open"]).exits(0).out.lines().all(|line| !line.starts_with("bad")));
    post.piton(&["approvals"]).exits(0);
    post.piton(&["check", "keep.yaml"]).exits(0);
    desk.write("keep.yaml", "apiVersion: piton/v1\nkind: Retention\nrules:\n  - { prune: runs, older_then: 1d }\n");
    let wrong = post.piton(&["audit", "prune", "--policy", "keep.yaml", "--plan"]).exits(3);
    assert!(wrong.err.contains("keep.yaml:4") && wrong.err.contains("older_then"), "{}", wrong.err);
}

#[test]
fn what_a_policy_excepts_is_found_like_any_run_and_missed_aloud() {
    let post = Post::file();
    for run in ["20260101-aa", "20260101-ab", "20260102-b"] {
        over(&post, run);
    }
    let plan = |except: &str, more: &[&str]| {
        let rules = "rules:\n  - { prune: run, older_than: 1ms }\n";
        post.desk.write("keep.yaml", &format!("apiVersion: piton/v1\nkind: Retention\nexcept: {except}\n{rules}"));
        std::thread::sleep(Duration::from_millis(5));
        post.piton(&[&["audit", "prune", "--policy", "keep.yaml", "--plan"], more].concat())
    };
    let excepted = |except: &str| {
        let plan = plan(except, &["--json"]).exits(0).json();
        let stays = plan["stays"].as_array().expect("a list").iter();
        let why = |row: &Json| format!("{} {}", row["run"].as_str().expect("id"), row["why"].as_str().expect("text"));
        stays.map(why).collect::<Vec<_>>().join("; ")
    };
    assert_eq!(excepted("[20260101-aa]"), "20260101-aa somebody excepted it");
    assert_eq!(excepted("[20260101-ab, b]"), "20260101-ab somebody excepted it; 20260102-b somebody excepted it");
    assert_eq!(excepted("[last]"), "20260102-b somebody excepted it");
    let two = plan("[20260101]", &[]).exits(2).err;
    assert!(two.contains("`20260101` is the beginning of 2 runs"), "{two}");
    // A policy may serve several stores.
    let other = plan("[20260101-ba, 20260101-ab]", &[]).exits(0);
    assert!(other.err.contains("warning: the policy excepts `20260101-ba`, but there is no such run"), "{}", other.err);
    assert!(other.out.ends_with("excepted, but no run of this store:\n  20260101-ba\n"), "{}", other.out);
    let told = plan("[20260101-ba, 20260101-ab]", &["--json"]).exits(0).json();
    assert_eq!(told["unknown"], serde_json::json!(["20260101-ba"]));
    prune(&post, &["--policy", "keep.yaml"]);
    assert!(post.piton(&["audit", "20260101-ab", "--json"]).exits(0).out.contains("Mustermann"));
}

#[test]
fn contents_of_some_kinds_are_followed_by_the_others() {
    let post = Post::file();
    over(&post, "r");
    let empty = || {
        let left = post.piton(&["audit", "r", "--json"]).exits(0).json_lines();
        left.iter().filter(|line| line["pruned"] == true).count()
    };
    let contents = |more: &[&str]| prune(&post, &[&["--run", "r", "--contents-only"], more].concat());
    contents(&["--kind", "step_answered"]);
    assert_eq!(empty(), 1);
    assert_eq!(contents(&["--kind", "step_answered"]), "nothing is to be pruned\n");
    let rules = "apiVersion: piton/v1
kind: Retention
rules:
  - { prune: contents, older_than: 1ms, kinds: [step_answered] }
  - { prune: contents, older_than: 1ms, kinds: [run_started] }
  - { prune: contents, older_than: 1ms, kinds: [run_finished, run_started] }
";
    post.desk.write("keep.yaml", rules);
    let plan = post.piton(&["audit", "prune", "--policy", "keep.yaml", "--plan", "--json"]).exits(0).json();
    assert_eq!(plan["prune"][0]["kinds"], serde_json::json!(["run_started", "run_finished"]));
    assert_eq!(plan["prune"][0]["rule"], "keep.yaml, rule 2; keep.yaml, rule 3");
    prune(&post, &["--policy", "keep.yaml"]);
    assert!(empty() >= 3, "{}", empty());
    assert_eq!(prune(&post, &["--policy", "keep.yaml"]), "nothing is to be pruned\n");
    assert!(contents(&[]).contains("pruned the contents of its records of run r (tombstone 3)"));
    assert_eq!(contents(&[]), "nothing is to be pruned\n");
    assert_eq!(contents(&["--kind", "step_skipped"]), "nothing is to be pruned\n");
    assert!(!holds(&post.desk, "Mustermann"));
    post.verify("r");
    post.piton(&["audit", "verify", "--all"]).exits(0);
}

#[test]
fn what_cannot_be_proved_or_sealed_is_not_pruned() {
    let post = Post::file();
    over(&post, "r-1");
    over(&post, "r-2");
    let no_key =
        post.command(&[PRUNE, &["--run", "r-1"]].concat()).env("PITON_SEAL_KEY", "none").output().expect("starts");
    assert_eq!(no_key.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&no_key.stderr).contains("nothing seals this store"));
    let changed = std::process::Command::new("python3")
        .args(["-c", "import sqlite3,sys; c=sqlite3.connect(sys.argv[1]); c.execute(\"UPDATE events SET payload=replace(payload,'say','sai') WHERE id=(SELECT number FROM runs WHERE run='r-1')*4294967296+2\"); c.commit()"])
        .arg(post.desk.path(".piton/piton.db"))
        .status()
        .expect("python3 is there");
    assert!(changed.success());
    let plan = post.piton(&["audit", "prune", "--older-than", "1ms", "--plan"]).exits(0).out;
    assert!(plan.contains("r-1  ") && plan.contains("its record is not as it was written: record 2"), "{plan}");
    prune(&post, &["--older-than", "1ms"]);
    assert!(
        post.piton(&["audit", "r-1", "--json"]).exits(0).out.contains("Mustermann"),
        "evidence of the change stays"
    );
    assert!(post.piton(&["show", "r-2"]).exits(0).out.contains("was pruned by bob"));
}

/// Runs a statement in the store.
fn forge(desk: &Desk, program: &str, args: &[&str]) {
    let program = format!("import sqlite3,json,sys; c=sqlite3.connect(sys.argv[1]); {program}; c.commit()");
    let mut python = std::process::Command::new("python3");
    let status = python.arg("-c").arg(program).arg(desk.path(".piton/piton.db")).args(args).status();
    assert!(status.expect("python3 is there").success());
}

#[test]
fn a_tombstone_that_nobody_sealed_removes_no_file() {
    let post = Post::file();
    over(&post, "r-1");
    let mine: Vec<_> = std::fs::read_dir(post.desk.path(".piton/evidence")).expect("is there").flatten().collect();
    let hash = mine[0].file_name().into_string().expect("plain");
    over(&post, "r-2");
    prune(&post, &["--run", "r-2", "--evidence-only"]);
    assert_eq!(evidence(&post.desk), 1);
    // Named as evidence that went with all of `r-1`, while that run is whole.
    forge(
        &post.desk,
        "b=json.loads(c.execute('SELECT body FROM tombstones').fetchone()[0]); b['number']=2; b['run']='r-1'; b['evidence']=[sys.argv[2]]; b['head']['seq']=999; c.execute(\"INSERT INTO tombstones SELECT 2,'r-1',?,key,signature FROM tombstones\",(json.dumps(b),))",
        &[&hash],
    );
    let refused = post.command(&[PRUNE, &["--older-than", "900d"]].concat()).output().expect("starts");
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && told.contains("tombstone 2: its seal does not hold"), "{told}");
    assert_eq!(evidence(&post.desk), 1, "the file of a run that was not pruned");
}

#[test]
fn a_file_that_was_just_handed_in_is_left_to_a_later_prune() {
    let post = Post::file();
    over(&post, "r-1");
    let folder = post.desk.path(".piton/evidence");
    let file = std::fs::read_dir(&folder).expect("is there").flatten().next().expect("one").path();
    let content = std::fs::read(&file).expect("can be read");
    std::fs::remove_file(&file).expect("goes");
    std::fs::write(&file, content).expect("is young now");
    prune(&post, &["--run", "r-1", "--evidence-only"]);
    assert_eq!(evidence(&post.desk), 1, "somebody may be about to record it");
    settle(&post.desk);
    prune(&post, &["--older-than", "900d"]);
    assert_eq!(evidence(&post.desk), 0);
}

/// Folder of a store with runs that are over, made once and copied.
fn copy(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().expect("cp is there");
    assert!(status.success());
}

#[test]
fn a_kill_in_the_middle_leaves_whole_states_and_the_next_one_goes_on() {
    let post = Post::file();
    post.desk.runbook("talk", "steps:\n  - { id: a, exec: { argv: [echo, 'told by {{ run.id }}'] } }\n  - { id: b, exec: { argv: [sh, -c, 'head -c 30000 /dev/zero'] } }\n");
    for number in 0..12 {
        post.piton(&["run", "talk.yaml", "--run-id", &format!("r-{number:02}")]).exits(0);
    }
    over(&post, "r-99");
    let fresh = || {
        let other = Desk::new();
        copy(&post.desk.path(".piton"), &other.path(".piton"));
        other
    };
    let whole = std::time::Instant::now();
    fresh().piton(&[PRUNE, &["--older-than", "1ms"]].concat()).exits(0);
    let whole = whole.elapsed();
    let mut between = 0;
    for round in 0..24_u32 {
        let other = fresh();
        let mut command = other.command(&[PRUNE, &["--older-than", "1ms"]].concat());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
        std::thread::sleep(whole * (12 + round) / 36);
        child.kill().expect("SIGKILL");
        child.wait().expect("it ends");
        let verified = other.piton(&["audit", "verify", "--all", "--json"]).exits(0).json_lines();
        let graves =
            verified.iter().filter(|line| line["pruned"].as_array().is_some_and(|all| !all.is_empty())).count();
        let stones =
            verified.iter().find(|line| line.get("tombstones").is_some()).and_then(|line| line["tombstones"].as_u64());
        assert_eq!(stones.unwrap_or(0), graves as u64, "each has its tombstone");
        between += usize::from((1..13).contains(&graves));
        if between > 3 {
            continue;
        }
        other.piton(&[PRUNE, &["--older-than", "1ms"]].concat()).exits(0);
        let verified = other.piton(&["audit", "verify", "--all", "--json"]).exits(0).out;
        assert_eq!(verified.matches("\"intact\":true").count(), 14, "{verified}");
        assert_eq!(evidence(&other), 0);
        assert!(!holds(&other, "Mustermann") && !holds(&other, "told by "), "round {round}");
    }
    assert!(between >= 1, "{between} rounds were cut between two runs");
}
