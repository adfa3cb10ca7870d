//! Random conversations: each call completes once, with a correct result.

use std::{future::poll_fn, net::SocketAddr, sync::Arc, task::Poll, time::Duration};

use bytes::Bytes;
use proptest::prelude::*;
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};
use zerocache_core::{
    call::CallFailure,
    key::Key,
    limits::Limits,
    ttl::Ttl,
    version::{Incarnation, VersionSource},
    wire::{Ack, Envelope, Request, RequestMessage, Response, Writer},
};

use super::model::{Answer, Noise, REQUEST_BYTES_MAX, Script, Seen, check, serve};
use crate::{
    clock,
    transport::framed::{
        CallResult, Connection, Encode, FastRequest, FrameReader, FramedCall, UnlimitedMemory,
        drive,
    },
};

/// The largest response that the caller takes.
const RESPONSE_BYTES_MAX: usize = 400_000;

/// No conversation takes longer, in virtual time.
const TOTAL: Duration = Duration::from_secs(600);

/// One call and what its caller does.
#[derive(Clone, Debug)]
struct Ask {
    after_ms: u64,
    /// The value of a write; none for a read.
    value_bytes: Option<usize>,
    timeout_ms: u64,
    /// After so long the caller goes away.
    patience_ms: Option<u64>,
}

/// The outcome of a conversation.
struct Outcome {
    /// Of each call; none when its caller went away.
    ended: Vec<Option<CallResult>>,
    seen: Seen,
    /// Calls abandoned and not forgotten at the end, unless the connection ended.
    abandoned: Option<usize>,
}

async fn ask(connection: Arc<Connection>, number: usize, ask: Ask) -> Option<CallResult> {
    sleep(Duration::from_millis(ask.after_ms)).await;
    let patience = Duration::from_millis(ask.patience_ms.unwrap_or(u64::MAX >> 20));
    let limit = Duration::from_millis(ask.timeout_ms);
    let called = async {
        let room = poll_fn(|context| connection.poll_room(context));
        if timeout(limit, room).await.is_err() {
            return Err(CallFailure::NotSent);
        }
        match number % 3 {
            0 => match fast(&connection, number, &ask).await {
                Some(call) => call.await,
                None => call(&connection, number, &ask).await,
            },
            1 => then(&connection, number, &ask).await,
            _ => call(&connection, number, &ask).await,
        }
    };
    timeout(patience, called).await.ok()
}

async fn call(connection: &Arc<Connection>, number: usize, ask: &Ask) -> CallResult {
    match connection.call(message(number, ask), Duration::from_millis(ask.timeout_ms)) {
        Some(call) => call.await,
        None => Err(CallFailure::NotSent),
    }
}

/// Passes the result to a function.
async fn then(connection: &Connection, number: usize, ask: &Ask) -> CallResult {
    let (sender, outcome) = oneshot::channel();
    // The caller may be gone.
    let then = Box::new(move |ended| drop(sender.send(ended)));
    let limit = Duration::from_millis(ask.timeout_ms);
    match connection.call_then(message(number, ask), limit, then) {
        Ok(()) => outcome.await.expect("an outcome"),
        Err(_) => Err(CallFailure::NotSent),
    }
}

/// Sends on the fast path.
async fn fast(connection: &Arc<Connection>, number: usize, ask: &Ask) -> Option<FramedCall> {
    let (node, address) = (Incarnation(1), SocketAddr::from(([127, 0, 0, 1], 1)));
    let (key, value) = (number.to_string(), value(number, ask.value_bytes.unwrap_or(0)));
    let message = FastMessage { key: key.as_bytes(), value: ask.value_bytes.map(|_| &value[..]) };
    poll_fn(|context| {
        let (begun, waker) = (clock::elapsed(), context.waker());
        let timeout_ms = ask.timeout_ms;
        Poll::Ready(connection.send_now(&FastRequest {
            node,
            address,
            message: &message,
            repeatable: ask.value_bytes.is_none(),
            begun,
            timeout_ms,
            waker,
        }))
    })
    .await
}

/// A read, or a write of a value, for the fast path.
struct FastMessage<'a> {
    key: &'a [u8],
    value: Option<&'a [u8]>,
}

