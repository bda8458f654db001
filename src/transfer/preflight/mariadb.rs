//! What a MariaDB or MySQL server says about itself, for a preflight.

use std::path::Path;

use super::local::free_bytes;
use super::{Look, Severity, number, parts, text, total};
use crate::transfer::error::TransferError;
use crate::transfer::schema::Table;
use crate::transfer::session::{Arg, Session};
use crate::transfer::value::Value;

/// An insert of ours may have this many bytes, with room for its frame.
const PACKET_BYTES_MIN: i64 = 8 * 1024 * 1024;

/// Looks at one side.
pub(super) async fn look(session: &mut Session, look: &mut Look<'_>) -> Result<(), TransferError> {
    let before = crate::config::now().as_millisecond();
    let sql = "SELECT VERSION(), @@character_set_database, IF(@@global.time_zone = 'SYSTEM', @@system_time_zone, @@global.time_zone), \
               CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED), @@max_connections, @@global.read_only, @@max_allowed_packet, @@datadir, CURRENT_USER()";
    let rows = session.rows(sql, Vec::new()).await?;
    let row = rows.first().map(Vec::as_slice).unwrap_or_default();
    look.clock(number(row, 3), before);
    look.facts.version = text(row, 0);
    look.facts.encoding = text(row, 1);
    look.facts.time_zone = Some(text(row, 2));
    version(look);
    let used = session.rows("SHOW GLOBAL STATUS LIKE 'Threads_connected'", Vec::new()).await?;
    if let (Some(most), Some(used)) = (number(row, 4), used.first().and_then(|row| text(row, 1).parse::<i64>().ok())) {
        look.connections(most - used);
    }
    if is_local(session).await? {
        look.facts.disk_free_bytes = free_bytes(Path::new(&text(row, 7)));
    }
    if look.is_target() {
        if number(row, 5) == Some(1) {
            look.say(Severity::Error, "read_only", "the server takes no writes", "connect to the primary server");
        }
        if number(row, 6).is_some_and(|bytes| bytes < PACKET_BYTES_MIN) {
            let found = format!("`max_allowed_packet` is {}: wide rows may not fit", text(row, 6));
            look.say(Severity::Warning, "packet", found, "`SET GLOBAL max_allowed_packet = 67108864`");
        }
        columns(session, look).await?;
        triggers(session, look).await?;
        grants(session, look, &text(row, 8)).await?;
    }
    rights(session, look, &text(row, 8)).await?;
    sizes(session, look).await
}

fn version(look: &mut Look<'_>) {
    let version = look.facts.version.clone();
    let mut numbers = version.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let known = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let (oldest, name) =
        if version.to_lowercase().contains("mariadb") { ((10, 5), "MariaDB 10.5") } else { ((8, 0), "MySQL 8.0") };
    if known < oldest {
        let found = format!("version {version} is older than {name}, the oldest that is known to work");
        look.say(Severity::Warning, "version", found, "upgrade the server, or try the copy on a copy first");
    }
}

/// Whether the session came through a socket of this machine.
async fn is_local(session: &mut Session) -> Result<bool, TransferError> {
    let sql = "SELECT HOST FROM information_schema.PROCESSLIST WHERE ID = CONNECTION_ID()";
    let rows = session.rows(sql, Vec::new()).await?;
    Ok(rows.first().is_some_and(|row| text(row, 0) == "localhost"))
}

/// Schema (or nothing for the current one) and name, as arguments.
fn named(table: &Table) -> Vec<Arg> {
    let (schema, name) = parts(&table.name);
    let schema = schema.map_or(Value::Null, |schema| Value::Text(schema.to_owned()));
    vec![Arg::One(schema), Arg::One(Value::Text(name.to_owned()))]
}

/// Character sets that cannot spell everything, and keys whose collation takes two texts for one.
async fn columns(session: &mut Session, look: &mut Look<'_>) -> Result<(), TransferError> {
    let sql = "SELECT COLUMN_NAME, CHARACTER_SET_NAME, COLLATION_NAME, COLUMN_KEY FROM information_schema.COLUMNS \
               WHERE TABLE_SCHEMA = COALESCE(?, DATABASE()) AND TABLE_NAME = ? AND CHARACTER_SET_NAME IS NOT NULL ORDER BY ORDINAL_POSITION";
    for table in look.tables {
        for row in session.rows(sql, named(table)).await? {
            let (column, charset, collation) = (text(&row, 0), text(&row, 1), text(&row, 2));
            if charset != "utf8mb4" {
                let found =
                    format!("`{}`.`{column}` is `{charset}`: texts with other characters will be refused", table.name);
                look.say(Severity::Warning, "encoding", found, "convert the column to utf8mb4 first");
            }
            if text(&row, 3) == "PRI" && !collation.ends_with("_bin") {
                let found =
                    format!("the key `{}`.`{column}` is `{collation}`: it takes `a` and `A` for one key", table.name);
                look.say(
                    Severity::Warning,
                    "collation",
                    found,
                    "give the column a `_bin` collation if the source tells them apart",
                );
            }
        }
    }
    Ok(())
}

async fn triggers(session: &mut Session, look: &mut Look<'_>) -> Result<(), TransferError> {
    let sql = "SELECT TRIGGER_NAME FROM information_schema.TRIGGERS WHERE EVENT_OBJECT_SCHEMA = COALESCE(?, DATABASE()) \
               AND EVENT_OBJECT_TABLE = ? ORDER BY TRIGGER_NAME";
    for table in look.tables {
        for row in session.rows(sql, named(table)).await? {
            let found = format!("`{}` has the trigger `{}`, which acts on every copied row", table.name, text(&row, 0));
            look.say(Severity::Warning, "trigger", found, "drop it for the time of the copy, unless that is wanted");
        }
    }
    Ok(())
}

