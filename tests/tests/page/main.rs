//! The page of a node: what people see in a browser, who may see it, and that it costs a node little.

mod browser;
mod streams;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use zerocache_core::key::KeyHash;
use zerocache_core::wire::{RefusalCode, Response};
use zerocache_net::transport::MESSAGES_TYPE;
use zerocache_tests::cluster::Cluster;
use zerocache_tests::node::Node;
use zerocache_tests::poll::{timed, until_true};
use zerocache_tests::security::Keys;
use zerocache_tests::setup::{Access, Setup, unique_address};

use self::browser::Browser;

/// The key that moves the focus, as WebDriver names it.
const TAB: char = '\u{e004}';

fn page_of(node: &Node) -> String {
    format!("http://{}/", node.address())
}

/// What the browser complains about.
fn assert_quiet(browser: &Browser) {
    let console = browser.console();
    assert!(console.is_empty(), "{console:#?}");
}

#[test]
fn frozen_node_turns_red_without_a_reload() {
    let Some(browser) = Browser::start("frozen_node_turns_red_without_a_reload") else { return };
    let regions = ["london", "london", "sydney"];
    let mut cluster = Cluster::start_with(&regions, |setup| setup.access(Access::Protected));
    for n in 0..200 {
        cluster[0].put(format!("key/{n}").as_bytes(), &[0; 9_000], "ttl=300");
    }
    browser.open(&page_of(&cluster[0]));
    until_true("three green boxes", || browser.count(".node.ok") == 3);
    assert_eq!((browser.count(".node"), browser.count(".region")), (3, 2));
    for node in &cluster.nodes {
        assert!(browser.text().contains(&node.address().to_string()), "{}", browser.text());
    }
    until_true("graphs", || {
        assert!((0..50).all(|n| cluster[0].value(format!("key/{n}").as_bytes()).is_some()));
        browser.count(".tile path[d*=L]") >= 6
    });
    browser.script("window.isTheSamePage = true");
    browser.resize(1280);
    browser.keep_picture("light.png");

    cluster.nodes[2].freeze();
    let ((), took) = timed(|| until_true("a red box", || browser.count(".node.bad") == 1));
    println!("red after {took:?}");
    assert_eq!(browser.count(".region.bad"), 1);
    assert_eq!(browser.script("return document.body.dataset.state"), "bad");
    let text = browser.text();
    assert!(text.contains("1 node unreachable"), "{text}");
    let address = cluster[2].address();
    assert!(text.contains(&format!("has not reached {address} in sydney")), "{text}");
    until_true("the event", || browser.count(".events .error") == 1);
    browser.prefer("dark");
    browser.keep_picture("dark.png");
    browser.resize(400);
    assert_eq!(browser.script("return document.documentElement.scrollWidth"), 400);
    browser.keep_picture("narrow.png");
    browser.prefer("light");
    browser.keep_picture("narrow-light.png");
    browser.resize(1280);

    cluster.nodes[2].resume();
    until_true("three green boxes again", || browser.count(".node.ok") == 3);
    assert_eq!(browser.script("return window.isTheSamePage"), true);
    assert_keyboard_reaches(&browser, &cluster[1]);
    assert_quiet(&browser);
}

/// Walks through the page by keyboard until the link to `node` has the focus.
fn assert_keyboard_reaches(browser: &Browser, node: &Node) {
    let link = format!("http://{}/page/", node.address());
    let focus = "return document.activeElement.href || ''";
    browser.script("document.activeElement.blur()");
    let found = (0..20).any(|_| {
        browser.press(TAB);
        browser.script(focus) == link.as_str()
    });
    assert!(found, "no link to {link} by keyboard");
}

/// Answers each request on each connection with a refusal that says `text`.
fn refuse_everybody(text: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((unique_address(), 0)).expect("bound");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || refuse(stream, text));
        }
    });
    address
}

fn refuse(mut stream: TcpStream, text: &str) {
    let body = Response::refused(RefusalCode::WrongCluster, text).encode();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {MESSAGES_TYPE}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut room = [0; 16 << 10];
    while stream.read(&mut room).is_ok_and(|count| count > 0) {
        let _gone = stream.write_all(&[head.as_bytes(), &body].concat());
    }
}

