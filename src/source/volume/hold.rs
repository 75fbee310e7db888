//! Containers that stand still while a volume is read, or written to. Which they are is decided under a lock on each, it is
//! written down before the first is stopped, and they go on again whatever happens: none that did not run is started.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::helper::LABEL;
use crate::config::mistake::nearest;
use crate::config::model::{self, HoldBy};
use crate::error::{Error, Kind, Result};
use crate::host::engine::{Container, Engine, EngineKind, Member, Remedy, State, UnderWay, Way};
use crate::host::journal::{self, Journal, Orphan, Record, Undo};
use crate::host::lock::Lock;
use crate::host::{Cancel, Context};
use crate::names::UnitName;
use crate::observe::Event;
use crate::quantity::show_duration;
use crate::source::{Capture, CaptureInfo};

/// What is to stand still, and for whom.
pub(super) struct Hold<'a> {
    /// How, and which.
    pub wanted: &'a model::Hold,
    /// Whose users are meant, where those are.
    pub place: Place<'a>,
    /// Whose containers; `None`: the engine that has them.
    pub engine: Option<EngineKind>,
    /// For which unit.
    pub unit: &'a UnitName,
    /// Where it is written down.
    pub state_dir: &'a Path,
}

/// What a container uses.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place<'a> {
    /// A volume of this name.
    Volume(&'a str),
    /// A directory or a file of this machine.
    Path(&'a Path),
}

/// Containers that stand still. They go on with [`Held::release`], or when this is dropped.
pub(super) struct Held {
    engine: Engine,
    undo: Undo,
    /// None where nothing had to be stopped, or all go on again.
    record: Option<Record>,
    journal: Journal,
    since: Instant,
    /// A stop was given up, and is not over.
    is_under_way: bool,
    cx: Context,
    /// Given back when all else is done.
    _claims: Vec<Lock>,
}

/// What came of making containers stand still.
#[derive(Default)]
pub(super) struct Beginning {
    /// None where none had to.
    pub held: Option<Held>,
    /// What a person should know of it.
    pub warning: Option<String>,
}

/// The containers that are meant, in the order in which they are to be stopped.
struct Found {
    engine: Engine,
    containers: Vec<Container>,
}

impl Hold<'_> {
    /// What would be done, for a person; an error where a backup would fail on it. Nothing is touched.
    pub(super) fn outlook(&self, cx: &Context) -> Result<String> {
        let Some(found) = self.find(cx)? else { return Ok(format!("no container to {}", self.verb())) };
        let run = self.those_that_run(&found)?;
        let rest: Vec<&str> =
            found.containers.iter().filter(|one| one.state != State::Running).map(|one| one.name.as_str()).collect();
        let text = match run.as_slice() {
            [] => format!("no container to {}", self.verb()),
            run => format!("would {} {}", self.verb(), names_of(run)),
        };
        let rest = if rest.is_empty() { String::new() } else { format!(" (not running: {})", rest.join(", ")) };
        Ok(text + &rest)
    }

    /// The names of those that run, or soon will; none where no engine tells.
    pub(super) fn at_work(&self, cx: &Context) -> Vec<String> {
        let Ok(Some(found)) = self.find(cx) else { return Vec::new() };
        found.containers.into_iter().filter(|one| one.state != State::Stopped).map(|one| one.name).collect()
    }

    /// Makes them stand still, or says why there is none of them. What was begun when it fails is undone.
    pub(super) fn begin(&self, cx: &Context) -> Result<Beginning> {
        let journal = Journal::new(self.state_dir);
        let (found, claims) = loop {
            let Some(found) = self.find(cx)? else { return Ok(Beginning { held: None, warning: self.of_none() }) };
            let claims = journal.claim(found.engine.kind(), &names(&found.containers), self.unit, cx)?;
            self.inherit(&journal, &found, cx)?;
            // Who had them has let go of them by now, so that what runs is seen; and others may have come.
            match self.find(cx)? {
                Some(again) if names(&again.containers) == names(&found.containers) => break (again, claims),
                _ => cx.cancel.check()?,
            }
        };
        let run = self.those_that_run(&found)?;
        if run.is_empty() {
            return Ok(Beginning::default());
        }
        let members: Vec<Member> = run.iter().map(Member::of).collect();
        let undo = Undo::new(self.remedy(), found.engine.kind(), members, self.unit, cx);
        let record = Some(journal.record(&undo)?);
        // Whatever comes, they are to go on: no signal ends that.
        let own = cx.with_cancel(Cancel::new()?);
        let mut held = Held {
            engine: found.engine,
            undo,
            record,
            journal,
            since: Instant::now(),
            is_under_way: false,
            cx: own,
            _claims: claims,
        };
        self.halt(&mut held, &run, cx).map_err(|error| error.step(self.verb()))?;
        let text = format!("{}: {} {}", self.unit, self.remedy().deed(), names_of(&run));
        cx.observer.event(Event::Note { text });
        Ok(Beginning { held: Some(held), warning: None })
    }

    /// Whoever had these may have been killed while we waited for them: then they are stopped, and run all the same.
    fn inherit(&self, journal: &Journal, found: &Found, cx: &Context) -> Result<()> {
        let names = names(&found.containers);
        let is_meant = |orphan: &&Orphan| {
            let undo = &orphan.undo;
            // One that could not be started was tried again, and told, before all else.
            let is_ours = |one: &Member| one.failure.is_none() && names.contains(&one.name.as_str());
            undo.engine == found.engine.kind() && undo.containers.iter().any(is_ours)
        };
        let (meant, _): (Vec<Orphan>, Vec<Orphan>) = journal.orphans(cx)?.found.into_iter().partition(|one| is_meant(&one));
        for Orphan { record, undo } in meant {
            let text = format!("{} {} by a run that was killed: {} first", undo.names(), undo.action.deed(), undo.action.done());
            cx.observer.event(Event::Warning { target: Some(self.unit.to_string()), text });
            let begun = (cx.clock.now() - undo.since).to_std().unwrap_or_default();
            let stop = UnderWay { begun, patience: Duration::MAX };
            let resumed = found.engine.resume(undo.action, &undo.containers, Some(stop), cx);
            journal.settle(record, &undo, &resumed)?;
        }
        Ok(())
    }

    /// Named ones in the order that was given: the first may have to write to the next before it ends.
    fn halt(&self, held: &mut Held, run: &[Container], cx: &Context) -> Result<()> {
        let ids: Vec<&str> = run.iter().map(|one| one.id.as_str()).collect();
        let at_once = if matches!(self.wanted.which, model::Held::Named(_)) { 1 } else { ids.len() };
        for ids in ids.chunks(at_once) {
            held.engine.halt(self.remedy(), ids, cx).map_err(|unhalted| {
                held.is_under_way = unhalted.is_under_way;
                unhalted.error
            })?;
        }
        for one in run {
            let state = held.engine.container(&one.id, cx)?.map(|found| found.state);
            if state == Some(State::Running) || state == Some(State::Restarting) {
                let cause = format!("container {} was {}, and runs again", one.name, self.remedy().deed());
                return Err(
                    Error::new(Kind::Child, cause).hint("something else starts it: a service of the system, or another program")
                );
            }
        }
        Ok(())
    }

    fn remedy(&self) -> Remedy {
        match self.wanted.how {
            HoldBy::Stop => Remedy::Start,
            HoldBy::Pause => Remedy::Unpause,
        }
    }

    fn verb(&self) -> &'static str {
        match self.wanted.how {
            HoldBy::Stop => "stop",
            HoldBy::Pause => "pause",
        }
    }

    fn those_that_run(&self, found: &Found) -> Result<Vec<Container>> {
        let run: Vec<Container> = found.containers.iter().filter(|one| one.state == State::Running).cloned().collect();
        if self.wanted.how == HoldBy::Stop
            && let Some(one) = run.iter().find(|one| one.goes_when_stopped)
        {
            let cause = format!("container {} was made with --rm: to stop it would remove it", one.name);
            return Err(Error::new(Kind::Config, cause)
                .hint("use `pause:` instead of `stop:`, or run it without --rm")
                .step("stop"));
        }
        Ok(run)
    }

    /// Those that are meant, whatever they do now; none where no engine has any.
    fn find(&self, cx: &Context) -> Result<Option<Found>> {
        let found = match &self.wanted.which {
            model::Held::Named(names) => self.named(names, cx),
            model::Held::Users => self.users(cx),
            model::Held::Label(label) => self.of_engines(|engine| engine.containers(&[&format!("label={label}")], cx), cx),
        };
        found.map_err(|error| error.step(self.verb()))
    }

    fn named(&self, names: &[String], cx: &Context) -> Result<Option<Found>> {
        let mut found: Option<Found> = None;
        for name in names {
            let wanted = found.as_ref().map(|found| found.engine.kind()).or(self.engine);
            let (engine, container) = Engine::with_container(wanted, name, cx).map_err(|error| with_near(error, name, cx))?;
            if is_ourselves(&container.id) {
                let cause = format!("container {name} is the one that this program runs in: it can't {} itself", self.verb());
                return Err(Error::new(Kind::Config, cause).hint("leave it out of the list"));
            }
            let found = found.get_or_insert_with(|| Found { engine, containers: Vec::new() });
            if found.containers.iter().all(|one| one.id != container.id) {
                found.containers.push(container);
            }
        }
        Ok(found)
    }

    fn users(&self, cx: &Context) -> Result<Option<Found>> {
        match self.place {
            Place::Volume(name) => {
                let uses = |one: &Container| one.mounts.iter().any(|mount| mount.volume.as_deref() == Some(name));
                self.of_engines(
                    |engine| {
                        let mut found = engine.containers(&[&format!("volume={name}")], cx)?;
                        found.retain(uses);
                        Ok(found)
                    },
                    cx,
                )
            }
            Place::Path(path) => {
                let path = real(path);
                let overlaps = |source: &Path| source.starts_with(&path) || path.starts_with(source);
                // A tmpfs has no source: as a path, that would be the beginning of every other.
                let is_of_path = |source: &Path| source.is_absolute() && overlaps(&real(source));
                let uses = |one: &Container| one.mounts.iter().any(|mount| is_of_path(&mount.source));
                self.of_engines(
                    |engine| {
                        let mut found = engine.containers(&[], cx)?;
                        found.retain(uses);
                        Ok(found)
                    },
                    cx,
                )
            }
        }
    }

    /// What one of the engines has. One that is down has no containers that run; where all are, it is an error. Of one that
    /// fails otherwise nothing is known, and containers of it may write.
    fn of_engines(&self, look: impl Fn(&Engine) -> Result<Vec<Container>>, cx: &Context) -> Result<Option<Found>> {
        let (mut found, mut failed, mut answers): (Option<Found>, Option<Error>, bool) = (None, None, false);
        for engine in Engine::installed(self.engine, cx)? {
            let mut containers = match look(&engine) {
                Ok(containers) => containers,
                Err(error) => {
                    cx.cancel.check()?;
                    if !Engine::is_down(&error) {
                        return Err(error.hint_if_none(format!(
                            "whether containers of {} use it is not known: have it answer, or name the other one by `engine:`",
                            engine.kind()
                        )));
                    }
                    failed = failed.or(Some(error));
                    continue;
                }
            };
            answers = true;
            // Helpers of another unit's backup are none of the users'.
            let helps = |one: &Container| LABEL.split_once('=').is_some_and(|(key, _)| one.labels.contains_key(key));
            containers.retain(|one| !is_ourselves(&one.id) && !helps(one));
            if containers.is_empty() {
                continue;
            }
            if found.is_some() {
                let cause = format!("both docker and podman have containers to {}", self.verb());
                return Err(Error::new(Kind::Config, cause).hint("say whose are meant: `engine: docker`"));
            }
            found = Some(Found { engine, containers });
        }
        match failed {
            Some(error) if !answers => Err(error),
            _ => Ok(found),
        }
    }

    /// A label that nothing has may be a mistake, which nobody would hear of otherwise.
    fn of_none(&self) -> Option<String> {
        let model::Held::Label(label) = &self.wanted.which else { return None };
        Some(format!("no container has the label {label}: nothing was {}", self.remedy().deed()))
    }
}

