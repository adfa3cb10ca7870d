//! Which variant an argument is, where its own encoding does not say so.
//!
//! `#[serde(untagged)]` writes the contents of a variant and nothing of the variant itself, so that
//! `By::Id(7)` and `By::Age(7)` look the same to a serializer. What can be asked of a value, without knowing
//! its type, is its discriminant, if the type has a size. So the expansion asks each argument, and what an
//! argument borrows, by method lookup: the first of these traits that applies is taken.

use std::any::type_name;
use std::hash::{Hash, Hasher};
use std::mem;

/// An argument to be asked.
pub struct Asked<'a, T: ?Sized>(pub &'a T);

/// What is borrowed.
pub trait OfBorrowed {
    /// Its variant; 0 for the first one, and for what is no enum.
    fn __zerocache_variant(&self) -> i128;
}

impl<T> OfBorrowed for &&Asked<'_, &T> {
    #[inline]
    fn __zerocache_variant(&self) -> i128 {
        number(*self.0)
    }
}

/// What is owned.
pub trait OfOwned {
    /// Its variant; 0 for the first one, and for what is no enum.
    fn __zerocache_variant(&self) -> i128;
}

impl<T> OfOwned for &Asked<'_, T> {
    #[inline]
    fn __zerocache_variant(&self) -> i128 {
        number(self.0)
    }
}

/// What has no size, and so no variants.
pub trait OfUnsized {
    /// Zero.
    fn __zerocache_variant(&self) -> i128;
}

impl<T: ?Sized> OfUnsized for Asked<'_, T> {
    #[inline]
    fn __zerocache_variant(&self) -> i128 {
        0
    }
}

/// The discriminant, which is the place of the variant unless the type says another number.
#[inline]
fn number<T>(value: &T) -> i128 {
    // Borrowed or owned, it is the same value.
    if type_name::<T>().starts_with("alloc::borrow::Cow<") {
        return 0;
    }
    let mut number = Number(0);
    mem::discriminant(value).hash(&mut number);
    number.0
}

/// Takes the number that a discriminant hands to a hasher, whatever its width.
struct Number(i128);

macro_rules! take {
    ($($method:ident: $type:ty,)*) => {$(
        #[inline]
        fn $method(&mut self, number: $type) {
            self.0 = number as i128;
        }
    )*};
}

impl Hasher for Number {
    take! {
        write_u8: u8, write_u16: u16, write_u32: u32, write_u64: u64, write_u128: u128, write_usize: usize,
        write_i8: i8, write_i16: i16, write_i32: i32, write_i64: i64, write_i128: i128, write_isize: isize,
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.wrapping_mul(0x100).wrapping_add(i128::from(*byte));
        }
    }

    fn finish(&self) -> u64 {
        self.0 as u64
    }
}
