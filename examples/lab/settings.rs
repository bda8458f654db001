//! What a lab is made of: its directory, its options, its clock. Kept in `lab.json`, read by every process of the lab.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::aggregator::WriteMode;
use super::error::LabError;

/// The engine under the lab's databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// One SQLite file per database.
    Sqlite,
    /// One schema per database in a PostgreSQL database.
    Postgres,
}

/// The release a component belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum Release {
    /// 6.5, the old environment.
    #[serde(rename = "65")]
    #[value(name = "65")]
    R65,
    /// 7.6, the new environment.
    #[serde(rename = "76")]
    #[value(name = "76")]
    R76,
}

/// A database of the lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Database {
    /// The 6.5 database.
    Wfm65,
    /// The 7.6 database.
    Wfm76,
    /// The ledger of the truth.
    Truth,
    /// The option store and what the Database Utility did.
    Genesys,
}

impl Database {
    /// Every database of a lab.
    pub const ALL: [Self; 4] = [Self::Wfm65, Self::Wfm76, Self::Truth, Self::Genesys];

    /// Its name: the file's stem on SQLite, the schema on PostgreSQL, the qualifier in every statement.
    pub fn name(self) -> &'static str {
        match self {
            Self::Wfm65 => "wfm65",
            Self::Wfm76 => "wfm76",
            Self::Truth => "truth",
            Self::Genesys => "genesys",
        }
    }
}

impl Release {
    /// The database that this release's components use.
    pub fn database(self) -> Database {
        match self {
            Self::R65 => Database::Wfm65,
            Self::R76 => Database::Wfm76,
        }
    }

    /// The performance table of this release, qualified.
    pub fn perf_table(self) -> &'static str {
        match self {
            Self::R65 => "wfm65.wfm_perf_item",
            Self::R76 => "wfm76.wfm_perf_timestep",
        }
    }

    /// The prefix of its services' names.
    pub fn prefix(self) -> &'static str {
        self.database().name()
    }
}

/// How a lab is made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabOptions {
    /// SQLite files or PostgreSQL schemas.
    pub engine: Engine,
    /// How many entities (activities) are collected, at least 1.
    pub entities: i64,
    /// How many closed timesteps of history are seeded per entity.
    pub history_steps: i64,
    /// D: the length of a timestep in whole seconds.
    pub timestep_s: i64,
    /// When the data aggregators write.
    pub write_mode: WriteMode,
    /// L: how long after a timestep's end its row is written.
    pub write_lag_ms: i64,
    /// The speed of the Database Utility's passes.
    pub dbu_rows_per_second: i64,
    /// How long a Server needs until it is ready.
    pub server_start_ms: u64,
    /// Decides the load, and so the truth.
    pub seed: u64,
    /// Where the schemas are made, for the engine `postgres`.
    pub postgres_url: Option<String>,
}

impl Default for LabOptions {
    fn default() -> Self {
        Self {
            engine: Engine::Sqlite,
            entities: 50,
            history_steps: 2_000,
            timestep_s: 2,
            write_mode: WriteMode::Close,
            write_lag_ms: 200,
            dbu_rows_per_second: 20_000,
            server_start_ms: 300,
            seed: 65_76,
            postgres_url: None,
        }
    }
}

/// A lab on disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lab {
    /// The directory that holds everything of the lab; absolute.
    #[serde(skip)]
    pub dir: PathBuf,
    /// How it was made.
    pub options: LabOptions,
    /// Where the seeded history ends and live collection begins: epoch seconds, a timestep boundary.
    pub history_end_s: i64,
}

impl Lab {
    /// Reads the lab of a directory.
    pub fn open(dir: &Path) -> Result<Self, LabError> {
        let path = dir.join("lab.json");
        let text = std::fs::read_to_string(&path).map_err(LabError::file(&path))?;
        let mut lab: Self = serde_json::from_str(&text)
            .map_err(|source| LabError::Json { what: path.display().to_string(), source })?;
        lab.dir = std::path::absolute(dir).map_err(LabError::file(dir))?;
        Ok(lab)
    }

    /// Writes `lab.json`, under another name first.
    pub fn save(&self) -> Result<(), LabError> {
        let path = self.dir.join("lab.json");
        let text =
            serde_json::to_string_pretty(self).map_err(|source| LabError::Json { what: "lab.json".into(), source })?;
        let fresh = self.dir.join("lab.json.new");
        std::fs::write(&fresh, text + "\n").map_err(LabError::file(&fresh))?;
        std::fs::rename(&fresh, &path).map_err(LabError::file(&path))
    }

    /// The file that a component writes once it is ready; its content is where the component listens, if it does.
    pub fn ready_file(&self, component: &str) -> PathBuf {
        self.dir.join("run").join(format!("{component}.ready"))
    }

    /// The SQLite file of a database.
    pub fn sqlite_file(&self, database: Database) -> PathBuf {
        self.dir.join(format!("{}.db", database.name()))
    }

    /// The URL under which anyone reaches a database of this lab without a qualifier.
    pub fn url(&self, database: Database) -> String {
        match (self.options.engine, &self.options.postgres_url) {
            (Engine::Postgres, Some(url)) => {
                let join = if url.contains('?') { '&' } else { '?' };
                format!("{url}{join}options[search_path]={}", database.name())
            }
            (Engine::Postgres, None) | (Engine::Sqlite, _) => {
                format!("sqlite://{}", self.sqlite_file(database).display())
            }
        }
    }

    /// D in milliseconds.
    pub fn timestep_ms(&self) -> i64 {
        self.options.timestep_s * 1_000
    }

    /// The start, in epoch seconds, of the timestep that holds the moment `at_ms`.
    pub fn bucket(&self, at_ms: i64) -> i64 {
        at_ms.div_euclid(self.timestep_ms()) * self.options.timestep_s
    }

    /// The start of the last timestep whose row any healthy collector has written by `at_ms` (lag and a second of grace).
    pub fn last_written(&self, at_ms: i64) -> i64 {
        self.bucket(at_ms - self.options.write_lag_ms - WRITE_GRACE_MS) - self.options.timestep_s
    }
}

/// What a collector may need beyond its lag to write the rows of a finished timestep.
const WRITE_GRACE_MS: i64 = 1_000;

/// The clock of the lab: epoch milliseconds.
pub fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
