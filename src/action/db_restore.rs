//! `db.restore`: what `db.backup` wrote, into an empty database, whole or not at all.
//!
//! PostgreSQL does it in one transaction and SQLite with one rename. MariaDB cannot, so its schema is marked until the restore is whole and emptied of
//! everything beside the mark when it is not. Refuses a backup that is not what its manifest says before anything is changed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::backup::address::Address;
use super::backup::store::{Manifest, manifest, verify};
use super::backup::token;
use super::backup::tools::{self, Desk};
use super::db::failure;
use super::{Action, Context, Failure, Preview, durable};
use crate::event::{Finding, Outputs};
use crate::spec::actions::DbRestore;
use crate::transfer::{self, Database, Engine, MARK, ServerFacts, SessionFilter};

/// Objects that a message names.
const NAMED: usize = 5;
/// How often, and how long at most, it is looked whether an earlier attempt's session has ended.
const END_PAUSE: Duration = Duration::from_millis(50);
const END_LOOKS: u32 = 600;

impl DbRestore {
    fn place(&self, cx: &Context) -> PathBuf {
        cx.base.join(&self.from)
    }

    /// Refuses a backup of another product.
    fn fits(manifest: &Manifest, product: &str) -> Result<(), Failure> {
        if manifest.product == product {
            return Ok(());
        }
        Err(Failure::permanent(format!("the backup is one of {}, the database is {product}", manifest.product)))
    }

    /// Refuses a database that holds something, unless it may be replaced.
    fn empty(&self, objects: &[String]) -> Result<(), Failure> {
        if objects.is_empty() || self.replace {
            return Ok(());
        }
        let named: Vec<String> = objects.iter().take(NAMED).map(|name| format!("`{name}`")).collect();
        let more = if objects.len() > NAMED { format!(" and {} more", objects.len() - NAMED) } else { String::new() };
        let error = format!("database `{}` is not empty: it has {}{more}", self.database, named.join(", "));
        Err(Failure::permanent(error))
    }

    async fn address(&self, cx: &Context, engine: Engine) -> Result<Address, Failure> {
        let url = cx.databases.address(&self.database).await?;
        Address::parse(engine, &url)
            .map_err(|error| Failure::permanent(format!("database `{}`: {error}", self.database)))
    }

    /// Looks for everything that would keep it from being restored, the sums of the backup included.
    async fn ready(&self, cx: &Context) -> Result<(Manifest, File), Failure> {
        verify(&self.place(cx)).await.map_err(|error| Failure::permanent(error.to_string()))
    }

    async fn restore_server(&self, cx: &Context, manifest: &Manifest, file: File) -> Result<(), Failure> {
        let database = cx.databases.get(&self.database).await?;
        let server = transfer::server_facts(&database).await.map_err(|error| failure(&error))?;
        Self::fits(manifest, server.product)?;
        match database.engine() {
            Engine::Mariadb => self.restore_mariadb(cx, &database, &server, manifest, file).await,
            Engine::Postgres | Engine::Sqlite => self.restore_postgres(cx, &database, &server, manifest, file).await,
        }
    }

    async fn restore_postgres(
        &self,
        cx: &Context,
        database: &Database,
        server: &ServerFacts,
        manifest: &Manifest,
        file: File,
    ) -> Result<(), Failure> {
        let name = format!("piton restore {}", token(cx));
        end_earlier(database, &name).await?;
        self.empty(&objects(database).await?)?;
        let tool = tools::find(cx, &["pg_restore"], server, Some(&manifest.tool)).await?;
        let address = self.address(cx, Engine::Postgres).await?;
        let desk = Desk::of(cx)?;
        let mut arguments = vec!["--single-transaction", "--exit-on-error", "--no-password", "--format=custom"];
        if !self.owners {
            arguments.extend(["--no-owner", "--no-privileges"]);
        }
        if self.replace {
            arguments.extend(["--clean", "--if-exists"]);
        }
        let line = desk.libpq(&tool, &address, &name, &arguments)?;
        let what = format!("restore of `{}`", self.database);
        let Err(error) = tools::read_from(cx, &line, file, manifest.bytes, &what).await else { return Ok(()) };
        // One transaction: nothing is left of it, unless the commit itself was cut off.
        end_earlier(database, &name).await?;
        let empty = !self.replace && objects(database).await.is_ok_and(|objects| objects.is_empty());
        Err(if empty { Failure::harmless(error) } else { Failure::unknown(error) })
    }