impl Held {
    /// Has them go on. What does not is kept in the journal, which is told when the command ends. What comes back puts in doubt
    /// what was done meanwhile.
    pub(super) fn release(mut self) -> Option<String> {
        self.go_on()
    }

    fn go_on(&mut self) -> Option<String> {
        let record = self.record.take()?;
        let Self { engine, undo, journal, cx, .. } = self;
        let stop = UnderWay { begun: self.since.elapsed(), patience: Duration::ZERO };
        let resumed = engine.resume(undo.action, &undo.containers, self.is_under_way.then_some(stop), cx);
        let warn = |text: String| cx.observer.event(Event::Warning { target: Some(undo.unit.clone()), text });
        for one in &resumed {
            match &one.way {
                Way::Gone => warn(format!("container {} is gone: it can't be {}", one.member.name, undo.action.done())),
                // The command tells it in the end, from the journal.
                Way::Failed(error) => tracing::debug!(container = one.member.name, %error, "does not go on"),
                Way::Again | Way::ByItself(_) => {}
            }
        }
        let again = resumed.iter().filter(|one| matches!(one.way, Way::Again)).map(|one| &one.member);
        let names: Vec<&str> = again.map(|member| member.name.as_str()).collect();
        if !names.is_empty() {
            let took = show_duration(self.since.elapsed());
            let text = format!("{}: {} {} after {took}", undo.unit, undo.action.done(), names.join(", "));
            cx.observer.event(Event::Note { text });
        }
        if let Err(error) = journal.settle(record, undo, &resumed) {
            warn(error.cause());
        }
        let at_work = resumed.iter().filter(|one| matches!(one.way, Way::ByItself(State::Running | State::Restarting)));
        let at_work: Vec<&Member> = at_work.map(|one| &one.member).collect();
        (!at_work.is_empty()).then(|| {
            let (names, deed) = (journal::names(at_work.into_iter()), undo.action.deed());
            format!("{names}, {deed} meanwhile, ran again before it was over: something else started what was {deed}")
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.go_on();
    }
}

/// A capture during which containers stand still.
pub(super) struct Still {
    /// Ended before they go on, however that comes.
    capture: Box<dyn Capture>,
    begun: Beginning,
}

impl Still {
    /// This capture, with these.
    pub(super) fn new(capture: Box<dyn Capture>, begun: Beginning) -> Self {
        Self { capture, begun }
    }
}

impl Read for Still {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.capture.read(buffer)
    }
}

impl Capture for Still {
    fn estimated_bytes(&self) -> Option<u64> {
        self.capture.estimated_bytes()
    }

