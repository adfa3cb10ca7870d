//! The access file: which certificates and static tokens stand for whom, and which tokens are revoked.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    str::FromStr,
    sync::Arc,
};

use serde::Deserialize;
use zerocache_core::{
    access::{Grant, PREFIXES_MAX, Prefix, Role, TokenHash, TokenId},
    name,
};
use zerocache_net::security::PeerCertificate;

/// The largest access file, in bytes.
pub(super) const FILE_BYTES_MAX: usize = 1 << 20;

/// The most clients of an access file.
const CLIENTS_MAX: usize = 4_096;

/// The most names of certificates, and the most tokens, of one client.
const CREDENTIALS_MAX: usize = 64;

/// The longest name in a certificate, in bytes: that of a workload identity (SPIFFE).
const SAN_BYTES_MAX: usize = 2_048;

/// The most revoked tokens of an access file.
const REVOKED_MAX: usize = 16_384;

/// The content of an access file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessTable {
    clients: Vec<Client>,
    by_san: HashMap<San, usize>,
    by_token: HashMap<TokenHash, usize>,
    anonymous: Grant,
    revoked: HashSet<TokenId>,
}

/// A client of an access file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its name, for logs.
    pub name: Arc<str>,
    /// What it may do.
    pub grant: Grant,
}

/// A name in a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum San {
    Uri(Box<str>),
    /// In lower case.
    Dns(Box<str>),
}

/// An access file that cannot be used: what is wrong, and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidAccessFile(String);

impl InvalidAccessFile {
    /// A reason that shows a token or a secret, which somebody put into the file by mistake, is replaced.
    fn new(reason: String) -> Self {
        let is_safe = !["zct1_", "zc1_", "zcs1_"].iter().any(|begin| reason.contains(begin));
        let hidden =
            || "it contains a token or a secret; only hashes and ids belong into it".to_owned();
        Self(if is_safe { reason } else { hidden() })
    }
}

impl AccessTable {
    /// Returns the client that a certificate stands for, if it stands for one.
    #[must_use]
    pub fn client_of_certificate(&self, certificate: &PeerCertificate) -> Option<&Client> {
        let uris = certificate.uris.iter().map(|uri| San::Uri(uri.as_str().into()));
        let names = certificate.dns_names.iter().map(|name| San::Dns(name.to_lowercase().into()));
        uris.chain(names).find_map(|san| self.clients.get(*self.by_san.get(&san)?))
    }

    /// Returns the client that a static token stands for, if it stands for one.
    #[must_use]
    pub fn client_of_token(&self, hash: &TokenHash) -> Option<&Client> {
        self.clients.get(*self.by_token.get(hash)?)
    }

    /// Returns what callers without credentials may do.
    #[must_use]
    pub fn anonymous(&self) -> &Grant {
        &self.anonymous
    }

    /// Returns whether a signed token is revoked.
    #[must_use]
    pub fn is_revoked(&self, token: TokenId) -> bool {
        self.revoked.contains(&token)
    }

    fn add(&mut self, client: ClientEntry) -> Result<(), String> {
        let ClientEntry { name, san, token_hashes, role, prefixes } = client;
        name::check(&name).map_err(|error| error.to_string())?;
        let role = self::role(&role)?;
        if san.is_empty() && token_hashes.is_empty() {
            return Err(format!("client {name} has neither san nor token_hashes"));
        }
        if san.len() > CREDENTIALS_MAX || token_hashes.len() > CREDENTIALS_MAX {
            return Err(format!(
                "client {name} has more than {CREDENTIALS_MAX} san or token_hashes"
            ));
        }
        if role == Role::Node && !token_hashes.is_empty() {
            return Err(format!("client {name}: a token cannot have the role node"));
        }
        if prefixes.len() > PREFIXES_MAX {
            return Err(format!("client {name} has more than {PREFIXES_MAX} prefixes"));
        }
        if role == Role::Node && !prefixes.is_empty() {
            return Err(format!("client {name}: the role node has no prefixes"));
        }
        let prefixes = prefixes.iter().map(|text| text.parse::<Prefix>());
        let prefixes = prefixes.collect::<Result<Vec<_>, _>>();
        let prefixes = prefixes.map_err(|error| format!("client {name}: {error}"))?;
        let index = self.clients.len();
        for text in &san {
            let san = text.parse().map_err(|error| format!("client {name}: {error}"))?;
            insert(&mut self.by_san, san, index)
                .map_err(|()| format!("{text:?} is listed twice; a name stands for one client"))?;
        }
        for text in &token_hashes {
            // Whoever puts a token here by mistake must not find it in a log.
            let hash = text.parse::<TokenHash>().map_err(|_| {
                format!(
                    "client {name}: one of token_hashes is no hash; use b3: and 64 hexadecimal digits, as \
                     `zerocache token create --static` printed"
                )
            })?;
            insert(&mut self.by_token, hash, index)
                .map_err(|()| format!("{hash} is listed twice; a token stands for one client"))?;
        }
        self.clients.push(Client { name: name.into(), grant: Grant::scoped(role, prefixes) });
        Ok(())
    }
}

