//! `db.backup`: a whole database as the engine's own tool writes it, with a checksum, in a folder that is there whole or not at all.
//!
//! Never writes over anything. After a crash the folder itself says whether the attempt had done its work.

use std::path::PathBuf;

use async_trait::async_trait;
use serde_json::Value;

use super::backup::address::Address;
use super::backup::store::{Draft, Manifest, StoreError, Sum, manifest, verify};
use super::backup::token;
use super::backup::tools::{self, Desk};
use super::db::failure;
use super::{Action, Context, Failure, Preview};
use crate::event::{Finding, Outputs};
use crate::spec::actions::DbBackup;
use crate::transfer::{self, Database, Engine, ServerFacts};

/// The last line of a whole dump of MariaDB or MySQL.
const MARIADB_END: &str = "-- Dump completed";

impl DbBackup {
    fn place(&self, cx: &Context) -> PathBuf {
        cx.base.join(&self.to)
    }

    async fn write(&self, cx: &Context) -> Result<Manifest, Failure> {
        let database = cx.databases.get(&self.database).await?;
        let server = transfer::server_facts(&database).await.map_err(|error| failure(&error))?;
        let tables = transfer::tables(&database).await.map_err(|error| failure(&error))?;
        let draft = Draft::beside(&self.place(cx), &token(cx)).map_err(|error| Failure::harmless(error.to_string()))?;
        let begun_at = crate::config::now().to_string();
        let (file, tool, sum) = match database.engine() {
            Engine::Postgres => self.postgres(cx, &server, &draft).await?,
            Engine::Mariadb => self.mariadb(cx, &database, &server, &draft).await?,
            Engine::Sqlite => sqlite(cx, &database, &server, &draft).await?,
        };
        let manifest = Manifest {
            form: Manifest::form(),
            run: cx.run.to_string(),
            step: cx.step.to_string(),
            database: self.database.clone(),
            product: server.product.to_owned(),
            server_version: server.version,
            tool,
            file: file.to_owned(),
            bytes: sum.bytes,
            sha256: sum.hex(),
            tables,
            begun_at,
        };
        let kept = manifest.clone();
        let work = tokio::task::spawn_blocking(move || draft.keep(&kept)).await;
        // Up to the rename nothing is there; whether it was the rename that failed, the place says.
        work.map_err(|error| Failure::unknown(error.to_string()))?
            .map_err(|error| Failure::unknown(error.to_string()))?;
        Ok(manifest)
    }

    async fn postgres(&self, cx: &Context, server: &ServerFacts, draft: &Draft) -> Result<Written, Failure> {
        let tool = tools::find(cx, &["pg_dump"], server, None).await?;
        let address = self.address(cx, Engine::Postgres).await?;
        let desk = Desk::of(cx)?;
        let name = format!("piton backup {}", token(cx));
        let line = desk.libpq(&tool, &address, &name, &["--format=custom", "--no-password"])?;
        let (sum, _) = self.stream(cx, &line, draft, "data.dump").await?;
        Ok(("data.dump", tool.version, sum))
    }

    async fn mariadb(
        &self,
        cx: &Context,
        database: &Database,
        server: &ServerFacts,
        draft: &Draft,
    ) -> Result<Written, Failure> {
        let names =
            if server.product == "MariaDB" { ["mariadb-dump", "mysqldump"] } else { ["mysqldump", "mysqldump"] };
        let tool = tools::find(cx, &names, server, None).await?;
        let address = self.address(cx, Engine::Mariadb).await?;
        let desk = Desk::of(cx)?;
        let loose = transfer::tables_without_transactions(database).await.map_err(|error| failure(&error))?;
        // Tables without transactions are held still by locks, the others by one snapshot.
        let still: &[&str] = if loose > 0 {
            &["--lock-tables", "--skip-single-transaction"]
        } else {
            &["--single-transaction", "--skip-lock-tables"]
        };
        let mut arguments = still.to_vec();
        arguments.extend([
            "--quick",
            "--routines",
            "--events",
            "--triggers",
            "--hex-blob",
            "--no-tablespaces",
            "--skip-add-drop-table",
            "--skip-dump-date",
            "--default-character-set=utf8mb4",
            "--",
            &address.database,
        ]);
        let line = desk.mariadb(&tool, &address.option_file(server.product), &arguments)?;
        let (sum, tail) = self.stream(cx, &line, draft, "data.sql").await?;
        if !String::from_utf8_lossy(&tail).contains(MARIADB_END) {
            return Err(Failure::harmless("the dump does not end as a whole one does"));
        }
        Ok(("data.sql", tool.version, sum))
    }

