//! Certificates: the CA of a secret, and a CA of one's own with certificates for nodes and clients.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::Duration,
};

use zerocache_net::security::{Issued, Subject, authority_pem, issue_certificate, new_authority};

use crate::{
    args::{ClientCertArgs, CreateCaArgs, Global, IssueArgs, NodeCertArgs},
    failure::Failure,
    print, say, secrets,
};

/// The largest PEM file that is read: dozens of certificates.
const PEM_BYTES_MAX: u64 = 1 << 20;

/// Who may read a certificate, and who a key.
const CERTIFICATE_MODE: u32 = 0o644;
const KEY_MODE: u32 = 0o600;

/// Prints the certificate of the CA of every accepted secret.
pub(crate) fn ca(global: &Global) -> Result<(), Failure> {
    let mut pem = String::new();
    for secret in secrets::needed(global)? {
        pem += &authority_pem(&secret).map_err(|error| Failure::new(error.to_string()))?;
    }
    print(&pem)
}

/// Writes a new CA.
pub(crate) fn create_ca(args: &CreateCaArgs) -> Result<(), Failure> {
    let issued = new_authority(&args.name, Duration::from_secs(args.lifetime_s));
    let issued = issued.map_err(|error| Failure::new(error.to_string()))?;
    write(&issued, &args.ca, &args.ca_key)?;
    say(&format!(
        "CA {:?} in {}; keep its key, {}, where no node and no client is",
        args.name,
        args.ca.display(),
        args.ca_key.display()
    ));
    Ok(())
}

/// Writes a certificate for a node.
pub(crate) fn node(args: &NodeCertArgs) -> Result<(), Failure> {
    let subject = Subject::Node { region: args.region.clone(), names: args.name.clone() };
    issue(&args.issue, &subject, (&args.cert, &args.key))
}

/// Writes a certificate for a client.
pub(crate) fn client(args: &ClientCertArgs) -> Result<(), Failure> {
    let (mut names, mut uris) = (Vec::new(), Vec::new());
    for san in &args.san {
        match san.strip_prefix("dns:") {
            Some(name) => names.push(name.to_owned()),
            None => uris.push(san.clone()),
        }
    }
    issue(&args.issue, &Subject::Client { names, uris }, (&args.cert, &args.key))
}

fn issue(args: &IssueArgs, subject: &Subject, (cert, key): (&Path, &Path)) -> Result<(), Failure> {
    let (ca, ca_key) = (read(&args.ca)?, read(&args.ca_key)?);
    let lifetime = Duration::from_secs(args.lifetime_s);
    let issued = issue_certificate(&ca, &ca_key, subject, lifetime);
    write(&issued.map_err(|error| Failure::new(error.to_string()))?, cert, key)?;
    say(&format!("certificate in {}, its key in {}", cert.display(), key.display()));
    Ok(())
}

/// Reads a PEM file.
pub(crate) fn read(path: &Path) -> Result<String, Failure> {
    let failed = |error| Failure::new(format!("{}: {error}", path.display()));
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(PEM_BYTES_MAX).read_to_string(&mut text));
    read.map_err(failed)?;
    Ok(text)
}

/// Writes both files, or none of them.
fn write(issued: &Issued, cert: &Path, key: &Path) -> Result<(), Failure> {
    create(key, KEY_MODE, &issued.key_pem)?;
    create(cert, CERTIFICATE_MODE, &issued.certificate_pem).inspect_err(|_| {
        // It was made a moment ago, and is of no use alone.
        let _ = fs::remove_file(key);
    })
}

/// Writes a file that did not exist before.
fn create(path: &Path, mode: u32, text: &str) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        let why = match error.kind() {
            ErrorKind::AlreadyExists => "is there already, and is not overwritten".to_owned(),
            _ => format!("cannot be written: {error}"),
        };
        Failure::new(format!("{} {why}", path.display()))
    };
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file = file.map_err(failed)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    written.map_err(|error| {
        let _ = fs::remove_file(path);
        failed(error)
    })
}
