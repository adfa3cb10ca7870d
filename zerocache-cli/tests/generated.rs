//! Completions and manual pages fit the command line that they are made from.

use std::process::Command;

fn run(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_zerocache")).args(args).output().expect("runs");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// The commands that the help lists.
fn commands() -> Vec<String> {
    let help = run(&["--help"]);
    let (_, list) = help.split_once("Commands:\n").expect("a list");
    let lines = list.lines().take_while(|line| !line.is_empty());
    // A description of more than one line is indented further.
    let names =
        lines.filter_map(|line| line.strip_prefix("  ")).filter(|line| !line.starts_with(' '));
    let names = names.filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn completions_of_every_shell_know_every_command_and_option() {
    let commands = commands();
    assert!(commands.len() > 8, "{commands:?}");
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let text = run(&["completions", shell]);
        for word in commands.iter().map(String::as_str).chain(["explain", "token-file"]) {
            assert!(text.contains(word), "{shell}: {word}");
        }
    }
}

#[test]
fn bash_accepts_its_completions() {
    let script = format!(
        "{}\nCOMP_WORDS=(zerocache no) COMP_CWORD=1\n_zerocache zerocache no zerocache\n\
         echo \"${{COMPREPLY[@]}}\"",
        run(&["completions", "bash"])
    );
    let Ok(output) = Command::new("bash").args(["--norc", "-c", &script]).output() else {
        assert!(std::env::var_os("CI").is_none(), "bash is missing");
        println!("skipped: bash is missing");
        return;
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "nodes", "{errors}");
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("man1");
    run(&["man", path.to_str().expect("text")]);
    let main = std::fs::read_to_string(path.join("zerocache.1")).expect("a page");
    assert!(main.starts_with(".ie") && main.contains(".TH zerocache 1"), "{main}");
    for command in commands() {
        let page = std::fs::read_to_string(path.join(format!("zerocache-{command}.1")));
        let page = page.unwrap_or_else(|error| panic!("{command}: {error}"));
        assert!(page.contains(".SH SYNOPSIS"), "{page}");
        assert_eq!(page.contains("max\\-bytes"), command == "server", "{command}: {page}");
    }
}
