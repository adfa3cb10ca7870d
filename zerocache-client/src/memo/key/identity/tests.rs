//! Golden paths, and which types are distinguished.

use std::any::type_name_of_val;

use super::*;

pub(in crate::memo::key) const ORIGIN: FunctionInfo = FunctionInfo {
    function: "find",
    name: None,
    version: 0,
    package: Some("shop-server"),
    module: "shop",
    tokens: 1,
    file: "shop.rs",
    line: 2,
    column: 3,
};

pub(in crate::memo::key) fn identity(type_name: &str, info: FunctionInfo) -> FunctionId {
    Identity::new(type_name, &info).id.expect("a distinct type")
}

/// The path of a function as it is hashed.
fn normal(closure: &str, function: &str) -> String {
    Path::of_function(closure, function).0.normal()
}

struct Inner<T>(T);

trait Named {
    fn name(&self) -> String;
    fn default_name(&self) -> String {
        normal(type_name_of_val(&|| ()), "default_name")
    }
}

impl<T> Inner<T> {
    fn method<U>(&self, _: U) -> String {
        normal(type_name_of_val(&|| ()), "method")
    }
}

impl<T> Named for Inner<T> {
    fn name(&self) -> String {
        normal(type_name_of_val(&|| ()), "name")
    }
}

impl Named for &'static str {
    fn name(&self) -> String {
        normal(type_name_of_val(&|| ()), "name")
    }
}

fn array<const N: usize>(_: impl Sized) -> String {
    normal(type_name_of_val(&|| ()), "array")
}

/// What this compiler writes. When one of these changes with a new compiler, `normalise` should
/// bring it back to the old text.
#[test]
fn golden_identities() {
    let here = module_path!();
    let found = [
        Inner(1_u8).method(String::new()),
        Inner(Some(1_u8)).name(),
        Inner(1_u8).default_name(),
        "x".name(),
        array::<3>([0_u8; 2]),
    ];
    assert_eq!(
        found.map(|path| path.replace(here, "HERE")),
        [
            "HERE::Inner<u8>::method<std::string::String>",
            "<HERE::Inner<std::option::Option<u8>> as HERE::Named>::name",
            "<HERE::Inner<u8> as HERE::Named>::default_name",
            "<&str as HERE::Named>::name",
            "HERE::array<3,[u8;2]>",
        ]
    );
}

#[test]
fn normalising_removes_parts_without_meaning() {
    for (path, normal) in [
        ("a::f", "a::f"),
        ("a::f<alloc::string::String>", "a::f<std::string::String>"),
        ("a::f<core::option::Option<u8>,  u8>", "a::f<std::option::Option<u8>,u8>"),
        ("<a::S<'_> as a::T<'static, u8>>::f", "<a::S as a::T<u8>>::f"),
        ("a::f<&'a str>", "a::f<&str>"),
        ("a::f<&mut u8>", "a::f<&mut u8>"),
        ("a::f<dyn b::T + 'static>", "a::f<dyn b::T +>"),
        ("a::core::f", "a::core::f"),
        ("my_core::f<my_alloc::X>", "my_core::f<my_alloc::X>"),
        ("a::f<'x'>", "a::f<'x'>"),
        ("a::f<'\\'', ' '>", "a::f<'\\'',' '>"),
        ("a::f<'>', 3>", "a::f<'>',3>"),
        ("a::f<alloc::borrow::Cow<'_, str>>", "a::f<std::borrow::Cow<str>>"),
    ] {
        assert_eq!(Path::of(path).normal(), normal, "{path}");
    }
    for (closure, function, path) in [
        ("a::b_call<u8>::{{closure}}::{{closure}}", "b", "a::b<u8>"),
        ("<a::S<x::Y> as a::T>::g::{{closure}}", "g", "<a::S<x::Y> as a::T>::g"),
        ("a::f<fn(u8) -> b::C>::{{closure}}", "f", "a::f<fn(u8) ->b::C>"),
        ("a::f_call<':', '<', 1>::{{closure}}", "f", "a::f<':','<',1>"),
        ("a::{{closure}}::f::{{closure}}", "f", "a::{{closure}}::f"),
    ] {
        assert_eq!(normal(closure, function), path);
    }
}