/// Rights on the named tables: explaining a statement needs what running it needs, and changes nothing.
async fn rights(session: &mut Session, look: &mut Look<'_>, user: &str) -> Result<(), TransferError> {
    for table in look.tables {
        let name = table.quoted();
        let Some(first) = table.columns.iter().find(|column| !column.generated) else { continue };
        let column = table.engine.quote(&first.name);
        let mut needed = vec![("SELECT", format!("EXPLAIN SELECT * FROM {name} WHERE 1 = 0"))];
        if look.is_target() {
            needed.push(("INSERT", format!("EXPLAIN INSERT INTO {name} ({column}) VALUES (DEFAULT)")));
            needed.push(("UPDATE", format!("EXPLAIN UPDATE {name} SET {column} = {column} WHERE 1 = 0")));
        }
        for (right, sql) in needed {
            let Err(error) = session.run(&sql, Vec::new()).await else { continue };
            // 1142, 1143, 1044: a table, a column, a database that the account may not touch.
            let denied = matches!(&error, TransferError::Sql { code: Some(code), .. } if matches!(code.as_str(), "1142" | "1143" | "1044"));
            if denied {
                let found = format!("{user} lacks {right} on `{}`", table.name);
                look.say(Severity::Error, "privilege", found, format!("`GRANT {right} ON {name} TO {user}`"));
            }
        }
    }
    Ok(())
}

/// Rights on the whole database that a copy needs beside those on its tables.
async fn grants(session: &mut Session, look: &mut Look<'_>, user: &str) -> Result<(), TransferError> {
    let own = session.rows("SELECT DATABASE()", Vec::new()).await?;
    let database = own.first().map(|row| text(row, 0)).unwrap_or_default();
    let lines: Vec<String> = session.rows("SHOW GRANTS", Vec::new()).await?.iter().map(|row| text(row, 0)).collect();
    let name = crate::transfer::checkpoint::TABLE;
    let kept = session.number(&session.engine().has_table(name), Vec::new()).await? == Some(1);
    let needed = [
        ("CREATE", (!kept).then_some("makes the table of checkpoints")),
        ("CREATE TEMPORARY TABLES", Some("is needed by the merge policies that update")),
    ];
    for (right, why) in needed {
        let Some(why) = why else { continue };
        if !lines.iter().any(|line| grants_right(line, right, &database)) {
            let found = format!("no grant of {right} on `{database}` is seen for {user}; it {why}");
            look.say(Severity::Warning, "privilege", found, format!("`GRANT {right} ON `{database}`.* TO {user}`"));
        }
    }
    Ok(())
}

/// Whether a line of `SHOW GRANTS` gives `right` on the whole of `database`.
fn grants_right(line: &str, right: &str, database: &str) -> bool {
    let Some((given, on)) = line.strip_prefix("GRANT ").and_then(|rest| rest.split_once(" ON ")) else { return false };
    let Some((scope, _)) = on.split_once(" TO ") else { return false };
    let wide = scope == "*.*" || scope.strip_suffix(".*").is_some_and(|name| like(name.trim_matches('`'), database));
    wide && given.split(", ").any(|one| one == "ALL PRIVILEGES" || one == right)
}

/// Whether a name fits the pattern of a grant: `%` and `_` stand for others, `\` before one of them for itself.
fn like(pattern: &str, name: &str) -> bool {
    let mut expression = String::from("^");
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '%' => expression.push_str(".*"),
            '_' => expression.push('.'),
            '\\' => expression.push_str(&regex::escape(&letters.next().unwrap_or('\\').to_string())),
            other => expression.push_str(&regex::escape(&other.to_string())),
        }
    }
    regex::Regex::new(&(expression + "$")).is_ok_and(|expression| expression.is_match(name))
}

async fn sizes(session: &mut Session, look: &mut Look<'_>) -> Result<(), TransferError> {
    let sql = "SELECT CAST(DATA_LENGTH + INDEX_LENGTH AS SIGNED) FROM information_schema.TABLES \
               WHERE TABLE_SCHEMA = COALESCE(?, DATABASE()) AND TABLE_NAME = ?";
    let mut bytes = Vec::new();
    for table in look.tables {
        bytes.push(session.number(sql, named(table)).await?);
    }
    look.facts.tables_bytes = Some(total(bytes.into_iter()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_read_with_their_patterns() {
        let create = |line: &str| grants_right(line, "CREATE", "wfm_76");
        assert!(create("GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost` WITH GRANT OPTION"));
        assert!(create("GRANT SELECT, CREATE ON `wfm\\_76`.* TO `a`@`%`"));
        assert!(create("GRANT CREATE ON `wfm%`.* TO `a`@`%`"));
        assert!(!create("GRANT CREATE ON `wfm\\_76`.`t` TO `a`@`%`"));
        assert!(!create("GRANT CREATE TEMPORARY TABLES ON `wfm\\_76`.* TO `a`@`%`"));
        assert!(!create("GRANT CREATE ON `other`.* TO `a`@`%`"));
        assert!(!create("GRANT USAGE ON *.* TO `a`@`%`"));
    }
}
