//! What commands said: kept beside the journal by its content, without secrets, shown by `piton logs`, on a file and on
//! a server.

use serde_json::Value as Json;
use sqlx::Connection as _;

use super::cli::Desk;
use super::journal_drivers::{Post, said};

/// A shell text that prints 1 MiB, each time the same.
const MEBIBYTE: &str = r#"echo begin; head -c 1048566 /dev/zero | tr "\\0" x; echo end"#;
/// What is left out of it: all but twice 64 KiB.
const LEFT_OUT: u64 = 1_048_576 - 131_072;

fn file(desk: &Desk) -> String {
    format!("sqlite://{}", desk.path(".piton/piton.db").display())
}

/// Runs SQL in the store, where `{schema}` is the name in front of its tables, and gives the number that comes out.
fn sql(post: &Post, text: &str) -> i64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        if let Some(url) = post.database() {
            let mut server = sqlx::PgConnection::connect(url).await.expect("connects");
            let text = sqlx::AssertSqlSafe(text.replace("{schema}", "piton."));
            let found = sqlx::query_scalar::<_, i64>(text).fetch_optional(&mut server).await;
            found.expect("runs").unwrap_or(0)
        } else {
            let mut file = sqlx::SqliteConnection::connect(&file(&post.desk)).await.expect("connects");
            let text = sqlx::AssertSqlSafe(text.replace("{schema}", ""));
            let found = sqlx::query_scalar::<_, i64>(text).fetch_optional(&mut file).await;
            found.expect("runs").unwrap_or(0)
        }
    })
}

fn logs(post: &Post, more: &[&str]) -> Vec<Json> {
    post.piton(&[&["logs", "last", "--json"], more].concat()).exits(0).json_lines()
}

fn events(post: &Post, kind: &str) -> Vec<Json> {
    let lines = post.piton(&["audit", "last", "--json"]).exits(0).json_lines();
    lines.into_iter().filter(|event| event["kind"] == kind).collect()
}

#[test]
fn a_long_output_is_kept_once_with_its_beginning_and_its_end() {
    for post in Post::each("logs_long") {
        let steps = format!(
            "steps:\n  - {{ id: a, exec: {{ shell: '{MEBIBYTE}' }} }}\n  - {{ id: b, needs: [a], exec: {{ shell: '{MEBIBYTE}; echo why >&2' }} }}\n"
        );
        post.desk.runbook("long", &steps);
        post.piton(&["run", "long.yaml"]).exits(0);
        let said = logs(&post, &[]);
        let told: Vec<_> = said.iter().map(|one| (one["step"].as_str(), one["stream"].as_str())).collect();
        assert_eq!(
            told,
            [(Some("a"), Some("stdout")), (Some("b"), Some("stdout")), (Some("b"), Some("stderr"))],
            "{told:?}"
        );
        assert_eq!((&said[0]["bytes"], &said[0]["left_out"]), (&1_048_576.into(), &LEFT_OUT.into()));
        let (head, tail) = (said[0]["text"].as_str().expect("text"), said[0]["tail"].as_str().expect("text"));
        assert!(head.starts_with("begin\nxxx") && tail.ends_with("xxxend\n"));
        assert_eq!((head.len(), tail.len()), (65_536, 65_536));
        assert_eq!(said[0]["digest"], said[1]["digest"]);
        assert_eq!((&said[2]["text"], &said[2]["tail"]), (&"why\n".into(), &Json::Null));
        assert_eq!(sql(&post, "SELECT count(*) FROM {schema}transcripts"), 2, "what is the same is kept once");
        let largest = "SELECT CAST(max(length(payload)) AS BIGINT) FROM {schema}events WHERE kind <> 'run_started'";
        assert!(sql(&post, largest) < 600, "events stay small");
        let text = post.piton(&["logs", "last"]).exits(0).out;
        assert!(text.starts_with("== a, attempt 1, standard output (1,048,576 bytes) ==\nbegin\n"), "{}", &text[..99]);
        assert!(text.contains("x\n… 917,504 bytes left out …\nx"));
        assert!(text.ends_with("end\n== b, attempt 1, standard error (4 bytes) ==\nwhy\n"));
        assert_eq!(post.piton(&["logs", "last", "b", "--stderr"]).exits(0).out, "why\n");
        post.verify("last");
    }
}

