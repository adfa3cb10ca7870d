//! Handshakes that are cut short, or are none.

use std::time::Duration;

use rustls::ClientConnection;

use super::*;

/// Far more than any of this takes.
const LONG: Duration = Duration::from_secs(20);

/// Returns the first message of a client.
fn client_hello() -> Vec<u8> {
    let client = token_client(1);
    let state = client.state();
    let tls = state.tls().expect("TLS");
    let config = Arc::clone(&tls.client);
    let mut connection =
        ClientConnection::new(config, tls.server_name.clone()).expect("a connection");
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).expect("a message");
    hello
}

/// A connection to a listener: both ends.
async fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let address = listener.local_addr().expect("an address");
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    (near.expect("a connection"), far.expect("a connection").0)
}

#[tokio::test]
async fn handshake_that_is_cut_short_is_an_error() {
    let acceptor = node(1).acceptor().expect("an acceptor");
    let hello = client_hello();
    for sent in [0, 1, 5, 6, 50, hello.len() - 1] {
        let (mut near, far) = connected().await;
        near.write_all(&hello[..sent]).await.expect("room");
        drop(near);
        let hello = tokio::time::timeout(LONG, acceptor.read_hello(far)).await.expect("an end");
        assert!(hello.is_err(), "{sent} bytes");
    }
    let (mut near, far) = connected().await;
    near.write_all(&hello).await.expect("room");
    near.shutdown().await.expect("an end");
    let hello = acceptor.read_hello(far).await.expect("a whole message");
    let result = tokio::time::timeout(LONG, hello.shake_hands()).await.expect("an end");
    assert!(result.is_err());
}

#[tokio::test]
async fn whole_first_message_is_waited_for() {
    let acceptor = node(1).acceptor().expect("an acceptor");
    let hello = client_hello();
    let (mut near, far) = connected().await;
    let mut reading = std::pin::pin!(acceptor.read_hello(far));
    for byte in &hello[..hello.len() - 1] {
        near.write_all(std::slice::from_ref(byte)).await.expect("room");
        let polled = futures_poll(reading.as_mut()).await;
        assert!(polled.is_none());
    }
    near.write_all(&hello[hello.len() - 1..]).await.expect("room");
    let result = tokio::time::timeout(LONG, reading).await.expect("an end");
    assert!(result.is_ok());
}

/// Polls a future once.
async fn futures_poll<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        let polled = std::pin::Pin::new(&mut future).poll(context);
        std::task::Poll::Ready(match polled {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

#[tokio::test]
async fn what_is_no_handshake_is_refused_at_once() {
    let acceptor = node(1).acceptor().expect("an acceptor");
    // Plain HTTP, rubbish behind the first byte of a handshake, and a record of another kind.
    for sent in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16; 64], &[0x16, 3, 1, 0, 4, 1, 0, 0xff, 0xff, 0]]
    {
        let (mut near, far) = connected().await;
        near.write_all(sent).await.expect("room");
        near.shutdown().await.expect("an end");
        let result = tokio::time::timeout(LONG, acceptor.accept(far)).await.expect("an end");
        assert!(result.is_err(), "{sent:?}");
    }
}

#[tokio::test]
async fn node_without_tls_is_recognised_by_its_answer() {
    let (near, mut far) = connected().await;
    let client = token_client(1);
    let state = client.state();
    let answering = async {
        let mut first = [0; 16];
        far.read_exact(&mut first).await.expect("a handshake");
        far.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.expect("room");
        // It stays open: the caller waits for nothing more.
        far
    };
    let connecting = connect(near, state.tls().expect("TLS"));
    let (_far, result) = tokio::join!(answering, tokio::time::timeout(LONG, connecting));
    assert!(matches!(result.expect("an end"), Err(ConnectError::NotTls)));
}
