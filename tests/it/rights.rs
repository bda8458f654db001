//! Who else can read or change a store: it is named with what to do, and nothing is driven from what others can change.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::cli::Desk;

/// A folder in which a run waits for evidence, then has it.
fn desk() -> Desk {
    let desk = Desk::new();
    desk.runbook(
        "job",
        "steps:
  - { id: hand, manual: { instructions: Look., evidence: required } }
  - { id: write, needs: [hand], file.write: { path: conf, content: new } }
  - { id: act, needs: [write], exec: { argv: ['true'] } }\n",
    );
    desk.write("conf", "old");
    desk.write("photo", "a secret place");
    // The program makes its own folder.
    fs::remove_dir(desk.path(".piton")).expect("is empty");
    desk.piton(&["run", "job.yaml", "--run-id", "r"]).exits(6);
    desk.piton(&["answer", "r", "hand", "--evidence", "photo"]).exits(0);
    desk.piton(&["resume", "r"]).exits(0);
    desk
}

fn mode(desk: &Desk, path: &str, mode: u32) {
    fs::set_permissions(desk.path(path), Permissions::from_mode(mode)).expect("is ours");
}

/// No run is started as long as the mode is so, other commands warn, and what is said to do about it helps.
#[track_caller]
fn is_grave(desk: &Desk, path: &str, bad: u32, fix: &str) {
    let before = fs::metadata(desk.path(path)).expect("is there").permissions();
    mode(desk, path, bad);
    let refused = desk.piton(&["run", "job.yaml", "--run-id", "never"]).exits(2);
    let place = desk.path(path).canonicalize().expect("is there").display().to_string();
    assert!(refused.err.contains("no run is driven from") && refused.err.contains(&place), "{path}: {}", refused.err);
    assert!(refused.err.contains(&format!("`{fix} {place}`")), "{path}: {}", refused.err);
    assert!(refused.err.contains("has it done with your rights"), "{path}: {}", refused.err);
    desk.piton(&["resume", "r"]).exits(2);
    let warned = desk.piton(&["show", "r"]).exits(0);
    assert!(warned.err.starts_with("warning: `") && warned.err.contains(&place), "{path}: {}", warned.err);
    let helped = std::process::Command::new("sh").args(["-c", &format!("{fix} '{place}'")]).status().expect("runs");
    assert!(helped.success());
    // What SQLite makes beside a file has the mode of that, and now and then outlives the program.
    for beside in ["-wal", "-shm"].map(|ending| format!("{path}{ending}")) {
        if desk.path(&beside).exists() {
            mode(desk, &beside, 0o600);
        }
    }
    let fine = desk.piton(&["show", "r"]).exits(0);
    assert!(!fine.err.contains("can change"), "{path}: {}", fine.err);
    fs::set_permissions(desk.path(path), before).expect("is ours");
}

#[test]
fn what_piton_makes_is_its_users_alone() {
    let desk = desk();
    let mut open = vec![desk.path(".piton")];
    let mut seen = Vec::new();
    while let Some(path) = open.pop() {
        let metadata = fs::metadata(&path).expect("is there");
        let (mode, shown) = (metadata.permissions().mode() & 0o7777, path.display().to_string());
        let of_others = mode & 0o077;
        assert!(of_others == 0 || shown.ends_with("seal.pub"), "{shown}: {mode:04o}");
        seen.push(shown);
        if metadata.is_dir() {
            open.extend(fs::read_dir(&path).expect("is ours").map(|entry| entry.expect("an entry").path()));
        }
    }
    for part in ["piton.db", "piton.db-anchor", "keys/seal", "evidence/", "before/r/write.1"] {
        assert!(seen.iter().any(|path| path.contains(part)), "{part}: {seen:?}");
    }
    let said = desk.piton(&["show", "r"]).exits(0);
    assert_eq!(said.err, "", "there is nothing to warn of");
}

