//! The engines' own tools: where they are, whether they fit the server, and how they are run with their output or input in our hands.
//!
//! Whatever a tool writes goes through a pipe to us, and whatever it reads comes through one: a tool whose driver was killed writes to nobody and
//! reads an end. Refuses a tool that is missing, older than the server, or another product's. Used by `db.backup` and `db.restore`.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use process_wrap::tokio::ProcessSession;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

use super::super::process::{self, CommandLine, GroupGuard};
use super::super::{Context, Failure, Progress, durable};
use super::address::Address;
use super::store::Sum;
use crate::config::rights::own_folder;
use crate::transfer::ServerFacts;

/// Where Debian and Red Hat keep the tools of each PostgreSQL version.
const POSTGRES_FOLDERS: [(&str, &str); 2] = [("/usr/lib/postgresql", ""), ("/usr", "pgsql-")];
/// Bytes that pass at a time.
const PIECE: usize = 256 * 1024;
/// Bytes of a tool's complaint that are kept.
const COMPLAINT: usize = 16 * 1024;

/// A release series: the major version, and for MariaDB and MySQL the minor one.
pub(crate) type Series = (u32, u32);

/// A tool that fits the server.
#[derive(Debug, Clone)]
pub(crate) struct Tool {
    /// Its program.
    pub(crate) path: PathBuf,
    /// What it says about its version.
    pub(crate) version: String,
    series: Series,
}

/// The release series that the version text of a server or a tool of `product` names; nothing where it is of another product.
pub(crate) fn series(product: &str, text: &str) -> Option<Series> {
    let pattern = match product {
        "PostgreSQL" => r"(\d+)(?:\.(\d+))?",
        // `mariadb-dump  Ver 10.19 Distrib 10.11.6-MariaDB`, `mariadb-dump from 11.4.2-MariaDB`.
        "MariaDB" => r"(\d+)\.(\d+)\.\d+-MariaDB",
        _ if text.contains("MariaDB") => return None,
        _ => r"(\d+)\.(\d+)\.\d+",
    };
    let found = regex::Regex::new(pattern).ok()?.captures(text)?;
    let number = |at: usize| found.get(at).and_then(|part| part.as_str().parse().ok());
    // PostgreSQL's second number counts mendings.
    Some((number(1)?, if product == "PostgreSQL" { 0 } else { number(2)? }))
}

/// Finds the tool of the server's product. Of PostgreSQL's the oldest that is no older than the server and than `made_by`, the tool that made
/// what is to be read: newer ones write what an older server does not understand.
///
/// # Errors
/// Which tool is missing or too old, and what to do.
pub(crate) async fn find(
    cx: &Context,
    names: &[&str],
    server: &ServerFacts,
    made_by: Option<&str>,
) -> Result<Tool, Failure> {
    let postgres = server.product == "PostgreSQL";
    let wanted = series(server.product, &server.version).max(made_by.and_then(|text| series(server.product, text)));
    let (mut fitting, mut others) = (Vec::new(), Vec::new());
    for path in candidates(postgres, names) {
        let line = CommandLine::new(&[path.display().to_string(), "--version".to_owned()], Path::new("/"));
        let Ok(finished) = process::run(&line, &cx.cancel, &cx.masker).await else { continue };
        let version = finished.stdout.raw().unwrap_or_default().trim().to_owned();
        match series(server.product, &version).filter(|_| finished.status.success()) {
            Some(series) if !postgres || Some(series) >= wanted => fitting.push(Tool { path, version, series }),
            Some(_) | None => others.push(format!("`{}` is `{version}`", path.display())),
        }
    }
    if postgres {
        fitting.sort_by_key(|tool| tool.series);
    }
    if let Some(tool) = fitting.into_iter().next() {
        return Ok(tool);
    }
    let name = names.first().copied().unwrap_or_default();
    let package = match server.product {
        "PostgreSQL" => "postgresql-client",
        "MariaDB" => "mariadb-client",
        _ => "mysql-client",
    };
    let needed = format!("{} {}", server.product, server.version);
    Err(Failure::permanent(if others.is_empty() {
        format!("`{name}` is not installed: install the package `{package}` (or its like) for {needed}")
    } else {
        format!("no `{name}` here fits {needed}: {}; install the `{package}` of that version", others.join(", "))
    }))
}

