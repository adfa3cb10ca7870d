//! The tool as its users run it.

use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
};

use zerocache_core::access::{Prefix, Role, Secret, TokenFields, TokenId};

/// Runs the tool with these arguments, variables and standard input.
fn run(arguments: &[&str], variables: &[(&str, &str)], input: &str) -> Output {
    let mut tool = Command::new(env!("CARGO_BIN_EXE_zerocache"));
    for name in ["ZEROCACHE_SECRET", "ZEROCACHE_SECRET_FILE", "ZEROCACHE_CLUSTER"] {
        tool.env_remove(name);
    }
    tool.args(arguments).envs(variables.iter().copied());
    tool.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = tool.spawn().expect("the tool starts");
    // One that reads nothing may have ended.
    let _ = child.stdin.take().expect("is piped").write_all(input.as_bytes());
    child.wait_with_output().expect("the tool ends")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

/// Runs the tool, which succeeds, and returns its standard output.
fn out(arguments: &[&str], variables: &[(&str, &str)], input: &str) -> String {
    let output = run(arguments, variables, input);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout).to_owned()
}

/// Runs the tool, which ends with `code`, and returns the one line of its error.
fn error(code: i32, arguments: &[&str], variables: &[(&str, &str)], input: &str) -> String {
    let output = run(arguments, variables, input);
    let line = text(&output.stderr).to_owned();
    assert_eq!(output.status.code(), Some(code), "{line}");
    assert!(line.starts_with("error: ") && line.lines().count() == 1, "{line}");
    line
}

fn secret(byte: u8) -> Secret {
    Secret::from_random([byte; 32])
}

fn token(end_s: u64) -> String {
    let fields = TokenFields {
        id: TokenId([7; 8]),
        name: "orders".to_owned(),
        role: Role::Write,
        prefixes: vec![Prefix::Text("orders/".into()), Prefix::Memo("orders".into())],
        not_after_s: end_s,
        cluster: "shop".to_owned(),
        ca: [9; 32],
    };
    fields.sign(&secret(1).token_key()).expect("it is allowed")
}

/// In the year 2100.
const FAR_S: u64 = 4_107_542_400;

#[test]
fn secrets_are_printed_on_one_line_and_differ() {
    let [one, other] = [(), ()].map(|()| out(&["secret"], &[], ""));
    assert_ne!(one, other);
    for line in [one, other] {
        assert!(line.ends_with('\n') && line.lines().count() == 1);
        assert!(line.trim().parse::<Secret>().is_ok());
    }
}

#[test]
fn token_without_a_secret_is_shown_and_not_verified() {
    let shown = out(&["token", "show", "-"], &[], &format!("{}\n", token(FAR_S)));
    for part in [
        "id       0707070707070707",
        "name     orders",
        "role     write",
        "keys     orders/, memo:orders",
        "cluster  shop",
        "end      2100-03-01T00:00:00Z (in ",
        "ca       0909090909",
        "token    not verified: no secret was given",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert_eq!(out(&["token", "show", &token(FAR_S)], &[], ""), shown);
}

#[test]
fn token_is_verified_with_a_secret_from_a_file_or_a_variable() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("secrets");
    let lines = format!("{}\n{}\n", secret(2).to_text(), secret(1).to_text());
    std::fs::write(&path, lines).expect("is written");
    let path = path.to_str().expect("text");
    let (mine, others) = (secret(1).to_text(), secret(2).to_text());
    let arguments = ["token", "show", "--json", "-"];
    for (arguments, variables) in [
        (&["token", "show", "--json", "--secret-file", path, "-"][..], &[][..]),
        (&arguments, &[("ZEROCACHE_SECRET_FILE", path)]),
        (&arguments, &[("ZEROCACHE_SECRET", mine.as_str())]),
    ] {
        let shown = out(arguments, variables, &token(FAR_S));
        let json: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
        assert_eq!(json["verified"], "valid");
        assert_eq!((&json["role"], &json["cluster"]), (&"write".into(), &"shop".into()));
        assert_eq!(json["prefixes"], serde_json::json!(["orders/", "memo:orders"]));
        assert_eq!((&json["end_s"], &json["id"]), (&FAR_S.into(), &"0707070707070707".into()));
    }
    for (arguments, secret, token, reason) in [
        (&["token", "show", "-"][..], &others, token(FAR_S), "wrong"),
        (&["token", "show", "-"], &mine, token(1), "expired"),
        (&["token", "show", "--cluster", "other", "-"], &mine, token(FAR_S), "wrong"),
    ] {
        let line = error(1, arguments, &[("ZEROCACHE_SECRET", secret)], &token);
        assert!(line.contains(reason), "{line}");
    }
}

#[test]
fn text_that_is_no_token_is_not_repeated() {
    let token = token(FAR_S);
    for wrong in ["", "zc1_", "hunter2", &token[..token.len() - 9]] {
        let line = error(1, &["token", "show", "-"], &[], wrong);
        assert!(line.contains("not a token"), "{line}");
        assert!(wrong.len() < 5 || !line.contains(wrong), "{line}");
    }
}

#[test]
fn wrong_secrets_and_command_lines_are_one_line_and_exit_code_2() {
    let mine = secret(1).to_text();
    for (arguments, variables, part) in [
        (&[][..], &[][..], "a command is missing"),
        (&["token"], &[], "a command is missing"),
        (&["secrets"], &[], "unrecognized subcommand"),
        (&["token", "show"], &[], "<TOKEN>"),
        (&["token", "show", "-", "--cluster", "a b"], &[], "--cluster: \"a b\" is not a name"),
        (&["token", "show", "-", "--secret", &mine], &[], "does not belong on a command line"),
        (
            &["token", "show", "-"],
            &[("ZEROCACHE_SECRET", "hunter2")],
            "ZEROCACHE_SECRET: this is not",
        ),
        (
            &["token", "show", "-"],
            &[("ZEROCACHE_SECRET_FILE", "/nowhere")],
            "ZEROCACHE_SECRET_FILE: /nowhere: ",
        ),
        (&["token", "show", "-", "--secret-file", "/nowhere"], &[], "--secret-file: /nowhere: "),
    ] {
        let line = error(2, arguments, variables, "");
        assert!(line.contains(part), "{part}: {line}");
        assert!(!line.contains("hunter2") && !line.contains(&mine), "{line}");
    }
}

#[test]
fn help_has_examples() {
    for arguments in [&["--help"][..], &["secret", "--help"], &["token", "show", "--help"]] {
        assert!(out(arguments, &[], "").contains("Example"));
    }
    assert!(out(&["--version"], &[], "").starts_with("zerocache "));
}
