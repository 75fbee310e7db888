//! The directory of a drill's own server: private, on a disk, known as ours by a file in it, whose lock we hold as
//! long as we live. What has the file and not the lock was left by a run that was killed, and is removed.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};
use crate::host::marked::{Marked, Sort};
use crate::host::process::Program;
use crate::host::{Cancel, Context, files};
use crate::observe::Event;
use crate::quantity::show_bytes;

/// How the directory is known.
const SORT: Sort = Sort { prefix: "db-backup-tools-drill-", mark: "db-backup-tools temporary server" };
/// The longest path of a socket, without its final zero (unix(7)).
const MAX_SOCKET_PATH: usize = 107;
/// What an empty server takes, with its log of changes.
const EMPTY_SERVER_BYTES: u64 = 128 << 20;

/// A private directory that is gone when this is.
pub(super) struct Home(Marked);

impl Home {
    /// Makes one in the first of the usual places that its user can reach and that has room for this many bytes.
    pub(super) fn create(user: Option<(u32, u32)>, bytes: u64, cx: &Context) -> Result<Self> {
        let base = base_for(user, cx);
        let free = files::free_bytes(&base).map_err(|error| unusable(&base).source(error))?;
        check_space(&base, free, bytes)?;
        Self::create_in(&base, user)
    }

    /// A second one with a short path, for a socket.
    pub(super) fn for_socket(user: Option<(u32, u32)>) -> Result<Self> {
        Self::create_in(Path::new("/tmp"), user)
    }

    fn create_in(base: &Path, user: Option<(u32, u32)>) -> Result<Self> {
        Marked::create_in(base, SORT, user).map(Self).map_err(|error| unusable(base).source(error))
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Whether a server's socket can be here.
    pub(super) fn takes_socket(&self, socket: &str) -> bool {
        let path = self.path().as_os_str().as_encoded_bytes();
        // The setting is a list with quotes and commas of its own.
        let is_plain = path.iter().all(|byte| byte.is_ascii_alphanumeric() || b"/._-+~".contains(byte));
        is_plain && path.len() + 1 + socket.len() <= MAX_SOCKET_PATH
    }

    /// A new directory in it, of its user.
    pub(super) fn create_dir(&self, name: &str, user: Option<(u32, u32)>) -> Result<PathBuf> {
        let path = self.path().join(name);
        let made = files::create_private_dir(&path)
            .and_then(|()| user.map_or(Ok(()), |(uid, gid)| std::os::unix::fs::lchown(&path, Some(uid), Some(gid))));
        made.map_err(|error| unusable(self.path()).source(error)).map(|()| path)
    }

    /// Removes it with all that is in it.
    pub(super) fn remove(&self) -> Result<()> {
        match std::fs::remove_dir_all(self.path()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::new(Kind::Internal, format!("{} could not be removed", self.path().display()))
                    .hint("remove it by hand; no server runs in it")
                    .source(error))
            }
            _ => Ok(()),
        }
    }
}

fn unusable(base: &Path) -> Error {
    Error::new(Kind::Internal, format!("can't make a directory for a temporary server in {}", base.display()))
        .hint("set TMPDIR to a directory that can be written, on a disk with room for the database")
        .step("place")
}

/// Where the directories are: `$TMPDIR`, else /var/tmp, which is on a disk where /tmp is often memory.
fn bases(cx: &Context) -> Vec<PathBuf> {
    let own = cx.env.get_os("TMPDIR").filter(|base| !base.is_empty()).map(PathBuf::from);
    own.into_iter().chain(["/var/tmp", "/tmp"].map(PathBuf::from)).collect()
}

/// The first that the server's user can reach; root's own TMPDIR may be closed to it.
fn base_for(user: Option<(u32, u32)>, cx: &Context) -> PathBuf {
    let bases = bases(cx);
    let open = |base: &&PathBuf| user.is_none() || is_open(base);
    bases.iter().find(open).or(bases.first()).cloned().unwrap_or_else(|| PathBuf::from("/var/tmp"))
}

/// Whether everybody can go through all directories down to this one.
fn is_open(path: &Path) -> bool {
    let Ok(path) = path.canonicalize() else { return false };
    path.ancestors().all(|above| above.metadata().is_ok_and(|found| found.is_dir() && found.mode() & 0o001 != 0))
}

/// Refuses where a dump of this size can't fit: what it takes on disk is seldom less than its text.
fn check_space(base: &Path, free: u64, bytes: u64) -> Result<()> {
    let needed = bytes.saturating_add(EMPTY_SERVER_BYTES);
    if free >= needed {
        return Ok(());
    }
    let cause = format!(
        "a temporary server in {} would need at least {}, and {} are free",
        base.display(),
        show_bytes(needed),
        show_bytes(free)
    );
    let hint = "set TMPDIR to a directory with more room, or drill on a server that has it: `drill: { server: same }`";
    Err(Error::new(Kind::Refused, cause).hint(hint).step("place"))
}

