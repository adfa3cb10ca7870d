//! The stream of one viewer.

use std::{collections::VecDeque, convert::Infallible, pin::Pin, sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::State,
    http::HeaderMap,
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use futures_util::{Stream, stream};

use super::{Page, feed::Seat, protect, sessions::SessionEnd};
use crate::{
    access::{AccessControl, Caller},
    api::{error::ApiError, hot_keys},
    http::browser::is_cross_site,
};

/// The longest silence of a stream: far below the time after which connections count as idle.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// When a browser connects again whose stream has ended.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Who watches.
pub(super) struct Viewer {
    caller: Arc<Caller>,
    /// The end of its session; none if it watches without one.
    session: Option<SessionEnd>,
}

impl Viewer {
    pub(super) fn new(caller: Arc<Caller>, session: Option<SessionEnd>) -> Self {
        Self { caller, session }
    }

    /// Waits until this viewer may no longer watch.
    async fn ended(self, access: Arc<AccessControl>) {
        let session = async {
            match self.session {
                Some(session) => session.reached().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            denial = access.end_of(&self.caller) => {
                tracing::debug!(%denial, "page closed: its caller may no longer watch");
            }
            () = session => {}
        }
    }
}

/// What is left to send on a stream.
struct Sending {
    seat: Seat,
    ended: Pin<Box<dyn Future<Output = ()> + Send>>,
    ready: VecDeque<Event>,
    events_change: Option<u64>,
    /// The viewer may see the names of keys.
    shows_names: bool,
}

impl Sending {
    async fn next(&mut self) -> Option<Event> {
        if let Some(event) = self.ready.pop_front() {
            return Some(event);
        }
        let closing = &mut self.seat.closing;
        tokio::select! {
            biased;
            _ = closing.wait_for(|is_closing| *is_closing) => return None,
            () = &mut self.ended => return None,
            changed = self.seat.frames.changed() => changed.ok()?,
        }
        let frame = self.seat.frames.borrow_and_update().clone();
        if self.events_change.replace(frame.events_change) != Some(frame.events_change) {
            self.ready.push_back(Event::default().event("events").data(frame.events));
        }
        let hot_keys = &frame.hot_keys[usize::from(self.shows_names)];
        self.ready.push_back(Event::default().event("hot-keys").data(hot_keys));
        Some(Event::default().event("status").data(frame.status))
    }
}

/// `/v1/events`: the status of the node and its hot keys every second, and the events of the last ten minutes
/// whenever there are others.
pub(super) async fn events(
    State(page): State<Arc<Page>>,
    Extension(caller): Extension<Arc<Caller>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    if is_cross_site(&headers) {
        return Err(ApiError::cross_site());
    }
    let viewer = page.viewer(&caller, &headers);
    let viewer = viewer.map_err(|denial| page.api.denied(&caller, denial))?;
    let seat = page.feed.subscribe().ok_or_else(ApiError::no_seat)?;
    let history = page.feed.history(viewer.session.is_some());
    let history = Event::default().event("history").retry(RETRY_AFTER).data(history);
    let sending = Sending {
        seat,
        shows_names: hot_keys::shows_names(&viewer.caller),
        ended: Box::pin(viewer.ended(Arc::clone(&page.api.access))),
        ready: VecDeque::from([history]),
        events_change: None,
    };
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    let mut response = Sse::new(into_stream(sending)).keep_alive(keep_alive).into_response();
    protect(response.headers_mut(), "no-store");
    Ok(response)
}

fn into_stream(sending: Sending) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(sending, |mut sending| async {
        let event = sending.next().await?;
        Some((Ok(event), sending))
    })
}
