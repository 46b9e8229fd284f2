//! FUSE on one side, images on the other. Stateless: the kernel's inode numbers say all, nothing is kept for an inode.

mod attr;
pub(crate) mod inherited;
mod names;
mod reads;
mod report;
mod session;
#[cfg(test)]
mod tests;

use std::{
    ffi::OsStr,
    io,
    os::unix::ffi::OsStrExt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use fuser::{
    Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, IoctlFlags, KernelConfig,
    LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyIoctl, ReplyOpen, ReplyStatfs, ReplyXattr, Request,
};
use names::{Found, Listed};
pub use reads::{Inflight, ReadQueue};
pub(crate) use report::Complaints;
use report::Place;
pub use session::{Session, SessionError, set_read_ahead};

use crate::{
    counters::Op,
    fs::FsError,
    kernel::probe_block,
    mounts::{MountTable, ROOT_INO, Target},
};

/// Images never change: the kernel may keep what it knows.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);
/// Names of images in the root come and go; the kernel is told, and asks again in case that message crossed an answer.
const BRIEF: Duration = Duration::from_secs(1);
/// Largest read that the kernel may send.
const MAX_READ: u32 = 1 << 20;
/// Requests that the kernel may have under way on its own account, read-ahead above all.
const MAX_BACKGROUND: u16 = 64;
const GENERATION: Generation = Generation(0);

/// Answers the kernel's requests.
#[derive(Debug)]
pub struct FuseAdapter {
    mounts: Arc<MountTable>,
    reads: Arc<ReadQueue>,
    started: SystemTime,
    no_open: bool,
    no_opendir: bool,
}

impl FuseAdapter {
    /// An adapter over the images of `mounts`.
    #[must_use]
    pub fn new(mounts: Arc<MountTable>, reads: Arc<ReadQueue>) -> Self {
        Self { mounts, reads, started: SystemTime::now(), no_open: false, no_opendir: false }
    }

    /// Resolves `ino`, lets `answer` answer, counts and logs. A panic is an error like others.
    fn answer<T>(
        &self,
        op: Op,
        ino: INodeNo,
        answer: impl FnOnce(&Target) -> Result<T, FsError>,
    ) -> Result<T, Errno> {
        let started = Instant::now();
        let target = match self.mounts.resolve(ino.0) {
            Ok(target) => target,
            Err(error) => return Err(Errno::from_i32(error.errno())),
        };
        let attempt = || {
            #[cfg(test)]
            if let Target::Inode(_, nid) = &target {
                tests::strike(*nid);
            }
            answer(&target)
        };
        let outcome = catch_unwind(AssertUnwindSafe(attempt)).unwrap_or_else(|_| Err(FsError::Panic));
        let (image, place) = match &target {
            Target::Inode(image, nid) => (image, Place::Inode(*nid)),
            Target::Blob(image, blob) => (image, Place::Blob(*blob, 0)),
            Target::Root | Target::Blobs | Target::Probe => {
                return outcome.map_err(|error| Errno::from_i32(error.errno()));
            }
        };
        match &outcome {
            Ok(_) => image.counters().answered(op, started.elapsed()),
            Err(error) => report::report(self.reads.events(), image, place, op, error),
        }
        outcome.map_err(|error| Errno::from_i32(error.errno()))
    }
}

/// The `size` bytes from `offset` on, cut at the end.
fn part_of(bytes: &[u8], offset: u64, size: u32) -> &[u8] {
    let rest = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)).unwrap_or_default();
    &rest[..rest.len().min(size as usize)]
}

