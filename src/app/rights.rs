//! The rights that `floodway gateway` needs in a cluster, as the rules of its roles have them. The chart gives exactly these
//! (`tests/chart/rendered.rs` holds both together), and `floodway doctor` asks whether they were given.

/// In which namespaces a right is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Within {
    /// Where routes are: `watchNamespaces`.
    Routes,
    /// Where Secrets and ConfigMaps are read, if they are: `kubernetes.secrets`.
    Secrets,
    /// Where the pods of Floodway are.
    Own,
}

/// One rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Right {
    /// Where it is needed.
    pub within: Within,
    /// The API group; that of Pods and Services is empty.
    pub group: &'static str,
    /// Resources, with a subresource behind a slash.
    pub resources: &'static [&'static str],
    /// The names of the objects; any if empty.
    pub names: &'static [&'static str],
    /// What is done with them.
    pub verbs: &'static [&'static str],
    /// What does not work without it.
    pub without: &'static str,
}

/// All of them.
pub const RIGHTS: &[Right] = &[
    Right {
        within: Within::Routes,
        group: crate::api::GROUP,
        resources: &["proxyroutes", "proxyupstreams", "proxypolicies"],
        names: &[],
        verbs: &["list", "watch"],
        without: "nothing is served",
    },
    Right {
        within: Within::Routes,
        group: crate::api::GROUP,
        resources: &["proxyroutes/status", "proxyupstreams/status", "proxypolicies/status"],
        names: &[],
        verbs: &["patch"],
        without: "nobody is told what is wrong with objects",
    },
    Right {
        within: Within::Routes,
        group: "",
        resources: &["services"],
        names: &[],
        verbs: &["list", "watch"],
        without: "nothing is served",
    },
    Right {
        within: Within::Routes,
        group: "discovery.k8s.io",
        resources: &["endpointslices"],
        names: &[],
        verbs: &["list", "watch"],
        without: "nothing is served",
    },
    Right {
        within: Within::Routes,
        group: "events.k8s.io",
        resources: &["events"],
        names: &[],
        verbs: &["create", "patch"],
        without: "there are no events",
    },
    Right {
        within: Within::Secrets,
        group: "",
        resources: &["secrets", "configmaps"],
        names: &[],
        verbs: &["list", "watch"],
        without: "certificates, keys and pages are not found",
    },
    Right {
        within: Within::Own,
        group: "coordination.k8s.io",
        resources: &["leases"],
        names: &["floodway-leader"],
        verbs: &["get", "update"],
        without: "nobody writes statuses",
    },
    Right {
        within: Within::Own,
        group: "coordination.k8s.io",
        resources: &["leases"],
        names: &[],
        verbs: &["create"],
        without: "nobody writes statuses",
    },
];
