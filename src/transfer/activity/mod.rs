//! The sessions of a server: who is connected, what each one does and for how long; and how to end one.
//!
//! Never shows or ends a session of this process, nor one that a journal is kept through. Refuses to say "nobody" where the account may not
//! see others, and to guess what a session does where that is hidden. Called by the `db.sessions` action.

mod mariadb;
mod postgres;

use globset::{Glob, GlobMatcher};
use serde::Serialize;

use super::database::Database;
use super::engine::Engine;
use super::error::TransferError;
use super::session::Session;
use super::value::Value;
use super::{schema, value};

/// Characters of a statement that are told.
const STATEMENT_CHARS: usize = 200;

/// What a session does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// It runs a statement.
    Active,
    /// It waits for its client, outside of a transaction.
    Idle,
    /// It waits for its client inside of a transaction.
    IdleInTransaction,
    /// The account that asks may not see it.
    Hidden,
}

/// One session of somebody else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SessionInfo {
    /// Its number on the server: the process on PostgreSQL, the connection on MariaDB.
    pub id: i64,
    /// Who is connected.
    pub user: String,
    /// What the client calls itself; empty where it says nothing or the server keeps no record of it.
    pub application: String,
    /// Database that it is in; nothing where it is in none.
    pub database: Option<String>,
    /// Where it comes from; nothing for a local socket.
    pub client: Option<String>,
    /// What it does.
    pub state: SessionState,
    /// For how long, in milliseconds; nothing where that is hidden.
    pub for_ms: Option<i64>,
    /// The beginning of what it runs or ran last, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statement: Option<String>,
    /// Tells it from a later session with the same number.
    #[serde(skip)]
    pub began: String,
}

impl std::fmt::Display for SessionInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of `{}`", self.id, self.user)?;
        if !self.application.is_empty() {
            write!(f, " (`{}`)", self.application)?;
        }
        Ok(())
    }
}

/// Which sessions are asked for; empty lists ask for all.
#[derive(Debug, Clone, Default)]
pub struct SessionFilter {
    /// Names or patterns of users.
    pub users: Vec<String>,
    /// Names or patterns of applications.
    pub applications: Vec<String>,
    /// Names or patterns of users and applications that are left out.
    pub except: Vec<String>,
    /// States.
    pub states: Vec<SessionState>,
    /// Longer in its state than so many milliseconds.
    pub longer_than_ms: Option<u64>,
    /// Also those in other databases of the server.
    pub whole_server: bool,
    /// Whether statements are told.
    pub statements: bool,
}

/// What became of a session that was to be ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The server was told to end it.
    Told,
    /// It was gone before.
    Gone,
    /// The server refused, and why.
    Refused(String),
}

/// The sessions of others that the filter asks for, by number.
pub async fn sessions(database: &Database, filter: &SessionFilter) -> Result<Vec<SessionInfo>, TransferError> {
    let chosen = Chosen::new(filter)?;
    let mut session = open(database).await?;
    let mut found = match session.engine() {
        Engine::Mariadb => mariadb::list(&mut session, filter).await?,
        Engine::Postgres | Engine::Sqlite => postgres::list(&mut session, filter).await?,
    };
    let by_name = |info: &SessionInfo| chosen.takes(info);
    found.retain(by_name);
    let hidden = found.iter().filter(|info| info.state == SessionState::Hidden).count();
    if hidden > 0 && (!filter.states.is_empty() || filter.longer_than_ms.is_some()) {
        let why = format!(
            "what {hidden} sessions do is hidden from this account: `GRANT pg_read_all_stats` to it, or ask neither for states nor for time"
        );
        return Err(TransferError::request(why));
    }
    found.retain(|info| filter.states.is_empty() || filter.states.contains(&info.state));
    let limit = filter.longer_than_ms.map_or(i64::MIN, |limit| i64::try_from(limit).unwrap_or(i64::MAX));
    found.retain(|info| info.for_ms.is_none_or(|length| length > limit));
    for info in &mut found {
        info.statement = info.statement.take().filter(|_| filter.statements);
    }
    found.sort_by_key(|info| info.id);
    Ok(found)
}