fn insert<K: Eq + std::hash::Hash>(
    map: &mut HashMap<K, usize>,
    key: K,
    index: usize,
) -> Result<(), ()> {
    match map.entry(key) {
        Entry::Occupied(_) => Err(()),
        Entry::Vacant(entry) => {
            entry.insert(index);
            Ok(())
        }
    }
}

fn role(text: &str) -> Result<Role, String> {
    text.parse()
}

impl FromStr for San {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_graphic());
        let name = text.strip_prefix("dns:").filter(|name| !name.is_empty() && !name.contains('*'));
        let uri = text.strip_prefix("spiffe://").filter(|rest| !rest.is_empty());
        match (name, uri) {
            _ if text.len() > SAN_BYTES_MAX || !is_plain(text) => {}
            (Some(name), _) => return Ok(Self::Dns(name.to_lowercase().into())),
            (None, Some(_)) => return Ok(Self::Uri(text.into())),
            (None, None) => {}
        }
        Err(format!(
            "{text:?} is no name of a certificate; use spiffe://… or dns:NAME, without patterns"
        ))
    }
}

impl FromStr for AccessTable {
    type Err = InvalidAccessFile;

    fn from_str(text: &str) -> Result<Self, InvalidAccessFile> {
        if text.len() > FILE_BYTES_MAX {
            return Err(InvalidAccessFile::new(format!("it has more than {FILE_BYTES_MAX} bytes")));
        }
        let file: File = toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| {
                1 + text.bytes().take(span.start).filter(|byte| *byte == b'\n').count()
            });
            let line = line.map(|line| format!("line {line}: ")).unwrap_or_default();
            InvalidAccessFile::new(format!("{line}{}", error.message()))
        })?;
        Self::try_from(file).map_err(InvalidAccessFile::new)
    }
}

impl TryFrom<File> for AccessTable {
    type Error = String;

