//! Group commit: the end of one attempt waits a moment for the ends of others, so that they and the starts that they
//! allow share one sync. While others run the machine is not idle, and one transaction costs as much as many records.
//!
//! Refuses to wait for long, for few, or again and again in vain. Called by the session when an attempt ended.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::DriverError;
use super::session::Session;

/// Longest wait of an end that could be recorded.
const PATIENCE: Duration = Duration::from_millis(2);
/// With fewer attempts still under way nobody is waited for.
const SIBLINGS: usize = 3;
/// After waiting in vain, at most `2^VAIN_MAX` ends are recorded at once before it is tried again.
const VAIN_MAX: u32 = 6;

/// What waiting for others came to of late.
#[derive(Debug, Default)]
pub(super) struct Group {
    vain: u32,
    at_once: u32,
}

impl Group {
    /// How many ends to wait for while `running` attempts are under way.
    fn wanted(&mut self, running: usize) -> usize {
        if running < SIBLINGS {
            return 0;
        }
        if self.at_once > 0 {
            self.at_once -= 1;
            return 0;
        }
        running.div_ceil(2)
    }

    /// Learns from what came.
    fn learn(&mut self, came: usize) {
        self.vain = if came == 0 { (self.vain + 1).min(VAIN_MAX) } else { 0 };
        self.at_once = if came == 0 { 1 << self.vain } else { 0 };
    }
}

impl Session {
    /// Takes in the ends that come right behind one that came.
    pub(super) async fn take_siblings(&mut self) -> Result<(), DriverError> {
        let wanted = self.group.wanted(self.tasks.len());
        if wanted == 0 {
            return Ok(());
        }
        let until = Instant::now() + PATIENCE;
        let mut came = 0;
        while came < wanted
            && let Ok(Some(done)) = timeout_at(until, self.tasks.join_next()).await
        {
            self.take(done)?;
            came += 1;
        }
        self.group.learn(came);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_in_vain_is_tried_ever_more_seldom_and_success_forgives() {
        let mut group = Group::default();
        assert_eq!((group.wanted(2), group.wanted(7)), (0, 4), "few are not waited for");
        let mut pauses = Vec::new();
        for _ in 0..8 {
            group.learn(0);
            let mut at_once = 0;
            while group.wanted(7) == 0 {
                at_once += 1;
            }
            pauses.push(at_once);
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 64, 64, 64]);
        group.learn(1);
        assert_eq!(group.wanted(7), 4);
    }
}
