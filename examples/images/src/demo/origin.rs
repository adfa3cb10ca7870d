//! An origin with generated photographs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use image::codecs::jpeg::JpegEncoder;
use image::{Rgb, RgbImage};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The different photographs that are drawn; the others are the same bytes under other URLs.
const DRAWN: usize = 8;

struct Album {
    photographs: Vec<Vec<u8>>,
    requests: AtomicUsize,
    delay: Duration,
}

/// A running origin; it ends when it is dropped.
pub(super) struct Origin {
    pub(super) address: SocketAddr,
    album: Arc<Album>,
    task: JoinHandle<()>,
}

impl Origin {
    /// Starts an origin of photographs of a size, which answers after `delay`.
    pub(super) async fn start(size: (u32, u32), delay: Duration) -> Result<Self> {
        let draw = move || (0..DRAWN).map(|number| photograph(number, size)).collect::<Result<_>>();
        let photographs = tokio::task::spawn_blocking(draw).await??;
        let album = Arc::new(Album { photographs, requests: AtomicUsize::new(0), delay });
        let routes = Router::new().route("/{number}", get(answer)).with_state(Arc::clone(&album));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            let _ended = axum::serve(listener, routes).await;
        });
        Ok(Self { address, album, task })
    }

    pub(super) fn url(&self, number: usize) -> String {
        format!("http://{}/{number}", self.address)
    }

    pub(super) fn requests(&self) -> usize {
        self.album.requests.load(Ordering::Relaxed)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(State(album): State<Arc<Album>>, Path(number): Path<usize>) -> Response {
    album.requests.fetch_add(1, Ordering::Relaxed);
    tokio::time::sleep(album.delay).await;
    match album.photographs.get(number % album.photographs.len()) {
        Some(bytes) => ([(CONTENT_TYPE, "image/jpeg")], bytes.clone()).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Draws hills, a sun and grain: it compresses about as a photograph does.
pub(super) fn photograph(number: usize, (width, height): (u32, u32)) -> Result<Vec<u8>> {
    let phase = number as f32 * 1.7;
    let mut grain = 0x9e37_79b9_u32 ^ number as u32;
    let pixels = RgbImage::from_fn(width, height, |x, y| {
        let (u, v) = (x as f32 / width as f32, y as f32 / height as f32);
        let hill = 0.55 + 0.12 * (u * 9.0 + phase).sin() + 0.05 * (u * 31.0 + phase * 3.0).cos();
        let sun = 1.0 - ((u - 0.7).hypot(v - 0.25) * 6.0).min(1.0);
        grain = grain.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let noise = (grain >> 24) as f32 / 16.0 - 8.0;
        let ground = v > hill;
        let texture =
            if ground { 24.0 * ((u * 260.0).sin() * (v * 190.0 + phase).cos()) } else { 0.0 };
        let base =
            if ground { [60.0, 110.0, 50.0] } else { [110.0 + 90.0 * v, 150.0 + 60.0 * v, 225.0] };
        let light = sun * 120.0 + noise + texture;
        Rgb(base.map(|channel: f32| (channel + light).clamp(0.0, 255.0) as u8))
    });
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 85).encode_image(&pixels)?;
    Ok(bytes)
}
