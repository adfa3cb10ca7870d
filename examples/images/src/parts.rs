//! The parts of a process, by its settings.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use zerocache_client::ZerocacheClient;

use crate::capacity::Capacity;
use crate::convert::{Kind, Limits};
use crate::directory::Directory;
use crate::fetch::{FetchLimits, Fetcher};
use crate::hosts::HostCapacity;
use crate::metrics::Metrics;
use crate::query::VariantRules;
use crate::responses::Style;
use crate::settings::{Role, Secrets, ServeArgs};
use crate::signature::{Keys, SharedKey};
use crate::source::SourceRules;
use crate::worker::{Lifetimes, Worker};

/// The waiting fetches and conversions for each one that runs.
const QUEUE_FACTOR: usize = 4;

/// The hosts that share the fetches of a worker at least: a slow one takes a quarter.
const HOSTS_AT_LEAST: usize = 4;

/// What follows from the settings of a process alone.
pub(crate) struct Parts {
    pub(crate) signing: Keys,
    pub(crate) rules: VariantRules,
    pub(crate) purge_key: Option<SharedKey>,
    pub(crate) worker_key: Option<SharedKey>,
    /// The key as it is sent to workers.
    pub(crate) worker_key_text: Option<String>,
    pub(crate) style: Style,
    /// Of a worker.
    pub(crate) fetcher: Option<Fetcher>,
}

impl Parts {
    /// Checks the settings of a process.
    ///
    /// # Errors
    /// What is wrong, and what is allowed.
    pub(crate) fn new(args: &ServeArgs, secrets: &Secrets) -> Result<Self> {
        if secrets.worker_key.is_none() && args.role != Role::Both {
            bail!("gateways and workers need a common key: --worker-key-file or IMAGES_WORKER_KEY");
        }
        Ok(Self {
            signing: signing(args, secrets)?,
            rules: rules(args)?,
            purge_key: shared_key(secrets.purge_key.as_deref(), "purges")?,
            worker_key: shared_key(secrets.worker_key.as_deref(), "workers")?,
            worker_key_text: secrets.worker_key.as_ref().map(|key| key.trim().to_owned()),
            style: style(args)?,
            fetcher: match args.role {
                Role::Gateway => None,
                Role::Worker | Role::Both => Some(fetcher(args)?),
            },
        })
    }

    /// Whether the process is its own worker, and nobody else's: both roles, without a key.
    pub(crate) fn is_alone(&self) -> bool {
        self.worker_key.is_none()
    }
}

