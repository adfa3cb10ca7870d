//! A browser without a window: Chromium, driven by chromedriver.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use fantoccini::{Client, ClientBuilder, Locator};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use zerocache_tests::http;
use zerocache_tests::namespace::skip;
use zerocache_tests::poll::until;
use zerocache_tests::stream::Stream;

/// What chromedriver prints before its port.
const READY: &str = "started successfully on port ";

/// A running browser with one tab. Ends when dropped.
pub struct Browser {
    runtime: Runtime,
    client: Option<Client>,
    driver: Driver,
    session: String,
    _profile: TempDir,
}

/// The process of chromedriver.
struct Driver {
    process: Child,
    address: SocketAddr,
}

impl Driver {
    fn start() -> Self {
        let mut process = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver starts");
        let output = process.stdout.take().expect("piped");
        let mut lines = BufReader::new(output).lines().map_while(Result::ok);
        let port = lines.find_map(|line| {
            let (_, rest) = line.split_once(READY)?;
            rest.trim_end_matches('.').parse::<u16>().ok()
        });
        // It must not block when it prints more.
        std::thread::spawn(move || lines.for_each(drop));
        let address = (Ipv4Addr::LOCALHOST, port.expect("the port of chromedriver")).into();
        Self { process, address }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Asked to end, it ends its browsers too.
        let _gone = kill_process(Pid::from_child(&self.process), Signal::TERM);
        until("the end of chromedriver", || self.process.try_wait().ok().flatten());
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            let _gone = self.runtime.block_on(client.close());
        }
    }
}

impl Browser {
    /// Starts a browser. None, and a line that says so, where there is no Chromium.
    pub fn start(test: &str) -> Option<Self> {
        let found = ["chromium", "chromedriver"].into_iter().find(|program| {
            let mut command = Command::new(program);
            command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
            !command.status().is_ok_and(|status| status.success())
        });
        if let Some(missing) = found {
            skip(test, &format!("{missing} is not installed"));
            return None;
        }
        let profile = tempfile::tempdir().expect("a directory");
        let driver = Driver::start();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let capabilities = capabilities(profile.path());
        let url = format!("http://{}", driver.address);
        let (client, session) = runtime.block_on(async {
            let mut builder = ClientBuilder::new(connector());
            let client = builder.capabilities(capabilities).connect(&url).await;
            let client = client.expect("a session of the browser");
            let session = client.session_id().await.ok().flatten().expect("its name");
            (client, session)
        });
        Some(Self { runtime, client: Some(client), driver, session, _profile: profile })
    }

    fn client(&self) -> &Client {
        self.client.as_ref().expect("it has not ended")
    }

    /// Opens a page.
    pub fn open(&self, url: &str) {
        self.runtime.block_on(self.client().goto(url)).expect("the page opens");
    }

    /// Returns what a script returns.
    pub fn script(&self, script: &str) -> Json {
        let result = self.runtime.block_on(self.client().execute(script, Vec::new()));
        result.unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    /// Returns the number of elements that a selector finds.
    pub fn count(&self, selector: &str) -> u64 {
        let script = format!("return document.querySelectorAll({}).length", json!(selector));
        self.script(&script).as_u64().expect("a number")
    }

    /// Returns the text of the page, as a person sees it.
    pub fn text(&self) -> String {
        let text = self.script("return document.body.innerText");
        text.as_str().expect("text").to_owned()
    }

    /// Types into the element that a selector finds.
    pub fn type_into(&self, selector: &str, text: &str) {
        let typed = async {
            let element = self.client().find(Locator::Css(selector)).await?;
            element.send_keys(text).await
        };
        self.runtime.block_on(typed).expect("typed");
    }

    /// Presses a key in the element that has the focus.
    pub fn press(&self, key: char) {
        let pressed = async {
            let element = self.client().active_element().await?;
            element.send_keys(&key.to_string()).await
        };
        self.runtime.block_on(pressed).expect("pressed");
    }

    /// Clicks on the element that a selector finds.
    pub fn click(&self, selector: &str) {
        let clicked = async { self.client().find(Locator::Css(selector)).await?.click().await };
        self.runtime.block_on(clicked).expect("clicked");
    }

    /// Makes the page as wide as that, and as high as it wants.
    pub fn resize(&self, width: u64) {
        let size = |height: u64| {
            let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
            self.devtools("Emulation.setDeviceMetricsOverride", &size);
        };
        size(800);
        let height = self.script("return document.documentElement.scrollHeight");
        size(height.as_u64().expect("a height"));
    }

    /// Lets the page believe that the user prefers dark colours, or light ones.
    pub fn prefer(&self, scheme: &str) {
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.devtools("Emulation.setEmulatedMedia", &json!({ "features": [feature] }));
    }

    /// Keeps a picture of the page in `target/page`.
    pub fn keep_picture(&self, name: &str) {
        let picture = self.runtime.block_on(self.client().screenshot()).expect("a picture");
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("../page");
        std::fs::create_dir_all(&directory).expect("a directory");
        std::fs::write(directory.join(name), picture).expect("the picture is kept");
    }

    /// Returns what the console of the page says since the last call.
    pub fn console(&self) -> Vec<String> {
        let lines = self.command("se/log", &json!({ "type": "browser" }));
        let lines = lines.as_array().cloned().unwrap_or_default();
        lines.iter().map(ToString::to_string).collect()
    }

    fn devtools(&self, command: &str, parameters: &Json) {
        self.command("goog/cdp/execute", &json!({ "cmd": command, "params": parameters }));
    }

    /// A command of chromedriver that is not in the standard.
    fn command(&self, path: &str, parameters: &Json) -> Json {
        let target = format!("/session/{}/{path}", self.session);
        let (to, json) = (self.driver.address, [("Content-Type", "application/json")]);
        let body = parameters.to_string();
        let mut stream = Stream::plain(to).expect("chromedriver accepts");
        let request = http::request(to, "POST", &target, &json, body.as_bytes());
        stream.write_all(&request).expect("chromedriver reads");
        // It leaves the connection open, whatever it was asked.
        let (mut answer, mut room) = (Vec::new(), [0; 16 << 10]);
        loop {
            let count = stream.read(&mut room).expect("chromedriver answers");
            answer.extend_from_slice(&room[..count]);
            if let Some((head, body)) = http::split(&answer)
                && let length = http::header(&head, "content-length")
                && length.is_some_and(|length| length == body.len().to_string())
            {
                assert!(head.starts_with("HTTP/1.1 200"), "{path}: {}", body.escape_ascii());
                let answer: Json = serde_json::from_slice(body).expect("JSON");
                return answer["value"].clone();
            }
            assert!(count > 0, "{path}: no answer");
        }
    }
}

fn connector() -> hyper_util::client::legacy::connect::HttpConnector {
    hyper_util::client::legacy::connect::HttpConnector::new()
}

fn capabilities(profile: &Path) -> fantoccini::wd::Capabilities {
    let profile = format!("--user-data-dir={}", profile.display());
    let flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        // Colours change at once, so that pictures show them.
        "--force-prefers-reduced-motion",
        "--window-size=1280,1000",
        &profile,
    ];
    let wanted = json!({
        "acceptInsecureCerts": true,
        "goog:chromeOptions": { "args": flags },
        "goog:loggingPrefs": { "browser": "ALL" },
    });
    wanted.as_object().cloned().expect("an object")
}