impl Encode for FastMessage<'_> {
    fn encode(&self, out: &mut Writer<'_>) {
        match self.value {
            None => RequestMessage::encode_get(out, self.key),
            Some(value) => {
                let ttl = Ttl::from_millis(1_000).unwrap();
                RequestMessage::encode_put(
                    out,
                    0,
                    (self.key, value, &[]),
                    (ttl, Ack::Local),
                    VersionSource::Accepted,
                );
            }
        }
    }

    fn size_hint(&self) -> usize {
        self.key.len() + self.value.map_or(0, <[u8]>::len) + 32
    }
}

fn value(number: usize, bytes: usize) -> Bytes {
    Bytes::from(vec![number as u8; bytes])
}

fn message(number: usize, ask: &Ask) -> RequestMessage {
    let key = Key::new(number.to_string().into(), &Limits::default()).unwrap();
    let request = match ask.value_bytes {
        None => Request::Get { key },
        Some(bytes) => {
            let (ttl, metadata) = (Ttl::from_millis(1_000).unwrap(), Bytes::new());
            Request::Put {
                key,
                value: value(number, bytes),
                metadata,
                ttl,
                ack: Ack::Local,
                version: VersionSource::Accepted,
            }
        }
    };
    RequestMessage { envelope: Envelope { cluster: 1, ..Envelope::default() }, request }
}

fn converse(pipe_bytes: usize, script: Script, asks: Vec<Ask>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let all = async move {
        let _inside = clock::testing::TestClock::start().enter();
        let (near, far) = tokio::io::duplex(pipe_bytes);
        let (read, write) = tokio::io::split(near);
        let known = Envelope { cluster: 1, ..Envelope::default() };
        let connection = Arc::new(Connection::new(Box::new(write), known));
        let reader = FrameReader::new(RESPONSE_BYTES_MAX, Arc::new(UnlimitedMemory));
        let driver = tokio::spawn(drive(Arc::clone(&connection), Box::new(read), reader));
        let serving = tokio::spawn(serve(far, script));
        let asking = asks.into_iter().enumerate();
        let asking =
            asking.map(|(number, one)| tokio::spawn(ask(Arc::clone(&connection), number, one)));
        let mut ended = Vec::new();
        for asking in asking.collect::<Vec<_>>() {
            ended.push(asking.await.unwrap());
        }
        // Work for callers that are gone continues for as long as it may take.
        for _ in 0..2_000 {
            sleep(Duration::from_millis(5)).await;
            if connection.is_closed() || connection.census() == ([0; 3], 0) {
                break;
            }
        }
        let ([waiting, unfetched, abandoned], queued) = connection.census();
        assert_eq!((waiting, unfetched, queued), (0, 0, 0));
        let abandoned = (!connection.is_closed()).then_some(abandoned);
        driver.abort();
        let _ended = driver.await;
        let seen = serving.await.unwrap();
        Outcome { ended, seen, abandoned }
    };
    runtime.block_on(async { timeout(TOTAL, all).await.expect("a conversation ends") })
}

fn some_bytes() -> impl Strategy<Value = usize> {
    prop_oneof![6 => 0..200usize, 1 => 40_000..70_000usize, 1 => 100_000..250_000usize]
}

fn noise() -> impl Strategy<Value = Noise> {
    prop_oneof![
        4 => Just(Noise::Nothing),
        1 => Just(Noise::UnknownOpcode),
        1 => Just(Noise::Unasked),
        1 => Just(Noise::Extension),
        1 => Just(Noise::Garbage),
    ]
}

/// An answer that comes and is taken.
fn fault_free_answer() -> impl Strategy<Value = Answer> {
    let chunk = prop_oneof![100..5_000usize, Just(65_536)];
    (0..40u64, some_bytes(), chunk, any::<bool>(), noise()).prop_map(
        |(after_ms, value_bytes, chunk_bytes, twice, noise)| Answer {
            after_ms,
            value_bytes: Some(value_bytes),
            chunk_bytes,
            twice,
            noise,
        },
    )
}

