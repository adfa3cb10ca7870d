//! The tool as its users run it.

use std::{
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    process::{Command, Output, Stdio},
};

use zerocache_core::access::{Prefix, Role, Secret, StaticToken, Token, TokenFields, TokenId};
use zerocache_net::security::{Security, SecurityConfig, TlsFiles, authority_hash, authority_pem};

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
        let variables = [("ZEROCACHE_SECRET", secret.as_str())];
        let line = error(1, arguments, &variables, &token);
        assert!(line.contains(reason), "{line}");
        let output = run(&[arguments, &["--json"]].concat(), &variables, &token);
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one document");
        assert_eq!((output.status.code(), &json["exit"]), (Some(1), &1.into()), "{json}");
        assert!(json["error"].as_str().is_some_and(|error| error.contains(reason)), "{json}");
        assert_eq!(json["id"], "0707070707070707", "{json}");
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
        (&["server"], &[("ZEROCACHE_REGION", "")], "region: missing"),
        (&["server", "--regoin", "london"], &[], "did you mean --region?"),
        (&["--json", "server", "--region", "london"], &[], "none go before it"),
        (&["token", "show"], &[], "<TOKEN>"),
        (&["token", "show", "-", "--cluster", "a b"], &[], "--cluster: \"a b\" is not a name"),
        (&["token", "show", "-", "--secret", &mine], &[], "does not belong on a command line"),
        (
            &["token", "show", "-"],
            &[("ZEROCACHE_SECRET", "hunter2")],
            "ZEROCACHE_SECRET: the secret: this is not",
        ),
        (
            &["token", "show", "-"],
            &[("ZEROCACHE_SECRET_FILE", "/nowhere")],
            "ZEROCACHE_SECRET_FILE: cannot read /nowhere: ",
        ),
        (
            &["token", "show", "-", "--secret-file", "/nowhere"],
            &[],
            "--secret-file: cannot read /nowhere: ",
        ),
    ] {
        let line = error(2, arguments, variables, "");
        assert!(line.contains(part), "{part}: {line}");
        assert!(!line.contains("hunter2") && !line.contains(&mine), "{line}");
    }
}

#[test]
fn created_token_is_valid_and_pins_the_ca() {
    let mine = secret(1).to_text();
    let variables = [("ZEROCACHE_SECRET", mine.as_str()), ("ZEROCACHE_CLUSTER", "shop")];
    let output = run(
        &[
            "token", "create", "--name", "orders", "--role", "write", "--prefix", "orders/",
            "--for", "2d",
        ],
        &variables,
        "",
    );
    let (line, said) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && line.lines().count() == 1, "{said}");
    let token: Token = line.trim().parse().expect("a token");
    let fields = token.fields();
    assert_eq!(
        (fields.name.as_str(), fields.role, fields.cluster.as_str()),
        ("orders", Role::Write, "shop")
    );
    assert_eq!(fields.ca, authority_hash(&secret(1)));
    assert!(said.contains(&fields.id.to_string()) && said.contains("write on orders/"), "{said}");
    assert!(!said.contains(line.trim()));
    let shown = out(&["token", "show", "-"], &variables, line);
    assert!(shown.contains("(in ") && shown.contains("token    valid"), "{shown}");
    let json = out(&["token", "create", "--name", "a", "--role", "read", "--json"], &variables, "");
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let token: Token = json["token"].as_str().expect("text").parse().expect("a token");
    assert_eq!(json["id"], token.fields().id.to_string());
    assert_eq!((&json["prefixes"], &json["role"]), (&serde_json::json!([]), &"read".into()));
    assert_ne!(fields.id, token.fields().id);
}

#[test]
fn static_token_is_printed_with_its_hash() {
    let output = run(&["token", "create", "--static"], &[], "");
    let token: StaticToken = text(&output.stdout).trim().parse().expect("a static token");
    let said = text(&output.stderr);
    assert!(said.contains(&format!("token_hashes = [\"{}\"]", token.hash())), "{said}");
    let json = out(&["token", "create", "--static", "--json"], &[], "");
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let token: StaticToken = json["token"].as_str().expect("text").parse().expect("a static token");
    assert_eq!(json["hash"], token.hash().to_string());
}

#[test]
fn tokens_that_cannot_be_are_refused() {
    let mine = secret(1).to_text();
    let given = [("ZEROCACHE_SECRET", mine.as_str())];
    for (arguments, variables, part) in [
        (&["--name", "a"][..], &given[..], "--role"),
        (&["--role", "read"], &given, "--name"),
        (&["--name", "a b", "--role", "read"], &given, "--name: \"a b\" is not a name"),
        (&["--name", "a", "--role", "node"], &given, "use read, write, monitor or admin"),
        (&["--name", "a", "--role", "read", "--for", "90"], &given, "--for: \"90\" is no validity"),
        (&["--name", "a", "--role", "read", "--prefix", ""], &given, "--prefix"),
        (&["--name", "a", "--role", "read"], &[], "this needs the secret"),
        (&["--static", "--name", "a"], &[], "cannot be used with"),
    ] {
        let line = error(2, &[&["token", "create"], arguments].concat(), variables, "");
        assert!(line.contains(part), "{part}: {line}");
    }
}

