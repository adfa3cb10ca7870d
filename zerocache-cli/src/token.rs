//! Tokens: a new one, and what one says.

use std::io::Read as _;

use serde_json::json;
use zerocache_core::{
    access::{
        Denial, Role, STATIC_TOKEN_BYTES, Secret, StaticToken, TOKEN_ID_BYTES, Token, TokenFields,
        TokenId, TokenKey,
    },
    name,
};
use zerocache_net::{
    clock,
    security::{authority_hash, hash_of_authority_pem},
};

use crate::{
    args::{CreateArgs, Global, ShowArgs},
    cert,
    exit::{Exit, print_document},
    failure::Failure,
    instant::to_utc,
    lifetime, print_line, random, say, secrets, to_hex,
};

/// The default cluster of nodes and clients.
const CLUSTER_DEFAULT: &str = "zerocache";

/// More than a token has, in characters.
const INPUT_BYTES_MAX: u64 = 16 << 10;

/// What is known of a token's signature.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// No secret was given.
    NotVerified,
    /// A secret was given, and this is what a node with it would say.
    Verified(Result<(), Denial>),
}

impl Verdict {
    const fn as_str(self) -> &'static str {
        match self {
            Self::NotVerified => "not verified: no secret was given",
            Self::Verified(Ok(())) => "valid",
            Self::Verified(Err(Denial::Expired)) => "of this cluster, but expired",
            Self::Verified(Err(_)) => "wrong: it is of another cluster or secret, or was changed",
        }
    }

    /// The value in JSON.
    const fn code(self) -> Option<&'static str> {
        match self {
            Self::NotVerified => None,
            Self::Verified(Ok(())) => Some("valid"),
            Self::Verified(Err(denial)) => Some(denial.as_str()),
        }
    }
}

/// Prints a new token.
pub(crate) fn create(args: &CreateArgs, global: &Global) -> Result<(), Failure> {
    if args.is_static {
        return create_static(global.json);
    }
    let secrets = secrets::needed(global)?;
    // The first one is in use.
    let Some(secret) = secrets.first() else { return Ok(()) };
    let ca = match &args.ca {
        Some(path) => {
            let wrong = |error| Failure::new(format!("{}: {error}", path.display()));
            hash_of_authority_pem(&cert::read(path)?).map_err(wrong)?
        }
        None => authority_hash(secret),
    };
    let now_s = clock::now().wall_ms / 1_000;
    let fields = TokenFields {
        id: TokenId(random::<TOKEN_ID_BYTES>()?),
        // Both are required.
        name: args.name.clone().unwrap_or_default(),
        role: args.role.unwrap_or(Role::Read),
        prefixes: args.prefix.clone(),
        not_after_s: now_s.saturating_add(args.lifetime_s),
        cluster: cluster(global)?,
        ca,
    };
    let token = fields.sign(&secret.token_key()).map_err(Failure::usage)?;
    if global.json {
        let mut object = to_json(&fields, Verdict::Verified(Ok(())));
        object["token"] = token.into();
        print_document(object, Exit::DONE)?;
    } else {
        print_line(&token)?;
    }
    say(&format!(
        "token {} for {:?}: {} on {} in cluster {:?}, until {}",
        fields.id,
        fields.name,
        fields.role,
        keys(&fields),
        fields.cluster,
        to_utc(fields.not_after_s),
    ));
    Ok(())
}

fn create_static(is_json: bool) -> Result<(), Failure> {
    let token = StaticToken::from_random(random::<STATIC_TOKEN_BYTES>()?);
    let hash = token.hash().to_string();
    if is_json {
        print_document(json!({ "token": token.as_text(), "hash": hash }), Exit::DONE)?;
    } else {
        print_line(token.as_text())?;
    }
    say(&format!("for the access file of the nodes: token_hashes = [{hash:?}]"));
    Ok(())
}

/// The cluster that the option names, or else the variable that nodes and clients read.
fn cluster(global: &Global) -> Result<String, Failure> {
    let cluster = global.variable("ZEROCACHE_CLUSTER");
    let cluster = cluster.unwrap_or_else(|| CLUSTER_DEFAULT.to_owned());
    name::check(&cluster).map_err(|error| Failure::usage(format!("ZEROCACHE_CLUSTER: {error}")))?;
    Ok(cluster)
}

/// Prints what a token says.
pub(crate) fn show(args: &ShowArgs, global: &Global) -> Result<Exit, Failure> {
    let secrets = secrets::find(global)?;
    let text = match args.token.as_str() {
        "-" => read_input()?,
        text => text.to_owned(),
    };
    let token: Token = text.trim().parse().map_err(|error| Failure::new(format!("{error}")))?;
    let fields = token.fields();
    let now_s = clock::now().wall_ms / 1_000;
    let verdict = if secrets.is_empty() {
        Verdict::NotVerified
    } else {
        let keys: Vec<TokenKey> = secrets.iter().map(Secret::token_key).collect();
        let cluster = global.cluster.as_deref().unwrap_or(&fields.cluster);
        Verdict::Verified(token.verify(&keys, cluster, now_s).map(drop))
    };
    let is_wrong = matches!(verdict, Verdict::Verified(Err(_)));
    let wrong = is_wrong.then(|| format!("the token is {}", verdict.as_str()));
    if global.json {
        let mut object = to_json(fields, verdict);
        let Some(wrong) = wrong else { return print_document(object, Exit::DONE) };
        say(&format!("error: {wrong}"));
        object["error"] = wrong.into();
        return print_document(object, Exit::NOTHING);
    }
    print_line(&to_lines(fields, verdict, now_s))?;
    wrong.map_or(Ok(Exit::DONE), |wrong| Err(Failure::new(wrong)))
}

fn read_input() -> Result<String, Failure> {
    let mut text = String::new();
    let read = std::io::stdin().lock().take(INPUT_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|error| Failure::new(format!("standard input: {error}")))?;
    Ok(text)
}

/// The keys that a token is for.
fn keys(fields: &TokenFields) -> String {
    let prefixes: Vec<_> = fields.prefixes.iter().map(ToString::to_string).collect();
    if prefixes.is_empty() { "all keys".to_owned() } else { prefixes.join(", ") }
}

fn to_lines(fields: &TokenFields, verdict: Verdict, now_s: u64) -> String {
    let end_s = fields.not_after_s;
    let left = match end_s.checked_sub(now_s) {
        Some(left_s) => format!("in {}", lifetime::rough(left_s)),
        None => format!("{} ago", lifetime::rough(now_s - end_s)),
    };
    let rows = [
        ("id", fields.id.to_string()),
        ("name", fields.name.clone()),
        ("role", fields.role.to_string()),
        ("keys", keys(fields)),
        ("cluster", fields.cluster.clone()),
        ("end", format!("{} ({left})", to_utc(end_s))),
        ("ca", to_hex(&fields.ca)),
        ("token", verdict.as_str().to_owned()),
    ];
    rows.map(|(name, value)| format!("{name:<8} {value}")).join("\n")
}

fn to_json(fields: &TokenFields, verdict: Verdict) -> serde_json::Value {
    let prefixes: Vec<_> = fields.prefixes.iter().map(ToString::to_string).collect();
    json!({
        "id": fields.id.to_string(),
        "name": fields.name,
        "role": fields.role.as_str(),
        "prefixes": prefixes,
        "cluster": fields.cluster,
        "end": to_utc(fields.not_after_s),
        "end_s": fields.not_after_s,
        "ca": to_hex(&fields.ca),
        "verified": verdict.code(),
    })
}
