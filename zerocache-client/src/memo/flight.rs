//! One computation per key at a time.
//!
//! The first caller of a key leads: it computes inside its own future, so that nothing has to be
//! `'static`. The others wait for what it publishes. A leader that is cancelled or panics drops
//! its [`Lead`], and one of those who wait leads next. A leader that has published stays in the
//! table until its value is stored, so that nobody computes in between; who comes when the value is past
//! its time leads all the same. A leader that computes anew what may still be served shows that to the
//! others, who then do not wait.
//!
//! Who has waited for too long leads beside those who lead, one after the other; all who wait get what
//! the first of them has.
//!
//! Some compute aside: where nobody may be waited for, or by request. Nobody joins them, but they are
//! known here too, so that a delete reaches them. So are values on their way into the cache.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use xxhash_rust::xxh3::xxh3_64;
use zerocache_core::time::Instant;
use zerocache_net::{clock, process::PerProcess};

use super::rule::Shared;
use super::stored::{Form, Stored};
use super::writing::Writing;

#[cfg(test)]
mod tests;

/// Parts of the table, so that hits of different keys do not meet at one lock.
const PARTS: usize = 16;

/// A cluster and a key of it.
type Place = (u64, Bytes);

/// What goes on with some of the keys.
type Part = HashMap<Place, Slot>;

/// Those who lead and those who wait are threads and tasks of one process.
static TABLE: PerProcess<[Mutex<Part>; PARTS]> = PerProcess::new();
static NEXT: AtomicU64 = AtomicU64::new(0);

/// What goes on with a key.
#[derive(Default)]
struct Slot {
    /// Of all computations that began since the key was last deleted or replaced.
    void: Void,
    /// How many those are.
    computations: usize,
    /// Those of them that others wait for.
    flight: Option<Flight>,
    /// Values on their way into the cache.
    writes: Vec<UnderWay>,
}

/// Computations that others wait for.
struct Flight {
    number: u64,
    leaders: usize,
    /// When the last leader began, since the process did.
    led: Duration,
    told: watch::Sender<Told>,
}

/// A value on its way into the cache.
struct UnderWay {
    number: u64,
    void: Void,
    writing: Writing,
}

/// What the leaders of a key have to say to the others.
#[derive(Clone)]
pub(crate) enum Progress {
    /// They look into the cache.
    Looking,
    /// One computes. Until it is done the others may serve this, as far as its age permits.
    Computing(Stored),
    /// The stored form of the value.
    Value(Form),
    /// The stored form of a value past its time: computing it failed.
    Old(Form),
    /// An error that can be cloned.
    Failed(Shared),
    /// Nothing that can be shared; everyone computes at once.
    Nothing,
}

impl Progress {
    /// Whether a leader is done.
    fn is_end(&self) -> bool {
        !matches!(self, Self::Looking | Self::Computing(_))
    }

    /// Whether nobody has to wait any longer.
    fn settles(&self) -> bool {
        match self {
            Self::Computing(old) => old.serves(clock::mono()),
            _ => self.is_end(),
        }
    }
}

/// What those who wait look at.
struct Told {
    progress: Progress,
    /// Until when that is for those who come now, too; always, where it is not said.
    until: Option<Instant>,
    /// How many leaders sleep on their threads, and so need nobody else's.
    blocking: usize,
    /// How many may yet tell, or fall back on, what they find in the cache.
    looking: usize,
}

/// Whether a key was deleted or replaced since a computation of it began.
#[derive(Clone, Debug, Default)]
pub(crate) struct Void(Arc<AtomicBool>);

impl Void {
    fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn is(&self, other: &Void) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// What a caller is to do.
pub(crate) enum Joined {
    Lead(Lead),
    Wait(Waiting),
    /// Computes without asking anyone: a blocking caller must not wait for leaders that may need
    /// this very thread to go on.
    Alone,
}

/// What a caller is to do who has waited for too long.
pub(crate) enum Turn {
    /// Leads beside those who lead.
    Lead(Lead),
    /// Another one began to lead a while ago: for so long the caller waits for that one.
    Later(Duration),
    /// Those who led are gone, or done.
    Over,
}

/// A caller who waits.
pub(crate) struct Waiting {
    place: Place,
    number: u64,
    blocking: bool,
    told: watch::Receiver<Told>,
}

/// The right and duty to publish.
pub(crate) struct Lead {
    aside: Aside,
    number: u64,
    blocking: bool,
    /// It may yet tell, or fall back on, what it finds in the cache.
    looks: bool,
    /// Those who wait have what this leader told.
    ended: bool,
    told: watch::Sender<Told>,
}

/// A computation that nobody joins.
pub(crate) struct Aside {
    place: Place,
    void: Void,
}

/// The place of a value on its way into the cache, until it is dropped.
pub(crate) struct Noted {
    place: Place,
    number: u64,
    void: Void,
}

fn part(place: &Place) -> &'static Mutex<Part> {
    // The modulus keeps the index below PARTS.
    &TABLE.get_or_init(|_| Default::default())[(xxh3_64(&place.1) % PARTS as u64) as usize]
}

