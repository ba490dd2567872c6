//! Properties of elements, by name and text.

use gst::{
    glib::{self, translate::*},
    prelude::*,
};

/// What became of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was taken, as near as the property gets.
    Done,
    /// The element has no such property. Releases of GStreamer differ in what an element has.
    Missing,
    /// The property does not take this value.
    Refused,
}

/// Sets a property to what its text says.
pub(super) fn set(element: &gst::Element, name: &str, value: &str) -> Outcome {
    let Some(property) = element.find_property(name) else {
        return Outcome::Missing;
    };
    if !property.flags().contains(glib::ParamFlags::WRITABLE) {
        return Outcome::Missing;
    }
    let Ok(mut value) = glib::Value::deserialize_with_pspec(value, &property) else {
        tracing::debug!(element = %element.name(), name, value, "the property does not take this value");
        return Outcome::Refused;
    };
    // Out of range means: as near as it gets.
    // SAFETY: both are alive, and the value is of the property's type.
    unsafe {
        glib::gobject_ffi::g_param_value_validate(
            property.to_glib_none().0,
            value.to_glib_none_mut().0,
        );
    }
    element.set_property_from_value(name, &value);
    Outcome::Done
}
