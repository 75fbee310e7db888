//! Containers that are made to stand still, and go on again. What was begun is seen through: an engine ends a stop
//! that it has begun, whoever waits for it, and a container that is started before that is stopped after all.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Engine;
use super::inspect::{Container, State};
use crate::error::{Error, Kind, Result};
use crate::host::cancel::CLEAN_UP;
use crate::host::{Cancel, Context};

/// How long a container that was started is watched for exiting at once.
const WATCH: Duration = Duration::from_secs(1);
/// How often a container is looked at while a stop may be under way.
const LOOK: Duration = Duration::from_millis(250);
/// What a stop may take longer than the container is given for it.
const SLACK: Duration = Duration::from_secs(5);

/// What has containers go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Remedy {
    /// They were stopped, and are to be started.
    Start,
    /// They were paused, and are to be unpaused.
    Unpause,
}

impl Remedy {
    /// What was done to them: `stopped`.
    pub fn deed(self) -> &'static str {
        match self {
            Self::Start => "stopped",
            Self::Unpause => "paused",
        }
    }

    /// What is done about it: `started again`.
    pub fn done(self) -> &'static str {
        match self {
            Self::Start => "started again",
            Self::Unpause => "unpaused",
        }
    }

    fn verb(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Unpause => "unpause",
        }
    }

    fn opposite(self) -> &'static str {
        match self {
            Self::Start => "stop",
            Self::Unpause => "pause",
        }
    }
}

/// A container that stands still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its whole id.
    pub id: String,
    /// Its name, by which one that was made anew is found.
    pub name: String,
    /// Why it could not go on, where that was tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

impl Member {
    /// This container.
    pub fn of(container: &Container) -> Self {
        Self { id: container.id.clone(), name: container.name.clone(), failure: None }
    }
}

/// What became of a container that was to go on.
#[derive(Debug)]
pub struct Resumed {
    /// Which.
    pub member: Member,
    /// How it went.
    pub way: Way,
}

/// How a container went on.
#[derive(Debug)]
pub enum Way {
    /// It goes on, as it was told to.
    Again,
    /// It did so already, or somebody else has made something else of it: this.
    ByItself(State),
    /// It is not there any more.
    Gone,
    /// It does not run.
    Failed(Error),
}

/// A stop that may not have come to its end.
#[derive(Debug, Clone, Copy)]
pub struct UnderWay {
    /// How long ago it was begun.
    pub begun: Duration,
    /// How long its end is waited for.
    pub patience: Duration,
}

/// Why containers were not made to stand still.
#[derive(Debug)]
pub struct Unhalted {
    /// What went wrong.
    pub error: Error,
    /// Their engine is still at it.
    pub is_under_way: bool,
}

impl Engine {
    /// Stops or pauses containers, all at once, each within its own grace period. Cancelled, it is waited for all the same, for
    /// as long as a clean-up may take, and is an error.
    pub fn halt(&self, remedy: Remedy, ids: &[&str], cx: &Context) -> Result<(), Unhalted> {
        let ended = |error| Unhalted { error, is_under_way: false };
        let program = self.program().arg(remedy.opposite()).args(ids.iter().copied()).env("LC_ALL", "C");
        let mut child = program.spawn_reader(cx).map_err(ended)?;
        let finished = child.wait().map_err(|error| {
            let waited = Cancel::for_clean_up().and_then(|cancel| child.wait_under(cancel));
            Unhalted { error, is_under_way: waited.is_err() }
        })?;
        if finished.exit.is_success() { Ok(()) } else { Err(ended(self.complaint(finished.exit, &finished.stderr_tail))) }
    }