/// Where the tool may be.
fn candidates(postgres: bool, names: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for (folder, prefix) in POSTGRES_FOLDERS.iter().filter(|_| postgres) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let version = entry.file_name().to_str().and_then(|name| name.strip_prefix(prefix)?.parse::<u32>().ok());
            let bin = entry.path().join("bin");
            found.extend(
                names.iter().filter(|_| version.is_some()).map(|name| bin.join(name)).filter(|path| path.exists()),
            );
        }
    }
    found.sort();
    found.extend(names.iter().filter_map(|name| which::which(name).ok()));
    found
}

/// A folder of the step for what a tool is told, that only its owner may enter; gone when dropped. What a killed attempt left there is removed first.
#[derive(Debug)]
pub(crate) struct Desk {
    folder: PathBuf,
}

impl Desk {
    /// The folder of this step.
    ///
    /// # Errors
    /// When the state folder cannot be written.
    pub(crate) fn of(cx: &Context) -> Result<Self, Failure> {
        let folder = cx.state_dir.join("tools").join(super::token(cx));
        let folder = std::path::absolute(&folder).unwrap_or(folder);
        let made = || {
            match std::fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            own_folder(&folder)
        };
        made().map_err(|error| Failure::harmless(format!("`{}`: {error}", folder.display())))?;
        Ok(Self { folder })
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf, Failure> {
        let path = self.folder.join(name);
        durable::replace(&path, text.as_bytes(), Some(0o600))
            .map_err(|error| Failure::harmless(format!("`{}`: {error}", path.display())))?;
        Ok(path)
    }

    /// A tool of libpq; it finds the server as the service `piton`.
    pub(crate) fn libpq(
        &self,
        tool: &Tool,
        address: &Address,
        name: &str,
        arguments: &[&str],
    ) -> Result<CommandLine, Failure> {
        let service = self.write("service.conf", &address.service_file())?;
        let mut line = self.line(tool, "--dbname=service=piton", arguments);
        line.env = address.libpq_variables();
        line.env.insert("PGSERVICEFILE".into(), service.display().to_string().into());
        line.env.insert("PGAPPNAME".into(), name.into());
        Ok(line)
    }

    /// A tool of MariaDB or MySQL; nothing but this option file is read.
    pub(crate) fn mariadb(&self, tool: &Tool, options: &str, arguments: &[&str]) -> Result<CommandLine, Failure> {
        let options = self.write("options.cnf", options)?;
        let mut line = self.line(tool, &format!("--defaults-file={}", options.display()), arguments);
        line.env = BTreeMap::from([("MYSQL_HISTFILE".to_owned(), "/dev/null".into())]);
        Ok(line)
    }

    fn line(&self, tool: &Tool, first: &str, arguments: &[&str]) -> CommandLine {
        let mut argv = vec![tool.path.display().to_string(), first.to_owned()];
        argv.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        CommandLine::new(&argv, &self.folder)
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            tracing::warn!(folder = %self.folder.display(), %error, "a folder of a tool was not removed");
        }
    }
}

