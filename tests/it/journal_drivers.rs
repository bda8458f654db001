//! Several drivers and one run, on a file and on a server: one wins, the others are refused before they act, and a
//! driver that slept through its lease does nothing more when it wakes.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::cli::{Desk, Said, state};
use super::support::postgres::PrivatePostgres;

/// A desk with a store: a file, or a database.
pub struct Post {
    pub desk: Desk,
    store: Option<String>,
}

impl Post {
    /// One desk for each kind of store.
    pub fn each(name: &str) -> [Self; 2] {
        let url = PrivatePostgres::start().create_database(name);
        [Self { desk: Desk::new(), store: None }, Self { desk: Desk::new(), store: Some(url) }]
    }

    pub fn file() -> Self {
        Self { desk: Desk::new(), store: None }
    }

    pub fn at(url: String) -> Self {
        Self { desk: Desk::new(), store: Some(url) }
    }

    /// The address of the database; none for a file.
    pub fn database(&self) -> Option<&str> {
        self.store.as_deref()
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.desk.command(args);
        if let Some(store) = &self.store {
            command.env("PITON_STORE", store);
        }
        command.env("PITON_LEASE", "1");
        command
    }

    pub fn piton(&self, args: &[&str]) -> Said {
        self.command(args).output().expect("the program starts").into()
    }

    /// Starts the program in the background.
    pub fn start(&self, args: &[&str]) -> Child {
        let mut command = self.command(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
    }

    /// How often the word stands in the file `log`.
    pub fn count(&self, word: &str) -> usize {
        let text = std::fs::read_to_string(self.desk.path("log")).unwrap_or_default();
        text.lines().filter(|line| *line == word).count()
    }

    pub fn write(&self, name: &str) -> PathBuf {
        self.desk.write(name, "");
        self.desk.path(name)
    }

    #[track_caller]
    pub fn verify(&self, run: &str) {
        let verified = self.piton(&["audit", "verify", run, "--json"]).exits(0).json();
        assert_eq!(verified["intact"], true);
    }
}

pub fn said(child: Child) -> Said {
    child.wait_with_output().expect("it ends").into()
}

/// Steps that log their start, then wait for a file of their name to appear.
fn gated(names: &[&str], idempotent: &str) -> String {
    let mut lines = vec!["steps:\n".to_owned()];
    for (number, name) in names.iter().enumerate() {
        let needs = if number == 0 { "" } else { names[number - 1] };
        let script = format!("echo {name} >> log; touch {name}.started; until test -e {name}; do sleep 0.02; done");
        lines.push(format!(
            "  - {{ id: {name}, needs: [{needs}], idempotent: {idempotent}, exec: {{ shell: '{script}' }} }}\n"
        ));
    }
    lines.concat()
}

#[test]
fn of_two_drivers_started_on_one_run_one_wins() {
    for post in Post::each("two_drivers") {
        post.desk.runbook("gate", &gated(&["a", "b"], "no"));
        let racers: Vec<Child> = (0..3).map(|_| post.start(&["run", "gate.yaml", "--run-id", "r-1"])).collect();
        post.desk.wait_for("a.started");
        // Whoever comes while the first one works is refused, whether it starts or resumes.
        for _ in 0..3 {
            let late = post.piton(&["resume", "r-1"]).exits(2);
            assert!(late.err.contains("drives this run"), "{}", late.err);
        }
        post.write("a");
        post.write("b");
        let told: Vec<Said> = racers.into_iter().map(said).collect();
        let mut codes: Vec<i32> = told.iter().map(|said| said.code).collect();
        codes.sort_unstable();
        let errors: Vec<&str> = told.iter().map(|said| said.err.as_str()).collect();
        assert_eq!(codes, [0, 2, 2], "one drove it, two were refused: {errors:?}");
        assert_eq!((post.count("a"), post.count("b")), (1, 1));
        post.verify("r-1");
        let events = post.piton(&["audit", "r-1", "--json"]).exits(0);
        assert!(!events.out.contains("run_resumed"), "{}", events.out);
    }
}

#[test]
fn a_driver_that_slept_through_its_lease_does_nothing_when_it_wakes() {
    for post in Post::each("frozen") {
        post.desk.runbook("gate", &gated(&["a", "b", "c"], "yes"));
        let frozen = post.start(&["run", "gate.yaml", "--run-id", "r-1"]);
        post.desk.wait_for("a.started");
        let pid = Pid::from_raw(i32::try_from(frozen.id()).expect("a pid"));
        kill(pid, Signal::SIGSTOP).expect("it lives");
        // Refused until the lease is over; then it takes the run over, and the command with it.
        let until = Instant::now() + Duration::from_mins(1);
        let taken_over = || post.piton(&["audit", "r-1", "--json"]).out.contains("run_resumed");
        let second = loop {
            assert!(Instant::now() < until, "the lease was never over");
            let mut second = post.start(&["resume", "r-1", "--json"]);
            while !taken_over() && second.try_wait().expect("a child").is_none() {}
            if second.try_wait().expect("a child").is_none() {
                break second;
            }
            let refused = said(second);
            if refused.code == 1 && refused.err.contains("was locked by another process") {
                // It was stopped in the middle of a transaction on a file; nobody can write there until it goes on.
                kill(pid, Signal::SIGCONT).expect("it lives");
                std::thread::sleep(Duration::from_millis(10));
                kill(pid, Signal::SIGSTOP).expect("it lives");
                continue;
            }
            let refused = refused.exits(2);
            assert!(refused.err.contains("drives this run"), "{}", refused.err);
        };
        post.write("a");
        post.desk.wait_for("b.started");
        // Its own `a` has ended meanwhile, so it wakes with a result to record and a next step to start.
        kill(pid, Signal::SIGCONT).expect("it lives");
        let woken = said(frozen).exits(2);
        assert!(woken.err.contains("another driver"), "{}", woken.err);
        assert_eq!((post.count("a"), post.count("b"), post.count("c")), (1, 1, 0), "it started nothing");
        post.write("b");
        post.write("c");
        assert_eq!(said(second).code, 0);
        assert_eq!((post.count("b"), post.count("c")), (1, 1));
        post.verify("r-1");
    }
}

#[test]
fn a_word_said_elsewhere_wakes_the_driver() {
    for post in Post::each("elsewhere") {
        post.desk.runbook(
            "ask",
            "steps:\n  - { id: go, approval: { prompt: 'Sure?' } }\n  - { id: after, needs: [go], exec: { shell: echo after >> log } }\n",
        );
        let driver = post.start(&["run", "ask.yaml", "--run-id", "r-1", "--wait", "--as", "eve"]);
        let until = Instant::now() + Duration::from_mins(1);
        loop {
            assert!(Instant::now() < until, "nobody was asked");
            let show = post.piton(&["show", "r-1", "--json"]);
            if show.code == 0 && state(&show.json(), "go") == "waiting" {
                break;
            }
        }
        post.piton(&["approve", "r-1", "go", "--as", "ann"]).exits(0);
        assert_eq!(said(driver).code, 0);
        assert_eq!(post.count("after"), 1);
    }
}