#[test]
fn every_attempt_and_undo_has_its_own_and_a_check_has_none() {
    let post = Post::file();
    post.desk.runbook(
        "again",
        "on_failure: rollback
steps:
  - id: a
    idempotent: yes
    retry: { attempts: 2, backoff: { initial: 10ms } }
    exec: { shell: 'echo out; echo x >> tries; echo try $(grep -c x tries) >&2; test $(grep -c x tries) = 2' }
    verify: { exec: { argv: [echo, not this] } }
    undo: { exec: { argv: [echo, back] } }
  - { id: quiet, needs: [a], exec: { argv: ['true'] } }
  - { id: b, needs: [quiet], idempotent: yes, retry: { attempts: 1 }, exec: { shell: 'printf no; exit 3' } }
",
    );
    post.piton(&["run", "again.yaml"]).exits(4);
    let text = post.piton(&["logs"]).exits(0).out;
    assert_eq!(
        text,
        "== a, attempt 1, standard output (4 bytes) ==\nout\n== a, attempt 1, standard error (6 bytes) ==\ntry 1\n\
         == a, attempt 2, standard output (4 bytes) ==\nout\n== a, attempt 2, standard error (6 bytes) ==\ntry 2\n\
         == b, attempt 1, standard output (2 bytes) ==\nno\n== a, undo 1, standard output (5 bytes) ==\nback\n"
    );
    assert_eq!(post.piton(&["logs", "last", "a", "--stderr"]).exits(0).out, "try 1\ntry 2\n");
    assert_eq!(post.piton(&["logs", "last", "a", "--stderr", "--attempt", "2"]).exits(0).out, "try 2\n");
    assert_eq!(post.piton(&["logs", "last", "b", "--stdout"]).exits(0).out, "no", "every byte as it was");
    let quiet = post.piton(&["logs", "last", "quiet"]).exits(0);
    assert!(quiet.out.is_empty() && quiet.err.contains("nothing that a command said"), "{}", quiet.err);
    let unknown = post.piton(&["logs", "last", "quite"]).exits(2);
    assert!(unknown.err.contains("has no step `quite`"), "{}", unknown.err);
    assert!(logs(&post, &[]).iter().any(|one| one["undo"] == true && one["text"] == "back\n"));
    post.verify("last");
}

#[test]
fn secrets_never_reach_the_store() {
    for post in Post::each("logs_secrets") {
        post.desk.write("secret", "hunter2hunter2");
        post.desk
            .write("site.yaml", "apiVersion: piton/v1\nkind: Site\nname: desk\nsecrets: { pass: { file: secret } }\n");
        let env = "env: { PASS: '{{ secrets.pass }}' }";
        // One stream of secrets and nothing else: wherever the gap is, it cuts one in two.
        let steps = format!(
            "steps:\n  - {{ id: a, exec: {{ shell: 'echo \"got $PASS\"; printf %s \"$PASS\" | base64 >&2', {env} }} }}\n  - {{ id: b, needs: [a], exec: {{ shell: 'i=0; while [ $i -lt 20000 ]; do printf %s. \"$PASS\"; i=$((i+1)); done', {env} }} }}\n"
        );
        post.desk.runbook("hush", &steps);
        post.piton(&["--site", "site.yaml", "run", "hush.yaml"]).exits(0);
        let said = logs(&post, &[]);
        assert_eq!(said[0]["text"], "got ***\n");
        assert!(said[1]["text"].as_str().is_some_and(|text| text.starts_with("***")), "{}", said[1]);
        let all = post.piton(&["logs", "last", "b"]).exits(0).out;
        assert!(!all.contains("hunter") && !all.contains("ter2") && all.contains("bytes left out"));
        let rest = all.lines().skip(1).collect::<String>().replace("***.", "").replace(".***", "");
        assert!(rest.len() < 60, "{rest}");
        let shown = "SELECT count(*) FROM {schema}transcripts WHERE";
        let condition = if post.database().is_some() {
            "position('hunter2'::bytea IN bytes) > 0"
        } else {
            "instr(bytes, CAST('hunter2' AS BLOB)) > 0"
        };
        assert_eq!(sql(&post, &format!("{shown} {condition}")), 0);
        if post.database().is_none() {
            for name in ["piton.db", "piton.db-wal"] {
                let bytes = std::fs::read(post.desk.path(&format!(".piton/{name}"))).unwrap_or_default();
                assert!(!bytes.windows(14).any(|some| some == b"hunter2hunter2"), "{name}");
            }
        }
    }
}

#[test]
fn what_a_held_command_said_is_there_although_its_driver_was_killed() {
    for post in Post::each("logs_held") {
        let shell = format!(
            "{MEBIBYTE}; echo first >&2; touch a.there; while [ ! -e a.go ]; do sleep 0.02; done; echo last >&2"
        );
        post.desk.runbook("long", &format!("steps: [{{ id: a, exec: {{ shell: '{shell}' }} }}]\n"));
        let mut driver = post.start(&["run", "long.yaml"]);
        post.desk.wait_for("a.there");
        driver.kill().expect("SIGKILL");
        driver.wait().expect("it ends");
        let next = post.start(&["resume", "last"]);
        post.write("a.go");
        said(next).exits(0);
        assert_eq!(events(&post, "attempt_started").len(), 1);
        let told = logs(&post, &["a"]);
        assert_eq!((told.len(), &told[0]["left_out"]), (2, &LEFT_OUT.into()));
        assert_eq!((&told[1]["stream"], &told[1]["text"]), (&"stderr".into(), &"first\nlast\n".into()));
        post.verify("last");
    }
}

