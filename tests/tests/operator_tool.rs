//! The commands of the tool `zerocache` against real nodes.

use serde_json::Value as Json;
use zerocache_tests::{
    cluster::Cluster,
    operator::Operator,
    poll::until_true,
    security::Keys,
    setup::{Access, Setup, unique_address},
};

#[test]
fn values_are_put_read_and_deleted() {
    let cluster = Cluster::start(&["london", "london", "sydney"]);
    let operator = Operator::new(cluster[0].address());
    let put = operator.run(&["put", "greeting", "hello", "--ack", "all", "--tags", "a,b"]);
    let words: Vec<_> = put.text().split_whitespace().map(str::to_owned).collect();
    assert_eq!((put.exit, words[0].as_str(), words[1].as_str()), (0, "stored", "3/3"), "{put:?}");
    let got = operator.run(&["get", "greeting"]);
    assert_eq!((got.exit, &got.out[..]), (0, &b"hello"[..]), "{got:?}");
    // Each way to write a key, and one node alone.
    let sydney = cluster[2].address().to_string();
    for args in [
        &["get", "--hex", "6772656574696e67"][..],
        &["get", "--url", "greetin%67"],
        &["get", "greeting", "--node", &sydney],
        &["get", "greeting", "--region", "sydney"],
    ] {
        assert_eq!(operator.run(args).out, b"hello", "{args:?}");
    }
    let json = operator.run(&["get", "greeting", "--json"]).json();
    assert_eq!((&json["value"], &json["key"]), (&"hello".into(), &"greeting".into()));
    assert_eq!((&json["version"], &json["found"]), (&words[2].as_str().into(), &true.into()));
    assert_eq!(json["tags"], serde_json::json!(["a", "b"]));
    let ttl_ms = json["ttl_ms"].as_u64().expect("a number");
    assert!((3_500_000..=3_600_000).contains(&ttl_ms), "{json}");
    let at_node = operator.run(&["get", "greeting", "--json", "--node", &sydney]).json();
    assert_eq!(at_node["tags"], json["tags"]);
    let explained = operator.run(&["get", "greeting", "--explain"]);
    assert!(explained.err.contains("found") && explained.err.contains("127."), "{explained:?}");
    let deleted = operator.run(&["delete", "greeting", "--ack", "all"]);
    assert!(deleted.text().starts_with("deleted 3/3 "), "{deleted:?}");
    let gone = operator.run(&["get", "greeting"]);
    assert_eq!((gone.exit, gone.text().as_str()), (1, ""), "{gone:?}");
    let gone = operator.run(&["get", "greeting", "--json"]).json();
    assert_eq!((&gone["found"], &gone["exit"]), (&false.into(), &1.into()));
}

#[test]
fn value_that_no_node_takes_is_refused_with_the_limit() {
    let cluster = Cluster::start(&["london"]);
    let operator = Operator::new(cluster[0].address());
    let node = cluster[0].address().to_string();
    // Of bytes that do not compress, above the largest message.
    let mixed = |n: u32| {
        let n = n.wrapping_mul(2_654_435_761);
        (n ^ n >> 15).wrapping_mul(2_246_822_507)
    };
    let bytes: Vec<u8> = (0..12 << 20).map(|n| (mixed(n) >> 16) as u8).collect();
    for place in [&[][..], &["--node", &node]] {
        let refused = operator.run_with(&[&["put", "big", "-"], place].concat(), &bytes);
        assert!(refused.exit != 0 && refused.err.contains("8388608"), "{refused:?}");
    }
}

