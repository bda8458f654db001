//! Keys of people, made and used by `ssh-keygen`.

use std::path::Path;
use std::process::{Command, Stdio};

/// What `ssh-keygen` prints when it is called like this in `folder`.
pub(crate) fn keygen(folder: &Path, args: &[&str], input: &str) -> String {
    let mut command = Command::new("ssh-keygen");
    command.args(args).current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("ssh-keygen is there");
    std::io::Write::write_all(&mut child.stdin.take().expect("is piped"), input.as_bytes()).expect("is read");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}