impl Flight {
    /// Whether who comes now may have what its leaders tell.
    fn is_open(&self) -> bool {
        self.told.borrow().until.is_none_or(|until| clock::mono() < until)
    }
}

impl Slot {
    /// A computation more.
    fn aside(&mut self, place: Place) -> Aside {
        self.computations += 1;
        Aside { place, void: self.void.clone() }
    }

    /// The key was deleted or written: nobody joins those any more who may have read it before.
    fn changed(&mut self) -> Option<Flight> {
        self.flight.take_if(|flight| flight.told.borrow().looking > 0)
    }

    fn is_idle(&self) -> bool {
        self.computations == 0 && self.writes.is_empty()
    }
}

/// Joins the computation of a key, or starts one. `group` tells clusters apart.
pub(crate) fn join(group: u64, key: &Bytes, blocking: bool) -> Joined {
    let place = (group, key.clone());
    // Dropped after the lock: whom that wakes is not known.
    let _past;
    let mut part = part(&place).lock();
    let slot = part.entry(place.clone()).or_default();
    if let Some(Flight { number, told, .. }) =
        slot.flight.as_ref().filter(|flight| flight.is_open())
    {
        let needs_others = |told: &Told| !told.progress.settles() && told.blocking == 0;
        if blocking && needs_others(&told.borrow()) {
            return Joined::Alone;
        }
        return Joined::Wait(Waiting { place, number: *number, blocking, told: told.subscribe() });
    }
    let blocked = usize::from(blocking);
    let progress = Progress::Looking;
    let told = Told { progress, until: None, blocking: blocked, looking: 1 };
    let (told, number) = (watch::Sender::new(told), NEXT.fetch_add(1, Ordering::Relaxed));
    let flight = Flight { number, leaders: 1, led: clock::elapsed(), told: told.clone() };
    _past = slot.flight.replace(flight);
    let aside = slot.aside(place);
    Joined::Lead(Lead { aside, number, blocking, looks: true, ended: false, told })
}

/// Begins a computation aside.
pub(crate) fn aside(group: u64, key: &Bytes) -> Aside {
    let place = (group, key.clone());
    let mut part = part(&place).lock();
    part.entry(place.clone()).or_default().aside(place)
}

/// Begins to write what was computed, unless that is void. `make` is given the writes of what is void
/// but was sent already: they have to end first.
pub(crate) fn write(
    group: u64,
    key: &Bytes,
    void: &Void,
    make: impl FnOnce(Noted, Vec<Writing>) -> Writing,
) -> Option<Writing> {
    let place = (group, key.clone());
    let mut part = part(&place).lock();
    if void.is_set() {
        return None;
    }
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let writes = &mut part.entry(place.clone()).or_default().writes;
    let sent = writes.iter().filter(|write| write.void.is_set());
    let sent = sent.map(|write| write.writing.clone()).collect();
    let writing = make(Noted { place, number, void: void.clone() }, sent);
    writes.push(UnderWay { number, void: void.clone(), writing: writing.clone() });
    Some(writing)
}

/// Makes the computations under way ones that are not stored and that no new caller joins; for a key
/// that is being deleted or replaced. What is on its way into the cache already is returned.
pub(crate) fn void(group: u64, key: &Bytes) -> Vec<Writing> {
    let place = (group, key.clone());
    let mut part = part(&place).lock();
    let Some(slot) = part.get_mut(&place) else { return Vec::new() };
    mem::take(&mut slot.void).set();
    slot.computations = 0;
    let flight = slot.flight.take();
    let writes = slot.writes.iter().map(|write| write.writing.clone()).collect();
    if slot.is_idle() {
        part.remove(&place);
    }
    drop(part);
    drop(flight);
    writes
}

/// The key has been deleted: who joins from now on gets nothing that was read before.
pub(crate) fn deleted(group: u64, key: &Bytes) {
    let place = (group, key.clone());
    let mut part = part(&place).lock();
    let removed = part.get_mut(&place).and_then(Slot::changed);
    drop(part);
    drop(removed);
}

impl Waiting {
    /// Waits until a leader has something that can be used. None when there is nobody left for whom
    /// this caller may wait.
    pub(crate) async fn told(&mut self) -> Option<Progress> {
        let is_over =
            |told: &Told| told.progress.settles() || (self.blocking && told.blocking == 0);
        let told = self.told.wait_for(is_over).await.ok()?;
        told.progress.settles().then(|| told.progress.clone())
    }

