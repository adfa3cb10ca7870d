//! The other side of a connection as a model: it takes requests and answers them by script.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    time::sleep,
};
use zerocache_core::{
    call::CallFailure,
    time::Instant,
    version::Version,
    wire::{
        Envelope, Request, RequestMessage, Response,
        frame::{CHUNK_BYTES_MAX, Header, Opcode},
    },
};

use crate::transport::framed::reader::{FrameReader, Incoming, UnlimitedMemory};

/// The largest request that the model takes.
pub(super) const REQUEST_BYTES_MAX: usize = 300_000;

/// What the model does with a request.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// After how long it is answered.
    pub(super) after_ms: u64,
    /// The size of the value; none for no response at all.
    pub(super) value_bytes: Option<usize>,
    /// The payload of each frame of the response.
    pub(super) chunk_bytes: usize,
    /// It is answered again with something else.
    pub(super) twice: bool,
    /// What else is sent before it.
    pub(super) noise: Noise,
}

/// What a connection may carry beside responses to what was asked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Noise {
    Nothing,
    UnknownOpcode,
    /// A response to an id that was never given.
    Unasked,
    /// An extension and flags of a later release in the headers of the response.
    Extension,
    /// A response that cannot be decoded, to an id that was never given.
    Garbage,
}

/// How a conversation goes.
#[derive(Clone, Debug)]
pub(super) struct Script {
    pub(super) answers: Vec<Answer>,
    /// After so many bytes in either direction the connection is cut.
    pub(super) cut_read: Option<usize>,
    pub(super) cut_write: Option<usize>,
}

/// What the model saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Numbers of the requests that came whole.
    pub(super) whole: BTreeSet<usize>,
    pub(super) cancels: usize,
    pub(super) refused: BTreeSet<u32>,
}

/// The response to request `number`, which tells it from all others.
pub(super) fn response(number: usize, value_bytes: usize) -> Response {
    let mut value = number.to_le_bytes().to_vec();
    value.resize(value_bytes.max(8), number as u8);
    let (value, version) = (Bytes::from(value), Version::from_bytes([1; 16]));
    Response::Found { value, metadata: Bytes::new(), version, remaining_ms: 1_000 }
}

/// The number of the request with this key.
pub(super) fn number_of(request: &Request) -> usize {
    let (Request::Get { key } | Request::Put { key, .. }) = request else {
        panic!("{request:?} was never sent");
    };
    std::str::from_utf8(key.as_bytes()).unwrap().parse().unwrap()
}

/// One frame with an extension of `extension` bytes.
pub(super) fn frame(header: Header, extension: usize, payload: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    header.write(&mut out, 0);
    let counted = (16 + extension + payload.len()) as u32;
    out[..4].copy_from_slice(&counted.to_le_bytes());
    out[6..8].copy_from_slice(&(extension as u16).to_le_bytes());
    if extension > 0 {
        out[5] |= 0xf0;
    }
    out.extend_from_slice(&vec![7; extension]);
    out.extend_from_slice(payload);
    out.to_vec()
}

/// A message in frames.
pub(in crate::transport) fn in_frames(
    opcode: Opcode,
    id: u32,
    message: &[u8],
    chunk_bytes: usize,
    extension: usize,
) -> VecDeque<Vec<u8>> {
    let mut chunks: VecDeque<_> =
        message.chunks(chunk_bytes.clamp(1, CHUNK_BYTES_MAX)).map(<[u8]>::to_vec).collect();
    let count = chunks.len();
    let headers = (1..=count).map(|number| {
        let more = number < count;
        Header { opcode, more, id, sent_ms: 0, timeout_ms: 0 }
    });
    headers.zip(chunks.drain(..)).map(|(header, chunk)| frame(header, extension, &chunk)).collect()
}

