//! Framed connections: bytes that arrive in order, late if something was lost, or not at all.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use zerocache_core::{
    call::CallFailure,
    node::ConnectionId,
    version::Incarnation,
    wire::{
        Envelope, Writer,
        frame::{CHUNK_BYTES_MAX, Header},
    },
};
use zerocache_net::transport::framed::FrameReader;

use super::{CallToken, Event, World, trace};

/// A connection stands still when a segment is lost this often in a row: contract section 4.
const STALL_LOSSES: u32 = 4;

/// For this long after such a segment arrives, a removal may be its doing, in microseconds.
const STALL_US: u64 = 2_500_000;

/// A connection with overdue calls is closed after this much silence, as the transport does, in
/// microseconds.
const SILENT_US_MAX: u64 = 3_000_000;

/// The largest message that is taken.
pub(super) const MESSAGE_BYTES_MAX: usize = (16 << 20) + (256 << 10);

/// The longest pause between two tries to send what a cut held back, in microseconds.
const RESEND_US_MAX: u64 = 60_000_000;

/// A receiver's minimum latency rises with time by 500 millionths, and the clocks drift.
const QUIET_PPM: u64 = 1_000;

/// One end of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) host: u32,
    pub(super) life: u32,
    pub(super) is_open: bool,
}

/// Bytes in flight.
#[derive(Debug)]
struct InFlight {
    sent_us: u64,
    bytes: Bytes,
}

/// One direction of a connection.
pub(super) struct Direction {
    in_flight: VecDeque<InFlight>,
    /// Bytes that a cut holds back, and since when it does.
    blocked: VecDeque<InFlight>,
    blocked_since_us: u64,
    last_arrival_us: u64,
    /// The receiver's frame reader.
    pub(super) reader: FrameReader,
    /// The minimum latency as the receiver knows it: it does not subtract that from lifetimes.
    pub(super) fastest_us: u64,
    /// The time at which the last frame was read.
    pub(super) read_us: u64,
}

impl Direction {
    /// Creates a direction on which one message has arrived, after `latency_us`.
    pub(super) fn new(reader: FrameReader, now_us: u64, latency_us: u64) -> Self {
        Self {
            in_flight: VecDeque::new(),
            blocked: VecDeque::new(),
            blocked_since_us: 0,
            last_arrival_us: 0,
            reader,
            fastest_us: latency_us,
            read_us: now_us,
        }
    }
}

/// A connection: direction 0 carries requests from end 0, the caller, to end 1; direction 1 the
/// responses.
pub(super) struct Connection {
    pub(super) ends: [End; 2],
    pub(super) directions: [Direction; 2],
    /// The envelope fields that requests leave out.
    pub(super) known: Envelope,
    /// Its lane at the caller.
    pub(super) lane: u64,
    pub(super) next_id: u32,
    /// Requests that are not answered.
    pub(super) calls: BTreeMap<u32, CallToken>,
    /// Requests that are overdue, and when they were sent.
    pub(super) overdue: BTreeMap<u32, u64>,
    /// The time at which the caller last read.
    pub(super) heard_us: u64,
}

impl Connection {
    /// The node that answers there.
    pub(super) fn peer(&self) -> Option<Incarnation> {
        self.known.to
    }
}

/// The extension of a lifetime by the receiver of a batch, which does not know the latency.
#[derive(Clone, Copy, Debug)]
pub(super) struct Latency {
    /// The fastest frame before the batch, in microseconds.
    pub(super) fastest_us: u64,
}

impl World {
    pub(super) fn connection(&mut self, index: usize) -> Option<&mut Connection> {
        self.connections.get_mut(index)?.as_deref_mut()
    }

