//! Statements of the user on MariaDB: binds by place, and what became of a text whose statements commit by themselves.
//!
//! DDL of MariaDB ends the transaction around it. Refuses to call a text undone of which a part is committed: the error says how far it
//! came. Called by `statement`.

use super::engine::Engine;
use super::error::TransferError;
use super::session::{Arg, Begin, Session};
use super::sql_text::{Piece, SqlStatement};
use super::statement::{Binds, Rows, collect, distinct_columns, number_json};
use super::value::Value;

/// The binds of a statement, one for every place where a name stands.
pub(super) fn arguments_of(statement: &SqlStatement, binds: &Binds) -> Vec<Arg> {
    let values = statement.pieces.iter().filter_map(|piece| match piece {
        Piece::Bind(_, name) => Some(Arg::One(Value::from_json(&binds[name]))),
        Piece::Text(..) => None,
    });
    values.collect()
}

/// Runs a query of the user.
pub(super) async fn query(
    session: &mut Session,
    statement: &SqlStatement,
    binds: &Binds,
    keep: usize,
) -> Result<Rows, TransferError> {
    let text = statement.render("", "", |_| "?".to_owned()).text;
    let described = super::mariadb::columns_of(session, &text).await?;
    if described.is_empty() {
        return Err(TransferError::statement("the statement returns no rows; use `db.execute` for changes"));
    }
    let columns = distinct_columns(described.iter().map(|(name, _)| name.clone()).collect())?;
    collect(session, &text, arguments_of(statement, binds), columns, keep, |i, value| match value {
        Value::BadText(_) => Err(TransferError::statement("the result holds text that is not valid UTF-8")),
        Value::Text(text) if described[i].1 == "DECIMAL" => Ok(number_json(&text)),
        Value::Text(text) if described[i].1 == "JSON" => {
            Ok(serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text)))
        }
        value => Ok(value.to_json()),
    })
    .await
}

/// Runs the statements of one text: in one transaction as far as the engine allows.
pub(super) async fn execute(
    session: &mut Session,
    statements: &[SqlStatement],
    binds: &Binds,
) -> Result<u64, TransferError> {
    let mut affected = 0;
    let mut committed = 0;
    for (done, statement) in statements.iter().enumerate() {
        let commits = commits_by_itself(statement);
        if commits {
            // Even a DDL statement that fails has committed what stands before it.
            committed = done;
        }
        let text = statement.render("", "", |_| "?".to_owned()).text;
        match session.run(&text, arguments_of(statement, binds)).await {
            Ok(count) => affected += count,
            Err(error) if committed == 0 => return Err(error),
            Err(error) => {
                return Err(TransferError::HalfDone {
                    statement: done + 1,
                    of: statements.len(),
                    committed,
                    why: error.to_string(),
                });
            }
        }
        if commits {
            committed = done + 1;
            session.begin(Begin::Write).await?;
        }
    }
    Ok(affected)
}

/// True where the engine commits before and after the statement, whatever the caller wants (its manual, "SQL statements that cause an
/// implicit commit"). A procedure may hold such a statement.
pub(super) fn commits_by_itself(statement: &SqlStatement) -> bool {
    let temporary = statement.words.iter().take(5).any(|word| word == "TEMPORARY");
    match statement.verb() {
        "CREATE" | "DROP" => !temporary,
        "ALTER" | "RENAME" | "TRUNCATE" | "GRANT" | "REVOKE" | "ANALYZE" | "CHECK" | "OPTIMIZE" | "REPAIR"
        | "CACHE" | "FLUSH" | "RESET" | "INSTALL" | "UNINSTALL" | "CALL" => true,
        "SET" => statement.words.get(1).is_some_and(|word| word == "PASSWORD"),
        _ => false,
    }
}

/// Refuses what would take the transaction or the session's settings out of our hands.
pub(super) fn refuse_control(statement: &SqlStatement) -> Result<(), TransferError> {
    let words = &statement.words;
    let control = match statement.verb() {
        "LOCK" | "UNLOCK" | "XA" | "USE" => true,
        "SET" => words
            .iter()
            .any(|word| matches!(word.as_str(), "AUTOCOMMIT" | "SQL_MODE" | "TRANSACTION" | "TIME_ZONE" | "NAMES")),
        _ => false,
    };
    if !control {
        return Ok(());
    }
    Err(TransferError::statement(format!(
        "`{}` is not allowed here: transactions, locks and the session's settings are {}'s and Piton's own",
        words.iter().take(2).cloned().collect::<Vec<_>>().join(" "),
        Engine::Mariadb
    )))
}
