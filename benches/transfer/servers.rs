//! Private servers for the measurement: two PostgreSQL clusters and one MariaDB, with the settings that their packages bring, gone with the program.
//!
//! Refuses to touch a server that runs already. Their data stands in the folder for temporary files.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::measure::BenchError;
use super::server;

/// Runs a command to its end; what it says is kept in the error.
pub(crate) fn run(command: &mut Command) -> Result<(), BenchError> {
    let name = format!("{command:?}");
    let log = tempfile::NamedTempFile::new().map_err(|error| BenchError::Start(name.clone(), error))?;
    let output = || log.reopen().map_err(|error| BenchError::Start(name.clone(), error));
    let status = command.stdin(Stdio::null()).stdout(output()?).stderr(output()?).status();
    let status = status.map_err(|error| BenchError::Start(name.clone(), error))?;
    let said = || std::fs::read_to_string(log.path()).unwrap_or_default();
    if status.success() { Ok(()) } else { Err(BenchError::Said(name, said())) }
}

/// One PostgreSQL cluster.
pub(crate) struct Postgres {
    folder: PathBuf,
}

impl Postgres {
    pub(crate) fn start() -> Result<Self, BenchError> {
        let folder = server::folder("piton-bench-pg-", "postgres", "postgresql");
        let data = folder.join("data");
        server::watch(&data.join("postmaster.pid"), &folder, "QUIT");
        let data = data.display().to_string();
        run(as_postgres("initdb")?
            .args(["-D", &data, "-U", "postgres", "-A", "trust", "-E", "UTF8"])
            .arg("--locale=C.UTF-8"))?;
        let place = format!("-c listen_addresses='' -c unix_socket_directories='{}'", folder.display());
        let log = folder.join("log").display().to_string();
        run(as_postgres("pg_ctl")?.args(["-D", &data, "-l", &log, "-w", "-o", &place, "start"]))?;
        Ok(Self { folder })
    }

    /// The address as libpq and sqlx read it.
    pub(crate) fn url(&self, database: &str) -> String {
        let socket = self.folder.display().to_string().replace('/', "%2F");
        format!("postgres://postgres@localhost/{database}?host={socket}")
    }

    /// The address as pgloader reads it.
    pub(crate) fn pgloader_url(&self, database: &str) -> String {
        format!("pgsql://postgres@unix:{}:5432/{database}", self.folder.display())
    }

    /// The start of a shell command that speaks to `database`.
    pub(crate) fn psql(&self, database: &str) -> String {
        format!("psql -X -q -v ON_ERROR_STOP=1 -h {} -U postgres -d {database}", self.folder.display())
    }

    pub(crate) fn sql(&self, database: &str, sql: &str) -> Result<(), BenchError> {
        let host = self.folder.display().to_string();
        run(Command::new("psql")
            .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", &host, "-U", "postgres", "-d", database])
            .args(["-c", sql]))
    }

    /// An empty database, whatever stood there before.
    pub(crate) fn fresh(&self, database: &str) -> Result<(), BenchError> {
        self.sql("postgres", &format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)"))?;
        self.sql("postgres", &format!("CREATE DATABASE {database}"))
    }
}

fn as_postgres(name: &str) -> Result<Command, BenchError> {
    let mut command = server::as_user("postgres", &postgres_program(name)?);
    command.current_dir("/");
    Ok(command)
}

/// The newest installed server's program.
fn postgres_program(name: &str) -> Result<PathBuf, BenchError> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = versions.map(|version| version.path().join("bin").join(name)).collect();
    found.retain(|path| path.exists());
    found.sort();
    let found = found.pop().or_else(|| server::on_path(name, &[]));
    found.ok_or_else(|| BenchError::Missing(name.to_owned(), "postgresql"))
}

/// One MariaDB server.
pub(crate) struct Mariadb {
    port: u16,
}

impl Mariadb {
    pub(crate) fn start() -> Result<Self, BenchError> {
        let folder = server::folder("piton-bench-maria-", "mysql", "mariadb-server");
        server::watch(&folder.join("pid"), &folder, "KILL");
        let data = format!("--datadir={}", folder.join("data").display());
        let mut install = as_mariadb("mariadb-install-db", &folder)?;
        run(install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", &data]))?;
        let port = free_port()?;
        let log = File::create(folder.join("log")).map_err(|error| BenchError::File(folder.clone(), error))?;
        let program = as_mariadb("mariadbd", &folder)?;
        // `setsid -f` leaves the server to init, which takes note of its end.
        let mut command = Command::new("setsid");
        command.arg("-f").arg(program.get_program()).args(program.get_args()).args(["--no-defaults", &data]);
        command.arg("--bind-address=127.0.0.1").arg(format!("--port={port}"));
        command.arg(format!("--socket={}", folder.join("socket").display()));
        command.arg(format!("--pid-file={}", folder.join("pid").display())).current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.status().map_err(|error| BenchError::Start("mariadbd".to_owned(), error))?;
        let server = Self { port };
        let sql = "CREATE DATABASE perf; CREATE USER bench@'127.0.0.1' IDENTIFIED BY 'bench'; GRANT ALL ON *.* TO bench@'127.0.0.1'";
        let socket = folder.join("socket").display().to_string();
        let root = ["--no-defaults", "-u", "root", "-S", &socket, "-e"];
        let mut patience = 600;
        while let Err(error) = run(Command::new("mariadb").args(root).arg("SELECT 1")) {
            patience -= 1;
            if patience == 0 {
                return Err(error);
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        run(Command::new("mariadb").args(root).arg(sql))?;
        Ok(server)
    }

    pub(crate) fn url(&self) -> String {
        format!("mysql://bench:bench@127.0.0.1:{}/perf", self.port)
    }

    pub(crate) fn sql(&self, sql: &str) -> Result<(), BenchError> {
        let port = self.port.to_string();
        run(Command::new("mariadb").args([
            "--no-defaults",
            "-u",
            "bench",
            "-pbench",
            "-h",
            "127.0.0.1",
            "-P",
            &port,
            "perf",
            "-e",
            sql,
        ]))
    }
}

fn as_mariadb(name: &str, folder: &Path) -> Result<Command, BenchError> {
    let program = server::on_path(name, &["/usr/sbin", "/usr/libexec"]);
    let program = program.ok_or_else(|| BenchError::Missing(name.to_owned(), "mariadb-server"))?;
    let mut command = server::as_user("mysql", &program);
    command.current_dir(folder);
    Ok(command)
}

fn free_port() -> Result<u16, BenchError> {
    let bound = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    bound.map(|address| address.port()).map_err(|error| BenchError::Start("a port".to_owned(), error))
}