    /// What may be served where computing it fails.
    pub(crate) fn old(&self) -> Option<Stored> {
        match &self.told.borrow().progress {
            Progress::Computing(old) => Some(old.clone()),
            _ => None,
        }
    }

    /// Leads beside those who lead, unless one of them began less than `wait` ago.
    pub(crate) fn take_turn(&self, wait: Duration) -> Turn {
        let mut part = part(&self.place).lock();
        let Some(slot) = part.get_mut(&self.place) else { return Turn::Over };
        let flight = slot.flight.as_mut().filter(|flight| flight.number == self.number);
        let Some(flight) = flight.filter(|flight| !flight.told.borrow().progress.is_end()) else {
            return Turn::Over;
        };
        let now = clock::elapsed();
        let left = wait.saturating_sub(now.saturating_sub(flight.led));
        if !left.is_zero() {
            return Turn::Later(left);
        }
        flight.led = now;
        flight.leaders += 1;
        let (number, blocking, told) = (self.number, self.blocking, flight.told.clone());
        told.send_if_modified(|told| {
            told.blocking += usize::from(blocking);
            told.looking += 1;
            // Nobody waits for more leaders.
            false
        });
        let aside = slot.aside(self.place.clone());
        Turn::Lead(Lead { aside, number, blocking, looks: true, ended: false, told })
    }
}

impl Lead {
    /// Tells those who wait, unless another leader has told them how it ended.
    pub(crate) fn publish(&mut self, progress: Progress) {
        self.tell(progress, None);
    }

    /// Tells a value that is to be stored now, and for how long it is fresh.
    pub(crate) fn publish_fresh(&mut self, form: Form, fresh: Duration) {
        let fresh_ms = u64::try_from(fresh.as_millis()).unwrap_or(u64::MAX);
        self.tell(Progress::Value(form), Some(clock::mono().plus_ms(fresh_ms)));
    }

    fn tell(&mut self, mut progress: Progress, until: Option<Instant>) {
        let ends = progress.is_end();
        let is_told = self.told.send_if_modified(|told| {
            let is_open = !told.progress.is_end();
            if is_open {
                // What is over, or not told, is dropped outside of the lock: an error is the user's.
                mem::swap(&mut told.progress, &mut progress);
                told.until = until;
            }
            is_open
        });
        self.ended |= is_told && ends;
    }

    /// There is nothing in the cache that this leader could tell: it computes.
    pub(crate) fn computes(&mut self) {
        if mem::take(&mut self.looks) {
            self.told.send_if_modified(|told| {
                told.looking -= 1;
                // Nobody waits for that.
                false
            });
        }
    }

    /// Whether those who wait have a value of another leader.
    pub(crate) fn is_late(&self) -> bool {
        !self.ended && matches!(self.told.borrow().progress, Progress::Value(_))
    }

    pub(crate) fn void(&self) -> &Void {
        self.aside.void()
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        let Aside { place, .. } = &self.aside;
        let mut part = part(place).lock();
        let ended = self.ended;
        let removed = part.get_mut(place).and_then(|slot| {
            // Voided, and perhaps replaced by another one, it is not there any more.
            let flight = slot.flight.as_mut().filter(|flight| flight.number == self.number)?;
            flight.leaders -= 1;
            // What this leader told is in the cache now, or nowhere.
            if ended || flight.leaders == 0 { slot.flight.take() } else { None }
        });
        drop(part);
        self.computes();
        if self.blocking {
            self.told.send_if_modified(|told| {
                told.blocking -= 1;
                told.blocking == 0
            });
        }
        // The last sender goes after the entry: who wakes up finds the place free.
        drop(removed);
    }
}

impl Aside {
    pub(crate) fn void(&self) -> &Void {
        &self.void
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        let mut part = part(&self.place).lock();
        // Voided, and perhaps followed by others, it does not count any more.
        if let Some(slot) = part.get_mut(&self.place)
            && slot.void.is(&self.void)
        {
            slot.computations -= 1;
            if slot.is_idle() {
                part.remove(&self.place);
            }
        }
    }
}

impl Noted {
    pub(crate) fn void(&self) -> &Void {
        &self.void
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        let mut part = part(&self.place).lock();
        let mut removed = None;
        if let Some(slot) = part.get_mut(&self.place) {
            slot.writes.retain(|write| write.number != self.number);
            removed = slot.changed();
            if slot.is_idle() {
                part.remove(&self.place);
            }
        }
        drop(part);
        drop(removed);
    }
}
