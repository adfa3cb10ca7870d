use proptest::prelude::*;

use super::*;

fn variant(query: &str) -> Result<Variant, Failure> {
    VariantRules::default().variant(&Params::parse(query)?, false)
}

fn is_bad(query: &str) -> bool {
    matches!(variant(query), Err(Failure::BadRequest(_)))
}

#[test]
fn parameters_become_a_variant() {
    let made =
        variant("url=x&w=300&h=200&fit=cover&gravity=north&q=71&format=jpg&bg=0a0B0c&enlarge=1");
    let expected = Variant {
        width: Some(330),
        height: Some(220),
        fit: Fit::Cover,
        gravity: Gravity::North,
        quality: 75,
        format: Format::Jpeg,
        background: [10, 11, 12],
        enlarge: true,
    };
    assert_eq!(made, Ok(expected.clone()));
    assert_eq!(expected.check(), Ok(()));
    assert_eq!(expected.to_string(), "330x220 Cover North q75 Jpeg 0a0b0c enlarged");
}

#[test]
fn what_has_no_effect_is_no_other_variant() {
    let same = |a: &str, b: &str| {
        assert_eq!(variant(a).expect("a variant"), variant(b).expect("a variant"))
    };
    same("w=250", "w=241&h=0&fit=cover&gravity=south");
    same("w=250&format=png&q=10", "w=250&format=png&q=90&bg=000000");
    same("w=250&q=76", "w=250&q=80");
    same("w=125&dpr=2", "w=250");
    same("w=250&h=250&fit=fill&gravity=east", "w=250&h=250&fit=fill");
    same("", "q=80&fit=inside&format=auto&dpr=1");
}

#[test]
fn reader_that_knows_webp_gets_a_variant_of_its_own_only_with_automatic_format() {
    let rules = VariantRules::default();
    let of = |query: &str, webp| {
        rules.variant(&Params::parse(query).expect("params"), webp).expect("a variant")
    };
    assert_ne!(of("w=250", true), of("w=250", false));
    assert_eq!(of("w=250&format=jpeg", true), of("w=250&format=jpeg", false));
}

#[test]
fn wrong_parameters_are_named() {
    let wrong = [
        "w=-1",
        "w=1e3",
        "w=+5",
        "w=100000",
        "w=99999999999999999999",
        "h=a",
        "q=0",
        "q=101",
        "fit=crop",
        "gravity=up",
        "format=avif",
        "format=svg",
        "bg=fff",
        "bg=gggggg",
        "bg=+fffff",
        "dpr=4",
        "enlarge=yes",
        "width=5",
        "w=1&w=2",
        "preset=none",
        "w",
        "q=",
    ];
    for query in wrong {
        // "w" alone is an empty parameter, which is a free side.
        assert!(is_bad(query) || query == "w", "{query}");
    }
    assert!(is_bad(&"a".repeat(QUERY_BYTES_MAX + 1)));
    assert_eq!(
        variant("q=0").expect_err("wrong").to_string(),
        "q: a number from 1 to 100 is allowed"
    );
}

#[test]
fn preset_names_parameters() {
    let mut rules = VariantRules::default();
    rules.add_preset("card:w=500&h=250&fit=cover").expect("a preset");
    let of = |rules: &VariantRules, query: &str| rules.variant(&Params::parse(query)?, false);
    let card = of(&rules, "preset=card&url=x").expect("a variant");
    assert_eq!((card.width, card.height, card.fit), (Some(500), Some(250), Fit::Cover));
    assert_eq!(of(&rules, "preset=card&w=960").expect("a variant").width, Some(960));
    rules.only_presets = true;
    assert!(of(&rules, "preset=card&dpr=2").is_ok());
    assert!(of(&rules, "preset=card&w=960").is_err() && of(&rules, "url=x").is_err());
    assert!(rules.add_preset("broken:w=a").is_err() && rules.add_preset("url:url=x").is_err());
    assert!(rules.add_preset("nothing").is_err());
}

#[test]
fn size_and_url_can_be_in_the_path() {
    let params = Params::parse("fit=cover")
        .and_then(|params| params.with_path("250x", "http://x/"))
        .expect("params");
    assert_eq!(
        (params.get("w"), params.get("h"), params.get("url")),
        (Some("250"), None, Some("http://x/"))
    );
    assert!(Params::parse("w=1").and_then(|params| params.with_path("2x2", "x")).is_err());
    assert!(Params::parse("").and_then(|params| params.with_path("22", "x")).is_err());
}

proptest! {
    #[test]
    fn no_query_panics_and_every_variant_is_in_range(query in ".{0,200}", webp: bool) {
        if let Ok(params) = Params::parse(&query)
            && let Ok(variant) = VariantRules::default().variant(&params, webp) {
            prop_assert!(variant.check().is_ok());
        }
    }

    #[test]
    fn numbers_in_any_combination_are_in_range(w: u32, h: u32, q: u8, dpr in 0..5) {
        if let Ok(variant) = variant(&format!("w={w}&h={h}&q={q}&dpr={dpr}")) {
            prop_assert!(variant.check().is_ok());
        }
    }
}