    /// Sends a message: the frames that the transport would make of it.
    pub(super) fn send_frames(
        &mut self,
        index: usize,
        direction: usize,
        header: Header,
        write: impl FnOnce(&mut Writer<'_>),
    ) {
        let mut payload = BytesMut::new();
        write(&mut Writer::new(&mut payload));
        let mut bytes = BytesMut::with_capacity(payload.len() + 20);
        let chunks = payload.chunks(CHUNK_BYTES_MAX);
        let last = chunks.len().saturating_sub(1);
        for (at, chunk) in chunks.enumerate() {
            Header { more: at < last, ..header }.write(&mut bytes, chunk.len());
            bytes.extend_from_slice(chunk);
        }
        self.transmit(index, direction, bytes.freeze());
    }

    fn transmit(&mut self, index: usize, direction: usize, bytes: Bytes) {
        self.counts.messages += 1;
        self.counts.bytes += bytes.len() as u64;
        let now_us = self.now_us;
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_deref_mut)
        else {
            return;
        };
        let (from, to) = (connection.ends[direction].host, connection.ends[1 - direction].host);
        let in_flight = InFlight { sent_us: now_us, bytes };
        let stream = &mut connection.directions[direction];
        if !stream.blocked.is_empty() || !self.network.is_open(from, to) {
            if stream.blocked.is_empty() {
                stream.blocked_since_us = now_us;
            }
            stream.blocked.push_back(in_flight);
            return;
        }
        self.fly(index, direction, (from, to), in_flight);
    }

    /// Returns whether a connection between two hosts stood still a moment ago.
    pub(super) fn has_stalled(&self, pair: (u32, u32)) -> bool {
        self.stalls.iter().any(|((from, to), until_us)| {
            ((*from, *to) == pair || (*to, *from) == pair) && until_us + STALL_US > self.now_us
        })
    }

