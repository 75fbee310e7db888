//! `--at WHEN`: which one of a unit's backups is meant. Exact or an error that names the
//! neighbours: it must never take the nearest one, nor guess between two readings.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, LocalResult, NaiveDate, NaiveDateTime, TimeZone, Utc};
use chrono_tz::Tz;

use crate::error::{Error, Kind, Result};
use crate::names::{Id, RunId};
use crate::quantity::parse_duration;

/// Which backup is meant. The forms don't overlap, but for one: `100d` may be an age and the end
/// of an id, and is refused where a backup has that id. `20260612` begins an id, and so is a day
/// in UTC that holds one backup; `2026-06-12` is a day in the config's timezone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum When {
    /// `latest`: the newest.
    Latest,
    /// A backup's id, its four random characters (`k3f9`), or its beginning from the date on
    /// (`20260612_03`), which one backup alone must have.
    Id(String),
    /// `2026-06-12`: the newest started by the end of that day in the config's timezone.
    Date(NaiveDate),
    /// `2026-06-12T10:00`, in the config's timezone: the newest started at or before it.
    Local(NaiveDateTime),
    /// `2026-06-12T10:00Z`, `2026-06-12T10:00:30+02:00`: likewise.
    Instant(DateTime<Utc>),
    /// `3d`: the newest at least that old.
    Age {
        /// How old.
        age: Duration,
        /// As it was typed.
        text: String,
    },
}

impl When {
    /// Whether it names a backup itself: then a damaged, suspicious or future one may be meant too.
    pub fn is_id(&self) -> bool {
        matches!(self, Self::Id(_))
    }
}

impl FromStr for When {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "latest" {
            return Ok(Self::Latest);
        }
        if let Ok(age) = parse_duration(text) {
            return Ok(Self::Age { age, text: text.to_owned() });
        }
        let when = date(text).map(Self::Date).or_else(|| moment(text)).or_else(|| id(text));
        when.ok_or_else(|| {
            Error::new(
                Kind::Config,
                format!(
                    "{text:?} names no backup: expected `latest`, an id (20260612_030000Z-k3f9), its end (k3f9) or its \
                     beginning (20260612), a day (2026-06-12), a time (2026-06-12T10:00, or with Z or +02:00), \
                     or an age (26h, 3d)"
                ),
            )
        })
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Id(text) | Self::Age { text, .. } => f.write_str(text),
            Self::Date(date) => write!(f, "{date}"),
            Self::Local(time) => write!(f, "{}", time.format("%Y-%m-%dT%H:%M:%S")),
            Self::Instant(time) => write!(f, "{}", time.format("%Y-%m-%dT%H:%M:%SZ")),
        }
    }
}

/// A day as `2026-06-12`, and no other way that chrono would read.
fn date(text: &str) -> Option<NaiveDate> {
    let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    (date.to_string() == text).then_some(date)
}

/// A day and a time, with or without seconds, with or without an offset.
fn moment(text: &str) -> Option<When> {
    date(text.get(..10)?)?;
    let is_clock = |at: usize, form: &str| {
        let part = text.get(at..at + form.len());
        part.is_some_and(|part| part.chars().zip(form.chars()).all(|(c, f)| if f == '0' { c.is_ascii_digit() } else { c == f }))
    };
    let (length, format) = match () {
        () if is_clock(10, "T00:00:00") => (19, "%Y-%m-%dT%H:%M:%S"),
        () if is_clock(10, "T00:00") => (16, "%Y-%m-%dT%H:%M"),
        () => return None,
    };
    let (local, offset) = text.split_at_checked(length)?;
    match offset {
        "" => NaiveDateTime::parse_from_str(local, format).ok().map(When::Local),
        "Z" => NaiveDateTime::parse_from_str(local, format).ok().map(|time| When::Instant(time.and_utc())),
        _ if offset.len() == 6 && (is_clock(length, "+00:00") || is_clock(length, "-00:00")) => {
            let time = DateTime::parse_from_str(text, &format!("{format}%:z")).ok()?;
            Some(When::Instant(time.with_timezone(&Utc)))
        }
        _ => None,
    }
}