/// Ends one session; that it is gone shows only when it is looked for again.
pub async fn end_session(database: &Database, info: &SessionInfo) -> Result<Ended, TransferError> {
    let mut session = open(database).await?;
    match session.engine() {
        Engine::Mariadb => mariadb::end(&mut session, info).await,
        Engine::Postgres | Engine::Sqlite => postgres::end(&mut session, info).await,
    }
}

async fn open(database: &Database) -> Result<Session, TransferError> {
    if database.engine() == Engine::Sqlite {
        return Err(TransferError::request("SQLite is a file and has no sessions that could be listed"));
    }
    Session::open(database).await
}

/// The patterns of a filter, read once.
struct Chosen {
    users: Vec<GlobMatcher>,
    applications: Vec<GlobMatcher>,
    except: Vec<GlobMatcher>,
}

impl Chosen {
    fn new(filter: &SessionFilter) -> Result<Self, TransferError> {
        Ok(Self {
            users: matchers(&filter.users)?,
            applications: matchers(&filter.applications)?,
            except: matchers(&filter.except)?,
        })
    }

    fn takes(&self, info: &SessionInfo) -> bool {
        let any = |patterns: &[GlobMatcher], name: &str| patterns.iter().any(|pattern| pattern.is_match(name));
        (self.users.is_empty() || any(&self.users, &info.user))
            && (self.applications.is_empty() || any(&self.applications, &info.application))
            && !any(&self.except, &info.user)
            && !any(&self.except, &info.application)
    }
}

fn matchers(patterns: &[String]) -> Result<Vec<GlobMatcher>, TransferError> {
    let read = |pattern: &String| {
        let glob = Glob::new(pattern);
        glob.map(|glob| glob.compile_matcher())
            .map_err(|error| TransferError::request(format!("`{pattern}` is no name or pattern: {error}")))
    };
    patterns.iter().map(read).collect()
}

/// The beginning of a statement, in one line.
fn shortened(statement: &str) -> String {
    let line = statement.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(STATEMENT_CHARS) {
        Some((end, _)) => format!("{} ..", &line[..end]),
        None => line,
    }
}

fn text(row: &[Value], at: usize) -> Option<String> {
    row.get(at).filter(|value| !matches!(value, value::Value::Null)).map(schema::text)
}

fn number(row: &[Value], at: usize) -> Option<i64> {
    row.get(at).and_then(Value::as_integer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(user: &str, application: &str) -> SessionInfo {
        SessionInfo {
            id: 1,
            user: user.to_owned(),
            application: application.to_owned(),
            database: None,
            client: None,
            state: SessionState::Idle,
            for_ms: None,
            statement: None,
            began: String::new(),
        }
    }

    fn takes(filter: &SessionFilter, user: &str, application: &str) -> bool {
        Chosen::new(filter).expect("patterns").takes(&info(user, application))
    }

    #[test]
    fn names_and_patterns_choose_and_except_takes_away() {
        let users = |users: &[&str], except: &[&str]| SessionFilter {
            users: users.iter().map(|name| (*name).to_owned()).collect(),
            except: except.iter().map(|name| (*name).to_owned()).collect(),
            ..SessionFilter::default()
        };
        assert!(takes(&users(&[], &[]), "wfm", "psql"));
        assert!(takes(&users(&["wfm*"], &[]), "wfm_app", "psql"));
        assert!(!takes(&users(&["wfm"], &[]), "wfm_app", "psql"));
        assert!(!takes(&users(&["wfm*"], &["psql"]), "wfm_app", "psql"));
        assert!(!takes(&users(&[], &["wfm_a?p"]), "wfm_app", ""));
        let applications = SessionFilter { applications: vec!["psql".into()], ..SessionFilter::default() };
        assert!(!takes(&applications, "wfm", ""));
        let broken = SessionFilter { users: vec!["a[".into()], ..SessionFilter::default() };
        assert!(Chosen::new(&broken).is_err());
    }

    #[test]
    fn a_statement_is_told_in_one_short_line() {
        assert_eq!(shortened("SELECT\n  1"), "SELECT 1");
        let long = shortened(&"ü".repeat(300));
        assert_eq!(long.chars().count(), STATEMENT_CHARS + 3);
    }
}