#[test]
fn hostile_text_of_a_peer_is_shown_as_text() {
    const HOSTILE: &str =
        "<img src=x onerror=\"window.isHostile = true\"><script>alert(1)</script>";
    let Some(browser) = Browser::start("hostile_text_of_a_peer_is_shown_as_text") else { return };
    let setup = Setup::new("london").access(Access::Protected);
    let node = setup.flag("--seed", refuse_everybody(HOSTILE)).start();
    browser.open(&page_of(&node));
    until_true("the text of the peer", || browser.text().contains(HOSTILE));
    assert_eq!((browser.count("img"), browser.count("script")), (0, 1));
    assert_eq!(browser.script("return window.isHostile || false"), false);
    assert_quiet(&browser);
}

#[test]
fn hot_keys_are_shown_as_text_to_those_who_may_see_them() {
    const TEST: &str = "hot_keys_are_shown_as_text_to_those_who_may_see_them";
    const HOSTILE: &str = "<img src=x onerror=\"window.isHostile = true\">";
    let Some(browser) = Browser::start(TEST) else { return };
    let keys = Keys::new();
    let setup = Setup::new("london").access(Access::Secret(keys.clone()));
    let node = setup.flag("--hot-keys", "plain").start();
    for _ in 0..400 {
        let _miss = node.get(HOSTILE.as_bytes());
    }
    let hash = format!("{:032x}", { KeyHash::of(HOSTILE.as_bytes()).0 });
    for (role, shown, hidden) in
        [("monitor", hash.as_str(), HOSTILE), ("admin", HOSTILE, hash.as_str())]
    {
        browser.open(&format!("https://{}/page/login", node.address()));
        browser.type_into("#token", &keys.token(&["--name", role, "--role", role]));
        browser.click("button");
        until_true("the key", || browser.text().contains(shown));
        assert!(!browser.text().contains(hidden), "{role}: {}", browser.text());
        assert_eq!(browser.count("img"), 0);
        browser.script("document.getElementById('h-hot').scrollIntoView()");
        browser.keep_picture(&format!("hot-keys-{role}.png"));
        browser.click("#logout button");
        until_true("the login", || browser.script("return location.pathname") == "/page/login");
    }
    assert_eq!(browser.script("return window.isHostile || false"), false);
    assert_quiet(&browser);
}

#[test]
fn browser_logs_in_with_a_token() {
    let Some(browser) = Browser::start("browser_logs_in_with_a_token") else { return };
    let keys = Keys::new();
    let node = Setup::new("london").access(Access::Secret(keys.clone())).start();
    let url = format!("https://{}/", node.address());
    let path = |browser: &Browser| browser.script("return location.pathname");
    browser.open(&url);
    assert_eq!(path(&browser), "/page/login");
    browser.keep_picture("login.png");
    browser.type_into("#token", &keys.token(&["--name", "reader", "--role", "read"]));
    browser.click("button");
    until_true("a refusal", || browser.text().contains("needs the role monitor"));
    // The browser reports the status of that answer.
    assert_eq!(browser.console().len(), 1);
    browser.type_into("#token", &keys.token(&["--name", "screen", "--role", "monitor"]));
    browser.click("button");
    until_true("the page", || browser.count(".node.ok") == 1);
    assert_eq!(path(&browser), "/page/");
    assert_eq!(browser.script("return document.cookie"), "");
    browser.open(&url);
    until_true("the page again", || browser.count(".node.ok") == 1);
    assert!(browser.text().contains("renewed by the node"), "{}", browser.text());
    until_true("the way out", || browser.script("return logout.hidden") == false);
    browser.click("#logout button");
    until_true("the login", || path(&browser) == "/page/login");
    browser.open(&url);
    assert_eq!(path(&browser), "/page/login");
    assert_quiet(&browser);
}

#[test]
fn page_says_that_its_node_is_gone() {
    let Some(browser) = Browser::start("page_says_that_its_node_is_gone") else { return };
    let mut node = Setup::new("london").access(Access::Protected).flag("--drain", "0s").start();
    browser.open(&page_of(&node));
    until_true("the page", || browser.count(".node.ok") == 1);
    assert_quiet(&browser);
    node.shut_down();
    assert!(node.ended().success(), "{}", node.log());
    until_true("a sign", || browser.text().contains("no news from this node"));
    assert_eq!(browser.count("body.stale"), 1);
}
