//! What a panic says: where it was and why, without the secrets that this process knows. A panic is a bug of Piton, and its message
//! may hold anything.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::Write as _;
use std::panic::PanicHookInfo;

use crate::action::secrets::without_secrets;

/// Has every panic of this process say so without secrets.
pub(super) fn install() {
    std::panic::set_hook(Box::new(|info| {
        // Nobody is left to be told when standard error is closed.
        let _ = std::io::stderr().lock().write_all(told(info).as_bytes());
    }));
}

/// The message of a panic.
fn told(info: &PanicHookInfo<'_>) -> String {
    let thread = std::thread::current();
    let place = info.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    let message = info.payload_as_str().unwrap_or("no message");
    let message = without_secrets(message).unwrap_or_else(|| "(withheld: it may hold a secret)".to_owned());
    let head = format!("\nthread '{}' panicked at {place}:\n{message}\n", thread.name().unwrap_or("<unnamed>"));
    let trace = Backtrace::capture();
    let trace = if trace.status() == BacktraceStatus::Captured {
        format!("{trace}\n")
    } else {
        "note: run with `RUST_BACKTRACE=1` to see how it came to this\n".to_owned()
    };
    format!("{head}{trace}this is a bug of Piton; what was recorded is safe, and the run can be resumed\n")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::action::secrets::Secrets;

    /// Set in the process that panics.
    const PANICS: &str = "PITON_TEST_PANICS";

    /// The same test, run once more as a process that panics on three threads.
    #[test]
    fn a_panic_says_no_secret() {
        if crate::config::variable(PANICS).is_some() {
            return panics();
        }
        let program = std::env::current_exe().expect("this program");
        let name = "cli::panics::tests::a_panic_says_no_secret";
        let mut command = Command::new(program);
        command.args(["--exact", name, "--nocapture"]).env(PANICS, "1").env("RUST_BACKTRACE", "0");
        let output = command.output().expect("it runs");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(!output.status.success(), "{said}");
        for kept in ["hunter2-and-more", "aHVudGVyMi1hbmQtbW9yZ"] {
            assert!(!said.contains(kept), "{said}");
        }
        for expected in
            ["cannot open ***: aha", "in a thread: ***", "in a task: ***", "src/cli/panics.rs:", "a bug of Piton"]
        {
            assert!(said.contains(expected), "{expected}: {said}");
        }
    }

    fn panics() {
        install();
        let secrets = Secrets::default();
        secrets.hide("hunter2-and-more");
        let thread = std::thread::spawn(|| panic!("in a thread: {}", "aHVudGVyMi1hbmQtbW9yZQ=="));
        assert!(thread.join().is_err());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
        let task = runtime.block_on(runtime.spawn(async { panic!("in a task: {}", "hunter2-and-more") }));
        assert!(task.is_err());
        panic!("cannot open {}: aha", "hunter2-and-more");
    }
}