/// Runs a tool whose output becomes `file`; size, checksum and the last bytes of it.
///
/// # Errors
/// How it failed, in words.
pub(crate) async fn write_to(
    cx: &Context,
    line: &CommandLine,
    file: File,
    what: &str,
) -> Result<(Sum, Vec<u8>), String> {
    let mut tool = Running::start(line, Stdio::null(), Stdio::piped())?;
    let output = tool.child.stdout().take();
    let mut file = tokio::fs::File::from_std(file);
    let mut meter = Meter::new(cx, what, None);
    let mut tail = Vec::new();
    let work = async {
        let Some(mut output) = output else { return Ok(()) };
        let mut piece = vec![0; PIECE];
        while let read @ 1.. = output.read(&mut piece).await? {
            file.write_all(&piece[..read]).await?;
            meter.add(&piece[..read]);
            tail.extend_from_slice(&piece[read.saturating_sub(64)..read]);
            tail.drain(..tail.len().saturating_sub(64));
        }
        file.flush().await?;
        file.sync_all().await
    };
    tool.finish(cx, line, work).await?;
    Ok((meter.sum, tail))
}

/// Runs a tool that reads `file` to its end.
///
/// # Errors
/// How it failed, in words.
pub(crate) async fn read_from(
    cx: &Context,
    line: &CommandLine,
    file: File,
    bytes: u64,
    what: &str,
) -> Result<(), String> {
    let mut tool = Running::start(line, Stdio::piped(), Stdio::null())?;
    let input = tool.child.stdin().take();
    let mut file = tokio::fs::File::from_std(file);
    let mut meter = Meter::new(cx, what, Some(bytes));
    let work = async {
        let Some(mut input) = input else { return Ok(()) };
        let mut piece = vec![0; PIECE];
        while let read @ 1.. = file.read(&mut piece).await? {
            // A tool that reads no more says why when it ends.
            if input.write_all(&piece[..read]).await.is_err() {
                break;
            }
            meter.add(&piece[..read]);
        }
        Ok(())
    };
    tool.finish(cx, line, work).await
}

/// A tool that runs. Dropped, it is killed.
struct Running {
    child: Box<dyn process_wrap::tokio::ChildWrapper>,
    guard: GroupGuard,
}

impl Running {
    fn start(line: &CommandLine, stdin: Stdio, stdout: Stdio) -> Result<Self, String> {
        let mut command = process::prepared(line);
        command.command_mut().stdin(stdin).stdout(stdout).stderr(Stdio::piped());
        let child = command.wrap(ProcessSession).spawn();
        let child = child.map_err(|error| format!("cannot start `{}`: {error}", line.program()))?;
        let group = process::group_of(child.as_ref()).map_err(|error| error.to_string())?;
        Ok(Self { child, guard: GroupGuard::of(group) })
    }

    /// Waits for `work` and for the end of the tool.
    async fn finish(
        mut self,
        cx: &Context,
        line: &CommandLine,
        work: impl Future<Output = std::io::Result<()>>,
    ) -> Result<(), String> {
        let complaint = self.child.stderr().take();
        let all = async {
            let (worked, complaint) = tokio::join!(work, last_of(complaint));
            let status = self.child.inner_mut().wait().await;
            (worked, complaint, status)
        };
        let (worked, complaint, status) = tokio::select! {
            all = all => all,
            () = cx.cancel.cancelled() => return Err("it was cancelled".to_owned()),
        };
        self.guard.release();
        let program = Path::new(line.program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let status = status.map_err(|error| format!("`{program}`: {error}"))?;
        if !status.success() {
            let said = cx.masker.text(&String::from_utf8_lossy(&complaint));
            let said: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            let last = said[said.len().saturating_sub(5)..].join(" | ");
            return Err(format!("`{program}`: {status}: {last}"));
        }
        worked.map_err(|error| format!("`{program}`: {error}"))
    }
}

/// The last bytes of a stream.
async fn last_of(pipe: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut kept = Vec::new();
    let Some(mut pipe) = pipe else { return kept };
    let mut piece = vec![0; 4096];
    while let Ok(read @ 1..) = pipe.read(&mut piece).await {
        kept.extend_from_slice(&piece[..read]);
        kept.drain(..kept.len().saturating_sub(COMPLAINT));
    }
    kept
}

/// Counts and sums up what passes, and tells how far it came.
struct Meter<'a> {
    cx: &'a Context,
    what: &'a str,
    total: Option<u64>,
    since: tokio::time::Instant,
    told: tokio::time::Instant,
    sum: Sum,
}

