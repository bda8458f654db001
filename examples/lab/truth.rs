//! What really happens in the lab's contact centre: a pure function of seed, entity and time.
//!
//! Each measure is a counter that never falls and is known at any millisecond without adding anything up. What a collector
//! sees between two moments is the difference of two counter values, so windows add up exactly, and a collector that
//! was there for only a part of a timestep sees only that part. The counters are pinned at eight points per timestep.

/// The offered load of a lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    seed: u64,
    timestep_ms: i64,
}

/// What happened to one entity in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observation {
    /// Interaction volume.
    pub iv: i64,
    /// Handle time, seconds.
    pub handle_s: i64,
    /// Service level, percent.
    pub sl_pct: i64,
    /// Abandoned interactions.
    pub abandoned: i64,
    /// Longest queue.
    pub queue_len: i64,
}

const POINTS_PER_STEP: i64 = 8;

#[derive(Clone, Copy)]
enum Measure {
    Volume = 1,
    Handle = 2,
    Abandoned = 3,
}

impl Load {
    /// The load that `seed` describes, for timesteps of `timestep_s` seconds.
    pub fn new(seed: u64, timestep_s: i64) -> Self {
        Self { seed, timestep_ms: timestep_s * 1_000 }
    }

    /// What happens to `entity` in the half-open window `[from_ms, to_ms)`; nothing if the window is empty.
    pub fn between(&self, entity: i64, from_ms: i64, to_ms: i64) -> Observation {
        let to_ms = to_ms.max(from_ms);
        let seen = |measure| self.counter(entity, measure, to_ms) - self.counter(entity, measure, from_ms);
        let bucket = from_ms.div_euclid(self.timestep_ms);
        Observation {
            iv: seen(Measure::Volume),
            handle_s: seen(Measure::Handle),
            sl_pct: 70 + self.draw(entity, 4, bucket, 31),
            abandoned: seen(Measure::Abandoned),
            queue_len: self.draw(entity, 5, bucket, 12),
        }
    }

    /// What happens to `entity` in the whole timestep that starts at `step_start_s`.
    pub fn step(&self, entity: i64, step_start_s: i64) -> Observation {
        let from_ms = step_start_s * 1_000;
        self.between(entity, from_ms, from_ms + self.timestep_ms)
    }

    fn counter(&self, entity: i64, measure: Measure, at_ms: i64) -> i64 {
        let gap_ms = self.timestep_ms / POINTS_PER_STEP;
        let point = at_ms.div_euclid(gap_ms);
        let before = self.pin(entity, measure, point);
        let after = self.pin(entity, measure, point + 1);
        before + (after - before) * at_ms.rem_euclid(gap_ms) / gap_ms
    }

    /// The counter at a point: a straight line plus less than half a step of noise, so it always rises.
    fn pin(&self, entity: i64, measure: Measure, point: i64) -> i64 {
        let volume = 8 + self.draw(entity, 0, 0, 16);
        let rate = match measure {
            Measure::Volume => volume,
            Measure::Handle => volume * (120 + self.draw(entity, 0, 1, 300)),
            Measure::Abandoned => 1 + volume / 8,
        };
        rate * point + self.draw(entity, measure as u64, point, rate / 2 + 1)
    }

    /// A number in `0..below`, always the same for the same question.
    fn draw(&self, entity: i64, salt: u64, at: i64, below: i64) -> i64 {
        let mut z = self.seed;
        for part in [entity.cast_unsigned(), salt, at.cast_unsigned()] {
            z = (z ^ part).wrapping_add(0x9E37_79B9_7F4A_7C15);
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^= z >> 31;
        }
        i64::try_from(z % below.cast_unsigned()).expect("a remainder of a positive i64 fits")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_add_up_exactly_wherever_they_are_cut() {
        for timestep_s in [1, 2, 900] {
            let load = Load::new(7, timestep_s);
            let start_s = 1_800_000_000 / timestep_s * timestep_s;
            let (from, to) = (start_s * 1_000, (start_s + timestep_s) * 1_000);
            for cut in (from..to).step_by(37) {
                let (a, b) = (load.between(3, from, cut), load.between(3, cut, to));
                let whole = load.step(3, start_s);
                assert_eq!(a.iv + b.iv, whole.iv);
                assert_eq!(a.handle_s + b.handle_s, whole.handle_s);
                assert_eq!(a.abandoned + b.abandoned, whole.abandoned);
            }
        }
    }

    #[test]
    fn a_window_of_a_twelfth_of_a_timestep_is_never_silent() {
        let load = Load::new(7, 2);
        for entity in 1..=50 {
            for at in (0..60_000).step_by(83) {
                assert!(load.between(entity, at, at + 167).iv > 0, "entity {entity} at {at}");
            }
        }
    }

    #[test]
    fn another_seed_is_another_truth() {
        let (a, b) = (Load::new(1, 2), Load::new(2, 2));
        assert!((0..20).any(|k| a.step(1, k * 2) != b.step(1, k * 2)));
    }
}
