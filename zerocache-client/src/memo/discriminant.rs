//! The enum variant of an argument, for enums whose encoding does not contain it.
//!
//! `#[serde(untagged)]` writes the contents of a variant without the variant itself, so that `By::Id(7)` and
//! `By::Age(7)` look the same to a serializer. The discriminant of a value can be read without knowing its
//! type, if the type is sized. The expansion reads that of each argument, and of the value that a reference
//! points to, by method lookup: the first of these traits that applies is taken.

use std::any::type_name;
use std::hash::{Hash, Hasher};
use std::mem;

/// An argument whose discriminant is read.
pub struct Argument<'a, T: ?Sized>(pub &'a T);

/// The variant of a value behind a reference.
pub trait BorrowedVariant {
    /// Returns the discriminant; 0 for the first variant, and for a type that is no enum.
    fn __zerocache_variant(&self) -> i128;
}

impl<T> BorrowedVariant for &&Argument<'_, &T> {
    #[inline]
    fn __zerocache_variant(&self) -> i128 {
        discriminant(*self.0)
    }
}

/// The variant of an owned value.
pub trait OwnedVariant {
    /// Returns the discriminant; 0 for the first variant, and for a type that is no enum.
    fn __zerocache_variant(&self) -> i128;
}

impl<T> OwnedVariant for &Argument<'_, T> {
    #[inline]
    fn __zerocache_variant(&self) -> i128 {
        discriminant(self.0)
    }
}

/// An unsized value, which has no variants.
pub trait UnsizedVariant {
    /// Returns 0.
    fn __zerocache_variant(&self) -> i128;
}

impl<T: ?Sized> UnsizedVariant for Argument<'_, T> {
    #[inline]
    fn __zerocache_variant(&self) -> i128 {
        0
    }
}

/// Returns the discriminant: the index of the variant, unless the type assigns another number.
#[inline]
fn discriminant<T>(value: &T) -> i128 {
    // A borrowed and an owned `Cow` are the same value.
    if type_name::<T>().starts_with("alloc::borrow::Cow<") {
        return 0;
    }
    let mut number = DiscriminantHasher(0);
    mem::discriminant(value).hash(&mut number);
    number.0
}

/// A hasher that captures the number which a discriminant passes to it, whatever its width.
struct DiscriminantHasher(i128);

macro_rules! take {
    ($($method:ident: $type:ty,)*) => {$(
        #[inline]
        fn $method(&mut self, number: $type) {
            self.0 = number as i128;
        }
    )*};
}

impl Hasher for DiscriminantHasher {
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