#[test]
fn stale_value_is_printed_where_it_is_allowed() {
    let cluster = Cluster::start(&["london", "london"]);
    let operator = Operator::new(cluster[0].address());
    let put = "/v1/entries/page?ttl=600&ack=all&stale-while=60&tags=t";
    assert_eq!(cluster[0].http("PUT", put, b"old").status, 200);
    let place = ["--node", &cluster[1].address().to_string()];
    let where_is = |state: &str| {
        let rows = operator.run(&["where", "page"]);
        let is_so = |line: &str| line.split_whitespace().nth(4) == Some(state);
        assert_eq!(rows.text().lines().filter(|line| is_so(line)).count(), 2, "{rows:?}");
        rows
    };
    where_is("value");
    assert_eq!(operator.run(&["purge", "t", "--soft", "--ack", "nodes"]).exit, 0);
    for place in [&[][..], &place] {
        let with = |args: &[&str]| operator.run(&[args, place].concat());
        let hidden = with(&["get", "page"]);
        assert_eq!((hidden.exit, hidden.text().as_str()), (1, ""), "{hidden:?}");
        assert!(hidden.err.contains("is stale; --stale prints it"), "{hidden:?}");
        assert_eq!(with(&["get", "page", "--json"]).json()["is_stale"], true);
        let shown = with(&["get", "page", "--stale"]);
        assert_eq!((shown.exit, &shown.out[..]), (0, &b"old"[..]), "{shown:?}");
        assert_eq!(with(&["get", "page", "--stale", "--json"]).json()["stale"], "while");
        let absent = with(&["get", "other"]);
        assert!(absent.err.contains("there is no value"), "{absent:?}");
        assert_eq!(with(&["get", "other", "--json"]).json()["is_stale"], false);
    }
    assert!(where_is("stale").err.contains("the value is stale"));
}

#[test]
fn writes_are_made_on_conditions() {
    let cluster = Cluster::start(&["london"]);
    let operator = Operator::new(cluster[0].address());
    let node = cluster[0].address().to_string();
    for place in [&[][..], &["--node", &node]] {
        let with = |args: &[&str]| operator.run(&[args, place].concat());
        let outcome = |args: &[&str]| {
            let done = with(args);
            let text = done.text();
            let words: Vec<_> = text.split_whitespace().collect();
            (done.exit, words[0].to_owned(), words[2].to_owned())
        };
        assert_eq!(outcome(&["put", "k", "v", "--if-present"]), (1, "not-met".into(), "-".into()));
        let (exit, _, first) = outcome(&["put", "k", "v", "--if-absent"]);
        assert_eq!(exit, 0);
        let kept = (1, "not-met".to_owned(), first.clone());
        assert_eq!(outcome(&["put", "k", "w", "--if-absent"]), kept);
        let (exit, status, second) = outcome(&["put", "k", "w", "--if-version", &first]);
        assert_eq!((exit, status.as_str()), (0, "stored"));
        let kept = (1, "not-met".to_owned(), second.clone());
        assert_eq!(outcome(&["delete", "k", "--if-version", &first]), kept);
        let json = with(&["delete", "k", "--if-version", &first, "--json"]).json();
        let shown = (&json["keys"][0]["status"], &json["keys"][0]["version"], &json["exit"]);
        assert_eq!(shown, (&"not-met".into(), &second.as_str().into(), &1.into()));
        assert_eq!(with(&["get", "k"]).out, b"w");
        let (exit, status, _) = outcome(&["delete", "k", "--if-version", &second]);
        assert_eq!((exit, status.as_str()), (0, "deleted"));
        for wrong in [
            &["put", "k", "v", "--if-absent", "--if-present"][..],
            &["put", "k", "v", "--if-version", "7"],
            &["delete", "k", "l", "--yes", "--if-version", &first],
        ] {
            assert_eq!(with(wrong).exit, 2, "{wrong:?}");
        }
    }
}

