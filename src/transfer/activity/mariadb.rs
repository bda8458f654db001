//! Sessions of a MariaDB or MySQL server, as its list of processes shows them.
//!
//! The list of transactions is asked for, too: the server shows it only to accounts that also see the sessions of others, so an account
//! without that right gets its refusal instead of a list that looks empty.

use std::collections::{BTreeMap, BTreeSet};

use super::{Ended, SessionFilter, SessionInfo, SessionState, number, shortened, text};
use crate::transfer::error::TransferError;
use crate::transfer::own;
use crate::transfer::session::Session;

/// What the server calls threads of its own, which serve no client.
const DAEMONS: [&str; 4] = ["Daemon", "Binlog Dump", "Slave_IO", "Slave_SQL"];

/// Lists them.
pub(super) async fn list(session: &mut Session, filter: &SessionFilter) -> Result<Vec<SessionInfo>, TransferError> {
    let me = session.rows(own::MARIADB_SESSION, Vec::new()).await?;
    let server = me.first().and_then(|row| text(row, 0)).unwrap_or_default();
    let transactions =
        session.rows("SELECT trx_mysql_thread_id FROM information_schema.INNODB_TRX", Vec::new()).await?;
    let transactions: BTreeSet<i64> = transactions.iter().filter_map(|row| number(row, 0)).collect();
    let mut applications = applications(session, filter).await?;
    let here = if filter.whole_server { "" } else { " AND DB = DATABASE()" };
    // Only MariaDB counts milliseconds, and only it reads what stands in its comment.
    let sql = format!(
        "SELECT ID, USER, HOST, DB, COMMAND, CAST(TIME * 1000 /*M!100000 * 0 + TIME_MS */ AS SIGNED), INFO \
         FROM information_schema.PROCESSLIST WHERE ID <> CONNECTION_ID() AND USER NOT IN ('system user', 'event_scheduler'){here}"
    );
    let mut found = Vec::new();
    for row in session.rows(&sql, Vec::new()).await? {
        let (Some(id), command) = (number(&row, 0), text(&row, 4).unwrap_or_default()) else { continue };
        let is_own = u64::try_from(id).is_ok_and(|id| own::is_own(&server, id));
        if is_own || DAEMONS.contains(&command.as_str()) {
            continue;
        }
        found.push(SessionInfo {
            id,
            user: text(&row, 1).unwrap_or_default(),
            application: applications.remove(&id).unwrap_or_default(),
            database: text(&row, 3),
            client: text(&row, 2).filter(|host| host != "localhost" && !host.is_empty()),
            state: match command.as_str() {
                "Sleep" if transactions.contains(&id) => SessionState::IdleInTransaction,
                "Sleep" => SessionState::Idle,
                _ => SessionState::Active,
            },
            for_ms: number(&row, 5),
            statement: text(&row, 6).map(|info| shortened(&info)),
            began: String::new(),
        });
    }
    Ok(found)
}

/// What clients call themselves, by session; refused where the server keeps no record of it and it decides whom to choose.
async fn applications(session: &mut Session, filter: &SessionFilter) -> Result<BTreeMap<i64, String>, TransferError> {
    let on = session.number("SELECT @@performance_schema", Vec::new()).await? == Some(1);
    let sql = "SELECT PROCESSLIST_ID, ATTR_VALUE FROM performance_schema.session_connect_attrs WHERE ATTR_NAME = 'program_name'";
    let rows = if on { session.rows(sql, Vec::new()).await.ok() } else { None };
    match rows {
        Some(rows) => Ok(rows.iter().filter_map(|row| Some((number(row, 0)?, text(row, 1)?))).collect()),
        None if filter.applications.is_empty() => Ok(BTreeMap::new()),
        None => {
            let why = "the server does not tell the applications of its sessions: switch on `performance_schema` and grant SELECT on it, or choose by `users`";
            Err(TransferError::request(why))
        }
    }
}

/// Ends one. Numbers do not come again, so it cannot be another one.
pub(super) async fn end(session: &mut Session, info: &SessionInfo) -> Result<Ended, TransferError> {
    match session.run(&format!("KILL CONNECTION {}", info.id), Vec::new()).await {
        Ok(_) => Ok(Ended::Told),
        Err(TransferError::Sql { code: Some(code), .. }) if code == "1094" => Ok(Ended::Gone),
        Err(TransferError::Sql { message, effect_unknown: false, .. }) => Ok(Ended::Refused(message)),
        Err(error) => Err(error),
    }
}
