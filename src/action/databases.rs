//! The databases of a site, opened when first needed and kept for the run.

use std::collections::BTreeMap;
use std::sync::Arc;

use secrecy::ExposeSecret;
use tokio::sync::Mutex;

use super::Failure;
use crate::site::LoadedSite;
use crate::transfer::{ConnectOptions, Database};

/// Open databases by name.
#[derive(Clone)]
pub struct Databases {
    site: LoadedSite,
    open: Arc<Mutex<BTreeMap<String, Database>>>,
}

impl Databases {
    /// Nothing is opened yet.
    pub fn new(site: LoadedSite) -> Self {
        Self { site, open: Arc::default() }
    }

    /// The address of a database of the site.
    ///
    /// # Errors
    /// When the site does not name it, or its secret cannot be had.
    pub async fn address(&self, name: &str) -> Result<String, Failure> {
        let database = self.site.site.databases.get(name);
        let database = database.ok_or_else(|| Failure::permanent(format!("the site has no database `{name}`")))?;
        let Some(secret) = &database.secret else {
            return Ok(self.absolute(database.url.as_deref().unwrap_or_default()));
        };
        let source = self.site.site.secrets.get(&secret.value);
        let source = source.ok_or_else(|| Failure::permanent(format!("the site has no secret `{}`", secret.value)))?;
        let value = source.fetch(&secret.value, &self.site.base).await;
        Ok(value.map_err(|error| Failure::harmless(error.to_string()))?.expose_secret().to_owned())
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
