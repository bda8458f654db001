//! Stores that fail in the middle of a run: the server is killed, the disk is full. Nothing is lost, nothing is done
//! twice, and the run says what happened and can be resumed.

use std::process::{Command, Stdio};

use super::cli::Desk;
use super::journal_drivers::{Post, said};
use super::support::postgres::PrivatePostgres;

/// A chain of steps, each of which leaves a line in `log`; the step `gate` waits for a file.
fn chain(steps: usize, gate: usize) -> String {
    let mut lines = vec!["steps:\n".to_owned()];
    for number in 0..steps {
        let needs = if number == 0 { String::new() } else { format!("s{}", number - 1) };
        let wait = if number == gate { "; touch gated; until test -e go; do sleep 0.02; done" } else { "" };
        let script = format!("echo s{number} >> log{wait}");
        lines.push(format!("  - {{ id: s{number}, needs: [{needs}], exec: {{ shell: '{script}' }} }}\n"));
    }
    lines.concat()
}

#[test]
fn a_server_that_comes_back_in_time_is_not_noticed_by_the_run() {
    let server = PrivatePostgres::of_its_own();
    let post = Post::at(server.create_database("back"));
    post.desk.runbook("chain", &chain(20, 8));
    let driver = post.start(&["run", "chain.yaml", "--run-id", "r-1"]);
    post.desk.wait_for("gated");
    server.kill();
    // The step ends while there is nobody to record it.
    post.write("go");
    server.start_again();
    let driver = said(driver);
    assert_eq!(driver.code, 0, "{}", driver.err);
    for number in 0..20 {
        assert_eq!(post.count(&format!("s{number}")), 1);
    }
    post.verify("r-1");
}

#[test]
fn a_server_that_stays_away_stops_the_run_and_it_can_be_resumed() {
    let server = PrivatePostgres::of_its_own();
    let post = Post::at(server.create_database("away"));
    post.desk.runbook("chain", &chain(20, 8));
    let mut command = post.command(&["run", "chain.yaml", "--run-id", "r-1"]);
    let driver = command.env("PITON_STORE_PATIENCE", "1").stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let driver = driver.expect("the program starts");
    post.desk.wait_for("gated");
    server.kill();
    post.write("go");
    let stopped = said(driver).exits(1);
    assert!(stopped.err.contains("cannot be reached") && stopped.err.contains("resume"), "{}", stopped.err);
    assert_eq!((post.count("s8"), post.count("s9")), (1, 0), "nothing goes on unrecorded");
    server.start_again();
    // The end of `s8` could not be recorded; its holder kept the result.
    post.piton(&["resume", "r-1"]).exits(0);
    for number in 0..20 {
        assert_eq!(post.count(&format!("s{number}")), 1);
    }
    post.verify("r-1");
}

#[test]
fn a_full_disk_stops_the_run_and_it_can_be_resumed_when_there_is_room() {
    let desk = Desk::new();
    desk.runbook("chain", &chain(60, usize::MAX));
    // No file of the driver may grow beyond this: its writes fail as on a disk that is full.
    let limited = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec prlimit --fsize=200000:200000 \"$@\"", "sh"])
        .arg(env!("CARGO_BIN_EXE_piton"))
        .args(["run", "chain.yaml", "--run-id", "r-1"])
        .current_dir(desk.path("."))
        .env_remove("PITON_STORE")
        .stdin(Stdio::null())
        .output()
        .expect("prlimit (util-linux) is there");
    let stopped: super::cli::Said = limited.into();
    let stopped = stopped.exits(1);
    assert!(stopped.err.contains("piton.db") && stopped.err.contains("full"), "{}", stopped.err);
    let lines = |word: &str| {
        let text = std::fs::read_to_string(desk.path("log")).unwrap_or_default();
        text.lines().filter(|line| *line == word).count()
    };
    let verified = desk.piton(&["audit", "verify", "r-1", "--json"]).exits(0).json();
    assert_eq!(verified["intact"], true);
    let done = (0..60).take_while(|number| lines(&format!("s{number}")) == 1).count();
    assert!((2..60).contains(&done), "it stopped on the way, after {done} steps");
    let resumed = desk.piton(&["resume", "r-1"]);
    if resumed.code == 5 {
        // The end of the last step was what could not be recorded.
        let doubtful = format!("s{}", done - 1);
        desk.piton(&["decide", "r-1", &doubtful, "--ran", "--reason", "the log has its line"]).exits(0);
        desk.piton(&["resume", "r-1"]).exits(0);
    } else {
        resumed.exits(0);
    }
    for number in 0..60 {
        assert_eq!(lines(&format!("s{number}")), 1, "s{number}");
    }
    desk.piton(&["audit", "verify", "r-1"]).exits(0);
}