/// The frames of a response and its noise.
fn frames(id: u32, number: usize, answer: &Answer) -> Vec<VecDeque<Vec<u8>>> {
    let Some(value_bytes) = answer.value_bytes else { return Vec::new() };
    let mut all = Vec::new();
    let strange = u32::MAX - id;
    let mut one = |opcode, id, message: &[u8], extension| {
        all.push(in_frames(opcode, id, message, answer.chunk_bytes, extension));
    };
    match answer.noise {
        Noise::Nothing | Noise::Extension => {}
        Noise::UnknownOpcode => one(Opcode::Other(99), id, b"later", 3),
        Noise::Unasked => one(Opcode::Response, strange, &response(9_999, 70_000).encode(), 0),
        Noise::Garbage => one(Opcode::Response, strange, &[0xff; 30], 0),
    }
    let extension = if matches!(answer.noise, Noise::Extension) { 1_000 } else { 0 };
    one(Opcode::Response, id, &response(number, value_bytes).encode(), extension);
    if answer.twice {
        let again = in_frames(Opcode::Response, id, &response(8_888, 20).encode(), 50, 0);
        all.last_mut().into_iter().for_each(|frames| frames.extend(again.clone()));
    }
    all
}

/// Takes requests and answers them until it is cut or the other side closes. Messages under way take
/// turns frame by frame.
pub(super) async fn serve(stream: DuplexStream, script: Script) -> Seen {
    let (mut read, mut write) = tokio::io::split(stream);
    let mut reader = FrameReader::new(REQUEST_BYTES_MAX, Arc::new(UnlimitedMemory));
    let mut seen = Seen::default();
    // Ids of which a frame came and which were not answered whole.
    let mut open = BTreeMap::new();
    let (mut due, mut ready) = (BTreeMap::new(), VecDeque::new());
    let (mut now_ms, mut was_read, mut written) = (0u64, 0, 0);
    let mut order = 0usize;
    loop {
        let mut later = due.split_off(&(now_ms + 1, 0));
        std::mem::swap(&mut later, &mut due);
        ready.extend(later.into_values().flatten());
        let next: Option<Vec<u8>> = ready.front_mut().and_then(VecDeque::pop_front);
        tokio::select! {
            biased;
            read = read.read_buf(reader.buffer()) => match read {
                Ok(count) if count > 0 => was_read += count,
                _ => return seen,
            },
            () = sleep(Duration::from_millis(1)), if next.is_none() => now_ms += 1,
            () = std::future::ready(()), if next.is_some() => {}
        }
        if let Some(frame) = next {
            let cut = script.cut_write.map_or(frame.len(), |cut| frame.len().min(cut - written));
            // The other side may have closed.
            if write.write_all(&frame[..cut]).await.is_err() || cut < frame.len() {
                return seen;
            }
            written += cut;
            ready.rotate_left(1);
            ready.retain(|frames: &VecDeque<Vec<u8>>| !frames.is_empty());
        }
        while let Some((header, _, incoming)) = reader.next(Instant::default()).unwrap() {
            let message = match incoming {
                Incoming::Small(_) => reader.take(),
                Incoming::Large(message) => message,
                Incoming::Refused(code) => {
                    seen.refused.insert(header.id);
                    let refusal = Response::refused(code, "no").encode();
                    ready.push_back(in_frames(Opcode::Response, header.id, &refusal, 100, 0));
                    continue;
                }
                Incoming::Nothing => {
                    seen.cancels += usize::from(header.opcode == Opcode::Cancel);
                    continue;
                }
            };
            assert_eq!(header.opcode, Opcode::Request);
            let request = RequestMessage::decode_with_defaults(
                message,
                Envelope::default(),
                Instant::default(),
            )
            .expect("a whole request");
            let number = number_of(&request.request);
            assert!(seen.whole.insert(number), "request {number} came twice");
            assert!(!seen.refused.contains(&header.id), "an id of a refused request came again");
            assert!(open.insert(header.id, number).is_none(), "an id came again");
            let answer = &script.answers[number % script.answers.len()];
            for frames in frames(header.id, number, answer) {
                order += 1;
                due.insert((now_ms + answer.after_ms, order), Some(frames));
            }
        }
        if script.cut_read.is_some_and(|cut| was_read >= cut) {
            return seen;
        }
    }
}

/// Whether `ended` is what can come of request `number`.
pub(super) fn check(number: usize, ended: &Result<Response, CallFailure>) {
    match ended {
        Ok(Response::Found { value, .. }) => {
            assert_eq!(value[..8], number.to_le_bytes(), "the response to another request");
            assert!(value[8..].iter().all(|byte| *byte == number as u8), "a mixed response");
        }
        Ok(Response::Refused(_)) | Err(CallFailure::NotSent | CallFailure::NoAnswer) => {}
        other => panic!("{other:?} was never sent"),
    }
}