/// An answer that may not come, or be larger than is taken.
fn any_answer() -> impl Strategy<Value = Answer> {
    let value = prop_oneof![
        6 => some_bytes().prop_map(Some),
        1 => Just(None),
        1 => Just(Some(RESPONSE_BYTES_MAX + 100_000)),
    ];
    (fault_free_answer(), value).prop_map(|(answer, value_bytes)| Answer { value_bytes, ..answer })
}

fn fault_free_ask() -> impl Strategy<Value = Ask> {
    let value = prop_oneof![2 => Just(None), 3 => some_bytes().prop_map(Some)];
    (0..30u64, value).prop_map(|(after_ms, value_bytes)| Ask {
        after_ms,
        value_bytes,
        timeout_ms: 60_000,
        patience_ms: None,
    })
}

fn any_ask() -> impl Strategy<Value = Ask> {
    let large = prop_oneof![7 => Just(false), 1 => Just(true)];
    let timeout = prop_oneof![1 => 1..60u64, 1 => Just(5_000)];
    (fault_free_ask(), large, timeout, proptest::option::of(0..60u64)).prop_map(
        |(ask, large, timeout_ms, patience_ms)| {
            let value_bytes =
                if large { Some(REQUEST_BYTES_MAX + 100_000) } else { ask.value_bytes };
            Ask { value_bytes, timeout_ms, patience_ms, ..ask }
        },
    )
}

fn conversation<T: std::fmt::Debug, A: std::fmt::Debug>(
    ask: impl Strategy<Value = T>,
    answer: impl Strategy<Value = A>,
) -> impl Strategy<Value = (usize, Vec<T>, Vec<A>)> {
    let pipe_bytes = prop_oneof![64..2_000usize, 2_000..100_000usize];
    (pipe_bytes, prop::collection::vec(ask, 1..40), prop::collection::vec(answer, 1..10))
}

fn is_large(ask: &Ask) -> bool {
    ask.value_bytes.is_some_and(|bytes| bytes > REQUEST_BYTES_MAX - 100)
}

/// What holds of every conversation.
fn check_all(asks: &[Ask], outcome: &Outcome) {
    for (number, (ask, ended)) in asks.iter().zip(&outcome.ended).enumerate() {
        let Some(ended) = ended else { continue };
        check(number, ended);
        match ended {
            Ok(Response::Refused(_)) => assert!(is_large(ask), "{number} was refused"),
            // A read may be repeated whether it was sent or not.
            Err(CallFailure::NotSent) if ask.value_bytes.is_some() => {
                assert!(!outcome.seen.whole.contains(&number), "{number} was sent");
            }
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..Default::default() })]

    #[test]
    fn all_calls_of_a_fault_free_conversation_are_answered(
        (pipe_bytes, asks, answers) in conversation(fault_free_ask(), fault_free_answer()),
    ) {
        let script = Script { answers, cut_read: None, cut_write: None };
        let outcome = converse(pipe_bytes, script, asks.clone());
        check_all(&asks, &outcome);
        for (number, ended) in outcome.ended.iter().enumerate() {
            prop_assert!(matches!(ended, Some(Ok(Response::Found { .. }))), "{number}: {ended:?}");
        }
        prop_assert_eq!(outcome.abandoned, Some(0));
        prop_assert_eq!(outcome.seen.cancels, 0);
    }

    #[test]
    fn random_conversation_completes_each_call_correctly(
        (pipe_bytes, asks, answers) in conversation(any_ask(), any_answer()),
    ) {
        let silent = answers.iter().any(|answer| answer.value_bytes.is_none());
        let script = Script { answers, cut_read: None, cut_write: None };
        let outcome = converse(pipe_bytes, script, asks.clone());
        check_all(&asks, &outcome);
        // Ids are given back unless their requests are never answered.
        prop_assert!(silent || outcome.abandoned == Some(0), "{:?}", outcome.abandoned);
    }

    #[test]
    fn connection_cut_anywhere_ends_its_calls(
        (pipe_bytes, asks, answers) in conversation(any_ask(), any_answer()),
        cut_read in proptest::option::of(0..300_000usize),
        cut_write in 0..300_000usize,
    ) {
        let script = Script { answers, cut_read, cut_write: Some(cut_write) };
        check_all(&asks, &converse(pipe_bytes, script, asks.clone()));
    }
}