    fn fly(&mut self, index: usize, direction: usize, (from, to): (u32, u32), in_flight: InFlight) {
        let (latency_us, losses) = self.network.segment_latency_us(&mut self.random, from, to);
        self.counts.lost += u64::from(losses);
        let slow_us = self.hosts[to as usize].slow_us;
        let arrives_us = self.now_us + latency_us + self.random.below(slow_us + 1);
        if losses >= STALL_LOSSES {
            let is_recent = |(_, until_us): &(_, u64)| until_us + STALL_US > self.now_us;
            self.stalls.retain(is_recent);
            self.stalls.push_back(((from, to), arrives_us));
        }
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_deref_mut)
        else {
            return;
        };
        let stream = &mut connection.directions[direction];
        stream.last_arrival_us = stream.last_arrival_us.max(arrives_us);
        stream.in_flight.push_back(in_flight);
        let at_us = stream.last_arrival_us;
        self.schedule(at_us, Event::Arrive { connection: index, direction });
    }

    /// Schedules the retransmission of blocked data after a partition.
    pub(super) fn release_blocked(&mut self) {
        let mut due = Vec::new();
        for (index, connection) in self.connections.iter().enumerate() {
            let Some(connection) = connection else { continue };
            for direction in 0..2 {
                let (from, to) =
                    (connection.ends[direction].host, connection.ends[1 - direction].host);
                let stream = &connection.directions[direction];
                if !stream.blocked.is_empty() && self.network.is_open(from, to) {
                    due.push((index, direction, self.now_us - stream.blocked_since_us));
                }
            }
        }
        for (connection, direction, outage_us) in due {
            // The pause between two tries has doubled so often that it is about as long as the cut.
            let wait_us = self.random.below(outage_us.clamp(200_000, RESEND_US_MAX));
            self.schedule_in(wait_us, Event::Resend { connection, direction });
        }
    }

    pub(super) fn resend(&mut self, index: usize, direction: usize) {
        let Some(connection) = self.connection(index) else { return };
        let (from, to) = (connection.ends[direction].host, connection.ends[1 - direction].host);
        let blocked = std::mem::take(&mut connection.directions[direction].blocked);
        if !self.network.is_open(from, to) {
            if let Some(connection) = self.connection(index) {
                connection.directions[direction].blocked = blocked;
            }
            return;
        }
        for in_flight in blocked {
            self.fly(index, direction, (from, to), in_flight);
        }
    }

    /// Bytes have reached the machine of the receiver.
    pub(super) fn arrived(&mut self, index: usize, direction: usize) {
        if let Some(latency) = self.take_in(index, direction, 1) {
            self.read(index, direction, latency);
        }
    }

    /// Passes the messages that have arrived to their reader.
    pub(super) fn read(&mut self, index: usize, direction: usize, latency: Latency) {
        match direction {
            0 => self.read_requests(index, latency),
            _ => self.read_responses(index, latency),
        }
    }

    /// Moves `count` messages from the air to the reader of the receiver, if there is one.
    pub(super) fn take_in(
        &mut self,
        index: usize,
        direction: usize,
        count: usize,
    ) -> Option<Latency> {
        let now_us = self.now_us;
        let end = self.connections.get(index)?.as_ref()?.ends[1 - direction];
        let lives = self.lives(end.host, end.life);
        let is_quiet = self.hosts[end.host as usize].is_quiet;
        let connection = self.connection(index)?;
        let stream = &mut connection.directions[direction];
        let quiet_us = now_us - stream.read_us;
        stream.fastest_us += quiet_us * QUIET_PPM / 1_000_000;
        let before = Latency { fastest_us: stream.fastest_us };
        for _ in 0..count {
            let in_flight = stream.in_flight.pop_front()?;
            stream.fastest_us = stream.fastest_us.min(now_us - in_flight.sent_us);
            if lives && end.is_open {
                stream.reader.extend(&in_flight.bytes);
            }
        }
        stream.read_us = now_us;
        if lives && end.is_open {
            return Some(before);
        }
        if !is_quiet {
            // No process has this connection any more: the machine resets it.
            self.notify_closed(index, direction);
        }
        None
    }

    /// One end closes: the other one learns of it, if anything passes.
    pub(super) fn close(&mut self, index: usize, end: usize) {
        self.close_end(index, end);
        self.notify_closed(index, 1 - end);
    }

    pub(super) fn notify_closed(&mut self, index: usize, end: usize) {
        let Some(connection) = self.connection(index) else { return };
        if !connection.ends[end].is_open {
            return;
        }
        let (from, to) = (connection.ends[1 - end].host, connection.ends[end].host);
        let last_us = connection.directions[1 - end].last_arrival_us;
        if self.network.is_open(from, to) {
            let latency_us = self.network.latency_us(&mut self.random, from, to);
            let at_us = last_us.max(self.now_us + latency_us);
            self.schedule(at_us, Event::Closed { connection: index, end });
        }
    }

    /// One end takes note that the connection is over.
    pub(super) fn close_end(&mut self, index: usize, end: usize) {
        let Some(connection) = self.connection(index) else { return };
        let at = &mut connection.ends[end];
        if !std::mem::take(&mut at.is_open) {
            return;
        }
        let (host, life) = (at.host, at.life);
        if end == 0 {
            let calls = std::mem::take(&mut connection.calls);
            let (callee, lane) = (connection.ends[1].host, connection.lane);
            connection.overdue.clear();
            if self.lives(host, life) {
                trace!(self, "{host} loses its connection to {callee}");
                self.hosts[host as usize].links.remove(&(callee, lane));
                for token in calls.into_values() {
                    self.end_call(host, token, Err(CallFailure::NoAnswer));
                }
            }
        }
        if end == 1 && self.lives(host, life) {
            self.connection_closed(host, ConnectionId(index as u64));
        }
        if let Some(connection) = self.connection(index)
            && !connection.ends[0].is_open
            && !connection.ends[1].is_open
        {
            self.connections[index] = None;
        }
    }

    /// Closes a connection whose node owes answers and is silent.
    pub(super) fn check_silence(&mut self, index: usize) {
        let now_us = self.now_us;
        let Some(connection) = self.connection(index) else { return };
        let Some(oldest_us) = connection.overdue.values().min().copied() else { return };
        if !connection.ends[0].is_open {
            return;
        }
        let silent_us = now_us - oldest_us.max(connection.heard_us);
        if silent_us >= SILENT_US_MAX {
            self.close(index, 0);
        } else {
            self.schedule_in(SILENT_US_MAX - silent_us, Event::Silence { connection: index });
        }
    }
}
