//! What a SQLite file says about itself, for a preflight.

use std::path::Path;

use super::local::{free_bytes, may_write};
use super::{Look, Severity, number, parts, text};
use crate::transfer::error::TransferError;
use crate::transfer::schema::one;
use crate::transfer::session::Session;

/// Looks at one side.
pub(super) async fn look(session: &mut Session, look: &mut Look<'_>) -> Result<(), TransferError> {
    let rows = session
        .rows(
            "SELECT sqlite_version(), e.encoding, c.page_count * s.page_size, d.file FROM pragma_encoding AS e, \
             pragma_page_count AS c, pragma_page_size AS s, pragma_database_list AS d WHERE d.name = 'main'",
            Vec::new(),
        )
        .await?;
    let row = rows.first().map(Vec::as_slice).unwrap_or_default();
    look.facts.version = text(row, 0);
    look.facts.encoding = text(row, 1);
    // SQLite keeps one file; what its single tables take is not told by every build.
    look.facts.tables_bytes = number(row, 2).and_then(|bytes| u64::try_from(bytes).ok());
    let file = text(row, 3);
    if look.is_target() && !file.is_empty() {
        files(Path::new(&file), look);
        triggers(session, look).await?;
    }
    Ok(())
}

fn files(file: &Path, look: &mut Look<'_>) {
    let folder = file.parent().unwrap_or(Path::new("/"));
    look.facts.disk_free_bytes = free_bytes(folder);
    for path in [file, folder] {
        if !may_write(path) {
            let found = format!("`{}` cannot be written", path.display());
            look.say(Severity::Error, "privilege", found, "give the user of this process the right to write there");
        }
    }
}

async fn triggers(session: &mut Session, look: &mut Look<'_>) -> Result<(), TransferError> {
    for table in look.tables {
        let sql = "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ?1 ORDER BY name";
        for row in session.rows(sql, one(parts(&table.name).1)).await? {
            let found = format!("`{}` has the trigger `{}`, which acts on every copied row", table.name, text(&row, 0));
            look.say(Severity::Warning, "trigger", found, "drop it for the time of the copy, unless that is wanted");
        }
    }
    Ok(())
}