#[test]
fn nodes_that_lack_a_delete_or_a_purge_are_named() {
    let mut cluster = Cluster::start(&["london", "london", "sydney"]);
    let operator = Operator::new(cluster[0].address());
    let (first, silent) = (cluster[0].address().to_string(), cluster[2].address().to_string());
    for place in [&[][..], &["--node", &first]] {
        let with = |args: &[&str]| operator.run(&[args, place].concat());
        assert_eq!(with(&["put", "k", "v", "--ack", "all", "--tags", "t"]).exit, 0);
        for command in [&["purge", "t"][..], &["delete", "k"]] {
            let done = with(&[command, &["--ack", "nodes"]].concat());
            assert_eq!((done.exit, done.text().split(' ').nth(1)), (0, Some("3/3")), "{done:?}");
            let json = with(&[command, &["--ack", "nodes", "--json"]].concat()).json();
            let one = if command[0] == "purge" { &json["purges"][0] } else { &json["keys"][0] };
            let nodes = one["nodes"].as_array().expect("nodes");
            let have = nodes.iter().filter(|node| node["acknowledged"] == true);
            assert_eq!((nodes.len(), have.count()), (3, 3), "{json}");
        }
    }
    cluster[2].freeze();
    for command in [&["purge", "t"][..], &["delete", "k"]] {
        let args = [command, &["--ack", "nodes", "--node", &first]].concat();
        let partly = operator.run(&args);
        assert_eq!((partly.exit, partly.text().split(' ').nth(1)), (6, Some("2/3")), "{partly:?}");
        let line = format!("sydney {silent} does not have it yet: unreachable");
        assert!(partly.err.contains(&line), "{partly:?}");
    }
    assert_eq!(operator.run(&["delete", "k", "--ack", "some"]).exit, 2);
}

#[test]
fn values_of_any_bytes_pass_through_standard_input_and_files() {
    let cluster = Cluster::start(&["oslo"]);
    let operator = Operator::new(cluster[0].address());
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let node = cluster[0].address().to_string();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("value");
    let file = path.to_str().expect("text");
    for place in [&[][..], &["--node", &node]] {
        let put = [&["put", "a b/c", "-", "--ttl", "90s"], place].concat();
        assert_eq!(operator.run_with(&put, &bytes).exit, 0);
        assert_eq!(operator.run(&[&["get", "a b/c"], place].concat()).out, bytes);
        let got = operator.run(&[&["get", "a b/c", "--out", file], place].concat());
        assert_eq!((got.exit, got.out.len()), (0, 0), "{got:?}");
        assert_eq!(std::fs::read(&path).expect("reads"), bytes);
        let deleted = operator.run(&[&["delete", "a b/c", "--json"], place].concat()).json();
        assert_eq!(deleted["keys"][0]["status"], "stored", "{deleted}");
    }
}

#[test]
fn description_of_a_value_is_put_and_read() {
    let cluster = Cluster::start(&["oslo"]);
    let operator = Operator::new(cluster[0].address());
    let node = cluster[0].address().to_string();
    let described =
        ["--content-type", "image/svg+xml; charset=utf-8", "--content-encoding", "gzip"];
    let origins = ["--origin", "https://a.example/?x=1&y=%20", "--origin", "s3://b/1"];
    for (key, place) in [("client", &[][..]), ("node", &["--node", &node])] {
        let put = [&["put", key, "value"], &described[..], &origins, place].concat();
        assert_eq!(operator.run(&put).exit, 0);
        for place in [&[][..], &["--node", &node]] {
            let json = operator.run(&[&["get", key, "--json"], place].concat()).json();
            assert_eq!(json["content_type"], "image/svg+xml; charset=utf-8");
            assert_eq!(json["content_encoding"], "gzip");
            let origins = serde_json::json!(["https://a.example/?x=1&y=%20", "s3://b/1"]);
            assert_eq!(json["origins"], origins, "{key} {place:?}");
            assert_eq!(operator.run(&[&["put", "plain", "v"], place].concat()).exit, 0);
            let json = operator.run(&[&["get", "plain", "--json"], place].concat()).json();
            assert_eq!(
                (&json["content_type"], &json["origins"]),
                (&Json::Null, &Json::Array(vec![]))
            );
        }
    }
    for wrong in [["--content-type", "png"], ["--content-encoding", ","], ["--origin", "/a"]] {
        assert_eq!(operator.run(&[&["put", "k", "v"], &wrong[..]].concat()).exit, 2, "{wrong:?}");
    }
}

