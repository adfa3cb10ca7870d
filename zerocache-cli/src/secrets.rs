//! The secrets that a command uses: from a file, or from variables.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use zerocache_core::access::Secret;

use crate::{args::SecretArgs, failure::Failure};

/// The most secrets at a time: the one in use, and those of a rotation.
const SECRETS_MAX: usize = 4;

/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 4 << 10;

/// Returns the secrets that the arguments or the variables name, the one in use first; none if nothing does.
pub(crate) fn find(args: &SecretArgs) -> Result<Vec<Secret>, Failure> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let by_flag = args.secret_file.clone().map(|path| ("--secret-file", path));
    let file = by_flag.or_else(|| {
        variable("ZEROCACHE_SECRET_FILE").map(|path| ("ZEROCACHE_SECRET_FILE", PathBuf::from(path)))
    });
    if let Some((setting, path)) = file {
        let wrong =
            |reason: String| Failure::usage(format!("{setting}: {}: {reason}", path.display()));
        return parse(&read(&path).map_err(wrong)?).map_err(wrong);
    }
    let Some(value) = variable("ZEROCACHE_SECRET") else { return Ok(Vec::new()) };
    let wrong = |reason: String| Failure::usage(format!("ZEROCACHE_SECRET: {reason}"));
    let secret = value.to_string_lossy().trim().parse::<Secret>();
    Ok(vec![secret.map_err(|error| wrong(error.to_string()))?])
}

fn read(path: &Path) -> Result<String, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut text = String::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    match read.map_err(|error| error.to_string())? as u64 {
        0..=FILE_BYTES_MAX => Ok(text),
        _ => Err(format!("a file of secrets has at most {FILE_BYTES_MAX} bytes")),
    }
}

fn parse(text: &str) -> Result<Vec<Secret>, String> {
    let lines = (1..).zip(text.lines().map(str::trim)).filter(|(_, line)| !line.is_empty());
    let parse = |(number, line): (usize, &str)| {
        line.parse().map_err(|error| format!("line {number}: {error}"))
    };
    let secrets = lines.map(parse).collect::<Result<Vec<Secret>, _>>()?;
    match secrets.len() {
        0 => Err("there is no secret in it".to_owned()),
        1..=SECRETS_MAX => Ok(secrets),
        _ => Err(format!("at most {SECRETS_MAX} secrets are allowed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_one_to_four_secrets() {
        let line = |byte| Secret::from_random([byte; 32]).to_text();
        let all = parse(&format!("{}\n\n {} \n", line(1), line(2))).expect("two secrets");
        assert_eq!(all, [1, 2].map(|byte| Secret::from_random([byte; 32])));
        assert!(parse("\n").expect_err("empty").contains("no secret"));
        let five: Vec<_> = (1..=5).map(line).collect();
        assert!(parse(&five.join("\n")).expect_err("too many").contains("at most 4"));
        let wrong = parse(&format!("{}\nhunter2", line(1))).expect_err("a passphrase");
        assert!(wrong.contains("line 2") && !wrong.contains("hunter2"), "{wrong}");
    }
}