/// Returns a size as one of memory.
pub(crate) fn in_memory(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

pub(crate) fn directory(args: &ServeArgs, cache: &ZerocacheClient) -> Directory {
    match &args.worker_dns {
        Some(name) => Directory::Dns(name.to_string()),
        None if args.workers.is_empty() => {
            Directory::Cache { cache: cache.clone(), service: args.service.clone() }
        }
        None => Directory::Fixed(args.workers.iter().map(ToString::to_string).collect()),
    }
}

fn fetcher(args: &ServeArgs) -> Result<Fetcher> {
    let authorities = match &args.origin_ca {
        Some(path) => std::fs::read(path).with_context(|| path.display().to_string())?,
        None => Vec::new(),
    };
    if !args.allow_networks.is_empty() {
        let networks: Vec<_> = args.allow_networks.iter().map(ToString::to_string).collect();
        tracing::warn!(
            networks = networks.join(", "),
            "originals are fetched from networks that are not public"
        );
    }
    let limits = FetchLimits {
        connect: args.fetch_connect,
        first_byte: args.fetch_first_byte,
        total: args.fetch_total,
        bytes: in_memory(args.source_bytes),
        rate: in_memory(args.fetch_rate),
        ..FetchLimits::default()
    };
    Fetcher::new(sources(args), limits, &authorities)
}

pub(crate) fn worker(
    args: &ServeArgs,
    fetcher: Fetcher,
    cache: &ZerocacheClient,
    metrics: &Arc<Metrics>,
) -> Worker {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let conversions = if args.conversions == 0 { processors } else { args.conversions };
    let queue = if args.queue == 0 { conversions * QUEUE_FACTOR } else { args.queue };
    let from_host = args.fetches.div_ceil(HOSTS_AT_LEAST);
    Worker {
        cache: cache.clone(),
        fetcher,
        conversions: if args.naive {
            Capacity::new(1 << 20, 0)
        } else {
            Capacity::new(conversions, queue)
        },
        fetches: Capacity::new(args.fetches, args.fetches * QUEUE_FACTOR),
        hosts: HostCapacity::new(from_host, from_host * QUEUE_FACTOR),
        limits: Limits {
            side: args.source_side,
            pixels: args.source_megapixels as u64 * 1_000_000,
            memory: args.decode_bytes,
        },
        lifetimes: Lifetimes {
            fresh: args.ttl,
            stale_while: args.stale_while,
            stale_if_error: args.stale_if_error,
            failures: args.failure_ttl,
        },
        naive: args.naive,
        metrics: Arc::clone(metrics),
    }
}

pub(crate) fn sources(args: &ServeArgs) -> SourceRules {
    SourceRules {
        hosts: args.allow_hosts.clone(),
        networks: args.allow_networks.clone(),
        ports: args.allow_ports.clone(),
    }
}

fn signing(args: &ServeArgs, secrets: &Secrets) -> Result<Keys> {
    let keys = secrets.signing_keys.as_deref().map_or(Ok(Keys::default()), Keys::parse);
    let keys = keys.map_err(|error| anyhow::anyhow!("the keys of signed URLs: {error}"))?;
    if args.steps.is_exact() && keys.is_empty() {
        bail!("--steps exact needs signed URLs: anybody could have any number of sizes made");
    }
    Ok(keys)
}

fn rules(args: &ServeArgs) -> Result<VariantRules> {
    let mut rules = VariantRules { steps: args.steps.clone(), ..VariantRules::default() };
    for preset in &args.presets {
        let added = rules.add_preset(preset);
        added.map_err(|error| anyhow::anyhow!("--presets {preset:?}: {error}"))?;
    }
    rules.only_presets = args.only_presets;
    Ok(rules)
}

fn shared_key(secret: Option<&str>, of: &str) -> Result<Option<SharedKey>> {
    secret
        .map(SharedKey::new)
        .transpose()
        .map_err(|error| anyhow::anyhow!("the key of {of}: {error}"))
}

fn style(args: &ServeArgs) -> Result<Style> {
    let fallback = match &args.fallback_image {
        None => None,
        Some(path) => {
            let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
            let kind =
                Kind::of(&bytes).with_context(|| format!("{}: not an image", path.display()))?;
            Some((kind, bytes.into()))
        }
    };
    Ok(Style {
        max_age: args.max_age,
        stale: args.stale_while,
        name_worker: args.name_worker,
        fallback,
    })
}

pub(crate) fn default_name(address: SocketAddr) -> String {
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    format!("{}-{}-{}", host.trim(), std::process::id(), address.port())
}

/// The address that is announced: of a wildcard, the one from which this host reaches a node of the cache.
pub(crate) fn advertised(
    args: &ServeArgs,
    address: SocketAddr,
    cache: &ZerocacheClient,
) -> Result<String> {
    if let Some(advertise) = &args.advertise {
        return Ok(advertise.to_string());
    }
    if !address.ip().is_unspecified() {
        return Ok(address.to_string());
    }
    let node = cache.nodes().first().map(|node| node.address);
    let node = node.context(
        "no node of the cache is known yet: say with --advertise how gateways reach this worker",
    )?;
    let any: IpAddr = if node.is_ipv4() { [0, 0, 0, 0].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((any, 0))?;
    // Sends nothing.
    socket.connect(node)?;
    Ok(SocketAddr::new(socket.local_addr()?.ip(), address.port()).to_string())
}
