//! What the injector puts into every pod, whatever its annotations say: image, defaults, resources. A file, which the chart writes.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::yaml;

/// How a pod's connections reach the sidecar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// By its ports: nothing is redirected, and no privilege is needed.
    #[default]
    Local,
    /// By redirection in the pod's network namespace.
    Transparent,
}

impl Mode {
    /// As annotations and flags have it.
    pub fn word(self) -> &'static str {
        match self {
            Mode::Local => "local",
            Mode::Transparent => "transparent",
        }
    }
}

/// What is put into every pod.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Template {
    /// The image of the sidecar.
    pub image: String,
    /// When it is pulled; what the API server makes of the tag when absent.
    #[serde(default)]
    pub image_pull_policy: Option<String>,
    /// The image of the capture step; that of the sidecar when absent.
    #[serde(default)]
    pub capture_image: Option<String>,
    /// For kernels without nf_tables: the capture step may use raw sockets, which legacy iptables needs.
    #[serde(default)]
    pub legacy_iptables: bool,
    /// The mode of pods that do not say.
    #[serde(default)]
    pub default_mode: Mode,
    /// Where the sidecar listens for the pod's clients and for kubelets.
    #[serde(default = "everywhere")]
    pub bind_address: IpAddr,
    /// What the sidecar's log tells, where the pod does not say.
    #[serde(default = "info")]
    pub log: String,
    /// `resources` of both containers, as containers have them.
    #[serde(default)]
    pub resources: Map<String, Value>,
}

fn everywhere() -> IpAddr {
    IpAddr::from([0, 0, 0, 0])
}

fn info() -> String {
    "info".to_owned()
}

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidTemplate(pub String);

impl Template {
    /// With nothing but an image.
    pub fn new(image: impl Into<String>) -> Self {
        Template {
            image: image.into(),
            image_pull_policy: None,
            capture_image: None,
            legacy_iptables: false,
            default_mode: Mode::default(),
            bind_address: everywhere(),
            log: info(),
            resources: Map::new(),
        }
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// What is wrong with it, with its place.
    pub fn read(name: &str, text: &[u8]) -> Result<Self, InvalidTemplate> {
        let mut documents = yaml::documents(text).into_iter();
        let (Some(document), None) = (documents.next(), documents.next()) else {
            return Err(InvalidTemplate(format!("{name}: write one document, with `image` at least")));
        };
        let wrong = |problem: yaml::Problem| InvalidTemplate(format!("{name}:{problem}"));
        let template: Template = document.and_then(|document| document.read()).map_err(wrong)?;
        let wrong = |what: &str| Err(InvalidTemplate(format!("{name}: {what}")));
        if template.image.is_empty() {
            return wrong("image: is empty; name the image of the sidecar");
        }
        if template.capture_image.as_deref() == Some("") {
            return wrong("captureImage: is empty; name an image, or leave it out");
        }
        match template.log.parse::<crate::telemetry::log::Filter>() {
            Ok(_) => Ok(template),
            Err(invalid) => wrong(&format!("log: {invalid}")),
        }
    }
}