impl<'a> Meter<'a> {
    fn new(cx: &'a Context, what: &'a str, total: Option<u64>) -> Self {
        let now = tokio::time::Instant::now();
        Self { cx, what, total, since: now, told: now, sum: Sum::default() }
    }

    fn add(&mut self, bytes: &[u8]) {
        self.sum.add(bytes);
        if self.told.elapsed().as_millis() < 200 {
            return;
        }
        self.told = tokio::time::Instant::now();
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let per_second = self.sum.bytes as f64 / self.since.elapsed().as_secs_f64();
        let what = format!("{} (bytes)", self.what);
        (self.cx.progress)(Progress {
            what,
            done: self.sum.bytes,
            total: self.total,
            per_second,
            ..Progress::default()
        });
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::super::testing::Place;
    use super::*;

    fn server(product: &'static str, version: &str) -> ServerFacts {
        ServerFacts { product, version: version.to_owned() }
    }

    #[test]
    fn versions_are_read_as_each_tool_spells_them() {
        for (product, text, wanted) in [
            ("PostgreSQL", "pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", Some((15, 0))),
            ("PostgreSQL", "17beta1", Some((17, 0))),
            (
                "MariaDB",
                "mariadb-dump  Ver 10.19 Distrib 10.11.19-MariaDB, for debian-linux-gnu (x86_64)",
                Some((10, 11)),
            ),
            ("MariaDB", "mariadb-dump from 11.4.2-MariaDB, client 10.19 for Linux (x86_64)", Some((11, 4))),
            ("MariaDB", "10.11.19-MariaDB-0+deb12u1", Some((10, 11))),
            ("MariaDB", "mysqldump  Ver 8.0.36 for Linux on x86_64", None),
            ("MySQL", "mysqldump  Ver 8.0.36 for Linux on x86_64", Some((8, 0))),
            ("MySQL", "mysqldump  Ver 10.19 Distrib 10.11.19-MariaDB, for debian-linux-gnu", None),
        ] {
            assert_eq!(series(product, text), wanted, "{text}");
        }
    }

    #[tokio::test]
    async fn a_tool_that_is_missing_too_old_or_of_another_product_is_refused() {
        let place = Place::new();
        let missing = find(&place.cx, &["no-such-dump"], &server("MariaDB", "10.11.1-MariaDB"), None).await;
        let missing = missing.expect_err("missing");
        assert!(missing.error.contains("not installed") && missing.error.contains("mariadb-client"), "{missing}");
        let old = find(&place.cx, &["pg_dump"], &server("PostgreSQL", "99.1"), None).await.expect_err("no such server");
        assert!(old.error.contains("fits PostgreSQL 99.1") && !old.retryable, "{old}");
        let old =
            find(&place.cx, &["pg_restore"], &server("PostgreSQL", "15.1"), Some("pg_dump (PostgreSQL) 99.1")).await;
        assert!(old.is_err(), "what a newer tool wrote");
        let other =
            find(&place.cx, &["mariadb-dump"], &server("MySQL", "8.0.36"), None).await.expect_err("another product");
        assert!(other.error.contains("fits MySQL 8.0.36"), "{other}");
    }

    #[test]
    fn a_folder_of_the_step_is_private_and_starts_empty() {
        let place = Place::new();
        let first = Desk::of(&place.cx).expect("made");
        let secret = first.write("left", "secret").expect("written");
        assert_eq!(std::fs::metadata(&secret).expect("there").permissions().mode() & 0o777, 0o600);
        let folder = first.folder.clone();
        std::mem::forget(first);
        let second = Desk::of(&place.cx).expect("made anew");
        assert_eq!(std::fs::read_dir(&second.folder).expect("a folder").count(), 0);
        assert_eq!(std::fs::metadata(&folder).expect("there").permissions().mode() & 0o777, 0o700);
        drop(second);
        assert!(!folder.exists());
    }
}