#[test]
fn ca_of_every_accepted_secret_is_printed_and_stays_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("secrets");
    let lines = format!("{}\n{}\n", secret(2).to_text(), secret(1).to_text());
    std::fs::write(&path, lines).expect("is written");
    let arguments = ["cert", "ca", "--secret-file", path.to_str().expect("text")];
    let printed = out(&arguments, &[], "");
    assert_eq!(printed, out(&arguments, &[], ""));
    let both = [2, 1].map(|byte| authority_pem(&secret(byte)).expect("is made"));
    assert_eq!(printed, both.concat());
    assert!(error(2, &["cert", "ca"], &[], "").contains("needs the secret"));
}

#[test]
fn certificates_are_written_with_narrow_modes_and_nothing_is_overwritten() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("text").to_owned();
    let [ca, ca_key] = [path("ca.pem"), path("ca-key.pem")];
    let make_ca = ["cert", "create-ca", "--ca", &ca, "--ca-key", &ca_key];
    out(&make_ca, &[], "");
    let [node, node_key] = [path("node.pem"), path("node-key.pem")];
    let issuer = ["--ca", &ca, "--ca-key", &ca_key];
    let of_node = [
        "cert", "node", "--region", "london", "--name", "10.0.0.7", "--cert", &node, "--key",
        &node_key,
    ];
    out(&[&of_node[..], &issuer].concat(), &[], "");
    let [client, client_key] = [path("client.pem"), path("client-key.pem")];
    let of_client = [
        "cert",
        "client",
        "--san",
        "spiffe://shop.example/orders",
        "--san",
        "dns:orders.shop.svc",
        "--cert",
        &client,
        "--key",
        &client_key,
    ];
    out(&[&of_client[..], &issuer].concat(), &[], "");
    for (file, mode, begins) in [
        (&ca, 0o644, "-----BEGIN CERTIFICATE-----"),
        (&ca_key, 0o600, "-----BEGIN PRIVATE KEY-----"),
        (&node, 0o644, "-----BEGIN CERTIFICATE-----"),
        (&node_key, 0o600, "-----BEGIN PRIVATE KEY-----"),
        (&client_key, 0o600, "-----BEGIN PRIVATE KEY-----"),
    ] {
        let metadata = std::fs::metadata(file).expect("is there");
        // Whoever runs the test may allow less.
        assert_eq!(metadata.permissions().mode() & 0o777 & !mode, 0, "{file}");
        assert!(std::fs::read_to_string(file).expect("reads").starts_with(begins), "{file}");
    }
    let before = std::fs::read(&ca).expect("reads");
    let line = error(1, &make_ca, &[], "");
    assert!(line.contains("is not overwritten"), "{line}");
    assert_eq!(std::fs::read(&ca).expect("reads"), before);
    // A key without its certificate is not left behind.
    std::fs::remove_file(&node_key).expect("is removed");
    let line = error(1, &[&of_node[..], &issuer].concat(), &[], "");
    assert!(line.contains("node.pem is there already"), "{line}");
    assert!(!std::fs::exists(&node_key).expect("looks"));
}

#[test]
fn client_certificate_is_one_of_its_ca_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("text").to_owned();
    let [ca, ca_key] = [path("ca.pem"), path("ca-key.pem")];
    out(&["cert", "create-ca", "--ca", &ca, "--ca-key", &ca_key], &[], "");
    let [client, client_key] = [path("client.pem"), path("client-key.pem")];
    let of_client = |ca_key: &str, [cert, key]: [&str; 2]| {
        let san = ["cert", "client", "--san", "dns:orders.shop.svc", "--ca", &ca];
        let files = ["--ca-key", ca_key, "--cert", cert, "--key", key];
        san.iter().chain(&files).map(ToString::to_string).collect::<Vec<_>>()
    };
    let arguments = of_client(&ca_key, [&client, &client_key]);
    out(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), &[], "");
    // Nodes and clients take them.
    let load = |cert: &str, key: &str| {
        let [cert, key, ca] = [cert, key, &ca].map(|path| Some(path.into()));
        let files = Some(TlsFiles { cert, key, ca });
        Security::load(SecurityConfig { files, ..SecurityConfig::default() })
    };
    assert!(load(&client, &client_key).is_ok());
    let arguments = of_client(&client_key, [&path("x"), &path("y")]);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let line = error(1, &arguments, &[], "");
    assert!(line.contains("does not fit"), "{line}");
    let line = error(2, &["cert", "client", "--san", "orders"], &[], "");
    assert!(line.contains("use dns:NAME or a URI"), "{line}");
}

#[test]
fn help_has_examples() {
    for arguments in [
        &["--help"][..],
        &["secret", "--help"],
        &["token", "create", "--help"],
        &["token", "show", "--help"],
        &["cert", "ca", "--help"],
        &["cert", "create-ca", "--help"],
        &["cert", "node", "--help"],
        &["cert", "client", "--help"],
    ] {
        assert!(out(arguments, &[], "").contains("Example"));
    }
    assert!(out(&["--version"], &[], "").starts_with("zerocache "));
    let help = out(&["server", "--help"], &[], "");
    assert!(help.contains("Usage: zerocache server") && help.contains("--max-bytes"), "{help}");
}
