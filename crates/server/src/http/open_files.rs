//! The operating system's limits of open files, of which each connection is one.

use std::{fmt, io};

/// A limit of open files that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpenFilesLimit {
    /// Of this process.
    Process(Option<u64>),
    /// Of the whole system.
    System,
}

impl OpenFilesLimit {
    /// The limit that has caused an error.
    pub(super) fn of(error: &io::Error) -> Option<Self> {
        #[cfg(unix)]
        {
            use rustix::io::Errno;
            let limits = [
                (Errno::MFILE, Self::Process(of_process())),
                (Errno::NFILE, Self::System),
            ];
            let code = error.raw_os_error()?;
            let mut limits = limits.into_iter();
            limits
                .find(|(errno, _)| errno.raw_os_error() == code)
                .map(|(_, limit)| limit)
        }
        #[cfg(not(unix))]
        {
            let _ = error;
            None
        }
    }
}

impl fmt::Display for OpenFilesLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(Some(files)) => write!(
                f,
                "this process has its maximum of {files} open files; `ulimit -n` raises it"
            ),
            Self::Process(None) => f.write_str("this process has its maximum of open files"),
            Self::System => f.write_str(
                "the system has its maximum of open files; on Linux, `sysctl fs.file-max` raises it",
            ),
        }
    }
}

/// How many files this process may have open; none if that is unlimited or not known.
pub(super) fn of_process() -> Option<u64> {
    #[cfg(unix)]
    {
        rustix::process::getrlimit(rustix::process::Resource::Nofile).current
    }
    #[cfg(not(unix))]
    None
}
