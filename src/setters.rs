//! Builder setters of options, generated so that a field and its setter cannot differ.

/// Generates `const` setters that take the options and return them with one field changed.
///
/// For this project's crates; not part of the public API.
#[doc(hidden)]
#[macro_export]
macro_rules! setters {
    ($($field:ident: $ty:ty),* $(,)?) => {
        $(
            #[doc = concat!("Sets [`", stringify!($field), "`](#structfield.", stringify!($field), ").")]
            #[must_use]
            pub const fn $field(mut self, $field: $ty) -> Self {
                self.$field = $field;
                self
            }
        )*
    };
}