#[test]
fn wrong_input_and_absent_nodes_have_exit_codes_of_their_own() {
    let cluster = Cluster::start(&["oslo"]);
    let operator = Operator::new(cluster[0].address());
    let nobody = format!("{}:1", unique_address());
    for (exit, args, part) in [
        (2, &["get", "--hex", "abc"][..], "hexadecimal"),
        (2, &["delete", "a", "b"], "--yes"),
        (2, &["put", "a", "b", "--ttl", "0"], "out of range"),
        (2, &["get", "a", "--seed", "nowhere"], "HOST:PORT"),
        (3, &["get", "a", "--node", &nobody], "nobody listens there"),
        (3, &["nodes", "--seed", &nobody], "nobody listens there"),
    ] {
        let printed = operator.run(args);
        assert_eq!(printed.exit, exit, "{args:?} {printed:?}");
        assert!(printed.err.contains(part) && printed.err.lines().count() == 1, "{printed:?}");
        let json = operator.run(&[args, &["--json"]].concat()).json();
        assert!(json["error"].as_str().is_some_and(|error| error.contains(part)), "{json}");
    }
}

#[test]
fn every_node_is_shown_as_all_others_see_it() {
    let mut cluster =
        Cluster::start_with(&["london", "london", "sydney"], |setup| setup.flag("--zone", "a"));
    cluster[0].put(b"key", b"value", "ttl=60&ack=all");
    let operator = Operator::new(cluster[1].address());
    let shown = operator.run(&["nodes"]);
    assert_eq!(shown.exit, 0, "{shown:?}");
    let text = shown.text();
    assert!(text.starts_with("ID ") && text.lines().count() == 4, "{text}");
    for node in &cluster.nodes {
        let address = node.address().to_string();
        let line = text.lines().find(|line| line.contains(&address)).expect("a line");
        assert!(line.contains(node.region()) && line.contains("in-sync"), "{line}");
        assert!(line.ends_with("3/3"), "{line}");
    }
    let json = operator.run(&["status", "--json"]).json();
    let nodes = json["nodes"].as_array().expect("a list");
    assert!(nodes.iter().all(|node| node["seen_by"] == 3 && node["observers"] == 3), "{json}");
    assert!(nodes.iter().all(|node| node["entries"] == 1 && node["zone"] == "a"), "{json}");
    let one = operator.run(&["nodes", "--json", "--node", &cluster[2].address().to_string()]);
    let one = one.json();
    assert_eq!(one["nodes"].as_array().map(Vec::len), Some(3), "{one}");
    // One that does not answer is bad news.
    cluster[2].freeze();
    let (frozen, seen) = (cluster[2].address().to_string(), cluster[0].address());
    until_true("a view in which the frozen node is unreachable", || {
        cluster[0].unreachable().is_some_and(|out| out.contains(&cluster[2].address()))
    });
    let json = operator.run(&["nodes", "--json", "--timeout", "500ms"]).json();
    let nodes = json["nodes"].as_array().expect("a list");
    let row = nodes.iter().find(|node| node["address"] == frozen.as_str()).expect("a row");
    assert_eq!((&json["exit"], &row["answers"]), (&6.into(), &false.into()), "{json}");
    let by = row["not_seen_by"].as_array().expect("a list");
    let own = nodes.iter().find(|node| node["address"] == seen.to_string()).expect("a row");
    assert!(by.contains(&own["id"]), "{json}");
}

#[test]
fn nodes_of_another_cluster_are_not_mixed_in() {
    let ours = Cluster::start(&["oslo"]);
    let other = Setup::new("oslo").flag("--cluster", "other").start();
    let operator = Operator::new(ours[0].address());
    let (ours_at, other_at) = (ours[0].address().to_string(), other.address().to_string());
    let seeds = format!("{ours_at},{other_at}");
    let operator = operator.set("ZEROCACHE_SEED", seeds);
    let json = operator.run(&["nodes", "--json"]).json();
    assert_eq!(json["nodes"].as_array().map(Vec::len), Some(1), "{json}");
    assert_eq!(json["silent"][0]["address"], other_at.as_str(), "{json}");
}

