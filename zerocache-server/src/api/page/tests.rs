use super::*;

const FILES: [&str; 5] = [
    include_str!("assets/head.html"),
    include_str!("assets/index.html"),
    include_str!("assets/login.html"),
    include_str!("assets/page.css"),
    include_str!("assets/page.js"),
];

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect()
}

#[test]
fn files_are_small_and_their_text_is_never_markup() {
    let bytes: usize = FILES.iter().map(|file| file.len()).sum();
    assert!(bytes < 60 << 10, "{bytes}");
    let script = FILES[4];
    for markup in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
        assert!(!script.contains(markup), "{markup}");
    }
    // The policy forbids them.
    for html in &FILES[..3] {
        assert!(!html.contains("<style") && !html.contains("style="));
        let mut words = html.split_whitespace();
        assert!(!words.any(|word| word.starts_with("on") && word.contains('=')));
        assert_eq!(html.matches("<script").count(), html.matches("<script src=").count());
    }
}

#[test]
fn every_file_that_the_page_names_is_served() {
    let served: Vec<_> = Asset::PUBLIC.iter().map(|asset| asset.path).collect();
    for html in &FILES[..3] {
        for attribute in ["href=\"/", "src=\"/"] {
            for rest in html.split(attribute).skip(1) {
                let path = format!("/{}", rest.split('"').next().expect("a path"));
                assert!(served.contains(&path.as_str()), "{path}");
            }
        }
    }
}

#[test]
fn unchanged_file_is_not_sent_again() {
    let first = assets::INDEX.response(&HeaderMap::new());
    assert_eq!(first.status(), StatusCode::OK);
    assert_eq!(first.headers()[header::CACHE_CONTROL], "no-cache");
    assert_eq!(first.headers()[header::CONTENT_SECURITY_POLICY], POLICY);
    let tag = first.headers()[header::ETAG].clone();
    let request = HeaderMap::from_iter([(header::IF_NONE_MATCH, tag.clone())]);
    let second = assets::INDEX.response(&request);
    assert_eq!(
        (second.status(), &second.headers()[header::ETAG]),
        (StatusCode::NOT_MODIFIED, &tag)
    );
    let other = headers(&[("if-none-match", "\"0\"")]);
    assert_eq!(assets::INDEX.response(&other).status(), StatusCode::OK);
    assert_ne!(Asset::PUBLIC[0].response(&HeaderMap::new()).headers()[header::ETAG], tag);
}
