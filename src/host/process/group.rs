//! A child's process and its group: looks whether it has ended, signals, reaps. It never signals
//! a process that was reaped: its number may be another's by then.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, kill_process_group, pidfd_open, waitid};

use super::Exit;
use crate::error::{Error, Kind, Result};

/// The leader of a process group that we started.
pub(super) struct Group {
    leader: Pid,
    /// Readable once the leader has ended; absent where the kernel has no pidfds.
    pidfd: Option<OwnedFd>,
    /// The leader has ended. As long as it is not reaped, the group's number stays its own.
    ended: bool,
    reaped: Option<Exit>,
    /// Its end was seen by somebody else: no exit code will ever come.
    lost: bool,
}

impl Group {
    pub(super) fn of(leader: Pid) -> Self {
        let pidfd = pidfd_open(leader, PidfdFlags::empty()).ok();
        Self { leader, pidfd, ended: false, reaped: None, lost: false }
    }

    pub(super) fn pid(&self) -> u32 {
        self.leader.as_raw_nonzero().get().unsigned_abs()
    }

    /// What to poll for the leader's end, while it runs.
    pub(super) fn end(&self) -> Option<BorrowedFd<'_>> {
        if self.ended { None } else { self.pidfd.as_ref().map(AsFd::as_fd) }
    }

    /// Whether the leader's end must be looked for again and again.
    pub(super) fn is_unpollable(&self) -> bool {
        self.pidfd.is_none() && !self.ended
    }

    /// Whether the leader has ended. It is not reaped by this.
    pub(super) fn has_ended(&mut self) -> bool {
        if !self.ended {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            match waitid(WaitId::Pid(self.leader), options) {
                Ok(Some(_)) => self.ended = true,
                Err(Errno::CHILD) => (self.ended, self.lost) = (true, true),
                Ok(None) | Err(_) => {}
            }
        }
        self.ended
    }

    /// How the leader ended, if it was reaped.
    pub(super) fn reaped(&self) -> Option<Exit> {
        self.reaped
    }

    /// Reaps a leader that has ended.
    pub(super) fn reap(&mut self) -> Result<Exit> {
        if let Some(exit) = self.reaped {
            return Ok(exit);
        }
        let status = match waitid(WaitId::Pid(self.leader), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            Ok(status) => status,
            Err(error) => {
                self.lost |= error == Errno::CHILD;
                return Err(Error::new(Kind::Internal, "can't learn how a child ended")
                    .hint("is SIGCHLD ignored? start this program with its default")
                    .source(error));
            }
        };
        let exit = status.as_ref().and_then(exit_of);
        let exit = exit.ok_or_else(|| Error::new(Kind::Internal, "can't learn how a child ended"))?;
        (self.ended, self.reaped) = (true, Some(exit));
        Ok(exit)
    }

    fn is_ours(&self) -> bool {
        self.reaped.is_none() && !self.lost
    }

    fn signal(&self, signal: Signal) {
        if self.is_ours() {
            // It fails when all of the group are gone, which is what we want.
            let _ = kill_process_group(self.leader, signal);
        }
    }

    /// Ends the whole group: asks, gives it this long to clean up, then kills what is left and
    /// reaps the leader. `meanwhile` is called now and then, so that no pipe stays full.
    pub(super) fn end_all(&mut self, grace: Duration, mut meanwhile: impl FnMut()) {
        let until = Instant::now() + grace;
        self.signal(Signal::TERM);
        // One that is stopped meets its SIGTERM only when it goes on.
        self.signal(Signal::CONT);
        while self.is_ours() && Instant::now() < until {
            if self.has_ended() && !self.others_live() {
                break;
            }
            meanwhile();
            self.nap();
        }
        self.signal(Signal::KILL);
        // A killed process is gone at once, unless the kernel holds it (a dead NFS server): then
        // nothing that we could do ends it.
        let until = Instant::now() + Duration::from_millis(500);
        while self.is_ours() && !self.has_ended() && Instant::now() < until {
            self.nap();
        }
        if self.is_ours() && self.ended {
            let _ = self.reap();
        }
    }

    /// A few milliseconds, or until the leader ends.
    fn nap(&self) {
        let limit = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
        let mut fds: Vec<_> = self.end().iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
        let _ = poll(&mut fds, Some(&limit));
    }

    /// Whether others than the leader live in the group. Without /proc: no.
    fn others_live(&self) -> bool {
        let Ok(processes) = std::fs::read_dir("/proc") else { return false };
        let leader = self.leader.as_raw_nonzero().get();
        processes.flatten().any(|process| {
            let name = process.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { return false };
            pid != leader && lives_in(pid, leader)
        })
    }
}

/// Whether this process belongs to that group and is no zombie.
fn lives_in(pid: i32, group: i32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The name in parentheses may hold anything: what counts stands behind the last one.
    let Some((_, rest)) = stat.rsplit_once(')') else { return false };
    let mut fields = rest.split_ascii_whitespace();
    let (state, _parent, pgrp) = (fields.next(), fields.next(), fields.next());
    !matches!(state, Some("Z" | "X") | None) && pgrp == Some(group.to_string().as_str())
}

fn exit_of(status: &WaitIdStatus) -> Option<Exit> {
    status.exit_status().map(Exit::Code).or_else(|| status.terminating_signal().map(Exit::Signal))
}