/// The random end of an id, or an id's beginning that holds its date at least.
fn id(text: &str) -> Option<When> {
    const FORM: &[u8] = b"00000000_000000Z-aaaa";
    let random = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let fits = |(c, form): (u8, &u8)| match form {
        b'0' => c.is_ascii_digit(),
        b'a' => random(c),
        other => c == *other,
    };
    let is_end = text.len() == 4 && text.bytes().all(random);
    let is_beginning = (8..=FORM.len()).contains(&text.len()) && text.bytes().zip(FORM).all(fits);
    (is_end || is_beginning).then(|| When::Id(text.to_owned()))
}

/// Finds the backup that is meant among one unit's of one host. The caller leaves out those that
/// don't count: all that are not whole, unless [`When::is_id`]. A backup dated after `now` counts
/// in nothing and is found by its id alone. Of several with one id (one in each storage), the
/// first in the slice is taken.
///
/// Errors: [`Kind::NotFound`], which names the neighbours or the several that match;
/// [`Kind::Config`] for a local time that the timezone's clocks show twice or never.
pub fn resolve<'a, T>(
    candidates: &'a [T],
    id_of: impl Fn(&T) -> Id,
    when: &When,
    timezone: Tz,
    now: DateTime<Utc>,
) -> Result<&'a T> {
    let ids: BTreeSet<Id> = candidates.iter().map(&id_of).collect();
    let search = Search { ids, timezone, now };
    let found = search.find(when)?;
    let mut matching = candidates.iter().filter(|candidate| id_of(candidate) == found);
    matching.next().ok_or_else(|| Error::new(Kind::Internal, format!("{found} was found and is gone")))
}

/// The ids to choose from, and what a time means.
struct Search {
    ids: BTreeSet<Id>,
    timezone: Tz,
    now: DateTime<Utc>,
}

impl Search {
    fn find(&self, when: &When) -> Result<Id> {
        match when {
            When::Latest => self.newest(when, |_| true),
            When::Id(text) => self.by_id(text),
            // Days are compared, not instants: there are days without a midnight, and days that don't exist.
            When::Date(date) => self.newest(when, |time| time.with_timezone(&self.timezone).date_naive() <= *date),
            When::Local(local) => {
                let until = self.instant(*local)?;
                self.newest(when, |time| time <= until)
            }
            When::Instant(until) => self.newest(when, |time| time <= *until),
            When::Age { age, text } => {
                self.refuse_an_id_that_reads_as_age(text)?;
                let until = chrono::Duration::from_std(*age).ok().and_then(|age| self.now.checked_sub_signed(age));
                self.newest(when, |time| until.is_some_and(|until| time <= until))
            }
        }
    }

    fn newest(&self, when: &When, fits: impl Fn(DateTime<Utc>) -> bool) -> Result<Id> {
        let counts = |id: &&Id| id.run().time() <= self.now;
        let found = self.ids.iter().filter(counts).rfind(|id| fits(id.run().time()));
        found.copied().ok_or_else(|| {
            // None is older, or it would have been found; so the oldest of all is the next one.
            let newer = self.ids.iter().find(counts);
            self.not_found(when, None, newer.copied())
        })
    }

    fn by_id(&self, text: &str) -> Result<Id> {
        let matching: Vec<Id> = self.ids.iter().filter(|id| names(text, **id)).copied().collect();
        match matching[..] {
            [id] => Ok(id),
            [] => {
                let when = When::Id(text.to_owned());
                let Some(time) = time_in(text) else {
                    return Err(self.not_found(&when, self.ids.last().copied(), None));
                };
                let older = self.ids.iter().rfind(|id| id.run().time() < time);
                // The same second is a neighbour as well: only the random end differs.
                let newer = self.ids.iter().find(|id| id.run().time() >= time);
                Err(self.not_found(&when, older.copied(), newer.copied()))
            }
            _ => {
                let cause = format!("{text} is not one backup alone: {}", self.several(&matching));
                Err(Error::new(Kind::NotFound, cause).hint("give the whole id"))
            }
        }
    }