    fn finish(self: Box<Self>) -> Result<CaptureInfo> {
        let Self { capture, begun: Beginning { held, warning } } = *self;
        let info = capture.finish();
        let doubt = held.and_then(Held::release);
        info.map(|mut info| {
            info.warnings.extend(warning);
            info.doubts.extend(doubt);
            info
        })
    }
}

fn names(containers: &[Container]) -> Vec<&str> {
    containers.iter().map(|one| one.name.as_str()).collect()
}

fn names_of(containers: &[Container]) -> String {
    names(containers).join(", ")
}

/// Says which name may be meant, where an engine has one like it.
fn with_near(error: Error, name: &str, cx: &Context) -> Error {
    let Ok(engines) = Engine::installed(None, cx) else { return error };
    let known: Vec<String> = engines.iter().filter_map(|engine| engine.container_names(cx).ok()).flatten().collect();
    match nearest(name, known.iter().map(String::as_str)) {
        Some(near) => error.hint(format!("did you mean {near}?")),
        None => error,
    }
}

/// A path as the kernel has it, where it is there.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// Whether we run in this container: then files of its engine's are mounted over some of ours.
fn is_ourselves(id: &str) -> bool {
    std::fs::read_to_string("/proc/self/mountinfo").is_ok_and(|mounts| mounts.lines().any(|line| is_of_container(line, id)))
}

/// Whether a line of `/proc/self/mountinfo` (see proc(5)) is of a container's own host name or resolver. On the machine
/// itself other files of a container's may be mounted.
fn is_of_container(line: &str, id: &str) -> bool {
    let mut fields = line.split(' ').skip(3);
    let (root, place) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
    ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"].contains(&place) && root.split('/').any(|part| part == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_known_for_our_own_by_its_own_files_alone() {
        let id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        let line = |root: &str, place: &str| format!("36 35 98:0 {root} {place} rw,noatime - ext4 /dev/sda rw");
        let own = format!("/var/lib/docker/containers/{id}/hostname");
        assert!(is_of_container(&line(&own, "/etc/hostname"), id));
        assert!(!is_of_container(&line(&own, "/etc/hostname"), &id[..12]));
        assert!(!is_of_container(&line("/", &format!("/var/lib/docker/containers/{id}/mounts/shm")), id));
        assert!(!is_ourselves(id));
    }
}
