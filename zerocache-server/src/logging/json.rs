//! Log lines as flat JSON objects.

use std::{fmt, sync::OnceLock};

use serde_json::{Map, Value};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    registry::LookupSpan,
};

use super::VERSION;

/// Formats an event as one JSON object: `timestamp` (RFC 3339, UTC), `level`, `target`, `node`, `region`,
/// `version`, `message`, and the fields of the event beside them.
pub(super) struct JsonLines {
    region: String,
    /// Unknown until the node has drawn its incarnation.
    node: &'static OnceLock<String>,
}

impl JsonLines {
    pub(super) fn new(region: &str, node: &'static OnceLock<String>) -> Self {
        Self { region: region.to_owned(), node }
    }

    fn object(&self, timestamp: String, event: &Event<'_>) -> Map<String, Value> {
        let metadata = event.metadata();
        let node = self.node.get().map_or(Value::Null, |node| Value::from(node.as_str()));
        let mut object = Map::new();
        for (name, value) in [
            ("timestamp", timestamp.into()),
            ("level", metadata.level().as_str().into()),
            ("target", metadata.target().into()),
            ("node", node),
            ("region", self.region.as_str().into()),
            ("version", VERSION.into()),
        ] {
            object.insert(name.to_owned(), value);
        }
        event.record(&mut Fields(&mut object));
        // An event of the crate `log`, which libraries use: its target and place are in fields of their own.
        if let Some(target) = object.remove("log.target") {
            object.insert("target".to_owned(), target);
            object.retain(|name, _| !name.starts_with("log."));
        }
        object
    }
}

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let line = serde_json::to_string(&self.object(timestamp, event)).map_err(|_| fmt::Error)?;
        writeln!(writer, "{line}")
    }
}

/// Adds the fields of an event. One with the name of a field of every line is put under `event_NAME`.
struct Fields<'a>(&'a mut Map<String, Value>);

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: Value) {
        let name = field.name();
        match self.0.get(name) {
            None => {
                self.0.insert(name.to_owned(), value);
            }
            Some(same) if *same == value => {}
            Some(_) => {
                self.0.insert(format!("event_{name}"), value);
            }
        }
    }
}

impl Visit for Fields<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use super::*;

    /// Keeps what is written to it.
    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("not poisoned").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn line_of(node: &'static OnceLock<String>, log: impl FnOnce()) -> Value {
        let (sink, lines) = (Sink::default(), JsonLines::new("london", node));
        let writer = sink.clone();
        let subscriber = tracing_subscriber::fmt()
            .event_format(lines)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        let text = String::from_utf8(sink.0.lock().expect("not poisoned").clone()).expect("text");
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        serde_json::from_str(&text).expect("JSON")
    }

    #[test]
    fn fields_of_an_event_stand_beside_those_of_every_line() {
        static NODE: OnceLock<String> = OnceLock::new();
        let before = line_of(&NODE, || tracing::info!("early"));
        assert!(before["node"].is_null());
        let _first = NODE.set("0a".to_owned());
        let line = line_of(&NODE, || {
            tracing::warn!(count = 3u64, peer = %"0b\n", ok = true, "two\nlines");
        });
        let wanted = [
            ("level", "WARN".into()),
            ("node", "0a".into()),
            ("region", "london".into()),
            ("version", VERSION.into()),
            ("message", "two\nlines".into()),
            ("count", 3.into()),
            ("peer", "0b\n".into()),
            ("ok", Value::Bool(true)),
        ];
        for (name, value) in wanted {
            assert_eq!(line[name], value, "{line}");
        }
        assert!(line["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')), "{line}");
    }

    #[test]
    fn event_of_the_crate_log_has_the_target_of_its_module() {
        static NODE: OnceLock<String> = OnceLock::new();
        let line = line_of(&NODE, || {
            tracing::warn!(target: "log", { log.target = "mdns_sd", log.line = 7u64 }, "no socket");
        });
        assert_eq!((&line["target"], &line["message"]), (&"mdns_sd".into(), &"no socket".into()));
        assert!(line.get("log.line").is_none(), "{line}");
    }

    #[test]
    fn field_of_an_event_does_not_replace_one_of_every_line() {
        static NODE: OnceLock<String> = OnceLock::new();
        let line = line_of(&NODE, || {
            tracing::info!(region = "sydney", version = VERSION, "a name that is taken");
        });
        assert_eq!((&line["region"], &line["event_region"]), (&"london".into(), &"sydney".into()));
        assert!(line.get("event_version").is_none(), "{line}");
    }
}
