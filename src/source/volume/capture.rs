//! A volume on its way: tar's stdout, counted as it passes. It is whole only when tar has ended well, or in a way that all it said
//! explains, and the stream ends as a tar does.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use super::archiver;
use super::census::Census;
use super::facts::VolumeFacts;
use super::helper::Running;
use super::live::Finding;
use super::members::Members;
use super::messages::{Messages, Rules};
use super::patterns::Pattern;
use super::place::{Root, Way};
use crate::config::model::{self, VolumePlace};
use crate::error::{Error, Kind, Result};
use crate::host::Context;
use crate::host::process::{Child, Listener, Program};
use crate::source::{Capture, CaptureInfo, Inventory};

/// The inventory's version.
const INVENTORY: u32 = 1;

/// A running tar.
pub(super) struct TarCapture {
    child: Child,
    /// Where it runs in a container; behind the child, which goes first.
    container: Option<Running>,
    messages: Arc<Mutex<Messages>>,
    members: Members,
    census: Census,
    facts: VolumeFacts,
    way: Way,
    /// What is to be said whatever comes.
    warnings: Vec<String>,
    estimated_bytes: Option<u64>,
    bytes: u64,
}

impl TarCapture {
    /// Starts tar on the way that was found. These warnings are already known.
    pub(super) fn start(
        way: Way,
        config: &model::Volume,
        warnings: Vec<String>,
        estimated_bytes: Option<u64>,
        cx: &Context,
    ) -> Result<Self> {
        let exclude = Pattern::all(&config.exclude);
        let words = way.tar().words(config, &exclude);
        let (program, container) = match &way {
            Way::Host(tar, root) => (archiver::host(&tar.path).args(words).args(root.words()), None),
            Way::Container(helper) => {
                let (program, running) = helper.program(words, cx)?;
                (program, Some(running))
            }
        };
        let rules = Rules { allow_changed: Pattern::all(&config.allow_changed), skip_unreadable: config.skip_unreadable };
        let said_by = way.tar().path.file_name().unwrap_or_default().to_string_lossy();
        let messages = Arc::new(Mutex::new(Messages::of(&said_by, rules)));
        let child = spawn(&program, listener(&messages, way.root().cloned()), cx)?;
        Ok(Self {
            child,
            container,
            messages,
            members: Members::default(),
            census: Census::of(Finding::of(config)),
            facts: facts_of(&way, config),
            way,
            warnings,
            estimated_bytes,
            bytes: 0,
        })
    }

    fn check_whole(&self) -> Result<()> {
        let tar = self.way.archiver();
        if !self.members.is_complete() {
            let cause = format!("{tar} ended well, but the {} bytes that it wrote do not end as a tar does", self.bytes);
            let error = Error::new(Kind::Child, cause);
            return Err(error.hint(match &self.container {
                Some(_) => "did the connection to the engine end? look whether it was restarted, and try again",
                None => "is it the real tar? run it by hand and look at what it writes",
            }));
        }
        if self.census.members() == 0 {
            return Err(Error::new(Kind::Child, format!("{tar} wrote an empty archive, without even the root"))
                .hint("was what it is to read removed or renamed meanwhile? then the next run will tell"));
        }
        Ok(())
    }

    /// What to do about an end that nothing is known of.
    fn by_hand(&self) -> String {
        let what = match &self.way {
            Way::Host(tar, _) => format!("{} --version", tar.path.display()),
            Way::Container(helper) => format!("{} run --rm {} tar --version", helper.engine.kind(), helper.image),
        };
        format!("run it with -vv, which logs the command line, and try that by hand; or begin with: {what}")
    }

    /// What to do where files can't be read.
    fn unreadable_hint(&self) -> String {
        let container = match self.way.root() {
            Some(Root { engine: Some(_), .. }) => "as root or in a container (`helper_image:`)",
            _ => "as root, or as a user that may read them",
        };
        format!("run this {container}, leave them out by `exclude:`, or set `skip_unreadable: true`, which makes of it a warning")
    }
}

impl Read for TarCapture {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.child.read(buffer)?;
        self.members.feed(&buffer[..count], &mut self.census)?;
        self.bytes += count as u64;
        Ok(count)
    }
}

impl Capture for TarCapture {
    fn estimated_bytes(&self) -> Option<u64> {
        self.estimated_bytes
    }

    fn finish(mut self: Box<Self>) -> Result<CaptureInfo> {
        let finished = self.child.wait()?;
        if let Some(container) = &mut self.container {
            container.ended = true;
        }
        let messages = std::mem::take(&mut *self.messages.lock().unwrap_or_else(PoisonError::into_inner));
        let judged = messages.judge(finished.exit, &self.unreadable_hint());
        let said = judged.map_err(|error| error.hint_if_none(self.by_hand()))?;
        self.check_whole()?;
        let tar = self.way.tar();
        let known = std::mem::take(&mut self.warnings);
        let warnings = self.way.warning().into_iter().chain(known).chain(said.warnings).collect();
        self.facts.owners = self.census.owners();
        let facts = self.facts.to_facts(Some(tar.version.clone()))?;
        let inventory = Inventory { schema: INVENTORY, files: Some(self.census.counts()), ..Inventory::default() };
        Ok(CaptureInfo { facts, inventory, warnings, doubts: said.doubts })
    }
}

impl Drop for TarCapture {
    fn drop(&mut self) {
        if self.container.as_ref().is_some_and(|container| !container.ended) {
            // Its leash: what runs inside ends by it, however long the engine's client takes.
            self.child.close_stdin();
        }
        self.child.kill();
    }
}

fn spawn(program: &Program, listener: Listener, cx: &Context) -> Result<Child> {
    tracing::debug!(?program, "starting tar");
    program.spawn_reader_heard_by(listener, cx)
}

/// Takes tar's messages. Whether a changed file is still there can be seen on this machine alone.
fn listener(messages: &Arc<Mutex<Messages>>, root: Option<Root>) -> Listener {
    let messages = messages.clone();
    Box::new(move |line| {
        let exists = |name: &[u8]| root.as_ref().is_none_or(|root| root.has(name));
        messages.lock().unwrap_or_else(PoisonError::into_inner).hear(line, exists);
    })
}

fn facts_of(way: &Way, config: &model::Volume) -> VolumeFacts {
    let (path, volume) = match &config.place {
        VolumePlace::Path(path) => (Some(path.to_string_lossy().into_owned()), None),
        VolumePlace::Named(name) => (None, Some(name.clone())),
    };
    let (engine, file) = match way {
        Way::Host(_, root) => (root.engine, root.file.as_ref().map(|name| name.to_string_lossy().into_owned())),
        Way::Container(helper) => (Some(helper.engine), None),
    };
    let engine = engine.map(|engine| engine.kind().word().to_owned());
    VolumeFacts { archiver: way.archiver(), basic: !way.tar().is_full, path, volume, engine, file, owners: None }
}
