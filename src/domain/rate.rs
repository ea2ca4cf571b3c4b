//! A rate as configured: `100/s`, `600/m`, `600/m burst 50`.
//!
//! A rate never lets nothing through: both numbers are at least 1, and no rate is written as the empty text.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::units::{TextForm, quoted};

/// The largest number in a rate, so that one request never weighs less than a microsecond.
pub const MAX_COUNT: u32 = 1_000_000;

/// The time a rate counts over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Per {
    Second,
    Minute,
    Hour,
}

impl Per {
    const ALL: [Per; 3] = [Per::Second, Per::Minute, Per::Hour];

    fn unit(self) -> &'static str {
        match self {
            Per::Second => "s",
            Per::Minute => "m",
            Per::Hour => "h",
        }
    }

    fn duration(self) -> Duration {
        match self {
            Per::Second => Duration::from_secs(1),
            Per::Minute => Duration::from_secs(60),
            Per::Hour => Duration::from_secs(3600),
        }
    }
}

/// How many requests may come, steadily and at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    count: NonZeroU32,
    per: Per,
    burst: NonZeroU32,
}

impl Rate {
    /// Reads `100/s` or `600/m burst 50`; the error is a sentence for the operator.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::read(text)
    }

    /// How many requests may come at once, after a rest; as many as in the rate unless written otherwise.
    pub fn burst(self) -> NonZeroU32 {
        self.burst
    }

    /// The time after which one more request is free.
    pub fn interval(self) -> Duration {
        self.per.duration() / self.count.get()
    }

    /// The time after which a spent burst is free again.
    pub fn window(self) -> Duration {
        self.per.duration() * self.burst.get() / self.count.get()
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.count, self.per.unit())?;
        if self.burst == self.count { Ok(()) } else { write!(out, " burst {}", self.burst) }
    }
}

impl TextForm for Rate {
    fn read(text: &str) -> Result<Self, String> {
        parse(text).ok_or_else(|| {
            format!(
                "{} is not a rate: write requests per second, minute or hour and, if it differs, the burst, \
                 such as \"100/s\" or \"600/m burst 50\"; numbers go from 1 to {MAX_COUNT}",
                quoted(text)
            )
        })
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Rate::read(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

fn parse(text: &str) -> Option<Rate> {
    let mut words = text.split_ascii_whitespace();
    let (count, unit) = words.next()?.split_once('/')?;
    let count = number(count)?;
    let per = Per::ALL.into_iter().find(|per| per.unit() == unit)?;
    let burst = match (words.next(), words.next(), words.next()) {
        (None, ..) => count,
        (Some("burst"), Some(burst), None) => number(burst)?,
        _ => return None,
    };
    Some(Rate { count, per, burst })
}

fn number(text: &str) -> Option<NonZeroU32> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let number: NonZeroU32 = plain.then(|| text.parse().ok()).flatten()?;
    (number.get() <= MAX_COUNT).then_some(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rates_read_back_as_written() {
        for (text, burst, interval_us, window_s) in [
            ("100/s", 100, 10_000, 1),
            ("600/m burst 50", 50, 100_000, 5),
            ("10/h", 10, 360_000_000, 3600),
            ("1/s burst 20", 20, 1_000_000, 20),
            ("1000000/s", 1_000_000, 1, 1),
        ] {
            let rate = Rate::read(text).expect(text);
            assert_eq!(rate.write(), text);
            assert_eq!(rate.burst().get(), burst);
            assert_eq!(rate.interval(), Duration::from_micros(interval_us));
            assert_eq!(rate.window(), Duration::from_secs(window_s));
        }
        assert_eq!(Rate::read(" 5/m  burst  5 ").expect("a rate").write(), "5/m");
    }

    #[test]
    fn what_is_no_rate_is_refused_with_what_is_allowed() {
        let bad = [
            "",
            "100",
            "/s",
            "100/",
            "100/d",
            "0/s",
            "-1/s",
            "+1/s",
            "1.5/s",
            "1000001/s",
            "5/s burst",
            "5/s 7",
            "5/s burst 0",
            "5/s burst 7 8",
            "5 / s",
            "99999999999/s",
            "５/s",
        ];
        for text in bad {
            assert!(Rate::read(text).is_err(), "{text:?}");
        }
        let error = Rate::read("fast").expect_err("no rate");
        assert!(error.starts_with("\"fast\" is not a rate") && error.contains("600/m burst 50"), "{error}");
    }

    proptest! {
        #[test]
        fn every_rate_reads_back(count in 1..=MAX_COUNT, unit in "[smh]", burst in 1..=MAX_COUNT) {
            let rate = Rate::read(&format!("{count}/{unit} burst {burst}")).expect("a rate");
            prop_assert_eq!(Rate::read(&rate.write()), Ok(rate));
            prop_assert!(rate.interval() >= Duration::from_micros(1));
            prop_assert!(rate.window() > Duration::ZERO);
        }

        #[test]
        fn any_text_is_a_rate_or_none(text in any::<String>()) {
            prop_assert!(Rate::read(&text).is_err());
        }
    }
}
