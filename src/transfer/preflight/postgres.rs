//! What a PostgreSQL server says about itself, for a preflight.

use std::path::Path;

use super::local::free_bytes;
use super::{Look, Severity, number, text, total};
use crate::transfer::error::TransferError;
use crate::transfer::schema::{Table, one};
use crate::transfer::session::{Arg, Session};
use crate::transfer::value::Value;

/// The oldest version whose catalogues have all that is asked of them.
const OLDEST: i64 = 120_000;

const SERVER: &str = "SELECT current_setting('server_version_num'), current_setting('server_version'), current_setting('server_encoding'), \
    round(extract(epoch FROM clock_timestamp()) * 1000)::int8::text, pg_is_in_recovery()::text, \
    current_setting('default_transaction_read_only'), \
    (LEAST(current_setting('max_connections')::int8 \
        - CASE WHEN r.rolsuper THEN 0 ELSE current_setting('superuser_reserved_connections')::int8 END \
        - (SELECT sum(numbackends) FROM pg_stat_database), \
      CASE WHEN d.datconnlimit < 0 OR r.rolsuper THEN NULL ELSE d.datconnlimit - (SELECT numbackends FROM pg_stat_database WHERE datid = d.oid) END, \
      CASE WHEN r.rolconnlimit < 0 OR r.rolsuper THEN NULL \
        ELSE r.rolconnlimit - (SELECT count(*) FROM pg_stat_activity WHERE usesysid = r.oid) END))::int8::text, \
    has_schema_privilege(current_schema(), 'CREATE')::text, (inet_server_addr() IS NULL)::text, current_user::text \
    FROM pg_roles r, pg_database d WHERE r.rolname = current_user AND d.datname = current_database()";

/// Looks at one side.
pub(super) async fn look(session: &mut Session, look: &mut Look<'_>) -> Result<(), TransferError> {
    let before = crate::config::now().as_millisecond();
    let rows = session.rows(SERVER, Vec::new()).await?;
    let row = rows.first().map(Vec::as_slice).unwrap_or_default();
    look.clock(number(row, 3), before);
    look.facts.version = text(row, 1);
    look.facts.encoding = text(row, 2);
    look.facts.time_zone = zone(session).await;
    if number(row, 0).is_some_and(|version| version < OLDEST) {
        let found = format!("PostgreSQL {} is older than 12", text(row, 1));
        look.say(Severity::Error, "version", found, "upgrade the server, or copy with its own tools");
    }
    if let Some(free) = number(row, 6) {
        look.connections(free);
    }
    if text(row, 8) == "true" {
        look.facts.disk_free_bytes = room(session).await;
    }
    encoding(look);
    let (user, may_create) = (text(row, 9), text(row, 7) == "true");
    if look.is_target() {
        if text(row, 4) == "true" || text(row, 5) == "on" {
            look.say(Severity::Error, "read_only", "the server takes no writes", "connect to the primary server");
        }
        checkpoint_table(session, look, may_create, &user).await?;
        triggers(session, look).await?;
        extensions(session, look).await?;
    } else {
        time_limits(session, look).await?;
    }
    rights(session, look, &user).await?;
    used_extensions(session, look).await
}

/// The zone that sessions get from the server, the database or the role; ours asks for UTC, so it cannot simply be shown.
async fn zone(session: &mut Session) -> Option<String> {
    let by_role = "SELECT split_part(s.line, '=', 2) FROM pg_db_role_setting AS p CROSS JOIN LATERAL unnest(p.setconfig) AS s(line) \
        WHERE lower(split_part(s.line, '=', 1)) = 'timezone' AND p.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database())) \
        AND p.setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = current_user)) ORDER BY (p.setrole <> 0) DESC, (p.setdatabase <> 0) DESC LIMIT 1";
    // Only some roles may read the server's files; for the others the zone stays unknown.
    let by_file = "SELECT setting FROM pg_file_settings WHERE lower(name) = 'timezone' AND error IS NULL ORDER BY seqno DESC LIMIT 1";
    for sql in [by_role, by_file] {
        if let Ok(rows) = session.rows(sql, Vec::new()).await
            && let Some(row) = rows.first()
        {
            return Some(text(row, 0));
        }
    }
    None
}

/// The free room of the data folder, where the server is on this machine and says where its data lie.
async fn room(session: &mut Session) -> Option<u64> {
    let rows = session.rows("SELECT current_setting('data_directory')", Vec::new()).await.ok()?;
    free_bytes(Path::new(&text(rows.first()?, 0)))
}

fn encoding(look: &mut Look<'_>) {
    let encoding = look.facts.encoding.clone();
    if encoding == "SQL_ASCII" {
        let found = "the database is `SQL_ASCII`: it never checked whether its texts are UTF-8";
        look.say(Severity::Warning, "encoding", found, "expect texts that are refused; mend them in the source");
    } else if encoding != "UTF8" && look.is_target() {
        let found = format!("the database is `{encoding}`: texts with other characters will be refused");
        look.say(Severity::Warning, "encoding", found, "create the target with `ENCODING 'UTF8'`");
    }
}

/// Limits that would cut off a source that is read for long.
async fn time_limits(session: &mut Session, look: &mut Look<'_>) -> Result<(), TransferError> {
    let sql = "SELECT name, setting FROM pg_settings WHERE name IN ('idle_in_transaction_session_timeout', 'statement_timeout') \
               AND setting <> '0' ORDER BY name";
    for row in session.rows(sql, Vec::new()).await? {
        let found = format!("`{}` is {} ms: one transaction reads the whole set", text(&row, 0), text(&row, 1));
        let help = format!("`ALTER ROLE .. SET {} = 0` for the role that copies", text(&row, 0));
        look.say(Severity::Warning, "time_limit", found, help);
    }
    Ok(())
}

