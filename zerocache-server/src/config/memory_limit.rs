//! The memory that this process may use: the smallest cgroup limit above it, else the machine's memory.

use std::fs;
use std::path::{Path, PathBuf};

/// Assumed when the system states no limit.
const MEMORY_UNKNOWN_BYTES: u64 = 1 << 30;

/// Returns the memory that this process may use, in bytes.
pub(super) fn available_bytes() -> u64 {
    read(Path::new("/"))
}

/// Reads the limits below `root`, which is `/` outside tests.
fn read(root: &Path) -> u64 {
    let machine = machine_bytes(root);
    let cgroups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = cgroups.lines().filter_map(|line| cgroup_bytes(root, line));
    // Without a limit cgroup v1 shows a number close to 2^63; the minimum discards it.
    limits.chain(machine).min().unwrap_or(MEMORY_UNKNOWN_BYTES)
}

/// Returns the limit for one line of `/proc/self/cgroup`: `0::/path` in version 2, `4:memory:/path` in
/// version 1.
fn cgroup_bytes(root: &Path, line: &str) -> Option<u64> {
    let mut fields = line.splitn(3, ':');
    let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    let mount = root.join("sys/fs/cgroup");
    if id == "0" && controllers.is_empty() {
        // In a hybrid layout version 2 is mounted below `unified`, without a memory controller.
        return smallest(&mount, path, "memory.max");
    }
    let memory = controllers.split(',').any(|controller| controller == "memory");
    memory.then(|| smallest(&mount.join("memory"), path, "memory.limit_in_bytes")).flatten()
}

/// Returns the smallest limit from the group up to the mount: each group bounds those below it. In a
/// container the path may be the host's and missing here; then the mount itself is the group.
fn smallest(mount: &Path, path: &str, file: &str) -> Option<u64> {
    let mut group: PathBuf = mount.join(path.trim_start_matches('/'));
    let mut least = None;
    loop {
        let text = fs::read_to_string(group.join(file)).unwrap_or_default();
        // "max" means no limit; 0 cannot be the limit of a running process.
        let limit = text.trim().parse::<u64>().ok().filter(|limit| *limit > 0);
        least = least.into_iter().chain(limit).min();
        if group == mount || !group.pop() || !group.starts_with(mount) {
            return least;
        }
    }
}

fn machine_bytes(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> u64 {
        let root = tempfile::tempdir().expect("a directory");
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
            fs::write(path, text).expect("a file");
        }
        read(root.path())
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:        2097152 kB\nMemFree: 1 kB\n");

    #[test]
    fn machine_memory_applies_without_a_limit() {
        assert_eq!(machine(&[MEMINFO]), 2 << 30);
        assert_eq!(machine(&[]), MEMORY_UNKNOWN_BYTES);
        let unlimited =
            [MEMINFO, ("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", "max\n")];
        assert_eq!(machine(&unlimited), 2 << 30);
    }

    #[test]
    fn cgroup_v2_limit_is_the_smallest_of_all_ancestors() {
        let files = [
            MEMINFO,
            ("proc/self/cgroup", "0::/pod/box\n"),
            ("sys/fs/cgroup/pod/box/memory.max", "max\n"),
            ("sys/fs/cgroup/pod/memory.max", "536870912\n"),
        ];
        assert_eq!(machine(&files), 512 << 20);
    }

    #[test]
    fn cgroup_v1_limit_is_found_with_a_path_of_the_host() {
        let files = [
            MEMINFO,
            ("proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory:/docker/abc\n0::/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "268435456\n"),
        ];
        assert_eq!(machine(&files), 256 << 20);
        let unlimited = [
            MEMINFO,
            ("proc/self/cgroup", "4:memory:/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ];
        assert_eq!(machine(&unlimited), 2 << 30);
    }
}