#[test]
fn a_step_waits_for_room_to_write_down_who_starts_it() {
    let post = Post::at(PrivatePostgres::start().create_database("no_room"));
    post.desk.runbook("chain", &format!("on_failure: rollback\n{}", chain(8, 0)));
    post.desk.runbook("pad", "steps: [{ id: a, exec: { argv: ['true'] } }]\n");
    post.piton(&["run", "pad.yaml", "--run-id", "pad"]).exits(0);
    let plain = post.command(&["run", "chain.yaml", "--run-id", "r-1"]);
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; exec prlimit --fsize=600:unlimited \"$@\"", "sh"]);
    command.arg(plain.get_program()).args(plain.get_args()).current_dir(post.desk.path("."));
    command.env("PITON_STORE", post.database().expect("a server")).env("PITON_LEASE", "1");
    let driver = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let driver = driver.expect("prlimit (util-linux) is there");
    post.desk.wait_for("gated");
    let holder = super::held::holder(&post.desk, "s0").to_string();
    post.write("go");
    let claims = || std::fs::read_dir(post.desk.path(".piton/commands")).expect("is there").flatten().next();
    let claims = claims().expect("of the run").path().join("claims");
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while std::fs::metadata(&claims).map_or(0, |file| file.len()) < 600 {
        assert!(std::time::Instant::now() < until, "the claims never filled their room");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert_eq!(post.count("s7"), 0, "it waits");
    let more = Command::new("prlimit").args(["--fsize=unlimited", "--pid", &holder]).status().expect("starts");
    assert!(more.success());
    let driver = said(driver).exits(0);
    assert_eq!(driver.out.matches("waiting for room in `").count(), 1, "{}", driver.out);
    for number in 0..8 {
        assert_eq!(post.count(&format!("s{number}")), 1, "s{number}");
    }
}

#[test]
fn a_journal_whose_end_is_lost_is_named_by_every_command() {
    let desk = Desk::new();
    desk.runbook("chain", &chain(12, 6));
    let driver = desk.command(&["run", "chain.yaml", "--run-id", "r-1"]).stdout(Stdio::null()).spawn();
    let mut driver = driver.expect("the program starts");
    desk.wait_for("gated");
    driver.kill().expect("it lives");
    driver.wait().expect("it ends");
    desk.write("go", "");
    let log = desk.path(".piton/piton.db-wal");
    let size = std::fs::metadata(&log).expect("the end is in the log").len();
    std::fs::OpenOptions::new().write(true).open(&log).expect("opens").set_len(size / 2).expect("cuts");
    for args in [&["audit", "verify", "r-1"][..], &["resume", "r-1"], &["show", "last"], &["runs"]] {
        let said = desk.piton(args).exits(1);
        assert!(said.err.contains("is lost") && said.err.contains("`r-1`"), "{args:?}: {}", said.err);
    }
    // A person accepts the loss: what is left is a whole, shorter journal, and its last attempt is in doubt or repeated.
    std::fs::remove_file(desk.path(".piton/piton.db-anchor")).expect("is there");
    desk.piton(&["audit", "verify", "r-1"]).exits(0);
}