#[test]
fn name_distinguishes_type_arguments() {
    for (path, arguments) in [
        ("a::f", ""),
        ("a::S<u8>::f<b::C<u16>>", "<u8><b::C<u16>>"),
        ("<a::S as a::T>::f", "<a::S as a::T>"),
        ("a::f<'>', 3>", "<'>',3>"),
    ] {
        assert_eq!(Path::of(path).type_arguments(), arguments);
    }
    let id = |path: &str, name, version| identity(path, FunctionInfo { name, version, ..ORIGIN });
    let (find, moved) = ("shop::find", "b::find");
    assert_eq!(id(find, Some("n"), 0), id(moved, Some("n"), 0), "a name outlives a move");
    assert_ne!(id("shop::find<u8>", Some("n"), 0), id("shop::find<u16>", Some("n"), 0));
    assert_ne!(id(find, Some("n"), 0), id(find, Some("n"), 1));
    assert_ne!(id(find, Some(find), 0), id(find, None, 0));
}

#[test]
fn packages_have_different_identities() {
    let other = FunctionInfo { package: Some("shop-worker"), ..ORIGIN };
    assert_ne!(identity("shop::find", ORIGIN), identity("shop::find", other));
    // But for where they are found by a name of their own.
    let named = |info| identity("shop::find", FunctionInfo { name: Some("n"), ..info });
    assert_eq!(named(ORIGIN), named(other));
}

/// Of those in other functions, in closures and constants there may be several of one path.
#[test]
fn place_distinguishes_functions_of_one_path() {
    let moved = FunctionInfo { tokens: 2, file: "other.rs", line: 3, column: 4, ..ORIGIN };
    for path in [
        "shop::find",
        "shop::find<u8>",
        "shop::Repo::find",
        "shop::Repo<shop::list::Item>::find",
        "shop::<impl other::Repo<u8>>::find",
        "shop::<impl other::Get<u8> for u64>::find",
        "<shop::Repo as shop::list::Get<u8>>::find",
    ] {
        assert_eq!(identity(path, ORIGIN), identity(path, moved), "{path}");
    }
    for path in [
        "shop::main::find",
        "shop::_::find",
        "shop::main::Repo::find",
        "shop::main::{{closure}}::find",
        "shop::main::{{closure}}::Repo<u8>::find",
        "shop::main::<impl other::Get<u8> for u64>::find",
        "shop::<impl other::Repo<u8>>::all::find",
    ] {
        for moved in [
            FunctionInfo { tokens: 2, ..ORIGIN },
            FunctionInfo { line: 3, ..ORIGIN },
            FunctionInfo { column: 4, ..ORIGIN },
        ] {
            assert_ne!(identity(path, ORIGIN), identity(path, moved), "{path}");
        }
    }
}

#[test]
fn type_without_a_unique_name_has_no_identity() {
    let id = |path, name| Identity::new(path, &FunctionInfo { name, ..ORIGIN }).id;
    for path in [
        "shop::find<shop::main::{{closure}}>",
        "shop::find<shop::Wrapper<shop::main::{{closure}}>>",
        "shop::find<[shop::main::{{closure}}; 2]>",
        "shop::find<(u8, &shop::main::{{closure}}::Local)>",
        "<shop::main::{{closure}} as shop::Get>::find",
        "shop::<impl shop::Get<shop::_::Local> for u8>::find",
        "shop::find<fn(&u8) -> u8>",
        "shop::find<fn(u8) -> &u8>",
        "shop::find<for<'a> fn(&'a u8)>",
        "shop::find<unsafe extern \"C\" fn(alloc::borrow::Cow<'_, str>)>",
        "shop::find<dyn shop::Get<'_>>",
        "shop::find<alloc::boxed::Box<dyn core::ops::function::Fn(&'_ u8) -> u8>>",
    ] {
        assert!(id(path, None).is_err() && id(path, Some("n")).is_err(), "{path}");
    }
    for path in [
        "shop::find<&str>",
        "shop::find<alloc::borrow::Cow<'_, str>>",
        "shop::find<fn(u8) -> u8>",
        "shop::find<fn(u8), &u8>",
        "shop::find<(&dyn shop::Get, alloc::borrow::Cow<'_, str>)>",
        "shop::find<alloc::boxed::Box<dyn shop::Get<u8, A = u16> + core::marker::Send>, &u8>",
        "shop::find<'&', 3>",
        "shop::find<shop::_underscore::_Type>",
    ] {
        assert!(id(path, None).is_ok(), "{path}");
    }
}
