//! When a failed call is tried again: after waits that grow, with jitter, up to a cap. Pure.

use std::time::Duration;

/// The first wait, before jitter.
const FIRST: Duration = Duration::from_millis(500);

/// No wait of ours is longer.
const CAP: Duration = Duration::from_secs(30);

/// A service may ask for longer ones (`Retry-After`), up to this.
const ASKED_CAP: Duration = Duration::from_secs(120);

/// The waits between the tries of one call.
#[derive(Debug, Clone)]
pub struct Backoff {
    left: u32,
    tries: u32,
}

impl Backoff {
    /// This many new tries after the first.
    pub fn new(retries: u32) -> Self {
        Self { left: retries, tries: 0 }
    }

    /// The wait before the next try; none when it was the last. `random`: anything from 0 to 1, so that many
    /// clients of one service that failed do not come back at once. `asked`: what the service asked for.
    pub fn next(&mut self, asked: Option<Duration>, random: f64) -> Option<Duration> {
        self.left = self.left.checked_sub(1)?;
        let grown = FIRST.saturating_mul(1 << self.tries.min(10)).min(CAP);
        self.tries += 1;
        let jittered = grown.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0);
        Some(asked.map_or(jittered, |asked| jittered.max(asked.min(ASKED_CAP))))
    }

    /// It got further: what failed before counts no more.
    pub fn progressed(&mut self, retries: u32) {
        *self = Self::new(retries);
    }
}

/// What a `Retry-After` header asks for: seconds, or a date, compared with the answer's own `Date`.
pub fn retry_after(header: &str, date: Option<&str>) -> Option<Duration> {
    if let Ok(seconds) = header.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = |text: &str| chrono::DateTime::parse_from_rfc2822(text.trim()).ok();
    (at(header)? - at(date?)?).to_std().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(retries: u32, random: f64) -> Vec<u128> {
        let mut backoff = Backoff::new(retries);
        std::iter::from_fn(|| backoff.next(None, random)).map(|wait| wait.as_millis()).collect()
    }

    #[test]
    fn waits_grow_up_to_the_cap_and_end() {
        assert_eq!(waits(8, 1.0), [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        assert_eq!(waits(3, 0.0), [250, 500, 1000]);
        assert_eq!(waits(0, 0.5), [] as [u128; 0]);
    }

    #[test]
    fn what_the_service_asks_for_is_waited_for_up_to_its_cap() {
        let mut backoff = Backoff::new(3);
        assert_eq!(backoff.next(Some(Duration::from_secs(7)), 1.0), Some(Duration::from_secs(7)));
        assert_eq!(backoff.next(Some(Duration::from_secs(86_400)), 1.0), Some(ASKED_CAP));
        assert_eq!(backoff.next(Some(Duration::ZERO), 1.0), Some(Duration::from_secs(2)));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let date = Some("Fri, 12 Jun 2026 03:00:00 GMT");
        assert_eq!(retry_after("3", date), Some(Duration::from_secs(3)));
        assert_eq!(retry_after("Fri, 12 Jun 2026 03:00:09 GMT", date), Some(Duration::from_secs(9)));
        assert_eq!(retry_after("Fri, 12 Jun 2026 02:00:00 GMT", date), None);
        assert_eq!(retry_after("soon", date), None);
        assert_eq!(retry_after("Fri, 12 Jun 2026 03:00:09 GMT", None), None);
    }
}
