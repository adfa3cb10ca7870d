//! The certificate that a process makes for itself.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber, SigningKey, date_time_ymd, string::Ia5String,
};
use rustls::pki_types::{CertificateDer, DnsName};

use super::{
    CLIENT_NAME, NODE_NAME,
    authority::{Authority, hash, node_name_of, unmade},
};
use crate::security::{ProcessKind, SecurityConfig, SecurityError};

pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A certificate is valid from this long before it is made: a process whose clock is behind could not connect,
/// and would never learn the time.
const BEFORE: Duration = Duration::from_secs(2 * DAY.as_secs());

/// A certificate is valid for this long after it is made: a week, and as much again as before.
const AFTER: Duration = Duration::from_secs(9 * DAY.as_secs());

/// The names in a certificate.
pub(super) struct Names(Vec<SanType>);

impl Names {
    /// The names of a process in the certificate of `authority`.
    pub(super) fn of_process(
        config: &SecurityConfig,
        authority: &Authority,
    ) -> Result<Self, SecurityError> {
        let mut names = Self(Vec::new());
        match &config.kind {
            ProcessKind::Client => names.add(CLIENT_NAME)?,
            ProcessKind::Node { region } => {
                names.add_node(region)?;
                names.add(&node_name_of(&authority.hash))?;
            }
        }
        for name in &config.names {
            names.add(name)?;
        }
        names.0.extend(config.addresses.iter().copied().map(SanType::IpAddress));
        Ok(names)
    }

    pub(super) const fn empty() -> Self {
        Self(Vec::new())
    }

    /// Adds the names by which nodes know a node.
    pub(super) fn add_node(&mut self, region: &str) -> Result<(), SecurityError> {
        self.add(NODE_NAME)?;
        // A region that is no label of DNS has no name of its own.
        let of_region = format!("{region}.{NODE_NAME}").to_ascii_lowercase();
        if DnsName::try_from(of_region.as_str()).is_ok() {
            self.add(&of_region)?;
        }
        Ok(())
    }

    /// Adds a DNS name or an IP address.
    pub(super) fn add(&mut self, name: &str) -> Result<(), SecurityError> {
        let san = match name.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => {
                let invalid = || SecurityError::InvalidName(name.to_owned());
                // A wildcard stands for one label.
                let labels = name.strip_prefix("*.").unwrap_or(name);
                DnsName::try_from(labels).map_err(|_| invalid())?;
                SanType::DnsName(Ia5String::try_from(name).map_err(|_| invalid())?)
            }
        };
        if !self.0.contains(&san) {
            self.0.push(san);
        }
        Ok(())
    }

    /// Adds a URI.
    pub(super) fn add_uri(&mut self, uri: &str) -> Result<(), SecurityError> {
        let uri = Ia5String::try_from(uri);
        self.0.push(SanType::URI(uri.map_err(|_| SecurityError::InvalidName(String::new()))?));
        Ok(())
    }
}

/// Makes a certificate for `key`, valid around `now`.
pub(super) fn leaf(
    config: &SecurityConfig,
    authority: &Authority,
    key: &KeyPair,
    now: SystemTime,
) -> Result<CertificateDer<'static>, SecurityError> {
    let names = Names::of_process(config, authority)?;
    let validity = now.checked_sub(BEFORE).unwrap_or(UNIX_EPOCH)..now + AFTER;
    let name = match config.kind {
        ProcessKind::Node { .. } => "zerocache node",
        ProcessKind::Client => "zerocache client",
    };
    Ok(issue(name, names, validity, key, &authority.issuer)?.der().clone())
}

/// Makes a certificate for authentication as a server and as a client.
pub(super) fn issue(
    name: &str,
    names: Names,
    validity: std::ops::Range<SystemTime>,
    key: &KeyPair,
    issuer: &Issuer<'_, impl SigningKey>,
) -> Result<rcgen::Certificate, SecurityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = names.0;
    params.serial_number = Some(serial(key, validity.start));
    params.not_before = date_time_ymd(1970, 1, 1) + since_epoch(validity.start);
    params.not_after = date_time_ymd(1970, 1, 1) + since_epoch(validity.end);
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.signed_by(key, issuer).map_err(unmade)
}

/// A serial number that no other certificate of this issuer has: browsers refuse one that they saw in another.
pub(super) fn serial(key: &KeyPair, from: SystemTime) -> SerialNumber {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&hash(key));
    hasher.update(&since_epoch(from).as_nanos().to_be_bytes());
    let mut serial = [0; 16];
    hasher.finalize_xof().fill(&mut serial);
    // Positive, and of a fixed length.
    serial[0] = serial[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&serial)
}

pub(super) fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}