#[test]
fn checks_have_the_exit_codes_of_monitoring_systems() {
    let mut cluster = Cluster::start(&["london", "sydney"]);
    let operator = Operator::new(cluster[0].address());
    let address = cluster[1].address().to_string();
    let ready = operator.run(&["check", "ready", "--node", &address]);
    assert_eq!(ready.exit, 0, "{ready:?}");
    let line = format!("OK - ready: {address} is in-sync | time=");
    assert!(ready.text().starts_with(&line), "{ready:?}");
    let all = operator.run(&["check", "cluster"]);
    let line = "OK - cluster: 2 of 2 nodes answer, 2 are in sync | nodes=2 answering=2 in_sync=2\n";
    assert_eq!((all.exit, all.text().as_str()), (0, line), "{all:?}");
    let memory = operator.run(&["check", "memory", "--watch", "50ms", "--json"]).json();
    assert_eq!((&memory["verdict"], &memory["check"]), (&"OK".into(), &"memory".into()));
    assert_eq!(memory["numbers"]["bytes_max"], 2.0 * f64::from(128 << 20), "{memory}");
    cluster[1].freeze();
    let args = ["--timeout", "500ms"];
    let ready = operator.run(&[&["check", "ready", "--node", &address], &args[..]].concat());
    assert_eq!(ready.exit, 2, "{ready:?}");
    assert!(ready.text().starts_with("CRITICAL - ready: "), "{ready:?}");
    let all = operator.run(&[&["check", "cluster"], &args[..]].concat());
    assert_eq!(all.exit, 2, "{all:?}");
    assert!(all.text().contains(&address), "{all:?}");
}

#[test]
fn certificates_are_checked() {
    let keys = Keys::new();
    let node = Setup::new("oslo").access(Access::Secret(keys.clone())).start();
    let operator = Operator::with_keys(node.address(), &keys);
    let checked = operator.run(&["check", "cert", "--warning-days", "2", "--critical-days", "1"]);
    assert_eq!(checked.exit, 0, "{checked:?}");
    assert!(checked.text().contains("days left at oslo"), "{checked:?}");
    let long = ["check", "cert", "--warning-days", "1000", "--json"];
    let json = operator.run(&long).json();
    assert_eq!((&json["verdict"], &json["exit"]), (&"WARNING".into(), &1.into()), "{json}");
    // Without a token nobody tells anything.
    let stranger = Operator::new(node.address()).set("ZEROCACHE_TOKEN_FILE", "");
    let nodes = stranger.run(&["nodes", "--tls", "off"]);
    assert_eq!(nodes.exit, 4, "{nodes:?}");
}

#[test]
fn top_shows_what_nodes_do_between_two_answers() {
    let cluster = Cluster::start(&["london", "sydney"]);
    cluster[0].put(b"key", b"value", "ttl=60&ack=all");
    let operator = Operator::new(cluster[0].address());
    let text = operator.run(&["top", "--once", "--interval", "50ms"]).text();
    assert!(text.starts_with("NODE ") && text.lines().count() == 3, "{text}");
    let reader = std::thread::scope(|scope| {
        let top = scope.spawn(|| operator.run(&["top", "--once", "--json", "--interval", "2s"]));
        while !top.is_finished() {
            assert_eq!(cluster[1].get(b"key").status, 200);
        }
        top.join().expect("it ends")
    });
    let json = reader.json();
    let rates = |region: &str| {
        let nodes = json["nodes"].as_array().expect("a list");
        let node = nodes.iter().find(|node| node["region"] == region).expect("a node");
        (node["reads_per_s"].as_f64().expect("a rate"), node["hit_percent"].clone())
    };
    assert!(rates("sydney").0 > 0.0 && rates("sydney").1 == 100.0, "{json}");
    assert_eq!(rates("london").0, 0.0, "{json}");
}
