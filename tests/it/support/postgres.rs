//! A private PostgreSQL server for the tests: its own data directory, its own socket, gone with the test process.
//!
//! Fails, with the package to install, where the server's binaries are missing. Started once per test process.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::server;

/// A running server.
pub(crate) struct PrivatePostgres {
    folder: PathBuf,
}

static SERVER: OnceLock<PrivatePostgres> = OnceLock::new();

impl PrivatePostgres {
    /// The server of this process.
    pub(crate) fn start() -> &'static Self {
        SERVER.get_or_init(Self::launch)
    }

    /// Creates an empty database and returns its address.
    pub(crate) fn create_database(&self, name: &str) -> String {
        let socket = self.folder.display().to_string();
        let sql = format!("CREATE DATABASE \"{name}\"");
        run(Command::new(binary("psql"))
            .args(["-X", "-q", "-h", &socket, "-U", "postgres", "-d", "postgres", "-c", &sql]));
        self.address(name)
    }

    /// Copies a database that nobody has open and returns the address of the copy.
    pub(crate) fn copy_database(&self, from: &str, name: &str) -> String {
        let socket = self.folder.display().to_string();
        let sql = format!("CREATE DATABASE \"{name}\" TEMPLATE \"{from}\"");
        run(Command::new(binary("psql"))
            .args(["-X", "-q", "-h", &socket, "-U", "postgres", "-d", "postgres", "-c", &sql]));
        self.address(name)
    }

    /// The address of a database.
    pub(crate) fn address(&self, name: &str) -> String {
        let socket = self.folder.display().to_string();
        format!("postgres://postgres@localhost/{name}?host={}", socket.replace('/', "%2F"))
    }

    /// A server of the test's own, to be killed and started again.
    pub(crate) fn of_its_own() -> Self {
        Self::launch()
    }

    /// Has the server ask a role for its password in this way (a method of `pg_hba.conf`) from here on.
    pub(crate) fn ask(&self, role: &str, method: &str) {
        let data = self.folder.join("data");
        let file = data.join("pg_hba.conf");
        let rules = std::fs::read_to_string(&file).expect("the server's rules");
        std::fs::write(&file, format!("local all {role} {method}\n{rules}")).expect("the file is ours");
        run(as_server(&binary("pg_ctl")).arg("-D").arg(&data).arg("reload").stdout(Stdio::null()));
    }

    /// Ends the server as a power cut would: no checkpoint, every connection broken off.
    pub(crate) fn kill(&self) {
        let data = self.folder.join("data").display().to_string();
        let args = ["-D", &data, "-m", "immediate", "-w", "-t", "60", "stop"];
        run(as_server(&binary("pg_ctl")).args(args).stdout(Stdio::null()));
    }

    /// Starts the server, with what is in its data directory.
    pub(crate) fn start_again(&self) {
        let data = self.folder.join("data").display().to_string();
        let settings = format!(
            "-c listen_addresses='' -c unix_socket_directories='{}' -c fsync=off -c full_page_writes=off -c max_connections=200",
            self.folder.display()
        );
        let log = self.folder.join("log").display().to_string();
        let args = ["-D", &data, "-l", &log, "-w", "-t", "60", "-o", &settings, "start"];
        run(as_server(&binary("pg_ctl")).args(args).stdout(Stdio::null()));
    }

    fn launch() -> Self {
        let folder = server::folder("piton-pg-", "postgres", "postgresql");
        let data = folder.join("data");
        // SIGQUIT is the server's immediate shutdown, which is all that throw-away data deserves.
        server::watch(&data.join("postmaster.pid"), &folder, "QUIT");
        let data_text = data.display().to_string();
        run(as_server(&binary("initdb"))
            .args(["-D", &data_text, "-U", "postgres", "-A", "trust", "-E", "UTF8"])
            .args(["--locale=C.UTF-8", "--no-sync"]));
        let server = Self { folder };
        server.start_again();
        server
    }
}

/// The newest installed server's program.
fn binary(name: &str) -> PathBuf {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin").join(name))
        .filter(|path| path.exists())
        .collect();
    found.sort();
    found.pop().or_else(|| server::on_path(name, &[])).unwrap_or_else(|| {
        panic!("PostgreSQL's `{name}` is neither under /usr/lib/postgresql nor on PATH: apt install postgresql")
    })
}

/// A program of the system, run as the user of the server.
pub(crate) fn as_postgres(program: &str) -> Command {
    as_server(Path::new(program))
}

fn as_server(program: &Path) -> Command {
    let mut command = server::as_user("postgres", program);
    command.current_dir("/");
    command
}

/// Output goes to files, so that a server in the background keeps no pipe open.
fn run(command: &mut Command) {
    let errors = tempfile::tempfile().expect("a temp file");
    let output = errors.try_clone().expect("a second handle");
    let status =
        command.stdin(Stdio::null()).stdout(output).stderr(errors.try_clone().expect("a third handle")).status();
    let status = status.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    if !status.success() {
        use std::io::{Read, Seek};
        let mut text = String::new();
        let mut errors = errors;
        errors.rewind().expect("a file can be rewound");
        errors.read_to_string(&mut text).expect("text");
        panic!("{command:?}: {status}: {text}");
    }
}