    /// Guessing wrong here would restore another backup than the one that was typed.
    fn refuse_an_id_that_reads_as_age(&self, text: &str) -> Result<()> {
        let Some(id) = self.ids.iter().find(|id| id.short() == text) else {
            return Ok(());
        };
        let cause = format!("{text} may be an age, and it is the end of {}", self.show(*id));
        Err(Error::new(Kind::NotFound, cause).hint("give the whole id, or the age in another unit, like 48h for 2d"))
    }

    /// The instant of a time on the clocks of the timezone.
    fn instant(&self, local: NaiveDateTime) -> Result<DateTime<Utc>> {
        let problem = match self.timezone.from_local_datetime(&local) {
            LocalResult::Single(time) => return Ok(time.with_timezone(&Utc)),
            LocalResult::Ambiguous(..) => "comes twice, as clocks go back",
            LocalResult::None => "doesn't exist, as clocks go forward",
        };
        let cause = format!("{} {problem} in {}", When::Local(local), self.timezone);
        Err(Error::new(Kind::Config, cause).hint("add Z to give the time in UTC, or an offset like +02:00"))
    }

    fn not_found(&self, when: &When, older: Option<Id>, newer: Option<Id>) -> Error {
        let neighbours = match (older, newer) {
            (Some(older), Some(newer)) => {
                format!("its neighbours are {} and {}", self.show(older), self.show(newer))
            }
            (Some(older), None) => format!("the newest is {}", self.show(older)),
            (None, Some(newer)) => format!("the oldest is {}", self.show(newer)),
            (None, None) if self.ids.is_empty() => "there is none at all".into(),
            (None, None) => format!("what there is is dated in the future: {}", self.several(&Vec::from_iter(self.ids.clone()))),
        };
        let hint = match (older.or(newer), self.ids.is_empty()) {
            (Some(_), _) => "name one of those, or see them all with `list --limit 0`",
            (None, true) => "`list --all` shows incomplete, damaged and unknown ones too",
            (None, false) => "check the clock; one of the future is found by its id alone",
        };
        Error::new(Kind::NotFound, format!("no backup matches \"{when}\": {neighbours}")).hint(hint)
    }

    /// `20260612_030000Z-k3f9 (2026-06-12 00:00:00 -03)`
    fn show(&self, id: Id) -> String {
        format!("{id} ({})", id.run().time().with_timezone(&self.timezone).format("%Y-%m-%d %H:%M:%S %Z"))
    }

    fn several(&self, ids: &[Id]) -> String {
        const SHOWN: usize = 5;
        let shown: Vec<String> = ids.iter().take(SHOWN).map(|id| self.show(*id)).collect();
        let more = ids.len().saturating_sub(SHOWN);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{}{more}", shown.join(", "))
    }
}

/// Whether the text is the id, its end, or its beginning. Four characters are always an end.
fn names(text: &str, id: Id) -> bool {
    if text.len() == id.short().len() { id.short() == text } else { id.to_string().starts_with(text) }
}

/// The earliest time that an id beginning so can have; none for an id's end.
fn time_in(text: &str) -> Option<DateTime<Utc>> {
    const EARLIEST: &str = "00000000_000000Z";
    let given = text.get(..text.len().min(EARLIEST.len())).filter(|given| given.len() >= 8)?;
    let filled = format!("{given}{}", &EARLIEST[given.len()..]);
    filled.parse::<RunId>().ok().map(RunId::time)
}

#[cfg(test)]
mod tests;