    async fn restore_mariadb(
        &self,
        cx: &Context,
        database: &Database,
        server: &ServerFacts,
        manifest: &Manifest,
        file: File,
    ) -> Result<(), Failure> {
        if self.replace {
            let error =
                format!("{} cannot take back what a restore replaced: restore into an empty database", server.product);
            return Err(Failure::permanent(error));
        }
        let names = if server.product == "MariaDB" { ["mariadb", "mysql"] } else { ["mysql", "mysql"] };
        let tool = tools::find(cx, &names, server, None).await?;
        let address = self.address(cx, Engine::Mariadb).await?;
        let token = token(cx);
        let mark = transfer::restore_mark(database).await.map_err(|error| failure(&error))?;
        match mark {
            Some(mark) if mark.token == token => {
                transfer::clear_marked(database, &token).await.map_err(|error| Failure::unknown(error.to_string()))?;
            }
            Some(_) | None => {
                self.empty(&objects(database).await?)?;
                transfer::mark_restore(database, &token).await.map_err(|error| failure(&error))?;
            }
        }
        let desk = Desk::of(cx)?;
        let database_argument = format!("--database={}", address.database);
        let arguments = ["--batch", "--binary-mode", "--default-character-set=utf8mb4", &database_argument];
        // Whoever comes after a crash finds by this which session to end first.
        let first = format!("init-command=\"INSERT INTO {MARK} VALUES (CONNECTION_ID())\"\n");
        let mut options = address.option_file(server.product);
        options.push_str(&first);
        let line = desk.mariadb(&tool, &options, &arguments)?;
        let what = format!("restore of `{}`", self.database);
        let done = tools::read_from(cx, &line, file, manifest.bytes, &what).await;
        let cleared = match &done {
            Ok(()) => Ok(()),
            Err(_) => transfer::clear_marked(database, &token).await,
        };
        // Where it could not be emptied, the mark stays for the next attempt.
        if let Err(error) = cleared {
            let first = done.err().unwrap_or_default();
            return Err(Failure::unknown(format!("{first}; and the database could not be emptied again: {error}")));
        }
        transfer::unmark_restore(database).await.map_err(|error| Failure::unknown(error.to_string()))?;
        done.map_err(Failure::harmless)
    }

    async fn restore_sqlite(&self, cx: &Context, manifest: &Manifest, file: File) -> Result<(), Failure> {
        Self::fits(manifest, "SQLite")?;
        let place = sqlite_place(cx, &self.database).await?;
        if place.exists() {
            let options = transfer::ConnectOptions { read_only: true, ..transfer::ConnectOptions::default() };
            let database = Database::connect(&transfer::sqlite_address(&place), options).await;
            let database = database.map_err(|error| failure(&error))?;
            let objects = objects(&database).await;
            database.close().await;
            self.empty(&objects?)?;
        }
        let folder = place.parent().unwrap_or(Path::new("/")).to_path_buf();
        let draft = Draft(draft_path(cx, &place));
        let path = draft.0.clone();
        let copy = tokio::task::spawn_blocking(move || copied(file, &path)).await;
        let copy = copy.map_err(std::io::Error::other).flatten();
        copy.map_err(|error| Failure::harmless(format!("`{}`: {error}", draft.0.display())))?;
        let damage = transfer::sqlite_damage(&draft.0).await.map_err(|error| Failure::harmless(error.to_string()))?;
        if let Some(damage) = damage {
            return Err(Failure::permanent(format!("SQLite finds the backup damaged: {damage}")));
        }
        // Sessions of this run would go on with the file that is replaced.
        cx.databases.forget(&self.database).await;
        transfer::sqlite_settle(&place).await.map_err(|error| Failure::harmless(error.to_string()))?;
        let mode = std::fs::metadata(&place).map(|old| old.permissions());
        let renamed = mode
            .or_else(|_| std::fs::metadata(&draft.0).map(|new| new.permissions()))
            .and_then(|mode| std::fs::set_permissions(&draft.0, mode))
            .and_then(|()| std::fs::rename(&draft.0, &place));
        renamed.map_err(|error| Failure::harmless(format!("`{}`: {error}", place.display())))?;
        durable::sync_folder(&folder).map_err(|error| Failure::unknown(error.to_string()))
    }

    fn outputs(&self, cx: &Context, manifest: &Manifest) -> Outputs {
        Outputs::from([
            ("path".to_owned(), self.place(cx).display().to_string().into()),
            ("bytes".to_owned(), manifest.bytes.into()),
            ("sha256".to_owned(), manifest.sha256.clone().into()),
            ("tables".to_owned(), manifest.tables.len().into()),
        ])
    }

    /// What became of a restore, from what the database holds now.
    async fn found(&self, cx: &Context, before: &Value) -> Result<Finding, Failure> {
        let manifest = manifest(&self.place(cx)).map_err(|error| Failure::harmless(error.to_string()))?;
        if before["engine"] == "SQLite" {
            let place = sqlite_place(cx, &self.database).await?;
            let (now, was) = (sum_of(&place).await, before["sha256"].as_str());
            let draft = draft_path(cx, &place);
            return Ok(match now {
                Some(now) if now == manifest.sha256 => Finding::Done(self.outputs(cx, &manifest)),
                // The draft goes away with the rename that puts it into its place.
                now if now.as_deref() == was || draft.exists() => Finding::NotDone,
                _ => Finding::Unknown,
            });
        }
        let database = cx.databases.get(&self.database).await?;
        if database.engine() == Engine::Mariadb {
            let mark = transfer::restore_mark(&database).await.map_err(|error| failure(&error))?;
            if mark.is_some_and(|mark| mark.token == token(cx)) {
                return Ok(Finding::NotDone);
            }
        } else {
            // What still works at it would decide it behind our back.
            end_earlier(&database, &format!("piton restore {}", token(cx))).await?;
        }
        let now = objects(&database).await?;
        let tables = transfer::tables(&database).await.map_err(|error| failure(&error))?;
        let is_whole = !manifest.tables.is_empty() && manifest.tables.iter().all(|table| tables.contains(table));
        Ok(match before["objects"].as_u64() {
            // What was empty and has every table got them in one piece.
            Some(0) if now.is_empty() => Finding::NotDone,
            Some(0) if is_whole => Finding::Done(self.outputs(cx, &manifest)),
            _ => Finding::Unknown,
        })
    }
}

