//! Runs the tool `zerocache` against nodes, as an operator does.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use serde_json::Value as Json;

use crate::security::{Keys, write_private};
use crate::setup::{clean_command, program};

/// What the tool printed, and how it ended.
#[derive(Clone, Debug)]
pub struct Printed {
    /// The exit code.
    pub exit: i32,
    /// Standard output.
    pub out: Vec<u8>,
    /// Standard error.
    pub err: String,
}

impl Printed {
    /// Standard output as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    /// Standard output as one document, whose `exit` is the exit code.
    ///
    /// # Panics
    ///
    /// If it is none.
    #[must_use]
    pub fn json(&self) -> Json {
        let json: Json = serde_json::from_slice(&self.out)
            .unwrap_or_else(|error| panic!("{error}: {} {}", self.text(), self.err));
        assert_eq!(json["exit"], self.exit, "{json}");
        json
    }
}

/// The tool, with the settings of one operator.
#[derive(Debug)]
pub struct Operator {
    settings: Vec<(&'static str, String)>,
    folder: tempfile::TempDir,
}

impl Operator {
    /// An operator who knows this address, with all rights.
    ///
    /// # Panics
    ///
    /// If the token cannot be written.
    #[must_use]
    pub fn new(seed: SocketAddr) -> Self {
        let mut operator = Self::anonymous(seed);
        if let Some(keys) = Keys::of_this_run() {
            operator.present(keys.admin());
        }
        operator
    }

    /// An operator who knows this address, and has no credentials.
    ///
    /// # Panics
    ///
    /// If there is no room for a token.
    #[must_use]
    pub fn anonymous(seed: SocketAddr) -> Self {
        let settings = vec![
            ("ZEROCACHE_SEED", seed.to_string()),
            // Without it the tool speaks mDNS to the machine's network.
            ("ZEROCACHE_DISCOVERY", "seeds".to_owned()),
        ];
        Self { settings, folder: tempfile::tempdir().expect("a folder") }
    }

    /// An operator who knows this address, with all rights that these keys give.
    ///
    /// # Panics
    ///
    /// If the token cannot be written.
    #[must_use]
    pub fn with_keys(seed: SocketAddr, keys: &Keys) -> Self {
        let mut operator = Self::anonymous(seed);
        operator.present(keys.admin());
        operator
    }

    /// With a variable.
    #[must_use]
    pub fn set(mut self, name: &'static str, value: impl ToString) -> Self {
        self.settings.retain(|(other, _)| *other != name);
        self.settings.push((name, value.to_string()));
        self
    }

    /// Presents a token.
    ///
    /// # Panics
    ///
    /// If it cannot be written.
    pub fn present(&mut self, token: &str) {
        let path = self.folder.path().join("token");
        write_private(&path, token.as_bytes());
        self.settings.push(("ZEROCACHE_TOKEN_FILE", path.display().to_string()));
    }

    /// Runs the tool.
    ///
    /// # Panics
    ///
    /// If it does not start.
    #[must_use]
    pub fn run(&self, args: &[&str]) -> Printed {
        self.run_with(args, b"")
    }

    /// Runs `doctor` with these arguments. Returns the findings and the exit code.
    ///
    /// # Panics
    ///
    /// If it does not end as it should, or a finding does not say what to do.
    #[must_use]
    pub fn findings(&self, args: &[&str]) -> (Vec<Json>, i32) {
        let printed = self.run(&[&["doctor", "--json"], args].concat());
        let json = printed.json();
        let findings = json["findings"].as_array().unwrap_or_else(|| panic!("{json}"));
        for finding in findings {
            let action = finding["action"].as_str().unwrap_or_default();
            assert!(action.ends_with('.'), "{finding}");
        }
        (findings.clone(), printed.exit)
    }

    /// Runs `doctor`, which is to find this alone. Returns the evidence.
    ///
    /// # Panics
    ///
    /// If it finds something else, or ends otherwise.
    #[must_use]
    pub fn only_finding(&self, args: &[&str], (id, exit): (&str, i32)) -> String {
        let (findings, code) = self.findings(args);
        assert!(matches!(&findings[..], [one] if one["id"] == id), "not {id} alone: {findings:#?}");
        assert_eq!(code, exit, "{findings:#?}");
        findings[0]["evidence"].as_str().unwrap_or_default().to_owned()
    }

    /// Starts the tool.
    ///
    /// # Panics
    ///
    /// If it does not start.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = clean_command(program("zerocache"));
        command.args(args).envs(self.settings.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs the tool with this on standard input.
    ///
    /// # Panics
    ///
    /// If it does not start.
    #[must_use]
    pub fn run_with(&self, args: &[&str], input: &[u8]) -> Printed {
        let mut child = self.command(args).spawn().expect("the tool starts");
        let mut pipe = child.stdin.take().expect("piped");
        // One that does not read it may have ended.
        let _unread = pipe.write_all(input);
        drop(pipe);
        let output = child.wait_with_output().expect("the tool ends");
        Printed {
            exit: output.status.code().unwrap_or(-1),
            out: output.stdout,
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}
