//! The rights that `floodway gateway`, the injector and sidecars need in a cluster, as the rules of their roles have them. The chart
//! gives exactly these (`tests/chart/rights.rs` holds both together), and `floodway doctor` asks whether they were given.

/// In which namespaces a right is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Within {
    /// Where routes are: `watchNamespaces`.
    Routes,
    /// Where Secrets and ConfigMaps are read, if they are: `kubernetes.secrets`.
    Secrets,
    /// Where the pods of Floodway are, or of a sidecar its own.
    Own,
    /// Of objects without a namespace.
    Cluster,
}

/// One rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Right<'a> {
    /// Where it is needed.
    pub within: Within,
    /// The API group; that of Pods and Services is empty.
    pub group: &'static str,
    /// Resources, with a subresource behind a slash.
    pub resources: &'static [&'static str],
    /// The names of the objects; any if empty.
    pub names: &'a [&'a str],
    /// What is done with them.
    pub verbs: &'static [&'static str],
    /// What does not work without it.
    pub without: &'static str,
}

/// Those of the gateway.
pub const RIGHTS: &[Right<'static>] = &[
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

/// Those of the injector, whose Secret and whose webhook configuration are called so.
pub const fn injector_rights<'a>(secret: &'a [&'a str], configuration: &'a [&'a str]) -> [Right<'a>; 3] {
    [
        Right {
            within: Within::Own,
            group: "",
            resources: &["secrets"],
            names: secret,
            verbs: &["get", "list", "watch", "update"],
            without: "it has no certificate, and no pod gets a sidecar",
        },
        Right {
            within: Within::Own,
            group: "",
            resources: &["secrets"],
            names: &[],
            verbs: &["create"],
            without: "it has no certificate, and no pod gets a sidecar",
        },
        Right {
            within: Within::Cluster,
            group: "admissionregistration.k8s.io",
            resources: &["mutatingwebhookconfigurations"],
            names: configuration,
            verbs: &["get", "list", "watch", "patch"],
            without: "API servers do not trust it, and no pod gets a sidecar",
        },
    ]
}

/// Those of the sidecars of a namespace.
pub const SIDECAR_RIGHTS: &[Right<'static>] = &[
    Right {
        within: Within::Own,
        group: crate::api::GROUP,
        resources: &["proxyroutes", "proxyupstreams", "proxypolicies"],
        names: &[],
        verbs: &["list", "watch"],
        without: "nothing is balanced, and what is under a policy is refused",
    },
    Right {
        within: Within::Own,
        group: "",
        resources: &["services"],
        names: &[],
        verbs: &["list", "watch"],
        without: "nothing is balanced",
    },
    Right {
        within: Within::Own,
        group: "discovery.k8s.io",
        resources: &["endpointslices"],
        names: &[],
        verbs: &["list", "watch"],
        without: "nothing is balanced",
    },
    Right {
        within: Within::Secrets,
        group: "",
        resources: &["secrets", "configmaps"],
        names: &[],
        verbs: &["list", "watch"],
        without: "certificates and keys are not found, and requests are refused",
    },
];
