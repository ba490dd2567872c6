//! Names of broadcasts.

use super::{call_slot::RESERVED_NAME, error::PublishError};

/// The name as it is on the wire, where slashes at the ends and doubled ones are left out. What is kept, compared and asked
/// about is this.
pub(super) fn normal_name(name: &str) -> String {
    moq_lite::Path::new(name).as_str().to_owned()
}

/// The name as it is on the wire, if a program can announce a broadcast under it.
pub(super) fn valid_name(name: &str) -> Result<String, PublishError> {
    let path = moq_lite::Path::new(name);
    let invalid = |source| PublishError::Name {
        name: name.to_owned(),
        source,
    };
    if path.is_empty() || path.parts().count() > moq_lite::Path::MAX_PARTS {
        return Err(invalid(moq_lite::Error::NotFound));
    }
    if path.parts().any(|part| part == "*" || part == "**") {
        return Err(invalid(moq_lite::Error::Unroutable));
    }
    if path.as_str() == RESERVED_NAME {
        return Err(PublishError::Reserved(name.to_owned()));
    }
    Ok(path.as_str().to_owned())
}
