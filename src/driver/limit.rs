//! How long an attempt may work. People may allow more while it is at work.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::session::Session;
use crate::action::{Context, Failure};
use crate::ids::StepId;
use crate::scheduler::State;

/// How long an action may take to stop after it was told to.
const STOP_GRACE: Duration = Duration::from_secs(20);

/// The time of one attempt; nothing: as long as it takes, and no word of a person changes that.
pub struct Limit(Option<watch::Receiver<Duration>>);

/// The limits of all attempts at work.
#[derive(Default)]
pub struct Limits(HashMap<StepId, watch::Sender<Duration>>);

impl Limits {
    /// Tells attempts at work what they may take now.
    pub fn tell(&mut self, state: &State) {
        for (step, sender) in &self.0 {
            if let Some(now) = of(state, step) {
                sender.send_if_modified(|limit| std::mem::replace(limit, now) != now);
            }
        }
    }

    /// An attempt is over.
    pub fn forget(&mut self, step: &StepId) {
        self.0.remove(step);
    }
}

fn of(state: &State, step: &StepId) -> Option<Duration> {
    let ms = state.timeout_ms(step)?;
    Some(Duration::from_millis(u64::try_from(ms).unwrap_or(0)))
}

impl Session {
    /// The limit of an attempt, or undo, that begins.
    pub(super) fn limit(&mut self, step: &StepId) -> Limit {
        let Some(limit) = of(&self.state, step) else { return Limit(None) };
        let (sender, receiver) = watch::channel(limit);
        self.limits.0.insert(step.clone(), sender);
        Limit(Some(receiver))
    }
}

impl Limit {
    /// Runs `work`; tells it to stop when its time (of which some is spent) is over or the run is cancelled, and gives it a
    /// moment to do so.
    pub async fn within<T>(
        mut self,
        spent: Duration,
        cx: &Context,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        tokio::pin!(work);
        let cut = tokio::select! {
            result = &mut work => return result,
            limit = self.is_over(spent) => format!("took longer than its timeout of {}", humane(limit)),
            () = cx.cancel.cancelled() => "was cancelled".to_owned(),
        };
        cx.cancel.cancel();
        match tokio::time::timeout(STOP_GRACE, work).await {
            Ok(Ok(outputs)) => Ok(outputs),
            Ok(Err(failure)) => Err(Failure { error: format!("the attempt {cut}: {}", failure.error), ..failure }),
            Err(_) => Err(Failure::unknown(format!("the attempt {cut} and did not stop in time"))),
        }
    }

    /// Waits until the time is over, however often more was allowed meanwhile; gives that time.
    async fn is_over(&mut self, spent: Duration) -> Duration {
        let Some(limit) = &mut self.0 else { return std::future::pending().await };
        let began = Instant::now();
        loop {
            let now = *limit.borrow_and_update();
            tokio::select! {
                () = tokio::time::sleep_until(began + now.saturating_sub(spent)) => return now,
                // Without anybody who could change it, the time runs on.
                Ok(()) = limit.changed() => {}
            }
        }
    }
}

fn humane(limit: Duration) -> String {
    crate::spec::values::Millis(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_limit_can_change_while_an_attempt_is_at_work() {
        let (sender, receiver) = watch::channel(Duration::from_hours(1));
        let mut limit = Limit(Some(receiver));
        let (over, ()) = tokio::join!(limit.is_over(Duration::from_millis(5)), async {
            sender.send_replace(Duration::from_millis(20));
        });
        assert_eq!(over, Duration::from_millis(20));
    }

    #[tokio::test]
    async fn a_limit_holds_when_nobody_can_change_it_any_more() {
        let (sender, receiver) = watch::channel(Duration::from_millis(20));
        drop(sender);
        let began = Instant::now();
        assert_eq!(Limit(Some(receiver)).is_over(Duration::ZERO).await, Duration::from_millis(20));
        assert!(began.elapsed() >= Duration::from_millis(20));
    }
}
