//! The limit of open files, and how many connections it leaves room for.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors for everything that is not an accepted connection: connections to other nodes and
/// clients' refusals, mDNS sockets, the runtime, the standard streams.
const RESERVED_FILES: u64 = 512;

/// Raises this process's soft limit of open files to the hard one and returns how many connections
/// fit into it, at most `wanted`. Logs when it is less.
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

/// The limit of open files after raising it as far as possible; `None` is no limit.
fn raise_file_limit() -> Option<u64> {
    let before = getrlimit(Resource::Nofile);
    if before.current == before.maximum {
        return before.current;
    }
    let raised = Rlimit { current: before.maximum, maximum: before.maximum };
    // Some systems state a hard limit that they do not grant: then the soft one stays.
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
    fn the_soft_limit_reaches_the_hard_one() {
        let after = raise_file_limit();
        assert_eq!(after, getrlimit(Resource::Nofile).current);
        assert!(fit_connections(1) == 1);
    }
}
