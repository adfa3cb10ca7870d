//! One client per region in a process.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{
        Arc, OnceLock,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Release},
        },
    },
    time::Duration,
};

use parking_lot::{Mutex, RwLock};
use zerocache_net::process::PerProcess;

use super::{ZerocacheClient, config::Config};
use crate::Error;

/// Regions with a client in one process. A process stands in one, or in a few; a client has threads and
/// connections, and a region that comes out of requests would make ever more of them.
const REGIONS_MAX: usize = 256;

/// How long a forked process waits to look at its parent's clients: where another thread of that held their
/// lock, for ever.
const INHERIT_MAX: Duration = Duration::from_millis(100);

type Instances = RwLock<HashMap<String, Arc<Instance>>>;

static INSTANCES: PerProcess<Instances> = PerProcess::new();

fn instances() -> &'static Instances {
    INSTANCES.get_or_init(|parents| RwLock::new(parents.map(inherited).unwrap_or_default()))
}

/// The clients that were made before the fork, which start again in this process.
fn inherited(parents: &Instances) -> HashMap<String, Arc<Instance>> {
    let Some(all) = parents.try_read_for(INHERIT_MAX) else {
        tracing::warn!(
            "the process was forked while another thread made a client: clients that were installed \
             before are not known"
        );
        return HashMap::new();
    };
    let made = all.iter().filter_map(|(region, instance)| {
        let client = OnceLock::from(instance.client.get()?.clone());
        Some((region.clone(), Arc::new(Instance { client, making: Mutex::default() })))
    });
    made.collect()
}

/// The client of one region. Making it can take a while, in which only those wait who want the same.
#[derive(Default)]
struct Instance {
    client: OnceLock<ZerocacheClient>,
    /// Held by whoever makes it.
    making: Mutex<()>,
}

impl Instance {
    /// Where the client of a region is, or will be.
    fn of(region: &str) -> Result<Arc<Self>, Error> {
        if let Some(instance) = instances().read().get(region) {
            return Ok(Arc::clone(instance));
        }
        Self::among(&mut instances().write(), region)
    }

    fn among(all: &mut HashMap<String, Arc<Self>>, region: &str) -> Result<Arc<Self>, Error> {
        if all.len() >= REGIONS_MAX && !all.contains_key(region) {
            let text = format!(
                "region {region:?} is one too many: a process has clients of at most {REGIONS_MAX} \
                 regions; a region is where it stands, and not what a request says"
            );
            return Err(Error::Config(text));
        }
        Ok(Arc::clone(all.entry(region.to_owned()).or_default()))
    }

    /// The client, made now if there is none.
    fn get_or_init<E>(
        &self,
        make: impl FnOnce() -> Result<ZerocacheClient, E>,
    ) -> Result<ZerocacheClient, E> {
        if let Some(client) = self.client.get() {
            return Ok(client.clone());
        }
        let _making = self.making.lock();
        if let Some(client) = self.client.get() {
            return Ok(client.clone());
        }
        let client = make()?;
        Ok(self.client.get_or_init(|| client).clone())
    }
}

/// How often a client has been forgotten.
static GENERATION: AtomicU64 = AtomicU64::new(0);

/// A number that changes whenever a region may have another client than before.
pub(crate) fn generation() -> u64 {
    GENERATION.load(Acquire)
}

/// The client of a region, made from the environment if there is none yet.
pub(super) fn get(region: &str) -> ZerocacheClient {
    let instance = match Instance::of(region) {
        Ok(instance) => instance,
        Err(error) => return one_too_many(region, error),
    };
    let make = || {
        let made = Config::from_env(region).and_then(ZerocacheClient::start);
        Ok::<_, Infallible>(made.unwrap_or_else(|error| {
            tracing::error!(region, %error, "the client cannot work");
            ZerocacheClient::broken(region, error)
        }))
    };
    let Ok(client) = instance.get_or_init(make);
    client
}

/// For every region beyond the bound.
fn one_too_many(region: &str, error: Error) -> ZerocacheClient {
    static CLIENT: OnceLock<ZerocacheClient> = OnceLock::new();
    let make = || {
        tracing::error!(region, %error, "the client cannot work");
        ZerocacheClient::broken(region, error)
    };
    CLIENT.get_or_init(make).clone()
}

