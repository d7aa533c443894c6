//! serde's traits of what has parts, for types that take all parts alike.

/// Parts without names: each comes to the method `$part`, the end to `$end`.
macro_rules! elements {
    ($of:ty, $error:ty, $part:ident, $end:ident: $($compound:ident::$element:ident),* $(,)?) => {
        $(impl serde::ser::$compound for $of {
            type Ok = ();
            type Error = $error;

            fn $element<T: serde::Serialize + ?Sized>(&mut self, value: &T) -> Result<(), $error> {
                self.$part(value)
            }

            fn end(self) -> Result<(), $error> {
                self.$end()
            }
        })*
    };
}

/// Parts with names: each comes to the method `$part`, one that is left out to `$skipped`, the end to `$end`.
macro_rules! fields {
    ($of:ty, $error:ty, $part:ident, $skipped:ident, $end:ident: $($compound:ident),* $(,)?) => {
        $(impl serde::ser::$compound for $of {
            type Ok = ();
            type Error = $error;

            fn serialize_field<T: serde::Serialize + ?Sized>(
                &mut self,
                key: &'static str,
                value: &T,
            ) -> Result<(), $error> {
                self.$part(key, value)
            }

            fn skip_field(&mut self, key: &'static str) -> Result<(), $error> {
                self.$skipped(key)
            }

            fn end(self) -> Result<(), $error> {
                self.$end()
            }
        })*
    };
}

pub(crate) use {elements, fields};
