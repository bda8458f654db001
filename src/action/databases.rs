//! The databases of a site, opened when first needed and kept for the run.

use std::collections::BTreeMap;
use std::sync::Arc;

use secrecy::ExposeSecret;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::Failure;
use super::backup::address::decode;
use super::secrets::Secrets;
use crate::site::LoadedSite;
use crate::transfer::{ConnectOptions, Database};

/// The passwords in an address, as they stand there and as they are meant: programs print either.
fn passwords(address: &str) -> Vec<Zeroizing<String>> {
    let Ok(url) = reqwest::Url::parse(address) else { return Vec::new() };
    let mut found = Vec::new();
    if let Some(password) = url.password() {
        found.extend(decode(password).map(Zeroizing::new));
        found.push(password.to_owned().into());
    }
    for (key, value) in url.query_pairs() {
        if key.contains("password") || key == "sslkey" {
            found.push(value.into_owned().into());
        }
    }
    found.retain(|part| !part.is_empty());
    found
}

/// Open databases by name.
#[derive(Clone)]
pub struct Databases {
    site: LoadedSite,
    /// Fetches addresses that are secrets, and hides them and their passwords.
    secrets: Arc<Secrets>,
    open: Arc<Mutex<BTreeMap<String, Database>>>,
}

impl Databases {
    /// Nothing is opened yet.
    pub fn new(site: LoadedSite, secrets: Arc<Secrets>) -> Self {
        Self { site, secrets, open: Arc::default() }
    }

    /// The address of a database of the site.
    ///
    /// # Errors
    /// When the site does not name it, or its secret cannot be had.
    pub async fn address(&self, name: &str) -> Result<Zeroizing<String>, Failure> {
        let database = self.site.site.databases.get(name);
        let database = database.ok_or_else(|| Failure::permanent(format!("the site has no database `{name}`")))?;
        let Some(secret) = &database.secret else {
            return Ok(self.absolute(database.url.as_deref().unwrap_or_default()).into());
        };
        let source = self.site.site.secrets.get(&secret.value);
        let source = source.ok_or_else(|| Failure::permanent(format!("the site has no secret `{}`", secret.value)))?;
        let value = self.secrets.fetch(&secret.value, source, &self.site.base).await?;
        let address = Zeroizing::new(value.expose_secret().to_owned());
        for part in passwords(&address) {
            self.secrets.hide(&part);
        }
        Ok(address)
    }

    /// Relative SQLite paths start at the site file.
    fn absolute(&self, url: &str) -> String {
        match url.strip_prefix("sqlite:") {
            Some(path) if !path.starts_with('/') && path != ":memory:" => {
                format!("sqlite:{}", self.site.base.join(path).display())
            }
            _ => url.to_owned(),
        }
    }

    /// The database, opened if it is not yet.
    ///
    /// # Errors
    /// When it cannot be reached; nothing was changed then.
    pub async fn get(&self, name: &str) -> Result<Database, Failure> {
        let mut open = self.open.lock().await;
        if let Some(database) = open.get(name) {
            return Ok(database.clone());
        }
        let url = self.address(name).await?;
        let database = Database::connect(&url, ConnectOptions::default())
            .await
            .map_err(|error| Failure::harmless(format!("database `{name}`: {error}")))?;
        open.insert(name.to_owned(), database.clone());
        Ok(database)
    }

    /// Closes one; the next step that needs it opens it anew.
    pub async fn forget(&self, name: &str) {
        let open = self.open.lock().await.remove(name);
        if let Some(database) = open {
            database.close().await;
        }
    }

    /// Closes all of them.
    pub async fn close(&self) {
        for (_, database) in std::mem::take(&mut *self.open.lock().await) {
            database.close().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_of_an_address_is_known_in_both_forms() {
        let parts = |address: &str| passwords(address).iter().map(|part| part.as_str().to_owned()).collect::<Vec<_>>();
        assert_eq!(parts("postgres://ann:p%40ss%2Fword@db/x"), ["p@ss/word", "p%40ss%2Fword"]);
        assert_eq!(parts("postgres://ann@db/x?password=p%40ss&application_name=a"), ["p@ss"]);
        assert_eq!(parts("sqlite:/a/b.db"), Vec::<String>::new());
        assert_eq!(parts("no address"), Vec::<String>::new());
        assert_eq!(parts("mysql://a:plain@db/x"), ["plain", "plain"]);
    }
}
