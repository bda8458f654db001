//! The keys of people: those of the site file and of an OpenSSH allowed-signers file (`ssh-keygen(1)`, ALLOWED SIGNERS).

use std::collections::BTreeSet;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use ssh_key::{Algorithm, PublicKey};

use super::{IdentityError, fingerprint};

/// One key of one person.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    name: String,
    key: PublicKey,
    after: Option<Timestamp>,
    before: Option<Timestamp>,
    /// Patterns; nothing is any.
    namespaces: Option<Vec<String>>,
}

/// Who has which key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signers {
    entries: Vec<Entry>,
}

impl Signers {
    /// Adds a key of a person, in the form of `id_ed25519.pub`.
    ///
    /// # Errors
    /// When it is no key that can be verified here.
    pub fn add(&mut self, name: &str, key: &str) -> Result<(), IdentityError> {
        let key = readable(key).map_err(|why| IdentityError::Keys(format!("a key of `{name}` {why}")))?;
        self.entries.push(Entry { name: name.to_owned(), key, after: None, before: None, namespaces: None });
        Ok(())
    }

    /// Adds what an allowed-signers file says.
    ///
    /// # Errors
    /// Naming the first line that cannot be honoured as it stands.
    pub fn add_file(&mut self, text: &str) -> Result<(), IdentityError> {
        for (number, line) in (1..).zip(text.lines().map(str::trim)) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let found = entries(line)
                .map_err(|why| IdentityError::Keys(format!("line {number} of the allowed signers {why}")))?;
            self.entries.extend(found);
        }
        Ok(())
    }

    /// Whether anybody has a key.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whose key this is.
    pub fn owners(&self, key: &str) -> BTreeSet<&str> {
        let key = PublicKey::from_openssh(key).ok();
        let same = |entry: &&Entry| key.as_ref().is_some_and(|key| key.key_data() == entry.key.key_data());
        self.entries.iter().filter(same).map(|entry| entry.name.as_str()).collect()
    }

    /// Keys that are listed for more than one person, with these people.
    pub fn shared(&self) -> Vec<(String, Vec<&str>)> {
        let mut found: Vec<(String, Vec<&str>)> = Vec::new();
        for entry in &self.entries {
            let owners = self.owners_of(&entry.key);
            let key = fingerprint(&entry.key);
            if owners.len() > 1 && found.iter().all(|(known, _)| *known != key) {
                found.push((key, owners.into_iter().collect()));
            }
        }
        found
    }

    fn owners_of(&self, key: &PublicKey) -> BTreeSet<&str> {
        let same = |entry: &&Entry| entry.key.key_data() == key.key_data();
        self.entries.iter().filter(same).map(|entry| entry.name.as_str()).collect()
    }

    /// Whether a signature by `key` at `at`, in the namespace `wanted`, is one of `name`.
    pub(super) fn admit(
        &self,
        key: &PublicKey,
        name: &str,
        wanted: &'static str,
        at: Timestamp,
    ) -> Result<(), IdentityError> {
        let print = fingerprint(key);
        let owners = self.owners_of(key);
        let list =
            |owners: &BTreeSet<&str>| owners.iter().map(|owner| format!("`{owner}`")).collect::<Vec<_>>().join(" and ");
        match (owners.len(), owners.contains(name)) {
            (0, _) => return Err(IdentityError::Unknown(print)),
            (1, true) => {}
            (1, false) => {
                let of = owners.into_iter().collect();
                return Err(IdentityError::Other { key: print, of, name: name.to_owned() });
            }
            _ => return Err(IdentityError::Shared { key: print, of: list(&owners) }),
        }
        let mine: Vec<&Entry> = self.entries.iter().filter(|entry| entry.key.key_data() == key.key_data()).collect();
        let fits = |entry: &&&Entry| {
            entry.namespaces.as_ref().is_none_or(|patterns| patterns.iter().any(|pattern| glob(pattern, wanted)))
        };
        let meant: Vec<&&Entry> = mine.iter().filter(fits).collect();
        let counts = |entry: &&&Entry| {
            entry.after.is_none_or(|after| at >= after) && entry.before.is_none_or(|before| at <= before)
        };
        match meant.first() {
            None => Err(IdentityError::NotFor { key: print, wanted }),
            Some(_) if meant.iter().any(counts) => Ok(()),
            Some(entry) => {
                let from = entry.after.map(|after| format!("from {after}"));
                let until = entry.before.map(|before| format!("until {before}"));
                let when = from.into_iter().chain(until).collect::<Vec<_>>().join(" ");
                Err(IdentityError::Time { key: print, when, at })
            }
        }
    }
}

/// A public key of a kind that can be verified here.
fn readable(text: &str) -> Result<PublicKey, String> {
    let key = PublicKey::from_openssh(text.trim())
        .map_err(|error| format!("cannot be read ({error}); write it as in `id_ed25519.pub`"))?;
    match key.algorithm() {
        Algorithm::Ed25519 => Ok(key),
        other => Err(format!("is of the kind {other}; only ssh-ed25519 keys can be verified here")),
    }
}