/// A file that is not yet in its place; dropped, it goes away.
struct Draft(PathBuf);

impl Drop for Draft {
    fn drop(&mut self) {
        if let Err(error) = durable::remove(&self.0) {
            tracing::warn!(file = %self.0.display(), %error, "an unfinished restore was not removed");
        }
    }
}

/// Where a step makes the file that is to take the place of another.
fn draft_path(cx: &Context, place: &Path) -> PathBuf {
    place.with_file_name(format!(".piton-restore-{}.part", token(cx)))
}

/// Copies into a new file and has it on the disk; what a killed attempt left there goes first.
fn copied(mut from: File, to: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    durable::remove(to)?;
    let mut file = File::options().create_new(true).write(true).mode(0o600).open(to)?;
    std::io::copy(&mut from, &mut file)?;
    file.sync_all()
}

async fn sqlite_place(cx: &Context, name: &str) -> Result<PathBuf, Failure> {
    let url = cx.databases.address(name).await?;
    transfer::sqlite_file(&url).map_err(|error| Failure::permanent(error.to_string()))
}

/// The checksum of a file; nothing where it cannot be read.
async fn sum_of(path: &Path) -> Option<String> {
    let path = path.to_path_buf();
    let sum = tokio::task::spawn_blocking(move || super::backup::store::Sum::of(&path)).await;
    sum.ok()?.ok().map(super::backup::store::Sum::hex)
}

async fn objects(database: &Database) -> Result<Vec<String>, Failure> {
    transfer::objects(database).await.map_err(|error| failure(&error))
}

/// Ends what an earlier attempt of this step left running, and waits until it is gone.
async fn end_earlier(database: &Database, name: &str) -> Result<(), Failure> {
    let filter = SessionFilter { applications: vec![name.to_owned()], ..SessionFilter::default() };
    for _ in 0..END_LOOKS {
        let found = transfer::sessions(database, &filter).await.map_err(|error| failure(&error))?;
        if found.is_empty() {
            return Ok(());
        }
        for info in &found {
            transfer::end_session(database, info).await.map_err(|error| Failure::harmless(error.to_string()))?;
        }
        tokio::time::sleep(END_PAUSE).await;
    }
    Err(Failure::harmless("a session of an earlier attempt does not end"))
}

#[async_trait]
impl Action for DbRestore {
    async fn before(&self, cx: &Context) -> Result<Value, Failure> {
        let url = cx.databases.address(&self.database).await?;
        if url.starts_with("sqlite:") {
            let place = sqlite_place(cx, &self.database).await?;
            return Ok(json!({ "engine": "SQLite", "sha256": sum_of(&place).await }));
        }
        let database = cx.databases.get(&self.database).await?;
        let mark = match database.engine() {
            Engine::Mariadb => transfer::restore_mark(&database).await.map_err(|error| failure(&error))?,
            Engine::Postgres | Engine::Sqlite => None,
        };
        // What this step itself left half done counts as nothing: it goes away first.
        let own = mark.is_some_and(|mark| mark.token == token(cx));
        let count = if own { 0 } else { objects(&database).await?.len() };
        Ok(json!({ "engine": database.engine().to_string(), "objects": count }))
    }

    async fn run(&self, cx: &Context, _before: &Value) -> Result<Outputs, Failure> {
        let (manifest, file) = self.ready(cx).await?;
        if cx.databases.address(&self.database).await?.starts_with("sqlite:") {
            self.restore_sqlite(cx, &manifest, file).await?;
        } else {
            self.restore_server(cx, &manifest, file).await?;
        }
        Ok(self.outputs(cx, &manifest))
    }

    async fn probe(&self, cx: &Context, before: &Value) -> Finding {
        self.found(cx, before).await.unwrap_or(Finding::Unknown)
    }

    async fn preview(&self, cx: &Context) -> Preview {
        match manifest(&self.place(cx)) {
            Ok(manifest) => Preview::WillChange(format!(
                "restores {} tables ({} bytes) into `{}`",
                manifest.tables.len(),
                manifest.bytes,
                self.database
            )),
            Err(error) => Preview::Unknown(error.to_string()),
        }
    }
}