    fn try_from(file: File) -> Result<Self, String> {
        if file.client.len() > CLIENTS_MAX {
            return Err(format!("it has more than {CLIENTS_MAX} clients"));
        }
        if file.revoked.len() > REVOKED_MAX {
            return Err(format!("it has more than {REVOKED_MAX} revoked tokens"));
        }
        let mut table = Self::default();
        for client in file.client {
            table.add(client)?;
        }
        if let Some(anonymous) = file.anonymous {
            let role = role(&anonymous.role)?;
            if role == Role::Node {
                return Err("who presents nothing cannot have the role node".to_owned());
            }
            table.anonymous = Grant::new(role);
        }
        for id in file.revoked {
            table.revoked.insert(id.parse()?);
        }
        Ok(table)
    }
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    client: Vec<ClientEntry>,
    anonymous: Option<AnonymousEntry>,
    #[serde(default)]
    revoked: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClientEntry {
    name: String,
    #[serde(default)]
    san: Vec<String>,
    #[serde(default)]
    token_hashes: Vec<String>,
    role: String,
    #[serde(default)]
    prefixes: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnonymousEntry {
    role: String,
}

#[cfg(test)]
mod tests {
    use zerocache_core::access::{Denial, Operation, StaticToken};

    use super::*;

    const EXAMPLE: &str = r#"
        revoked = ["0123456789abcdef"]

        [[client]]
        name = "orders"
        san = ["spiffe://shop.example/ns/shop/sa/orders", "dns:Orders.shop.svc"]
        role = "write"
        prefixes = ["orders/", "memo:orders"]

        [[client]]
        name = "dashboard"
        token_hashes = ["HASH"]
        role = "monitor"

        [anonymous]
        role = "read"
    "#;

    fn example() -> (String, StaticToken) {
        let token = StaticToken::from_random([3; 32]);
        (EXAMPLE.replace("HASH", &token.hash().to_string()), token)
    }

    #[test]
    fn file_says_who_may_do_what() {
        let (text, token) = example();
        let table: AccessTable = text.parse().expect("a good file");
        let orders = table.by_san[&"dns:orders.SHOP.svc".parse().expect("a name")];
        let orders = &table.clients[orders];
        assert_eq!(&*orders.name, "orders");
        assert_eq!(orders.grant.permits(Operation::Write(b"orders/1")), Ok(()));
        assert_eq!(orders.grant.permits(Operation::Read(b"users/1")), Err(Denial::Forbidden));
        let dashboard = table.client_of_token(&token.hash()).expect("a client");
        assert_eq!(dashboard.grant, Grant::new(Role::Monitor));
        assert_eq!(table.client_of_token(&TokenHash::of("zct1_other")), None);
        assert!(table.is_revoked("0123456789abcdef".parse().expect("an id")));
        assert_eq!(table.anonymous(), &Grant::new(Role::Read));
        assert_eq!("".parse(), Ok(AccessTable::default()));
    }

    #[test]
    fn mistakes_are_named_in_one_line_and_tokens_are_not_shown() {
        let (text, token) = example();
        let orders = "name = \"orders\"";
        for (wrong, by, reason) in [
            (orders, "title = \"orders\"", "line 5: unknown field `title`"),
            (orders, "name = \"a b\"", "a b"),
            ("[anonymous]", "[everybody]", "unknown field `everybody`"),
            ("[anonymous]", "[anonymous", "line 15: "),
            ("role = \"write\"", "role = \"writer\"", "\"writer\" is no role"),
            ("role = \"write\"", "role = \"all\"", "\"all\" is no role"),
            ("role = \"monitor\"", "role = \"node\"", "a token cannot have the role node"),
            ("role = \"read\"", "role = \"node\"", "cannot have the role node"),
            ("spiffe://", "https://", "is no name of a certificate"),
            ("dns:Orders", "dns:*", "is no name of a certificate"),
            ("\"memo:orders\"", "\"\"", "a prefix has 1 to"),
            ("0123456789abcdef", "0123", "is no token id"),
            (&token.hash().to_string(), token.as_text(), "one of token_hashes is no hash"),
            ("role = \"monitor\"", &format!("role = {:?}", token.as_text()), "it contains a token"),
            (
                &format!("[\"{}\"]", token.hash()),
                &format!("{:?}", token.as_text()),
                "it contains a token",
            ),
        ] {
            assert!(text.contains(wrong), "{wrong}");
            let error = text.replace(wrong, by).parse::<AccessTable>().expect_err(by).to_string();
            assert!(error.contains(reason), "{by}: {error}");
            assert!(!error.contains('\n') && !error.contains(token.as_text()), "{error}");
        }
        let twice =
            format!("{text}\n[[client]]\nname='b'\nrole='read'\nsan=['dns:orders.shop.svc']");
        let error = twice.parse::<AccessTable>().expect_err("twice");
        assert!(error.to_string().contains("listed twice"), "{error}");
        let nothing = "[[client]]\nname='b'\nrole='read'";
        assert!(nothing.parse::<AccessTable>().is_err());
        assert!(" ".repeat(FILE_BYTES_MAX + 1).parse::<AccessTable>().is_err());
    }
}
