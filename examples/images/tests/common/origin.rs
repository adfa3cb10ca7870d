//! An origin that does what its path says.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use image::{ImageFormat, Rgb, RgbImage};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// Between two pieces of what is slow.
const DRIP: Duration = Duration::from_millis(20);

/// A JPEG of 64 × 48 pixels, another one for each number.
pub fn picture(number: u8) -> Vec<u8> {
    let pixels = RgbImage::from_fn(64, 48, |x, y| Rgb([x as u8 * 3, y as u8 * 5, number]));
    let mut bytes = Vec::new();
    pixels.write_to(&mut std::io::Cursor::new(&mut bytes), ImageFormat::Jpeg).expect("written");
    bytes
}

/// A running origin; it ends when it is dropped.
pub struct Origin {
    address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

#[derive(Default)]
pub struct State {
    requests: AtomicUsize,
    last_head: Mutex<String>,
    /// Whether nothing is answered.
    is_silent: AtomicBool,
    /// What is added to the number of each picture.
    pub edition: AtomicUsize,
}

impl Origin {
    pub async fn start() -> Self {
        Self::start_at([127, 0, 0, 1].into()).await
    }

    pub async fn start_at(address: IpAddr) -> Self {
        Self::start_on(SocketAddr::new(address, 0)).await
    }

    pub async fn start_on(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("bound");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State::default());
        let task = tokio::spawn({
            let state = Arc::clone(&state);
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let state = Arc::clone(&state);
                    tokio::spawn(async move {
                        let _gone = answer(stream, &state).await;
                    });
                }
            }
        });
        Self { address, state, task }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }

    pub fn last_head(&self) -> String {
        self.state.last_head.lock().expect("a lock").clone()
    }

    /// Answers nothing from now on, or everything.
    pub fn be_silent(&self, is_silent: bool) {
        self.state.is_silent.store(is_silent, Ordering::SeqCst);
    }

    /// Replaces all pictures.
    pub fn change(&self) {
        self.state.edition.fetch_add(100, Ordering::SeqCst);
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(mut stream: TcpStream, state: &State) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    state.requests.fetch_add(1, Ordering::SeqCst);
    let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
    *state.last_head.lock().expect("a lock") = head;
    if state.is_silent.load(Ordering::SeqCst) {
        // Until the other side gives up: the body of a request is read, too.
        return tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.map(drop);
    }
    if is_slow_or_broken(&mut stream, &target).await? {
        return Ok(());
    }
    let edition = state.edition.load(Ordering::SeqCst);
    let (status, headers, body) = plain(&target, edition);
    let length = if headers.contains("Content-Length") || headers.contains("chunked") {
        String::new()
    } else {
        format!("Content-Length: {}\r\n", body.len())
    };
    let head = format!("HTTP/1.1 {status} Text\r\n{headers}{length}\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&body).await
}

/// An answer that is complete at once: its status, headers and body.
fn plain(target: &str, edition: usize) -> (u16, String, Vec<u8>) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let none = String::new;
    let redirect = |to: &str| (302, format!("Location: {to}\r\n"), Vec::new());
    if let Some(number) =
        path.strip_prefix("/picture/").and_then(|number| number.parse::<usize>().ok())
    {
        let number = (number + edition) % 251;
        return (200, "Content-Type: image/jpeg\r\n".to_owned(), picture(number as u8));
    }
    match path {
        "/chunked" => {
            let picture = picture(0);
            let mut body = format!("{:x}\r\n", picture.len()).into_bytes();
            body.extend(picture);
            body.extend(b"\r\n0\r\n\r\n");
            (200, "Transfer-Encoding: chunked\r\n".to_owned(), body)
        }
        "/wrong-type" => (200, "Content-Type: text/html\r\n".to_owned(), picture(0)),
        "/html" => {
            (200, "Content-Type: image/jpeg\r\n".to_owned(), b"<html>no image</html>".to_vec())
        }
        "/svg" => (200, "Content-Type: image/svg+xml\r\n".to_owned(), b"<svg xmlns='x'/>".to_vec()),
        // More than the buffers of a connection take.
        "/large" => (200, none(), [picture(0), vec![0; 20 << 20]].concat()),
        "/damaged" => (200, none(), picture(0)[..20].to_vec()),
        "/gzip" => (200, "Content-Encoding: gzip\r\n".to_owned(), picture(0)),
        "/empty" => (200, none(), Vec::new()),
        "/length-too-long" => (200, "Content-Length: 9999\r\n".to_owned(), picture(0)),
        "/length-huge" => (200, "Content-Length: 99999999999\r\n".to_owned(), picture(0)),
        "/gone" => (410, none(), Vec::new()),
        "/error" => (500, none(), picture(0)),
        "/unauthorized" => (401, "WWW-Authenticate: Basic\r\n".to_owned(), Vec::new()),
        "/redirect/1" => redirect("../picture/0"),
        "/redirect/2" => redirect("/redirect/1"),
        "/redirect/3" => redirect("/redirect/2"),
        "/redirect/4" => redirect("/redirect/3"),
        "/redirect-loop" => redirect("/redirect-loop"),
        "/redirect-nowhere" => (302, none(), Vec::new()),
        "/redirect-to" => redirect(query),
        _ => (404, none(), b"there is no such picture".to_vec()),
    }
}

/// Answers on its own what is slow or broken; returns whether it did.
async fn is_slow_or_broken(stream: &mut TcpStream, target: &str) -> std::io::Result<bool> {
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\n";
    match target.split('?').next().unwrap_or_default() {
        "/endless" => {
            stream.write_all(&[OK, b"\r\n\xff\xd8\xff"].concat()).await?;
            loop {
                stream.write_all(&[0; 16 << 10]).await?;
            }
        }
        "/drip" => {
            stream.write_all(&[OK, b"Content-Length: 100000\r\n\r\n\xff\xd8\xff"].concat()).await?;
            loop {
                stream.write_all(&[0]).await?;
                sleep(DRIP).await;
            }
        }
        "/drip-head" => {
            stream.write_all(OK).await?;
            loop {
                stream.write_all(b"X").await?;
                sleep(DRIP).await;
            }
        }
        "/endless-head" => {
            stream.write_all(OK).await?;
            loop {
                stream.write_all(b"X-Header: of a head that never ends\r\n").await?;
            }
        }
        "/silent" => {
            // Until the other side gives up.
            let _ended = stream.read_u8().await;
        }
        "/slow" => {
            sleep(Duration::from_millis(150)).await;
            return Ok(false);
        }
        "/closed" => {}
        "/not-http" => stream.write_all(b"SSH-2.0-OpenSSH_9.9\r\n\r\n").await?,
        _ => return Ok(false),
    }
    Ok(true)
}