    /// Has containers go on that do not, in the reverse of this order, and looks whether they do. Each gets as long as a
    /// clean-up may take; an engine that answers for none is not asked for the others. A stop that
    /// may be under way still is waited for.
    pub fn resume(&self, remedy: Remedy, members: &[Member], stop: Option<UnderWay>, cx: &Context) -> Vec<Resumed> {
        let mut resumed: Vec<Resumed> = Vec::new();
        let mut silent: Option<Error> = None;
        for member in members.iter().rev() {
            let way = match &silent {
                Some(error) => Way::Failed(error.copy()),
                None => self.resume_one(remedy, member, members.len(), stop, cx).unwrap_or_else(Way::Failed),
            };
            if let Way::Failed(error) = &way
                && matches!(error.kind(), Kind::Timeout | Kind::Connection | Kind::Interrupted)
            {
                silent = Some(error.copy());
            }
            resumed.push(Resumed { member: member.clone(), way });
        }
        if remedy == Remedy::Start {
            self.watch(&mut resumed, cx);
        }
        for one in &mut resumed {
            one.member.failure = if let Way::Failed(error) = &one.way { Some(error.cause()) } else { None };
        }
        resumed.reverse();
        resumed
    }

    fn resume_one(self, remedy: Remedy, member: &Member, siblings: usize, stop: Option<UnderWay>, cx: &Context) -> Result<Way> {
        let Some(mut found) = self.find(member, cx)? else { return Ok(Way::Gone) };
        if let (Remedy::Start, State::Running, Some(stop)) = (remedy, found.state, stop) {
            // They may be stopped one after the other.
            let most = found.stop_timeout.saturating_mul(u32::try_from(siblings).unwrap_or(u32::MAX)).saturating_add(SLACK);
            let left = most.saturating_sub(stop.begun);
            let Some(watched) = self.await_stop(found, left.min(stop.patience), cx)? else { return Ok(Way::Gone) };
            if watched.state == State::Running && left > stop.patience {
                return Err(Error::new(Kind::Child, "it is still being stopped").step("engine"));
            }
            found = watched;
        }
        let stands_still = match remedy {
            Remedy::Start => found.state == State::Stopped,
            Remedy::Unpause => found.state == State::Paused,
        };
        if !stands_still {
            return Ok(Way::ByItself(found.state));
        }
        let limited = cx.with_cancel(cx.cancel.child(Some(CLEAN_UP))?);
        match self.run([remedy.verb(), found.id.as_str()], &limited) {
            Ok(_) => Ok(Way::Again),
            // Removed between the look and the start.
            Err(error) => {
                if self.find(member, cx)?.is_none() {
                    Ok(Way::Gone)
                } else {
                    Err(error)
                }
            }
        }
    }

    /// The container, or the one that was made anew in its place.
    fn find(self, member: &Member, cx: &Context) -> Result<Option<Container>> {
        match self.container(&member.id, cx)? {
            Some(found) => Ok(Some(found)),
            None => self.container(&member.name, cx),
        }
    }

    /// Looks at a container that runs for this long, or until it does not.
    fn await_stop(self, mut found: Container, limit: Duration, cx: &Context) -> Result<Option<Container>> {
        let mut left = limit;
        while found.state == State::Running && !left.is_zero() {
            let pause = left.min(LOOK);
            cx.cancel.sleep(pause)?;
            left -= pause;
            found = match self.container(&found.id, cx)? {
                Some(found) => found,
                None => return Ok(None),
            };
        }
        Ok(Some(found))
    }

    /// One that exits as soon as it is started was not started again.
    fn watch(self, resumed: &mut [Resumed], cx: &Context) {
        if !resumed.iter().any(|one| matches!(one.way, Way::Again)) || cx.cancel.sleep(WATCH).is_err() {
            return;
        }
        for one in resumed.iter_mut().filter(|one| matches!(one.way, Way::Again)) {
            if let Ok(Some(found)) = self.find(&one.member, cx)
                && found.state == State::Stopped
            {
                let cause = format!("it was started, and exited at once with code {}", found.exit_code);
                let hint = format!("look at its output: {} logs {}", self.kind(), found.name);
                one.way = Way::Failed(Error::new(Kind::Child, cause).hint(hint).step("engine"));
            }
        }
    }
}
