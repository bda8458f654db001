//! Sessions of a PostgreSQL server, as `pg_stat_activity` shows them.

use super::{Ended, SessionFilter, SessionInfo, SessionState, number, shortened, text};
use crate::transfer::error::TransferError;
use crate::transfer::own;
use crate::transfer::session::{Arg, Session};
use crate::transfer::value::Value;

/// Every session of a client; a role that may not see what others do is not told either what kind of session it is. `$1` is the mark of our own, `$2` that of journals.
const LIST: &str = "SELECT a.pid::text, a.usename::text, a.application_name, a.datname::text, \
    COALESCE(a.client_hostname, host(a.client_addr)), a.state, \
    floor(extract(epoch FROM clock_timestamp() - CASE WHEN a.state IN ('active', 'fastpath function call') THEN a.query_start ELSE a.state_change END) * 1000)::int8::text, \
    a.query, COALESCE(a.backend_start::text, '') \
    FROM pg_stat_activity a WHERE COALESCE(a.backend_type, 'client backend') = 'client backend' AND a.usesysid IS NOT NULL AND a.pid <> pg_backend_pid() \
    AND COALESCE(a.application_name, '') NOT IN ($1, $2)";

/// Lists them.
pub(super) async fn list(session: &mut Session, filter: &SessionFilter) -> Result<Vec<SessionInfo>, TransferError> {
    let here = if filter.whole_server { "" } else { " AND a.datname = current_database()" };
    let args = [own::application(), own::JOURNAL].map(|name| Arg::One(Value::Text(name.to_owned()))).to_vec();
    let rows = session.rows(&format!("{LIST}{here}"), args).await?;
    Ok(rows.iter().filter_map(|row| info(row)).collect())
}

fn info(row: &[Value]) -> Option<SessionInfo> {
    let state = state(text(row, 5).as_deref());
    Some(SessionInfo {
        id: number(row, 0)?,
        user: text(row, 1).unwrap_or_default(),
        application: text(row, 2).unwrap_or_default(),
        database: text(row, 3),
        client: text(row, 4),
        state,
        for_ms: number(row, 6).filter(|_| state != SessionState::Hidden),
        statement: text(row, 7).filter(|_| state != SessionState::Hidden).map(|query| shortened(&query)),
        began: text(row, 8).unwrap_or_default(),
    })
}

/// A session whose state is not shown to this role, or not kept by the server, has none.
fn state(word: Option<&str>) -> SessionState {
    match word {
        Some("active" | "fastpath function call") => SessionState::Active,
        Some("idle") => SessionState::Idle,
        Some(word) if word.starts_with("idle in transaction") => SessionState::IdleInTransaction,
        _ => SessionState::Hidden,
    }
}

/// Ends one, unless its number belongs to another session by now.
pub(super) async fn end(session: &mut Session, info: &SessionInfo) -> Result<Ended, TransferError> {
    let sql = "SELECT pg_terminate_backend(a.pid)::text FROM pg_stat_activity a WHERE a.pid = $1::int4 AND COALESCE(a.backend_start::text, '') = $2";
    let args = vec![Arg::One(Value::Text(info.id.to_string())), Arg::One(Value::Text(info.began.clone()))];
    match session.rows(sql, args).await {
        Ok(rows) if rows.first().and_then(|row| text(row, 0)).as_deref() == Some("true") => Ok(Ended::Told),
        Ok(_) => Ok(Ended::Gone),
        Err(TransferError::Sql { message, effect_unknown: false, .. }) => Ok(Ended::Refused(message)),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_the_server_are_told_apart() {
        assert_eq!(state(Some("active")), SessionState::Active);
        assert_eq!(state(Some("idle")), SessionState::Idle);
        assert_eq!(state(Some("idle in transaction (aborted)")), SessionState::IdleInTransaction);
        assert_eq!(state(Some("disabled")), SessionState::Hidden);
        assert_eq!(state(None), SessionState::Hidden);
    }
}
