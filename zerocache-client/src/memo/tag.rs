//! Tags, as the attribute takes them.

/// A tag: any `AsRef<str>` value. Sealed.
///
/// The elements of `tags = […]` are borrowed, as arguments of the key are.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no tag",
    label = "expected a text",
    note = "a tag is a `&str`, a `String`, or another `AsRef<str>`; of other values make one with \
            `format!(…)`"
)]
pub trait Tag: sealed::Sealed {
    /// Returns the tag as an owned text.
    #[doc(hidden)]
    fn to_tag(&self) -> String;
}

mod sealed {
    pub trait Sealed {}
}

#[diagnostic::do_not_recommend]
impl<T: AsRef<str> + ?Sized> sealed::Sealed for T {}

#[diagnostic::do_not_recommend]
impl<T: AsRef<str> + ?Sized> Tag for T {
    fn to_tag(&self) -> String {
        self.as_ref().to_owned()
    }
}

/// Converts an element of `tags = […]`.
pub fn tag<T: Tag + ?Sized>(name: &T) -> String {
    name.to_tag()
}
