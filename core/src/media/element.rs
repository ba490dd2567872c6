//! Properties of elements, by name and text.

use gst::{
    glib::{self, translate::*},
    prelude::*,
};

/// Sets a property to what its text says. Returns whether the element has it and takes the value.
///
/// Releases of GStreamer differ in what an element has; what is missing is left as it is.
pub(super) fn set(element: &gst::Element, name: &str, value: &str) -> bool {
    let Some(property) = element.find_property(name) else {
        return false;
    };
    if !property.flags().contains(glib::ParamFlags::WRITABLE) {
        return false;
    }
    let Ok(mut value) = glib::Value::deserialize_with_pspec(value, &property) else {
        tracing::debug!(element = %element.name(), name, value, "the property does not take this value");
        return false;
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
    true
}
