//! A private MariaDB server for the tests: its own data directory, its own socket, gone with the test process.
//!
//! Fails, with the package to install, where the server's binaries are missing. Started once per test process; a test that kills its server
//! takes one of its own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::server;

/// A running server.
pub(crate) struct PrivateMariadb {
    folder: PathBuf,
    settings: Vec<String>,
}

static SERVER: OnceLock<PrivateMariadb> = OnceLock::new();

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
        Self::with(&[])
    }

    /// A server of the test's own with these settings besides.
    pub(crate) fn with(settings: &[&str]) -> Self {
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let server = Self { folder: server::folder("piton-maria-", "mysql", "mariadb-server"), settings };
        server::watch(&server.path("pid"), &server.folder, "KILL");
        let made = server::as_user("mysql", Path::new("mkdir")).arg(server.path("tmp")).status();
        assert!(made.is_ok_and(|status| status.success()), "a folder for temporary tables");
        let mut install = server.as_server("mariadb-install-db");
        install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
        install
            .arg(format!("--tmpdir={}", server.path("tmp").display()))
            .args(&server.settings)
            .arg(format!("--datadir={}", server.path("data").display()));
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
        // It holds nothing any more once it is dead; init may take its time to note that.
        let lives = || {
            let stat = procfs::process::Process::new(pid.as_raw()).and_then(|process| process.stat());
            stat.is_ok_and(|stat| stat.state != 'Z' && stat.state != 'X')
        };
        while lives() {
            std::thread::sleep(Duration::from_millis(2));
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
        command.arg(server.get_program()).args(server.get_args()).args(SETTINGS).args(&self.settings);
        // Without a folder of its own a server that starts takes the temporary tables of others in `/tmp` for left-overs, and they crash.
        for (name, file) in [("datadir", "data"), ("tmpdir", "tmp"), ("socket", "socket"), ("pid-file", "pid")] {
            command.arg(format!("--{name}={}", self.path(file).display()));
        }
        let errors = log.try_clone().expect("a second handle");
        let started = command.current_dir("/").stdin(Stdio::null()).stdout(log).stderr(errors).status();
        assert!(started.is_ok_and(|status| status.success()), "mariadbd did not start");
        let patience = Instant::now() + Duration::from_mins(1);
        while !self.client("SELECT 1").status().expect("the client runs").success() {
            assert!(Instant::now() < patience, "mariadbd does not answer: {}", self.read("log"));
            std::thread::sleep(Duration::from_millis(20));
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

    fn as_server(&self, name: &str) -> Command {
        let mut command = server::as_user("mysql", &binary(name));
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
    server::on_path(name, &["/usr/sbin", "/usr/local/sbin"])
        .unwrap_or_else(|| panic!("MariaDB's `{name}` is not on PATH: apt install mariadb-server"))
}
