//! What our catalogs say beyond those of the family.

use moq_mux::catalog::hang::CatalogExt;
use serde::{Deserialize, Deserializer, Serialize};

/// What a broadcast consists of, as its publisher says.
pub type Catalog = hang::catalog::Catalog<CatalogExtension>;

/// Writes the catalog of a broadcast.
pub(super) type CatalogProducer = moq_mux::catalog::Producer<CatalogExtension>;

/// What our catalogs say beyond those of the `hang` family, in a section of their own that other players pass over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct CatalogExtension {
    /// The section.
    #[serde(
        rename = "irohLive",
        skip_serializing_if = "IrohLive::is_empty",
        deserialize_with = "lenient"
    )]
    pub iroh_live: IrohLive,
}

impl CatalogExt for CatalogExtension {}

/// The section `irohLive` of a catalog.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[non_exhaustive]
pub struct IrohLive {
    /// The publisher fits the bitrate of its pictures to what the network carries to its viewer, who is the only one. Who
    /// watches then leaves that to it: of two that do so, on one link, each takes what the other does for the network.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub adapts_video: bool,
}

impl IrohLive {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What is in the section of another version, or of somebody else's, is no reason to refuse the catalog.
fn lenient<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IrohLive, D::Error> {
    let section = serde_json::Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(section).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_section_is_read_and_passed_over_by_others() {
        let mut catalog = Catalog::default();
        let media = r#"{"video":{"renditions":{}},"audio":{"renditions":{}}"#;
        assert_eq!(catalog.to_json().unwrap(), format!("{media}}}"));
        catalog.ext.iroh_live.adapts_video = true;
        let json = catalog.to_json().unwrap();
        assert_eq!(
            json,
            format!(r#"{media},"irohLive":{{"adaptsVideo":true}}}}"#)
        );
        assert_eq!(Catalog::from_str(&json).unwrap(), catalog);
        let other = hang::catalog::Catalog::<()>::from_str(&json).unwrap();
        assert_eq!(other, hang::catalog::Catalog::default());
    }

    #[test]
    fn what_is_not_understood_in_it_refuses_no_catalog() {
        for section in [
            "null",
            "7",
            "[]",
            r#"{"adaptsVideo":"yes"}"#,
            r#"{"later":1}"#,
        ] {
            let json = format!(r#"{{"video":{{"renditions":{{}}}},"irohLive":{section}}}"#);
            assert_eq!(Catalog::from_str(&json).unwrap(), Catalog::default());
        }
        let json = r#"{"irohLive":{"adaptsVideo":true,"later":1}}"#;
        assert!(Catalog::from_str(json).unwrap().ext.iroh_live.adapts_video);
    }
}