/// Makes the client of a region with a given configuration.
pub(super) fn install(config: Config) -> Result<ZerocacheClient, Error> {
    let instance = Instance::of(&config.region)?;
    let client = instance.get_or_init(|| ZerocacheClient::start(config.clone()))?;
    if client.has_config(&config) {
        return Ok(client);
    }
    let region = config.region;
    let text = format!("region {region:?} has a client with another configuration already");
    Err(Error::Config(text))
}

/// Forgets the client of a region; handles that are held go on working.
pub(super) fn clear(region: &str) {
    // Dropped after the lock: the end of a client takes other locks.
    let cleared = instances().write().remove(region);
    GENERATION.fetch_add(1, Release);
    drop(cleared);
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            atomic::{AtomicUsize, Ordering::Relaxed},
            mpsc,
        },
        thread,
        time::Duration,
    };

    use super::*;

    fn client() -> ZerocacheClient {
        ZerocacheClient::broken("slow", Error::Config("a test".to_owned()))
    }

    #[test]
    fn who_wants_another_region_does_not_wait_and_who_wants_the_same_gets_the_same() {
        let made = Arc::new(AtomicUsize::new(0));
        let (starts, started) = mpsc::sync_channel(1);
        let (go_on, wait) = mpsc::sync_channel::<()>(1);
        let slow = {
            let made = Arc::clone(&made);
            thread::spawn(move || {
                let make = || {
                    made.fetch_add(1, Relaxed);
                    starts.send(()).expect("the test waits");
                    wait.recv().expect("the test says when");
                    Ok::<_, Infallible>(client())
                };
                let slow = Instance::of("slow").expect("there is room");
                let Ok(client) = slow.get_or_init(make);
                client
            })
        };
        started.recv().expect("it starts");
        let second = {
            let made = Arc::clone(&made);
            thread::spawn(move || {
                let make = || {
                    made.fetch_add(1, Relaxed);
                    Ok::<_, Infallible>(client())
                };
                let slow = Instance::of("slow").expect("there is room");
                let Ok(client) = slow.get_or_init(make);
                client
            })
        };
        let (sender, other) = mpsc::sync_channel(1);
        let quick = thread::spawn(move || {
            let instance = Instance::of("quick").expect("there is room");
            let Ok(_made) = instance.get_or_init(|| Ok::<_, Infallible>(client()));
            sender.send(()).expect("the test waits");
        });
        // Far longer than it takes, and far shorter than for ever.
        assert_eq!(other.recv_timeout(Duration::from_secs(20)), Ok(()));
        quick.join().expect("no panic");
        go_on.send(()).expect("it waits");
        let (slow, second) = (slow.join().expect("no panic"), second.join().expect("no panic"));
        assert!(Arc::ptr_eq(&slow.inner, &second.inner));
        assert_eq!(made.load(Relaxed), 1);
        ["slow", "quick"].into_iter().for_each(clear);
    }

    #[test]
    fn a_region_too_many_has_no_client() {
        let mut all = HashMap::new();
        for region in 0..REGIONS_MAX {
            Instance::among(&mut all, &region.to_string()).expect("there is room");
        }
        let error = Instance::among(&mut all, "london").err().expect("there is none any more");
        assert!(error.to_string().contains("region \"london\" is one too many"), "{error}");
        Instance::among(&mut all, "7").expect("it is there already");
        assert_eq!(all.len(), REGIONS_MAX);
    }

    #[test]
    fn what_could_not_be_made_is_tried_again() {
        let instance = Instance::default();
        let failed = instance.get_or_init(|| Err(Error::Config("a test".to_owned())));
        assert!(failed.is_err());
        let made = instance.get_or_init(|| Ok::<_, Error>(client())).expect("is made");
        let again = instance.get_or_init(|| Err(Error::Config("a test".to_owned())));
        assert!(Arc::ptr_eq(&made.inner, &again.expect("is there").inner));
    }
}