/// Quoted name of a table, as an argument for `to_regclass`.
fn quoted(table: &Table) -> Vec<Arg> {
    one(&table.quoted())
}

/// The right to keep checkpoints beside the copied rows.
async fn checkpoint_table(
    session: &mut Session,
    look: &mut Look<'_>,
    may_create: bool,
    user: &str,
) -> Result<(), TransferError> {
    let name = crate::transfer::checkpoint::TABLE;
    let sql = "SELECT c.relname::text, (has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT') \
               AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE'))::text FROM pg_class c WHERE c.oid = to_regclass($1)";
    let found = session.rows(sql, one(name)).await?;
    let (missing, help) = match found.first() {
        None if may_create => return Ok(()),
        None => ("CREATE on the current schema", format!("`GRANT CREATE ON SCHEMA .. TO {user}`")),
        Some(row) if text(row, 1) == "true" => return Ok(()),
        Some(_) => (
            "all rights on its table of checkpoints",
            format!("`GRANT SELECT, INSERT, UPDATE, DELETE ON {name} TO {user}`"),
        ),
    };
    look.say(Severity::Error, "privilege", format!("`{user}` lacks {missing}, where `{name}` is kept"), help);
    Ok(())
}

async fn rights(session: &mut Session, look: &mut Look<'_>, user: &str) -> Result<(), TransferError> {
    let needed: &[&str] = if look.is_target() { &["SELECT", "INSERT", "UPDATE"] } else { &["SELECT"] };
    let mut bytes = Vec::new();
    for table in look.tables {
        for right in needed {
            let mut args = quoted(table);
            args.push(Arg::One(Value::Text((*right).to_owned())));
            let sql = "SELECT has_table_privilege(to_regclass($1), $2)::text";
            if session.rows(sql, args).await?.first().is_none_or(|row| text(row, 0) != "true") {
                let found = format!("`{user}` lacks {right} on `{}`", table.name);
                let help = format!("`GRANT {right} ON {} TO {user}`", table.quoted());
                look.say(Severity::Error, "privilege", found, help);
            }
        }
        let sql = "SELECT row_security_active(to_regclass($1))::text, pg_total_relation_size(to_regclass($1))::text";
        let rows = session.rows(sql, quoted(table)).await?;
        let Some(row) = rows.first() else { continue };
        bytes.push(number(row, 1));
        if text(row, 0) == "true" {
            let found = format!("row security hides rows of `{}` from `{user}`", table.name);
            look.say(
                Severity::Error,
                "row_security",
                found,
                format!("`ALTER ROLE {user} BYPASSRLS`, or use another role"),
            );
        }
    }
    look.facts.tables_bytes = Some(total(bytes.into_iter()));
    Ok(())
}

async fn triggers(session: &mut Session, look: &mut Look<'_>) -> Result<(), TransferError> {
    for table in look.tables {
        let sql = "SELECT tgname::text FROM pg_trigger WHERE tgrelid = to_regclass($1) AND NOT tgisinternal AND tgenabled IN ('O', 'A') ORDER BY 1";
        for row in session.rows(sql, quoted(table)).await? {
            let found = format!("`{}` has the trigger `{}`, which acts on every copied row", table.name, text(&row, 0));
            let help = format!(
                "`ALTER TABLE {} DISABLE TRIGGER ..` for the time of the copy, unless that is wanted",
                table.quoted()
            );
            look.say(Severity::Warning, "trigger", found, help);
        }
    }
    Ok(())
}

/// Extensions that the author asks for.
async fn extensions(session: &mut Session, look: &mut Look<'_>) -> Result<(), TransferError> {
    for name in look.request.extensions.clone() {
        let sql = "SELECT (SELECT count(*) FROM pg_extension WHERE extname = $1)::text, \
                   (SELECT count(*) FROM pg_available_extensions WHERE name = $1)::text";
        let rows = session.rows(sql, one(&name)).await?;
        let row = rows.first().map(Vec::as_slice).unwrap_or_default();
        if number(row, 0) == Some(0) {
            let help = if number(row, 1) == Some(0) {
                "install the server's package for it, then `CREATE EXTENSION`".to_owned()
            } else {
                format!("`CREATE EXTENSION \"{name}\"` in the target database")
            };
            look.say(Severity::Error, "extension", format!("the extension `{name}` is missing"), help);
        }
    }
    Ok(())
}

/// Extensions whose types the tables use: the other side sees their values as plain text.
async fn used_extensions(session: &mut Session, look: &mut Look<'_>) -> Result<(), TransferError> {
    for table in look.tables {
        let sql = "SELECT a.attname::text, t.typname::text, e.extname::text FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid \
            JOIN pg_depend d ON d.classid = 'pg_type'::regclass AND d.objid IN (t.oid, t.typelem) AND d.objid <> 0 AND d.deptype = 'e' \
            JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass \
            WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";
        for row in session.rows(sql, quoted(table)).await? {
            let (column, kind, extension) = (text(&row, 0), text(&row, 1), text(&row, 2));
            let found = format!("`{}`.`{column}` has the type `{kind}` of the extension `{extension}`", table.name);
            look.say(
                Severity::Note,
                "extension",
                found,
                "its values travel as the extension's text; see that the other side reads it",
            );
        }
    }
    Ok(())
}
