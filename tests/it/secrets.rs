//! Secrets outside of the places that hide them: addresses of databases, secrets that are too short, the memory of the driver.

use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::cli::Desk;

const SITE: &str = "apiVersion: piton/v1\nkind: Site\nname: here\n";

/// Everything that the store and what lies beside it hold, and what all commands print.
fn all_that_is_kept(desk: &Desk) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut open = vec![desk.path(".piton")];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).expect("is ours").map(|entry| entry.expect("an entry").path()));
        } else {
            bytes.extend(std::fs::read(&path).expect("is read"));
        }
    }
    for command in [&["show", "r"][..], &["audit", "r", "--json"], &["logs", "r"], &["audit", "export", "r"]] {
        let said = desk.piton(command).exits(0);
        bytes.extend(said.out.into_bytes());
        bytes.extend(said.err.into_bytes());
    }
    bytes
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn the_password_in_the_address_of_a_database_is_hidden() {
    let desk = Desk::new();
    let (meant, written) = ("pa55/w0rd-of-the-app", "pa55%2Fw0rd-of-the-app");
    desk.write("address", &format!("postgres://ann:{written}@127.0.0.1:1/app\n"));
    desk.write(
        "site.yaml",
        &format!("{SITE}databases: {{ app: {{ secret: url }} }}\nsecrets: {{ url: {{ file: address }} }}\n"),
    );
    desk.write(
        "leak.sh",
        "cat address; echo 'its password is pa55/w0rd-of-the-app'; printf 'pa55/w0rd-of-the-app' | base64\n",
    );
    desk.runbook(
        "job",
        "steps:
  - { id: ask, db.query: { database: app, sql: SELECT 1 }, on_failure: continue }
  - { id: leak, needs: [{ step: ask, outcome: any }], exec: { argv: [sh, leak.sh], outputs: { said: { stdout: true } } } }\n",
    );
    let run = desk.piton(&["run", "job.yaml", "--site", "site.yaml", "--run-id", "r"]).exits(4);
    let kept = [all_that_is_kept(&desk), run.out.into_bytes(), run.err.into_bytes()].concat();
    assert!(holds(&kept, "its password is ***"), "what it said is kept");
    for secret in [meant, written, "cGE1NS93MHJkLW9mLXRoZS1hcH"] {
        assert!(!holds(&kept, secret), "{secret}");
    }
}

#[test]
fn a_secret_that_is_too_short_is_told_and_recorded() {
    let desk = Desk::new();
    desk.write("pin", "712\n");
    desk.write("long", "a long enough secret\n");
    desk.write("site.yaml", &format!("{SITE}secrets: {{ pin: {{ file: pin }}, long: {{ file: long }} }}\n"));
    let env = "env: { PIN: '{{ secrets.pin }}', LONG: '{{ secrets.long }}' }";
    desk.runbook(
        "job",
        &format!(
            "steps:
  - {{ id: one, exec: {{ argv: [sh, -c, 'echo pin is $PIN'], {env} }} }}
  - {{ id: two, needs: [one], exec: {{ argv: ['true'], {env} }} }}\n"
        ),
    );
    let said = desk.piton(&["run", "job.yaml", "--site", "site.yaml", "--run-id", "r"]).exits(0).out;
    let warning = "secret `pin` has fewer than 4 characters: it is hidden as it is, but not in base64";
    assert_eq!(said.matches(warning).count(), 1, "{said}");
    assert!(!said.contains("`long`"), "{said}");
    assert!(desk.piton(&["audit", "r"]).exits(0).out.contains(warning));
    let records = desk.piton(&["audit", "r", "--json"]).exits(0).json_lines();
    let told: Vec<_> = records.iter().filter(|record| record["kind"] == "secret_too_short").collect();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["name"], "pin");
    assert!(desk.piton(&["logs", "r"]).exits(0).out.contains("pin is ***"));
    desk.piton(&["audit", "verify", "r"]).exits(0);
    desk.piton(&["report", "r", "--to", "page"]).exits(0);
    assert!(
        std::fs::read_to_string(desk.path("page/report.html")).expect("a page").contains("fewer than 4 characters")
    );
}

/// Ends the driver whatever happens.
struct Driver(Child);

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How often a text stands in the memory that a process can write to.
fn in_memory(pid: u32, text: &str) -> usize {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("it lives");
    let mut memory = std::fs::File::open(format!("/proc/{pid}/mem")).expect("it is ours");
    let mut found = 0;
    for line in maps.lines() {
        let mut parts = line.split_whitespace();
        let (Some(range), Some(rights)) = (parts.next(), parts.next()) else { continue };
        let (Some((from, to)), true) = (range.split_once('-'), rights.starts_with("rw")) else { continue };
        let number = |hex: &str| u64::from_str_radix(hex, 16).expect("an address");
        let mut bytes = vec![0; usize::try_from(number(to) - number(from)).expect("fits")];
        // Some regions cannot be read from outside.
        if memory.seek(SeekFrom::Start(number(from))).is_ok() && memory.read_exact(&mut bytes).is_ok() {
            let first = text.as_bytes()[0];
            let starts = bytes.iter().enumerate().filter(|(_, byte)| **byte == first).map(|(at, _)| at);
            found += starts.filter(|&at| bytes[at..].starts_with(text.as_bytes())).count();
        }
    }
    found
}

/// What was rendered for a command is wiped from the driver's memory once it was handed on; the secret itself is there as long as it must
/// be hidden.
#[test]
fn what_was_rendered_does_not_stay_in_memory() {
    let desk = Desk::new();
    let secret = "correct-horse-battery-staple-4711";
    desk.write("secret", secret);
    desk.write("site.yaml", &format!("{SITE}secrets: {{ it: {{ file: secret }} }}\n"));
    desk.runbook(
        "job",
        "steps:
  - { id: use, exec: { argv: [sh, -c, 'cat > got; echo $IT >> got; echo said:$IT:said'], stdin: 'input:{{ secrets.it }}:end', env: { IT: 'env:{{ secrets.it }}:end' } } }
  - { id: go, needs: [use], approval: { prompt: 'Sure?' } }\n",
    );
    let mut command = desk.command(&["run", "job.yaml", "--site", "site.yaml", "--run-id", "r", "--wait"]);
    let mut driver = Driver(command.stdout(Stdio::piped()).spawn().expect("starts"));
    let mut lines = BufReader::new(driver.0.stdout.take().expect("is piped")).lines();
    let waits = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("waits for anybody")));
    assert!(waits.is_some(), "it came to the question");
    let got = std::fs::read_to_string(desk.path("got")).expect("it was handed on");
    assert_eq!(got, format!("input:{secret}:endenv:{secret}:end\n"));
    // What is freed may be wiped a moment later, by another thread.
    let rendered = [format!("input:{secret}:end"), format!("env:{secret}:end"), format!("said:env:{secret}")];
    let looks = || rendered.each_ref().map(|text| in_memory(driver.0.id(), text));
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while looks() != [0, 0, 0] && std::time::Instant::now() < until {
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    assert_eq!(looks(), [0, 0, 0], "copies of the input, of the environment, of what was said");
    assert!(in_memory(driver.0.id(), secret) > 0, "the looking itself works");
    kill(Pid::from_raw(driver.0.id().cast_signed()), Signal::SIGTERM).expect("it lives");
}