/// The keys of one line: `principals [options] type key [comment]`.
fn entries(line: &str) -> Result<Vec<Entry>, String> {
    let (principals, rest) = line.split_once(char::is_whitespace).ok_or("holds no key")?;
    let principals = principals.trim_matches('"');
    let rest = rest.trim_start();
    let (options, key) = if PublicKey::from_openssh(rest).is_ok() { ("", rest) } else { split_options(rest)? };
    let key = readable(key)?;
    let (mut after, mut before, mut namespaces) = (None, None, None);
    for option in split_quoted(options) {
        let (name, value) = option.split_once('=').map_or((option.as_str(), ""), |(name, value)| (name, value));
        let value = value.trim_matches('"');
        match name.to_ascii_lowercase().as_str() {
            "cert-authority" => {
                return Err("names a certificate authority, which is not supported; list the keys of the people".into());
            }
            "valid-after" => after = Some(time(value)?),
            "valid-before" => before = Some(time(value)?),
            "namespaces" => namespaces = Some(value.split(',').map(str::to_owned).collect::<Vec<_>>()),
            other => return Err(format!("has the option `{other}`, which is not known")),
        }
    }
    let mut found = Vec::new();
    for name in principals.split(',') {
        if name.is_empty() || name.contains(['*', '?', '!']) {
            return Err(format!("has the pattern `{name}`; name each person"));
        }
        let (name, key, namespaces) = (name.to_owned(), key.clone(), namespaces.clone());
        found.push(Entry { name, key, after, before, namespaces });
    }
    Ok(found)
}

/// Options, up to the first space outside of quotes, and the key behind them.
fn split_options(text: &str) -> Result<(&str, &str), String> {
    let mut quoted = false;
    for (at, char) in text.char_indices() {
        match char {
            '"' => quoted = !quoted,
            _ if char.is_whitespace() && !quoted => return Ok((&text[..at], text[at..].trim_start())),
            _ => {}
        }
    }
    Err("holds no key".into())
}

/// The parts between commas that stand outside of quotes.
fn split_quoted(text: &str) -> Vec<String> {
    let (mut parts, mut quoted) = (vec![String::new()], false);
    for char in text.chars() {
        quoted ^= char == '"';
        if char == ',' && !quoted {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(char);
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

/// `YYYYMMDD[HHMM[SS]]Z`. Without `Z` it would be another moment on another host.
fn time(text: &str) -> Result<Timestamp, String> {
    let wrong = || format!("has the time `{text}`; write it in UTC, as `20261231Z` or `20261231235959Z`");
    let digits = text.strip_suffix(['Z', 'z']).ok_or_else(wrong)?;
    if !digits.chars().all(|char| char.is_ascii_digit()) {
        return Err(wrong());
    }
    let whole = match digits.len() {
        8 => format!("{digits}000000"),
        12 => format!("{digits}00"),
        14 => digits.to_owned(),
        _ => return Err(wrong()),
    };
    let civil = DateTime::strptime("%Y%m%d%H%M%S", &whole).map_err(|_| wrong())?;
    civil.to_zoned(TimeZone::UTC).map(|zoned| zoned.timestamp()).map_err(|_| wrong())
}

/// Whether `text` fits a pattern with `*` and `?`.
fn glob(pattern: &str, text: &str) -> bool {
    let mut chars = pattern.chars();
    match chars.next() {
        None => text.is_empty(),
        Some('*') => {
            text.char_indices().map(|(at, _)| at).chain([text.len()]).any(|at| glob(chars.as_str(), &text[at..]))
        }
        Some(one) => text
            .chars()
            .next()
            .is_some_and(|first| (one == '?' || one == first) && glob(chars.as_str(), &text[first.len_utf8()..])),
    }
}

#[cfg(test)]
mod tests {
    use super::super::NAMESPACE;
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

    fn file(text: &str) -> Result<Signers, String> {
        let mut signers = Signers::default();
        signers.add_file(text).map(|()| signers).map_err(|error| error.to_string())
    }

    fn admits(text: &str, name: &str, at: &str) -> Result<(), IdentityError> {
        let key = PublicKey::from_openssh(KEY).expect("a key");
        file(text).expect("is read").admit(&key, name, NAMESPACE, at.parse().expect("a time"))
    }

    #[test]
    fn an_allowed_signers_file_is_honoured_line_by_line() {
        let (now, then) = ("2026-11-23T12:00:00Z", "2027-01-01T00:00:00Z");
        assert_eq!(admits(&format!("# us\n\nann {KEY} ann@desk"), "ann", now), Ok(()));
        assert!(matches!(admits(&format!("ann {KEY}"), "bob", now), Err(IdentityError::Other { .. })));
        assert!(matches!(admits(&format!("ann,bob {KEY}"), "bob", now), Err(IdentityError::Shared { .. })));
        let timed = format!("ann valid-after=\"20261101Z\",valid-before=\"202612312359Z\" {KEY}");
        assert_eq!(admits(&timed, "ann", now), Ok(()));
        let late = admits(&timed, "ann", then).expect_err("too late").to_string();
        assert!(late.contains("until 2026-12-31T23:59:00Z"), "{late}");
        assert!(admits(&timed, "ann", "2026-10-01T00:00:00Z").is_err());
        let named = format!("ann namespaces=\"git,pit*\" {KEY}");
        assert_eq!(admits(&named, "ann", now), Ok(()));
        let other = format!("ann namespaces=\"git,file\" {KEY}");
        assert!(matches!(admits(&other, "ann", now), Err(IdentityError::NotFor { .. })));
        assert!(matches!(admits("", "ann", now), Err(IdentityError::Unknown(_))));
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_its_line() {
        for (line, said) in [
            (format!("ann cert-authority {KEY}"), "certificate authority"),
            (format!("*@site {KEY}"), "name each person"),
            (format!("ann valid-before=20261231 {KEY}"), "in UTC"),
            (format!("ann frobnicate {KEY}"), "`frobnicate`"),
            ("ann".to_owned(), "holds no key"),
            ("ann ssh-ed25519 AAAA".to_owned(), "cannot be read"),
        ] {
            let error = file(&format!("# first\n{line}")).expect_err("is refused");
            assert!(error.contains("line 2") && error.contains(said), "{error}");
        }
    }
}
