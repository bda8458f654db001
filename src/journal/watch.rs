//! Waiting for news: something that others recorded, or a lock that was freed.
//!
//! A bell rings where news can be heard (this process; for PostgreSQL, `NOTIFY`), and a slow tick covers the rest.
//! A ring says only that it is worth looking; [`super::Journal::head`] says whether there is something.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior};

/// Rung by whoever records something that others may wait for. Clones are the same bell.
#[derive(Debug, Clone)]
pub(super) struct Bell(watch::Sender<u64>);

impl Default for Bell {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl Bell {
    pub(super) fn ring(&self) {
        self.0.send_modify(|rings| *rings = rings.wrapping_add(1));
    }

    pub(super) fn watch(&self, tick: Duration) -> Watch {
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + tick, tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Watch { rings: self.0.subscribe(), ticks }
    }
}

/// Somebody who waits for news.
#[derive(Debug)]
pub struct Watch {
    rings: watch::Receiver<u64>,
    ticks: Interval,
}

impl Watch {
    /// Waits until it is worth looking again. Dropped and called again, it misses nothing and starts no wait anew.
    pub async fn news(&mut self) {
        tokio::select! {
            // The bell lives as long as the store; without it only the ticks are left.
            Ok(()) = self.rings.changed() => {}
            _ = self.ticks.tick() => {}
        }
    }
}