#[test]
fn whatever_goes_wrong_at_an_append_what_was_said_is_there_once() {
    let faults = ["crash-before", "crash-after", "conflict-before", "conflict-after", "lost-answer-after"];
    for post in Post::each("logs_faults") {
        // Each run says something of its own, so that no other run's text stands in for it.
        let steps = "steps:\n  - { id: a, exec: { shell: 'echo one {{ run.id }}; echo x >> log' } }\n  - { id: b, needs: [a], exec: { shell: 'echo two {{ run.id }}; echo x >> log' } }\n";
        post.desk.runbook("two", steps);
        for (number, fault) in faults.into_iter().enumerate() {
            // The first one is the start of the run, at which nothing was said.
            for append in 2..=4 {
                let run = format!("r-{number}-{append}");
                let what = format!("{fault}-append={append}");
                let mut command = post.command(&["run", "two.yaml", "--run-id", &run]);
                let hurt = command.env("PITON_FAULT", &what).output().expect("the program starts");
                if !hurt.status.success() {
                    // It says no if only the answer to the last append was lost: the run is over.
                    post.piton(&["resume", &run]);
                }
                let said = post.piton(&["logs", &run, "--json"]).exits(0).json_lines();
                let texts: Vec<_> = said.iter().map(|one| one["text"].as_str().expect("text")).collect();
                assert_eq!(texts, [format!("one {run}\n"), format!("two {run}\n")], "{what}");
                post.verify(&run);
            }
        }
        let all = faults.len() * 3 * 2;
        assert_eq!(sql(&post, "SELECT count(*) FROM {schema}transcripts"), i64::try_from(all).expect("small"));
        assert_eq!(post.count("x"), all, "no command ran twice");
    }
}

#[test]
fn what_was_changed_or_lost_is_named() {
    for post in Post::each("logs_changed") {
        let steps = "steps:\n  - { id: a, exec: { argv: [echo, one] } }\n  - { id: b, needs: [a], exec: { argv: [echo, two] } }\n";
        post.desk.runbook("two", steps);
        post.piton(&["run", "two.yaml", "--run-id", "r-1"]).exits(0);
        let digest = logs(&post, &["b"])[0]["digest"].as_str().expect("a digest").to_owned();
        let record = events(&post, "attempt_succeeded")[1]["seq"].clone();
        let other = if post.database().is_some() { "'tvo'::bytea" } else { "CAST('tvo' AS BLOB)" };
        let place = format!("{{schema}}transcripts WHERE digest = '{digest}'");
        let change = format!("UPDATE {{schema}}transcripts SET bytes = {other} WHERE digest = '{digest}' RETURNING 1");
        let changes = [(change, "is not as it was kept"), (format!("DELETE FROM {place} RETURNING 1"), "is missing")];
        for (change, why) in changes {
            // Both servers count what is returned in 32 bits unless told otherwise.
            sql(&post, &change.replace("RETURNING 1", "RETURNING CAST(1 AS BIGINT)"));
            let found = post.piton(&["audit", "verify", "r-1"]).exits(1);
            assert!(found.err.contains(&format!("record {record} ")), "{}", found.err);
            assert!(found.err.contains(why) && found.err.contains(&digest), "{}", found.err);
            let refused = post.piton(&["logs", "r-1", "b"]).exits(1);
            assert!(refused.err.contains(why) && refused.err.contains(&digest), "{}", refused.err);
            assert!(!refused.out.contains("tvo"), "{}", refused.out);
            assert_eq!(post.piton(&["logs", "r-1", "a", "--stdout"]).exits(0).out, "one\n");
        }
    }
}

#[test]
fn outputs_that_are_no_values_any_more_are_refused_for_good() {
    let post = Post::file();
    post.desk.runbook(
        "big",
        "steps:
  - id: a
    idempotent: yes
    retry: { attempts: 3, backoff: { initial: 10ms } }
    exec: { shell: 'head -c 100000 /dev/zero | tr \"\\\\0\" x', outputs: { one: { stdout: true }, two: { stdout: true }, all: { stdout: true } } }
",
    );
    post.piton(&["run", "big.yaml"]).exits(4);
    let failed = events(&post, "attempt_failed");
    assert_eq!(failed.len(), 1, "{failed:?}");
    let error = failed[0]["error"].as_str().expect("a text");
    assert!(error.contains("outputs have 300") && error.contains("put long results into a file"), "{error}");
    assert_eq!((&failed[0]["effect"], &failed[0]["retryable"]), (&"unknown".into(), &false.into()));
    assert_eq!(logs(&post, &[])[0]["bytes"], 100_000);
}
