//! The address of a PostgreSQL store: how it is read, and how it can be shown without its password.

use std::str::FromStr;

use sqlx::ConnectOptions as _;
use sqlx::postgres::PgConnectOptions;

use crate::journal::JournalError;

/// Settings of every session. A frozen process must not keep rows locked, and an append must see what others committed.
const SETTINGS: [(&str, &str); 4] = [
    ("idle_in_transaction_session_timeout", "10s"),
    ("statement_timeout", "60s"),
    ("lock_timeout", "10s"),
    ("default_transaction_isolation", "read committed"),
];

/// Whether a place names a PostgreSQL server.
pub(in crate::journal) fn is_postgres(place: &str) -> bool {
    place.starts_with("postgres://") || place.starts_with("postgresql://")
}

/// A place without the passwords in it.
pub(in crate::journal) fn shown(place: &str) -> String {
    let Some((scheme, rest)) = place.split_once("://") else { return place.to_owned() };
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
    // A password may hold an unescaped `@` or `/`; what stands behind the last `@` is the host.
    let rest = match rest.rsplit_once('@') {
        Some((who, host)) => {
            let user = who.split_once(':').map_or(who.to_owned(), |(user, _)| format!("{user}:***"));
            format!("{user}@{host}")
        }
        None => rest.to_owned(),
    };
    let pair = |pair: &str| match pair.split_once('=') {
        Some((key, _)) if key.to_ascii_lowercase().contains("pass") => format!("{key}=***"),
        _ => pair.to_owned(),
    };
    let query = query.map(|query| format!("?{}", query.split('&').map(pair).collect::<Vec<_>>().join("&")));
    format!("{scheme}://{rest}{}", query.unwrap_or_default())
}

/// How to connect to `url`.
pub(super) fn options(url: &str) -> Result<PgConnectOptions, JournalError> {
    let options = PgConnectOptions::from_str(url)
        .map_err(|error| JournalError::Address { store: shown(url), why: error.to_string() })?;
    Ok(options.application_name("piton").options(SETTINGS).disable_statement_logging())
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn a_shown_address_has_no_password() {
        for (place, wanted) in [
            ("postgres://ann:s3cret@db/runs", "postgres://ann:***@db/runs"),
            ("postgres://ann:s@cr/et@db:5433/runs?sslmode=require", "postgres://ann:***@db:5433/runs?sslmode=require"),
            ("postgres://db/runs?user=ann&password=s3cret", "postgres://db/runs?user=ann&password=***"),
            ("postgres://ann@db/runs", "postgres://ann@db/runs"),
            ("/var/lib/piton.db", "/var/lib/piton.db"),
            ("memory:", "memory:"),
        ] {
            assert_eq!(shown(place), wanted);
        }
    }
}
