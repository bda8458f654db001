//! `wait.for`, `wait.boundary`, `wait.at`: waiting for the clock.
//!
//! The end of the wait is decided before it begins and kept with the attempt, so a crash in between neither lengthens nor
//! moves it. Called by the driver.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Action, Context, Failure, Preview};
use crate::event::{Finding, Outputs};
use crate::spec::actions::{WaitAt, WaitBoundary, WaitFor};

/// Longest sleep without a look at the clock, which may have been set meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Where a wait ends, decided at `now`.
trait Clocked: Send + Sync {
    /// Milliseconds since the epoch.
    fn until_ms(&self, now_ms: i64) -> Result<i64, Failure>;
}

impl Clocked for WaitFor {
    fn until_ms(&self, now_ms: i64) -> Result<i64, Failure> {
        let length = i64::try_from(self.duration.0).ok();
        length
            .and_then(|length| now_ms.checked_add(length))
            .ok_or_else(|| Failure::permanent(format!("{} is too long to wait", self.duration)))
    }
}

impl Clocked for WaitBoundary {
    /// The first boundary after `after` (or after now): with D = `every`, (floor(t / D) + 1) D.
    fn until_ms(&self, now_ms: i64) -> Result<i64, Failure> {
        let every = i64::try_from(self.every.0).ok().filter(|every| *every > 0 && every % 1000 == 0);
        let every = every.ok_or_else(|| Failure::permanent("`every` must be one or more whole seconds"))?;
        let from = match self.after {
            Some(after) => after.checked_mul(1000),
            None => Some(now_ms),
        };
        from.and_then(|from| from.div_euclid(every).checked_add(1)?.checked_mul(every))
            .ok_or_else(|| Failure::permanent("`after` is out of range"))
    }
}

impl Clocked for WaitAt {
    fn until_ms(&self, _now_ms: i64) -> Result<i64, Failure> {
        let time: Timestamp = self.time.parse().map_err(|_| {
            Failure::permanent(format!("`{}` is no time; write it like `2026-11-22T02:00:00Z`", self.time))
        })?;
        Ok(time.as_millisecond())
    }
}

fn before(wait: &dyn Clocked) -> Result<Value, Failure> {
    Ok(json!({ "until_ms": wait.until_ms(crate::config::now().as_millisecond())? }))
}

fn kept(before: &Value) -> Option<i64> {
    before.get("until_ms").and_then(Value::as_i64)
}

fn outputs(until_ms: i64) -> Outputs {
    Outputs::from([("at".to_owned(), json!(until_ms.div_euclid(1000)))])
}

/// Time left until `until_ms`; nothing when it is over.
fn left(until_ms: i64) -> Option<Duration> {
    let left = until_ms.saturating_sub(crate::config::now().as_millisecond());
    u64::try_from(left).ok().filter(|left| *left > 0).map(Duration::from_millis)
}

async fn run(wait: &dyn Clocked, cx: &Context, before: &Value) -> Result<Outputs, Failure> {
    let until_ms = match kept(before) {
        Some(until_ms) => until_ms,
        None => wait.until_ms(crate::config::now().as_millisecond())?,
    };
    while let Some(left) = left(until_ms) {
        tokio::select! {
            () = tokio::time::sleep(left.min(LOOK_EVERY)) => {}
            () = cx.cancel.cancelled() => return Err(Failure::harmless("stopped before the wait was over")),
        }
    }
    Ok(outputs(until_ms))
}

fn probe(before: &Value) -> Finding {
    match kept(before) {
        Some(until_ms) if left(until_ms).is_none() => Finding::Done(outputs(until_ms)),
        Some(_) | None => Finding::NotDone,
    }
}

fn preview(wait: &dyn Clocked) -> Preview {
    let until = wait.until_ms(crate::config::now().as_millisecond());
    match until.map(Timestamp::from_millisecond) {
        Ok(Ok(until)) => Preview::NoChange(format!("waits; until {until} if it began now")),
        Ok(Err(error)) => Preview::Unknown(error.to_string()),
        Err(failure) => Preview::Unknown(failure.error),
    }
}

macro_rules! waits {
    ($($wait:ty),*) => {$(
        #[async_trait]
        impl Action for $wait {
            async fn before(&self, _cx: &Context) -> Result<Value, Failure> {
                before(self)
            }

            async fn run(&self, cx: &Context, before: &Value) -> Result<Outputs, Failure> {
                run(self, cx, before).await
            }

            async fn probe(&self, _cx: &Context, before: &Value) -> Finding {
                probe(before)
            }

            async fn undo(&self, _cx: &Context, _before: &Value) -> Result<(), Failure> {
                Ok(())
            }

            async fn preview(&self, _cx: &Context) -> Preview {
                preview(self)
            }
        }
    )*};
}

waits!(WaitFor, WaitBoundary, WaitAt);

#[cfg(test)]
mod tests {
    use super::super::testing::Place;
    use super::*;
    use crate::event::Effect;
    use crate::spec::values::Millis;

    #[test]
    fn a_boundary_is_strictly_later() {
        let wait = |after| WaitBoundary { every: Millis(900_000), after };
        for (after, at) in [(0, 900), (899, 900), (900, 1800), (-1, 0), (-900, 0)] {
            assert_eq!(wait(Some(after)).until_ms(5), Ok(at * 1000), "{after}");
        }
        assert_eq!(wait(None).until_ms(899_999), Ok(900_000));
        assert_eq!(wait(None).until_ms(900_000), Ok(1_800_000));
        assert!(wait(Some(i64::MAX / 1000)).until_ms(0).is_err());
        assert!(WaitBoundary { every: Millis(1500), after: None }.until_ms(0).is_err());
        assert!(WaitBoundary { every: Millis(0), after: None }.until_ms(0).is_err());
    }

    #[tokio::test]
    async fn the_end_is_kept_over_a_crash() {
        let place = Place::new();
        let wait = WaitFor { duration: Millis(3_600_000) };
        let begun = wait.before(&place.cx).await.expect("decided");
        assert_eq!(wait.probe(&place.cx, &begun).await, Finding::NotDone);
        let long_ago = json!({ "until_ms": 1_500_000_000_123_i64 });
        let outputs = wait.run(&place.cx, &long_ago).await.expect("over at once");
        assert_eq!(outputs["at"], json!(1_500_000_000));
        assert_eq!(wait.probe(&place.cx, &long_ago).await, Finding::Done(outputs));
    }

    #[tokio::test]
    async fn a_wait_is_never_too_short_and_can_be_stopped() {
        let place = Place::new();
        let wait = WaitFor { duration: Millis(30) };
        let begun = wait.before(&place.cx).await.expect("decided");
        wait.run(&place.cx, &begun).await.expect("over");
        assert!(left(kept(&begun).expect("kept")).is_none());
        place.cx.cancel.cancel();
        let wait = WaitAt { time: "2999-01-01T00:00:00Z".into() };
        let failure = wait.run(&place.cx, &Value::Null).await.expect_err("stopped");
        assert_eq!(failure.effect, Effect::None);
        let wait = WaitAt { time: "tomorrow".into() };
        assert!(wait.before(&place.cx).await.is_err());
    }
}
