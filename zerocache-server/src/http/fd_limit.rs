//! The limit of open files, and the number of connections that fits into it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors for everything but accepted connections: connections to other nodes, refusals of
/// clients, mDNS sockets, the Tokio runtime, the standard streams.
const RESERVED_FILES: u64 = 512;

/// Raises this process's soft limit of open files to the hard one. Returns the number of connections
/// that fit, at most `wanted`; logs when it is less.
#[must_use]
pub fn fit_connections(wanted: usize) -> usize {
    let files = raise_file_limit();
    let fitting = connections_within(wanted, files);
    if fitting < wanted {
        tracing::warn!(
            wanted,
            connections_max = fitting,
            open_files_max = files,
            "connection limit lowered: the limit of open files is too low"
        );
    }
    fitting
}

/// Raises the limit of open files as far as possible and returns it; `None` is no limit.
fn raise_file_limit() -> Option<u64> {
    let before = getrlimit(Resource::Nofile);
    if before.current == before.maximum {
        return before.current;
    }
    let raised = Rlimit { current: before.maximum, maximum: before.maximum };
    // Some systems state a hard limit that they do not grant: the soft one stays then.
    let _ = setrlimit(Resource::Nofile, raised);
    getrlimit(Resource::Nofile).current
}

fn connections_within(wanted: usize, files: Option<u64>) -> usize {
    let Some(files) = files else { return wanted };
    let room = files - RESERVED_FILES.min(files / 2);
    wanted.min(usize::try_from(room).unwrap_or(usize::MAX)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_room_for_the_rest() {
        assert_eq!(connections_within(16_384, None), 16_384);
        assert_eq!(connections_within(16_384, Some(1 << 20)), 16_384);
        assert_eq!(connections_within(16_384, Some(1024)), 512);
        assert_eq!(connections_within(16_384, Some(256)), 128);
        assert_eq!(connections_within(16_384, Some(0)), 1);
    }

    #[test]
    fn soft_limit_is_raised_to_the_hard_one() {
        let after = raise_file_limit();
        assert_eq!(after, getrlimit(Resource::Nofile).current);
        assert!(fit_connections(1) == 1);
    }
}
