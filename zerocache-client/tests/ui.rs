//! Every misuse of the attribute is one helpful error at the right place. One mistake per file.

use std::process::Command;

/// The compiler whose own words the files in `ui/compiler` hold.
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
    } else {
        println!(
            "skipped tests/ui/compiler: its texts are those of {COMPILER}x, this is {version}"
        );
    }
}
