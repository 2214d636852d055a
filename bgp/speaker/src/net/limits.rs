//! How many descriptors this process may have.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::error::Error;

/// Raises the soft limit of open files to the hard one, and says what it is now. A speaker has a
/// socket per peer and two while connections collide; service managers start processes with 1,024.
///
/// # Errors
/// [`Error::FileLimit`] when the kernel refuses; the old limit then still holds.
pub fn raise_file_limit() -> Result<u64, Error> {
    let refused = |errno: nix::errno::Errno| Error::FileLimit {
        source: errno.into(),
    };
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(refused)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(refused)?;
    }
    Ok(hard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard / 2, hard).unwrap();
        assert_eq!(raise_file_limit().unwrap(), hard);
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
        // And again, when there is nothing to do.
        assert_eq!(raise_file_limit().unwrap(), hard);
    }
}
