//! A private MariaDB server for the tests: its own data directory, its own socket, gone with the test process.
//!
//! Fails, with the package to install, where the server's binaries are missing. Started once per test process; a test that kills its server
//! takes one of its own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A running server.
pub(crate) struct PrivateMariadb {
    folder: PathBuf,
}

static SERVER: OnceLock<PrivateMariadb> = OnceLock::new();

/// Watches the test process ($1), then kills the server whose pid file is $2 and removes $3.
const WATCHDOG: &str = r#"
while kill -0 "$1" 2>/dev/null; do sleep 0.5; done
pid=$(head -n 1 "$2" 2>/dev/null) && kill -KILL "$pid" 2>/dev/null
while [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
rm -rf "$3"
"#;

/// Small, and as durable as throw-away data must be to survive a killed process.
const SETTINGS: [&str; 8] = [
    "--no-defaults",
    "--skip-networking",
    "--skip-log-bin",
    "--max-connections=200",
    "--innodb-flush-log-at-trx-commit=2",
    "--innodb-buffer-pool-size=64M",
    "--innodb-log-file-size=32M",
    "--character-set-server=latin1",
];

impl PrivateMariadb {
    /// The server of this process.
    pub(crate) fn start() -> &'static Self {
        SERVER.get_or_init(Self::of_its_own)
    }

    /// A server of the test's own, to be killed and started again.
    pub(crate) fn of_its_own() -> Self {
        let folder = tempfile::Builder::new().prefix("piton-maria-").tempdir().expect("a temp dir").keep();
        let server = Self { folder };
        if nix::unistd::geteuid().is_root() {
            let user = nix::unistd::User::from_name("mysql").expect("the user list is readable");
            let user = user.expect("root cannot run MariaDB: the user `mysql` is needed (apt install mariadb-server)");
            nix::unistd::chown(&server.folder, Some(user.uid), Some(user.gid)).expect("root may give a folder away");
        }
        server.watch();
        let mut install = server.as_server("mariadb-install-db");
        install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
        install.arg(format!("--datadir={}", server.path("data").display()));
        let log = File::create(server.path("install.log")).expect("a log file");
        let errors = log.try_clone().expect("a second handle");
        let status = install.stdin(Stdio::null()).stdout(log).stderr(errors).status().expect("mariadb-install-db runs");
        assert!(status.success(), "mariadb-install-db: {status}: {}", server.read("install.log"));
        server.start_again();
        server
    }

    /// Creates an empty database, which tells every two texts apart, and returns its address.
    pub(crate) fn create_database(&self, name: &str) -> String {
        self.sql(&format!("CREATE DATABASE `{name}` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"));
        let socket = self.path("socket").display().to_string();
        format!("mariadb://root@localhost/{name}?socket={}", socket.replace('/', "%2F"))
    }

    /// Ends the server as a power cut would.
    pub(crate) fn kill(&self) {
        let pid = self.pid().expect("the server runs");
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("the server can be killed");
        while nix::sys::signal::kill(pid, None).is_ok() {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = std::fs::remove_file(self.path("pid"));
    }

    /// Starts the server, with what is in its data directory, and waits until it answers.
    pub(crate) fn start_again(&self) {
        let log = File::options().create(true).append(true).open(self.path("log")).expect("a log file");
        let mut command = Command::new("setsid");
        // `setsid -f` leaves the server to init, which takes note of its end.
        command.arg("-f");
        let server = self.as_server("mariadbd");
        command.arg(server.get_program()).args(server.get_args()).args(SETTINGS);
        for (name, file) in [("datadir", "data"), ("socket", "socket"), ("pid-file", "pid")] {
            command.arg(format!("--{name}={}", self.path(file).display()));
        }
        let errors = log.try_clone().expect("a second handle");
        let started = command.current_dir("/").stdin(Stdio::null()).stdout(log).stderr(errors).status();
        assert!(started.is_ok_and(|status| status.success()), "mariadbd did not start");
        let patience = Instant::now() + Duration::from_mins(1);
        while !self.client("SELECT 1").status().expect("the client runs").success() {
            assert!(Instant::now() < patience, "mariadbd does not answer: {}", self.read("log"));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn sql(&self, sql: &str) {
        let output = self.client(sql).stderr(Stdio::piped()).output().expect("the client runs");
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn client(&self, sql: &str) -> Command {
        let mut command = Command::new(binary("mariadb"));
        command.args(["--no-defaults", "-u", "root", "-S"]).arg(self.path("socket")).args(["-e", sql]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn pid(&self) -> Option<nix::unistd::Pid> {
        let text = std::fs::read_to_string(self.path("pid")).ok()?;
        text.trim().parse().ok().map(nix::unistd::Pid::from_raw)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn watch(&self) {
        let watched =
            [std::process::id().to_string(), self.path("pid").display().to_string(), self.folder.display().to_string()];
        let status = Command::new("setsid")
            .args(["-f", "sh", "-c", WATCHDOG, "piton-maria-watchdog"])
            .args(watched)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("setsid (util-linux) is there");
        assert!(status.success(), "the watchdog did not start: {status}");
    }

    /// The server refuses to run as root.
    fn as_server(&self, name: &str) -> Command {
        let program = binary(name);
        let mut command = if nix::unistd::geteuid().is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=mysql", "--regid=mysql", "--init-groups", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir(&self.folder);
        command
    }
}

impl Drop for PrivateMariadb {
    /// Servers of a test's own end with it; the shared one ends with the process, by the watchdog.
    fn drop(&mut self) {
        if self.pid().is_some_and(|pid| nix::sys::signal::kill(pid, None).is_ok()) {
            self.kill();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn binary(name: &str) -> PathBuf {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders)
        .chain([Path::new("/usr/sbin").to_owned(), Path::new("/usr/local/sbin").to_owned()])
        .map(|folder| folder.join(name))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("MariaDB's `{name}` is not on PATH: apt install mariadb-server"))
}
