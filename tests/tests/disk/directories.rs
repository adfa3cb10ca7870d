//! Directories that a node cannot use: it says so in one line, and does not start.

use std::fmt::Display;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use zerocache_tests::setup::{server, unique_address};

use super::{directory, end, setup, start};

/// Asserts that a node with these flags does not start, and says why in its last line.
fn assert_refused(flags: &[(&str, &dyn Display)], reason: &str) {
    let mut command = Command::new(server());
    command.args(["--region", "oslo", "--address", &unique_address().to_string(), "--port", "0"]);
    command.args(["--discovery", "none", "--max-bytes", "16MiB"]);
    for (flag, value) in flags {
        command.args([flag, value.to_string().as_str()]);
    }
    let output = command.stdin(Stdio::null()).output().expect("the server starts");
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = log.lines().last().unwrap_or_default();
    assert!(line.contains(reason), "{log:?} does not say {reason:?}");
    assert_eq!(output.status.code(), Some(2), "{log}");
}

/// The same of a node with this directory.
fn assert_directory_refused(path: &Path, reason: &str) {
    assert_refused(&[("--disk", &path.display()), ("--disk-bytes", &"256MiB")], reason);
}

#[test]
fn file_in_place_of_the_directory_is_refused() {
    let directory = directory();
    let file = directory.path().join("file");
    fs::write(&file, "not a directory").expect("written");
    assert_directory_refused(&file, "is not a directory");
}

#[test]
fn directory_in_use_is_refused() {
    let directory = directory();
    let _node = start(&setup(directory.path()));
    assert_directory_refused(directory.path(), "another process uses the directory");
}

#[test]
fn directory_of_another_cluster_is_refused() {
    let directory = directory();
    let mut node = start(&setup(directory.path()).flag("--cluster", "first"));
    assert!(end(&mut node).success());
    let reason = "belongs to the cluster \"first\", not to \"second\"";
    let path = directory.path().display();
    assert_refused(
        &[("--disk", &path), ("--disk-bytes", &"256MiB"), ("--cluster", &"second")],
        reason,
    );
}

#[test]
fn format_of_a_later_release_is_refused() {
    let directory = directory();
    let mut node = start(&setup(directory.path()));
    assert!(end(&mut node).success());
    let file = directory.path().join("format");
    let text = fs::read_to_string(&file).expect("the format");
    let (first, rest) = text.split_once('\n').expect("lines");
    let (word, _) = first.split_once(' ').expect("a number");
    fs::write(&file, format!("{word} 99\n{rest}")).expect("written");
    assert_directory_refused(directory.path(), "of a later release");
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let directory = directory();
    let snapshot = directory.path().join("snapshot");
    let (path, snapshot) = (directory.path().display(), snapshot.display());
    let size: (&str, &dyn Display) = ("--disk-bytes", &"1GiB");
    assert_refused(&[("--disk", &path), size, ("--snapshot", &snapshot)], "use --disk alone");
    assert_refused(&[("--disk", &path)], "use --disk-bytes SIZE as well");
    assert_refused(&[size], "use --disk PATH as well");
    assert_refused(&[("--disk", &path), ("--disk-bytes", &"1MiB")], "use at least 64MiB");
}

#[test]
fn directory_that_cannot_be_written_is_refused() {
    let directory = directory();
    let path = directory.path().join("closed");
    fs::create_dir(&path).expect("created");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o500)).expect("closed");
    // A superuser writes anywhere but in what the system itself makes.
    let path =
        if fs::write(path.join("probe"), "").is_ok() { Path::new("/proc/disk") } else { &path };
    assert_directory_refused(path, "disk: ");
}
