//! Every misuse of the attribute is one helpful error at the right place. One mistake per file.

use std::process::Command;

/// The compiler whose own messages the files in `ui/compiler` hold.
const COMPILER: &str = "rustc 1.95.";

#[test]
fn misuse_is_explained() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/*.rs");
    let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(compiler).arg("--version").output().expect("there is a compiler");
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    if version.starts_with(COMPILER) {
        cases.compile_fail("tests/ui/compiler/*.rs");
        return;
    }
    let reason = format!("tests/ui/compiler holds the messages of {COMPILER}x, this is {version}");
    let in_ci = std::env::var("CI").as_deref() == Ok("true");
    assert!(!in_ci, "must run under CI=true: {reason}");
    println!("misuse_is_explained: skipped tests/ui/compiler: {reason}");
}
