//! Hearing what other machines recorded: `LISTEN` on a connection of its own, made when somebody first waits.

use std::time::Duration;

use sqlx::postgres::{PgListener, PgPoolOptions};

use super::{CHANNEL, Postgres};
use crate::journal::watch::{Bell, Watch};

/// How often to look although nothing was heard: notifications are not kept for a connection that was away.
const TICK: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_secs(1);

/// The task that hears `NOTIFY`; it ends with the store.
pub(super) struct Listener(tokio::task::JoinHandle<()>);

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Postgres {
    pub(in crate::journal) fn watch(&self) -> Watch {
        self.watch_every(TICK)
    }

    /// The same with another tick.
    pub(in crate::journal) fn watch_every(&self, tick: Duration) -> Watch {
        self.listener.get_or_init(|| {
            let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(self.line.options().clone());
            Listener(tokio::spawn(listen(pool, self.bell.clone())))
        });
        self.bell.watch(tick)
    }
}

/// Rings for every notification, and when the connection was away.
async fn listen(pool: sqlx::PgPool, bell: Bell) {
    loop {
        if let Ok(mut listener) = PgListener::connect_with(&pool).await
            && listener.listen(CHANNEL).await.is_ok()
        {
            bell.ring();
            while listener.try_recv().await.is_ok_and(|heard| heard.is_some()) {
                bell.ring();
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}
