//! Pipes for splice(2): bytes go from socket to socket as references to the kernel's own pages.
//!
//! A pipe costs two descriptors, so a direction has one only while it moves bulk data, and pipes that are empty go back
//! to a pool. A pipe that still holds bytes when its connection ends is closed instead: the next connection would get
//! them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};

use crate::datapath::userspace::limits::lock;

/// Empty pipes that are kept for the next bulk transfer.
const POOLED: usize = 128;

/// Empty pipes, ready for use.
#[derive(Debug)]
pub struct PipePool {
    bytes: usize,
    free: Mutex<Vec<(OwnedFd, OwnedFd)>>,
}

/// A pipe, and how many bytes are in it.
#[derive(Debug)]
pub struct Pipe<'a> {
    pool: &'a PipePool,
    /// Reading end, writing end. Taken out on drop.
    ends: Option<(OwnedFd, OwnedFd)>,
    held: usize,
}

/// Why splice(2) did not move anything.
#[derive(Debug)]
pub enum SpliceError {
    /// These two descriptors can't be spliced: copy instead. Nothing was lost.
    Unfit,
    /// Anything else, `WouldBlock` included.
    Io(io::Error),
}

impl PipePool {
    /// A pool of pipes of `bytes` each, or what the kernel grants (`fs.pipe-user-pages-soft`).
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self {
            bytes,
            free: Mutex::default(),
        }
    }

    /// An empty pipe.
    ///
    /// # Errors
    ///
    /// `EMFILE` or `ENFILE` when there are no descriptors left.
    pub fn take(&self) -> io::Result<Pipe<'_>> {
        let pooled = lock(&self.free).pop();
        let ends = match pooled {
            Some(ends) => ends,
            None => self.open()?,
        };
        Ok(Pipe {
            pool: self,
            ends: Some(ends),
            held: 0,
        })
    }

    fn open(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        let ends = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        if let Ok(bytes) = i32::try_from(self.bytes) {
            // A refusal (the user's limit of pipe pages) leaves the 64 KiB of the default, which work as well.
            let _granted = fcntl(&ends.1, FcntlArg::F_SETPIPE_SZ(bytes));
        }
        Ok(ends)
    }
}

impl Pipe<'_> {
    /// Bytes in the pipe.
    #[must_use]
    pub const fn held(&self) -> usize {
        self.held
    }

    /// Moves what `source` has into the pipe, up to the pipe's size. `Ok(0)` is the end of the stream, or TCP urgent
    /// data with the end somewhere behind it: ask `read` which.
    ///
    /// # Errors
    ///
    /// See [`SpliceError`]. `WouldBlock` with an empty pipe means that splice(2) finds nothing to take, which is also
    /// so in front of urgent data.
    pub fn fill(&mut self, source: impl AsFd) -> Result<usize, SpliceError> {
        let Some((_, end)) = &self.ends else { return Ok(0) };
        let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
        let moved = splice(source, None, end, None, self.pool.bytes, flags).map_err(classify)?;
        self.held = self.held.saturating_add(moved);
        Ok(moved)
    }

    /// Moves bytes from the pipe to `sink`.
    ///
    /// # Errors
    ///
    /// See [`SpliceError`]. After `Unfit` the bytes are still in the pipe: [`Pipe::take_back`].
    pub fn drain(&mut self, sink: impl AsFd) -> Result<usize, SpliceError> {
        let Some((end, _)) = &self.ends else { return Ok(0) };
        let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
        let moved = splice(end, None, sink, None, self.held, flags).map_err(classify)?;
        self.held = self.held.saturating_sub(moved);
        Ok(moved)
    }

    /// All bytes of the pipe, in order, for the copying path.
    ///
    /// # Errors
    ///
    /// When the pipe can't be read, which loses the connection.
    pub fn take_back(&mut self) -> io::Result<Vec<u8>> {
        let Some((end, _)) = &self.ends else {
            return Ok(Vec::new());
        };
        let mut bytes = vec![0; self.held];
        let mut filled: usize = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match nix::unistd::read(end, rest) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => filled = filled.saturating_add(read),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        self.held = 0;
        Ok(bytes)
    }
}

impl Drop for Pipe<'_> {
    fn drop(&mut self) {
        if self.held > 0 {
            return;
        }
        let mut free = lock(&self.pool.free);
        if free.len() < POOLED
            && let Some(ends) = self.ends.take()
        {
            free.push(ends);
        }
    }
}

/// splice(2) says `EINVAL` where a file system or socket has no splice operation; `ENOSYS` and `EOPNOTSUPP` come from
/// seccomp filters and from upper-layer protocols on the socket.
fn classify(errno: Errno) -> SpliceError {
    match errno {
        Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP => SpliceError::Unfit,
        other => SpliceError::Io(other.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn bytes_that_a_sink_cannot_take_by_splice_come_back_in_order() {
        let pool = PipePool::new(64 * 1024);
        let (mut source, far) = UnixStream::pair().unwrap();
        source.write_all(b"one two three").unwrap();
        let mut pipe = pool.take().unwrap();
        assert_eq!(pipe.fill(&far).unwrap(), 13);
        // A file opened for appending can't be spliced to: EINVAL.
        let directory = tempfile::tempdir().unwrap();
        let sink = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(directory.path().join("sink"))
            .unwrap();
        assert!(matches!(pipe.drain(&sink), Err(SpliceError::Unfit)));
        assert_eq!(pipe.held(), 13);
        assert_eq!(pipe.take_back().unwrap(), b"one two three");
        drop(pipe);
        assert_eq!(lock(&pool.free).len(), 1, "an empty pipe goes back");
    }

    #[test]
    fn a_pipe_with_bytes_in_it_is_never_used_again() {
        let pool = PipePool::new(64 * 1024);
        let (mut source, far) = UnixStream::pair().unwrap();
        source.write_all(b"secret").unwrap();
        let mut pipe = pool.take().unwrap();
        pipe.fill(&far).unwrap();
        drop(pipe);
        assert!(lock(&pool.free).is_empty());
    }

    #[test]
    fn end_of_stream_and_nothing_yet_are_told_apart() {
        let pool = PipePool::new(64 * 1024);
        let (source, mut far) = UnixStream::pair().unwrap();
        far.set_nonblocking(true).unwrap();
        let mut pipe = pool.take().unwrap();
        assert!(
            matches!(pipe.fill(&far), Err(SpliceError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock)
        );
        drop(source);
        assert_eq!(pipe.fill(&far).unwrap(), 0);
        assert_eq!(far.read(&mut [0; 1]).unwrap(), 0);
    }
}