impl Filesystem for FuseAdapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = [
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_EXPLICIT_INVAL_DATA,
            InitFlags::FUSE_HAS_RESEND,
            InitFlags::FUSE_NO_EXPORT_SUPPORT,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_POSIX_ACL,
            InitFlags::FUSE_READDIRPLUS_AUTO,
        ];
        for flag in wanted {
            if let Err(missing) = config.add_capabilities(flag) {
                tracing::debug!(?missing, "the kernel lacks a FUSE feature");
            }
        }
        self.no_open = config.add_capabilities(InitFlags::FUSE_NO_OPEN_SUPPORT).is_ok();
        self.no_opendir = config.add_capabilities(InitFlags::FUSE_NO_OPENDIR_SUPPORT).is_ok();
        // The kernel derives the largest read from the largest write.
        let set = config.set_max_write(MAX_READ).and(Ok(())).is_ok()
            && config.set_max_background(MAX_BACKGROUND).is_ok();
        if set { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EPROTO)) }
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.answer(Op::Lookup, parent, |target| self.look_up(target, name)) {
            Ok(Found::Entry(attr, ttl)) => reply.entry_with_ttls(&FOREVER, &ttl, &attr, GENERATION),
            // An entry with inode 0 lets the kernel remember that there is none.
            Ok(Found::Nothing) => reply.entry(&FOREVER, &attr::nothing(), GENERATION),
            Err(errno) => reply.error(errno),
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let answer = |target: &Target| match target {
            Target::Inode(image, nid) => {
                let mut attr = attr::of(image, &image.rafs().attributes(*nid)?)?;
                attr.ino = ino;
                Ok((attr, FOREVER))
            }
            Target::Blob(image, blob) => Ok((attr::blob(image, *blob, self.started), FOREVER)),
            Target::Root => Ok((attr::root(self.started), Duration::ZERO)),
            Target::Blobs => Ok((attr::blobs(self.started), FOREVER)),
            Target::Probe => Ok((attr::probe(self.started), FOREVER)),
        };
        match self.answer(Op::Getattr, ino, answer) {
            Ok((attr, ttl)) => reply.attr(&ttl, &attr),
            Err(errno) => reply.error(errno),
        }
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        let answer = |target: &Target| match target {
            Target::Inode(image, nid) => image.rafs().link_target(*nid),
            _ => Err(FsError::WrongType),
        };
        match self.answer(Op::Readlink, ino, answer) {
            Ok(target) => reply.data(&target),
            Err(errno) => reply.error(errno),
        }
    }

    fn open(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        if self.no_open {
            // Tells the kernel to open files by itself from now on.
            reply.error(Errno::ENOSYS);
        } else {
            reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
        }
    }

    fn read(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let started = Instant::now();
        let (image, place) = match self.mounts.resolve(ino.0) {
            Ok(Target::Inode(image, nid)) => (image, Place::Inode(nid)),
            Ok(Target::Blob(image, blob)) => (image, Place::Blob(blob, offset)),
            Ok(Target::Probe) => return reply.data(part_of(&probe_block(), offset, size)),
            Ok(Target::Root | Target::Blobs) => return reply.error(Errno::EISDIR),
            Err(error) => return reply.error(Errno::from_i32(error.errno())),
        };
        let request = reads::ReadRequest { image, place, offset, size, unique: req.unique().0, started };
        self.reads.answer(request, reply);
    }

    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn fsync(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn fsyncdir(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn opendir(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        if self.no_opendir {
            reply.error(Errno::ENOSYS);
        } else {
            reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR);
        }
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let add = |listed: Listed<'_>| {
            Ok(match listed {
                Listed::Own(name, next) => {
                    reply.add(INodeNo(ROOT_INO), next, fuser::FileType::Directory, name)
                }
                Listed::Image(image, next) => {
                    let ino = INodeNo(image.number().ino(image.rafs().root())?);
                    reply.add(ino, next, fuser::FileType::Directory, image.mountpoint().name())
                }
                Listed::Entry(image, entry) => {
                    let ino = INodeNo(image.number().ino(entry.nid)?);
                    let kind = attr::file_type(entry.file_type);
                    reply.add(ino, entry.next_cookie, kind, OsStr::from_bytes(entry.name))
                }
            })
        };
        match self.answer(Op::Readdir, ino, |target| self.list(target, offset, add)) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn readdirplus(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let add = |listed: Listed<'_>| {
            let (image, nid, next, name, ttl) = match &listed {
                Listed::Own(name, next) => {
                    let attr = attr::root(self.started);
                    return Ok(reply.add(attr.ino, *next, name, &Duration::ZERO, &attr, GENERATION));
                }
                Listed::Image(image, next) => {
                    (image, image.rafs().root(), *next, OsStr::new(image.mountpoint().name()), BRIEF)
                }
                Listed::Entry(image, entry) => {
                    (image, entry.nid, entry.next_cookie, OsStr::from_bytes(entry.name), FOREVER)
                }
            };
            let attr = attr::of(image, &image.rafs().attributes(nid)?)?;
            Ok(reply.add(attr.ino, next, name, &ttl, &attr, GENERATION))
        };
        match self.answer(Op::Readdirplus, ino, |target| self.list(target, offset, add)) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn statfs(&self, _req: &Request, ino: INodeNo, reply: ReplyStatfs) {
        let answer = |target: &Target| match target {
            Target::Inode(image, _) => {
                let summary = image.rafs().summary();
                Ok((summary.uncompressed_size.div_ceil(rafs::BLOCK_SIZE), summary.inodes))
            }
            _ => Ok((0, 0)),
        };
        const BLOCK: u32 = 4096;
        match self.answer(Op::Statfs, ino, answer) {
            Ok((blocks, files)) => reply.statfs(blocks, 0, 0, files, 0, BLOCK, 255, BLOCK),
            Err(errno) => reply.error(errno),
        }
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let answer = |target: &Target| match target {
            Target::Inode(image, nid) => attr::fit(image.rafs().xattr(*nid, name.as_bytes())?, size),
            _ => Err(FsError::NoAttribute),
        };
        attr::reply_xattr(self.answer(Op::Getxattr, ino, answer), reply);
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let answer = |target: &Target| {
            let mut names = Vec::new();
            if let Target::Inode(image, nid) = target {
                for (name, _) in image.rafs().xattrs(*nid)? {
                    names.extend_from_slice(&name);
                    names.push(0);
                }
            }
            attr::fit(&names, size)
        };
        attr::reply_xattr(self.answer(Op::Listxattr, ino, answer), reply);
    }

    fn ioctl(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }
}