    async fn address(&self, cx: &Context, engine: Engine) -> Result<Address, Failure> {
        let url = cx.databases.address(&self.database).await?;
        Address::parse(engine, &url)
            .map_err(|error| Failure::permanent(format!("database `{}`: {error}", self.database)))
    }

    async fn stream(
        &self,
        cx: &Context,
        line: &super::process::CommandLine,
        draft: &Draft,
        name: &str,
    ) -> Result<(Sum, Vec<u8>), Failure> {
        let file = draft.file(name).map_err(|error| Failure::harmless(error.to_string()))?;
        let what = format!("backup of `{}`", self.database);
        tools::write_to(cx, line, file, &what).await.map_err(Failure::harmless)
    }

    fn outputs(&self, cx: &Context, manifest: &Manifest) -> Outputs {
        let place = self.place(cx);
        Outputs::from([
            ("path".to_owned(), place.display().to_string().into()),
            ("file".to_owned(), place.join(&manifest.file).display().to_string().into()),
            ("bytes".to_owned(), manifest.bytes.into()),
            ("sha256".to_owned(), manifest.sha256.clone().into()),
            ("tables".to_owned(), manifest.tables.len().into()),
            ("server_version".to_owned(), manifest.server_version.clone().into()),
        ])
    }
}

/// Name of the file, what the tool says about itself, size and checksum.
type Written = (&'static str, String, Sum);

/// SQLite writes the copy itself; it is read once more for its checksum.
async fn sqlite(cx: &Context, database: &Database, server: &ServerFacts, draft: &Draft) -> Result<Written, Failure> {
    let path = draft.folder.join("data.db");
    draft.file("data.db").map_err(|error| Failure::harmless(error.to_string()))?;
    tokio::select! {
        done = transfer::sqlite_copy_to(database, &path) => done.map_err(|error| Failure::harmless(error.to_string()))?,
        () = cx.cancel.cancelled() => return Err(Failure::harmless("it was cancelled")),
    }
    let sum = tokio::task::spawn_blocking(move || Sum::of(&path)).await;
    let sum = sum.map_err(std::io::Error::other).and_then(|sum| sum);
    let sum = sum.map_err(|error| Failure::harmless(format!("its copy: {error}")))?;
    Ok(("data.db", format!("SQLite {}", server.version), sum))
}

#[async_trait]
impl Action for DbBackup {
    async fn run(&self, cx: &Context, _before: &Value) -> Result<Outputs, Failure> {
        let manifest = self.write(cx).await?;
        Ok(self.outputs(cx, &manifest))
    }

    async fn probe(&self, cx: &Context, _before: &Value) -> Finding {
        match verify(&self.place(cx)).await {
            Ok((manifest, _))
                if (manifest.run.as_str(), manifest.step.as_str()) == (cx.run.as_str(), cx.step.as_str()) =>
            {
                Finding::Done(self.outputs(cx, &manifest))
            }
            Err(StoreError::Missing(_)) => Finding::NotDone,
            Ok(_) | Err(_) => Finding::Unknown,
        }
    }

    async fn preview(&self, cx: &Context) -> Preview {
        let place = self.place(cx);
        match manifest(&place) {
            Err(StoreError::Missing(_)) => {
                Preview::WillChange(format!("writes a backup of `{}` to `{}`", self.database, place.display()))
            }
            Ok(_) | Err(_) => Preview::Unknown(format!("`{}` is there already", place.display())),
        }
    }
}