#[test]
fn nothing_is_driven_from_what_others_can_change() {
    let desk = desk();
    fs::create_dir_all(desk.path(".piton/commands")).expect("made");
    is_grave(&desk, ".piton/piton.db", 0o666, "chmod go-w");
    is_grave(&desk, ".piton", 0o777, "chmod go-w");
    is_grave(&desk, ".piton/keys", 0o707, "chmod go-w");
    is_grave(&desk, ".piton/commands", 0o702, "chmod go-w");
    let copy = ".piton/before/r/write.1";
    mode(&desk, copy, 0o666);
    let refused = desk.piton(&["run", "job.yaml"]).exits(2);
    assert!(
        refused.err.contains("holds a file that others can change, such as") && refused.err.contains(copy),
        "{}",
        refused.err
    );
    mode(&desk, copy, 0o600);
    // What SQLite has not yet taken over is there as long as somebody has the file open, and after a crash.
    let wal = desk.path(".piton/piton.db-wal");
    if !wal.exists() {
        fs::write(&wal, "").expect("written");
    }
    mode(&desk, ".piton/piton.db-wal", 0o622);
    assert!(desk.piton(&["run", "job.yaml"]).exits(2).err.contains("piton.db-wal"));
    mode(&desk, ".piton/piton.db-wal", 0o600);
    desk.piton(&["run", "job.yaml"]).exits(6);
}

#[test]
fn what_others_can_read_is_warned_of() {
    let desk = desk();
    let evidence = fs::read_dir(desk.path(".piton/evidence")).expect("is there").next().expect("one").expect("one");
    let evidence = format!(".piton/evidence/{}", evidence.file_name().to_string_lossy());
    mode(&desk, &evidence, 0o644);
    mode(&desk, ".piton/piton.db", 0o644);
    assert_eq!(desk.piton(&["show", "r"]).exits(0).err, "", "nobody gets into the folder");
    mode(&desk, ".piton", 0o755);
    mode(&desk, ".piton/evidence", 0o755);
    let said = desk.piton(&["show", "r"]).exits(0).err;
    assert!(said.contains("piton.db` can be read by others; `chmod go-rwx"), "{said}");
    assert!(said.contains("holds a file that others can read, such as"), "{said}");
    // It is a warning.
    desk.piton(&["run", "job.yaml"]).exits(6);
    mode(&desk, ".piton/keys/seal", 0o644);
    let refused = desk.piton(&["run", "job.yaml"]).exits(2).err;
    assert!(refused.contains("can be read by others, who could sign with it"), "{refused}");
}

#[test]
fn a_link_is_as_safe_as_both_of_its_ends() {
    let desk = desk();
    fs::create_dir(desk.path("elsewhere")).expect("made");
    fs::create_dir(desk.path("links")).expect("made");
    for ending in ["", "-anchor"] {
        let (from, to) = (format!(".piton/piton.db{ending}"), format!("elsewhere/real.db{ending}"));
        fs::rename(desk.path(&from), desk.path(&to)).expect("moved");
    }
    symlink("../elsewhere/real.db", desk.path("links/piton.db")).expect("linked");
    let run = || desk.piton(&["--store", "links/piton.db", "run", "job.yaml"]);
    run().exits(6);
    for folder in ["elsewhere", "links"] {
        mode(&desk, folder, 0o777);
        let refused = run().exits(2).err;
        assert!(refused.contains(folder) && refused.contains("can be changed by others (mode 0777)"), "{refused}");
        mode(&desk, folder, 0o755);
    }
    // In a folder like /tmp nobody can put another file in its place.
    mode(&desk, "elsewhere", 0o1777);
    run().exits(6);
}

#[test]
fn what_is_somebody_elses_is_not_driven() {
    let desk = desk();
    // Only root can give a file away; for everybody else, a store of another user cannot even be opened.
    if nix::unistd::geteuid().is_root() {
        nix::unistd::chown(&desk.path(".piton/piton.db"), Some(1.into()), None).expect("given away");
        let refused = desk.piton(&["run", "job.yaml"]).exits(2).err;
        assert!(refused.contains("belongs to") && refused.contains("or take it over with `chown`"), "{refused}");
        nix::unistd::chown(&desk.path(".piton/piton.db"), Some(0.into()), None).expect("taken back");
    }
    desk.piton(&["run", "job.yaml"]).exits(6);
}
