//! Credentials that change while a process runs.

use super::*;
use crate::security::tls::leaf::DAY;

#[tokio::test]
async fn reload_changes_everything_or_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("secrets");
    let process = node_with_file(&path, &[1]);
    let identity = process.identity();
    let mut changes = process.changes();
    let stranger = meet(&node(2), &process).await;
    assert!(stranger.is_refused());
    let known = meet(&node(1), &process).await.caller();

    assert!(matches!(process.reload(), Ok(false)));
    std::fs::write(&path, "broken").expect("a file");
    assert!(process.reload().is_err());
    std::fs::remove_file(&path).expect("a file");
    assert!(process.reload().is_err());
    assert!(!changes.has_changed().expect("a sender"));
    assert!(meet(&node(1), &process).await.is_mutual());
    assert!(process.still_trusts(&known));

    write_secrets(&path, &[2, 1]);
    assert!(matches!(process.reload(), Ok(true)));
    assert!(changes.has_changed().expect("a sender"));
    assert_eq!(*changes.borrow_and_update(), process.generation());
    assert!(
        meet(&node(2), &process).await.is_mutual() && meet(&node(1), &process).await.is_mutual()
    );
    assert!(process.still_trusts(&known));

    write_secrets(&path, &[2]);
    assert!(matches!(process.reload(), Ok(true)));
    assert!(meet(&node(1), &process).await.is_refused());
    assert!(!process.still_trusts(&known));
    assert_eq!(process.identity(), identity, "the key lives as long as the process");
    let caller = meet(&process, &node(2)).await.caller();
    assert_eq!(Some(caller.identity()), identity);
}

#[test]
fn changed_files_are_seen_by_their_paths() {
    let directory = tempfile::tempdir().expect("a directory");
    let (link, one, other) =
        (directory.path().join("link"), directory.path().join("1"), directory.path().join("2"));
    write_secrets(&one, &[1]);
    write_secrets(&other, &[2]);
    std::os::unix::fs::symlink(&one, &link).expect("a link");
    let process = load(SecurityConfig {
        secret: Some(Source::File(link.clone())),
        kind: node_kind(),
        ..SecurityConfig::default()
    });
    process.look();
    assert_eq!(process.generation(), 0);
    // As Kubernetes does.
    std::fs::remove_file(&link).expect("a link");
    std::os::unix::fs::symlink(&other, &link).expect("a link");
    process.look();
    assert_eq!(process.generation(), 1);
    assert_eq!(process.token_keys().to_vec(), [secret(2).token_key()]);
    std::fs::write(&other, "broken").expect("a file");
    process.look();
    process.look();
    assert_eq!(process.generation(), 1);
    assert!(process.reload().is_err());
    write_secrets(&other, &[3]);
    process.look();
    assert_eq!(process.generation(), 2);
}

#[tokio::test]
async fn own_certificate_is_renewed_daily() {
    let config =
        SecurityConfig { secret: value(1), kind: node_kind(), ..SecurityConfig::default() };
    let process = load(config.clone());
    process.look();
    assert_eq!(process.generation(), 0);
    let state = process.state();
    let tls = state.tls().expect("TLS");
    let clock = |ahead_s| super::super::Tls {
        clock: WallClock { ahead_s },
        server: None,
        client: Arc::clone(&tls.client),
        server_name: tls.server_name.clone(),
        callers: None,
        is_of_secret: tls.is_of_secret,
        own: tls.own,
        made: tls.made,
    };
    let day = i64::try_from(DAY.as_secs()).expect("seconds");
    assert!(!clock(day - 60).must_renew() && clock(day).must_renew());
    // The clock was set back.
    assert!(clock(-day - 60).must_renew() && !clock(60 - day).must_renew());
}

#[tokio::test]
async fn file_that_others_can_read_is_used() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("secrets");
    let permissions = std::fs::Permissions::from_mode(0o644);
    write_secrets(&path, &[1]);
    std::fs::set_permissions(&path, permissions).expect("a mode");
    assert!(meet(&node_with_file(&path, &[1]), &node(1)).await.is_mutual());
}
