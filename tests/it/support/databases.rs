//! Empty databases of every engine for a test.

use std::sync::atomic::{AtomicU32, Ordering};

use piton::transfer::{Binds, ConnectOptions, Database, Engine, StatementOptions, execute, query};
use serde_json::Value as Json;

use super::mariadb::PrivateMariadb;
use super::postgres::PrivatePostgres;

/// Every engine that is spoken.
pub(crate) const ENGINES: [Engine; 3] = [Engine::Sqlite, Engine::Postgres, Engine::Mariadb];

/// Every engine into every engine.
pub(crate) fn pairs() -> impl Iterator<Item = (Engine, Engine)> {
    ENGINES.into_iter().flat_map(|from| ENGINES.map(|to| (from, to)))
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A database that is empty at first.
pub(crate) struct Fresh {
    /// Its address.
    pub(crate) url: String,
    /// It, opened.
    pub(crate) database: Database,
}

impl Fresh {
    /// A database whose name begins with `prefix`; files of SQLite go into `folder`.
    pub(crate) async fn new(engine: Engine, prefix: &str, folder: &std::path::Path) -> Self {
        let name = Self::name(prefix);
        let url = match engine {
            Engine::Sqlite => format!("sqlite://{}", folder.join(format!("{name}.db")).display()),
            Engine::Postgres => PrivatePostgres::start().create_database(&name),
            Engine::Mariadb => PrivateMariadb::start().create_database(&name),
        };
        Self::at(url).await
    }

    /// The database at this address.
    pub(crate) async fn at(url: String) -> Self {
        let database = open(&url).await;
        Self { url, database }
    }

    /// A name that no other database of the tests has.
    pub(crate) fn name(prefix: &str) -> String {
        format!("{prefix}_{}", NUMBER.fetch_add(1, Ordering::Relaxed))
    }

    /// The same database as another account that needs no password.
    pub(crate) async fn as_user(&self, user: &str) -> Database {
        let (scheme, rest) = self.url.split_once("://").expect("an address");
        let (_, rest) = rest.split_once('@').expect("a server's address");
        open(&format!("{scheme}://{user}@{rest}")).await
    }

    /// Runs statements.
    pub(crate) async fn run(&self, sql: &str) {
        let done = execute(&self.database, sql, &Binds::new(), StatementOptions::default()).await;
        done.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// The first column of the first row.
    pub(crate) async fn value(&self, sql: &str) -> Json {
        let found = query(&self.database, sql, &Binds::new(), StatementOptions::default()).await;
        let found = found.unwrap_or_else(|error| panic!("{sql}: {error}"));
        found.rows.first().and_then(|row| row.values().next()).cloned().unwrap_or(Json::Null)
    }
}

async fn open(url: &str) -> Database {
    let options = ConnectOptions { create: true, ..Default::default() };
    Database::connect(url, options).await.unwrap_or_else(|error| panic!("{url}: {error}"))
}