/// Stops and removes what killed runs of this user left, and says so.
pub(super) fn collect(user: Option<(u32, u32)>, cx: &Context) -> Result<()> {
    let owner = user.map_or_else(files::own_uid, |(uid, _)| uid);
    for base in bases(cx) {
        for left in Marked::abandoned_in(&base, SORT, owner) {
            let path = left.path().to_owned();
            stop_server_in(&path.join("data"), user, cx)?;
            let text = match std::fs::remove_dir_all(&path) {
                Ok(()) => format!("{} was removed, the temporary server that an interrupted drill left", path.display()),
                // Its keeper may be removing it at this moment.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => format!("{} is what an interrupted drill left, and could not be removed: {error}", path.display()),
            };
            cx.observer.event(Event::Warning { target: None, text });
        }
    }
    Ok(())
}

/// Ends the server that has its data here, if one runs, and waits until it is gone. Its own user signals it: what
/// the file says is that user's word, and it can hurt no other's process.
pub(super) fn stop_server_in(data: &Path, user: Option<(u32, u32)>, cx: &Context) -> Result<()> {
    let cx = cx.with_cancel(Cancel::for_clean_up()?);
    let Some(pid) = server_in(data) else { return Ok(()) };
    let kill = Program::new("sh").args(["-c", "kill -QUIT \"$1\"", "sh"]).arg(pid.to_string()).directory("/");
    let kill = user.map_or(kill.clone(), |(uid, gid)| kill.user(uid, gid));
    kill.output(b"", &cx)?;
    while server_in(data) == Some(pid) {
        cx.cancel.sleep(std::time::Duration::from_millis(20))?;
    }
    Ok(())
}

/// The process of the server that works in this directory.
fn server_in(data: &Path) -> Option<u32> {
    let mut text = String::new();
    let file = files::open_regular(&data.join("postmaster.pid")).ok()?;
    file.take(1000).read_to_string(&mut text).ok()?;
    let pid: u32 = text.lines().next()?.trim().parse().ok()?;
    let directory = std::fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    (directory == data.canonicalize().ok()?).then_some(pid)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Arc;

    use super::*;
    use crate::observe::Recording;

    fn context(base: &Path) -> (Context, Arc<Recording>) {
        let seen = Arc::new(Recording::default());
        let mut env = crate::host::Env::from_iter([("PATH", "/usr/bin:/bin")]);
        env.set("TMPDIR", base);
        let cx = Context { env: Arc::new(env), observer: seen.clone(), ..Context::for_tests() };
        (cx, seen)
    }

    #[test]
    fn only_what_is_ours_and_whose_run_is_gone_is_removed() {
        let base = tempfile::tempdir().unwrap();
        let (cx, seen) = context(base.path());
        let alive = Home::create(None, 0, &cx).unwrap();
        let left = Home::create(None, 0, &cx).unwrap().path().to_owned();
        std::fs::create_dir(left.join("data")).unwrap();
        let foreign = base.path().join(format!("{}foreign", SORT.prefix));
        std::fs::create_dir(&foreign).unwrap();
        std::fs::write(foreign.join("db-backup-tools.lock"), "somebody else's").unwrap();
        collect(None, &cx).unwrap();
        assert!(alive.path().exists() && foreign.exists() && !left.exists());
        let said = format!("{:?}", seen.events());
        assert!(said.contains(left.to_str().unwrap()) && !said.contains("foreign"), "{said}");
        alive.remove().unwrap();
        alive.remove().unwrap();
    }

    #[test]
    fn too_little_room_is_refused_with_what_is_needed() {
        check_space(Path::new("/x"), 3 << 30, 1 << 30).unwrap();
        let error = check_space(Path::new("/x"), 1 << 30, 1 << 30).unwrap_err();
        assert_eq!(error.to_string(), "place: a temporary server in /x would need at least 1.1 GiB, and 1.0 GiB are free");
        assert!(error.hint_text().unwrap().contains("TMPDIR"));
    }

    #[test]
    fn a_place_that_another_user_can_not_reach_is_passed_over() {
        let base = tempfile::tempdir().unwrap();
        let (cx, _) = context(base.path());
        std::fs::set_permissions(base.path(), Permissions::from_mode(0o700)).unwrap();
        assert_eq!(base_for(None, &cx), base.path());
        assert_eq!(base_for(Some((65534, 65534)), &cx), Path::new("/var/tmp"));
    }
}
