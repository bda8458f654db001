//! What private servers of the tests have in common: a folder of their own, a user that is not root, and an end with the tests.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Watches the test process ($1), then sends the signal $4 to the server whose process the first line of the file $2 names,
/// and removes the folder $3.
const WATCHDOG: &str = r#"
while kill -0 "$1" 2>/dev/null; do sleep 0.5; done
pid=$(head -n 1 "$2" 2>/dev/null) && kill "-$4" "$pid" 2>/dev/null
while [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
rm -rf "$3"
"#;

/// A new folder that belongs to whom the server runs as; servers refuse to run as root.
pub(super) fn folder(prefix: &str, user: &str, package: &str) -> PathBuf {
    let folder = tempfile::Builder::new().prefix(prefix).tempdir().expect("a temp dir").keep();
    if nix::unistd::geteuid().is_root() {
        let known = nix::unistd::User::from_name(user).expect("the user list is readable");
        let known = known.unwrap_or_else(|| {
            panic!("root cannot run the server: the user `{user}` is needed (apt install {package})")
        });
        nix::unistd::chown(&folder, Some(known.uid), Some(known.gid)).expect("root may give a folder away");
    }
    folder
}

/// Ends the server and removes its folder once this process is gone, however it goes.
pub(super) fn watch(pid_file: &Path, folder: &Path, signal: &str) {
    // `setsid -f` forks and returns at once; the watchdog itself must outlive this process.
    let status = Command::new("setsid")
        .args(["-f", "sh", "-c", WATCHDOG, "piton-watchdog", &std::process::id().to_string()])
        .args([pid_file, folder])
        .arg(signal)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("setsid (util-linux) is there");
    assert!(status.success(), "the watchdog did not start: {status}");
}

/// A program of the server, run as `user` where the tests run as root.
pub(super) fn as_user(user: &str, program: &Path) -> Command {
    if !nix::unistd::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={user}")).arg(format!("--regid={user}")).args(["--init-groups", "--"]).arg(program);
    command
}

/// A program by its name.
pub(super) fn on_path(name: &str, also: &[&str]) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders)
        .chain(also.iter().map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|path| path.exists())
}
