//! The comparison of a value with what is read back of it, if its type implements `PartialEq`.
//!
//! The choice is made by method lookup, as that of the rule: an inherent method with the bound takes precedence over
//! a trait's method without it. In a generic function the bound must be one of the function's own.

use super::rule::{OkRule, WholeRule};

/// How a stored value is compared with what is read back.
pub trait Equality<V>: Copy {
    /// Returns the comparison, if there is one.
    fn function() -> Option<fn(&V, &V) -> bool>;
}

/// The comparison of types with `PartialEq`.
#[derive(Clone, Copy)]
pub struct WithEquality;

impl<V: PartialEq> Equality<V> for WithEquality {
    fn function() -> Option<fn(&V, &V) -> bool> {
        Some(V::eq)
    }
}

/// Of other types nothing is compared.
#[derive(Clone, Copy)]
pub struct WithoutEquality;

impl<V> Equality<V> for WithoutEquality {
    fn function() -> Option<fn(&V, &V) -> bool> {
        None
    }
}

impl<V: PartialEq, E> OkRule<V, E> {
    /// Returns the comparison of `Ok` values.
    pub fn equality(&self) -> WithEquality {
        WithEquality
    }
}

impl<V, E: PartialEq> OkRule<V, E> {
    /// Returns the comparison of errors.
    pub fn error_equality(&self) -> WithEquality {
        WithEquality
    }
}

impl<T: PartialEq> WholeRule<T> {
    /// Returns the comparison of values.
    pub fn equality(&self) -> WithEquality {
        WithEquality
    }
}

/// Values that cannot be compared; chosen where the inherent methods do not apply.
pub trait NoEquality {
    /// Returns the absence of a comparison of values.
    fn equality(&self) -> WithoutEquality {
        WithoutEquality
    }

    /// Returns the absence of a comparison of errors.
    fn error_equality(&self) -> WithoutEquality {
        WithoutEquality
    }
}

impl<V, E> NoEquality for OkRule<V, E> {}

impl<T> NoEquality for WholeRule<T> {}
