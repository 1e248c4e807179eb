//! Values that make no sense, and the sentence that each of them gets.

use crate::helm::render;

#[test]
fn an_old_kubernetes_is_refused() {
    let said = render("", &["--kube-version", "1.29.15"]).unwrap_err();
    assert!(
        said.contains("chart requires kubeVersion: >=1.30.0-0 which is incompatible with Kubernetes v1.29.15"),
        "{said}"
    );
    assert!(render("", &["--kube-version", "1.30.0"]).is_ok());
}

#[test]
fn a_wrong_value_is_refused_by_name() {
    for (values, sentence) in [
        // What the schema says.
        ("replica: 3", "additional properties 'replica' not allowed"),
        ("replicas: many", "at '/replicas': got string, want integer"),
        (
            "service: {type: Loadbalancer}",
            "at '/service/type': value must be one of 'LoadBalancer', 'NodePort', 'ClusterIP'",
        ),
        ("service: {port: 70000}", "at '/service/port': maximum: got 70,000, want 65,535"),
        ("workload: StatefulSet", "at '/workload': value must be one of 'Deployment', 'DaemonSet'"),
        ("drain: {graceSeconds: 30s}", "at '/drain/graceSeconds': got string, want integer"),
        ("drain: {spreadPercent: 101}", "at '/drain/spreadPercent': maximum: got 101, want 100"),
        ("image: {digest: latest}", "at '/image/digest': 'latest' does not match pattern"),
        ("bindAddress: '::'", "at '/bindAddress': '::' does not match pattern"),
        ("watchNamespaces: shop", "at '/watchNamespaces': got string, want array"),
        ("extraPorts: [{port: 1}]", "at '/extraPorts/0': missing property 'name'"),
        ("settings: {limits: {headerTimeout: 10}}", "at '/settings/limits/headerTimeout': got number, want string"),
        (
            "settings: {limits: {headerTimeout: 10 s}}",
            "at '/settings/limits/headerTimeout': '10 s' does not match pattern",
        ),
        (
            "settings: {limits: {conections: 1}}",
            "at '/settings/limits': additional properties 'conections' not allowed",
        ),
        ("monitoring: {podMonitor: {interval: often}}", "at '/monitoring/podMonitor/interval': 'often' does not match"),
        (
            "monitoring: {prometheusRule: {disabled: [Errors]}}",
            "at '/monitoring/prometheusRule/disabled/0': value must be one of",
        ),
        ("podDisruptionBudget: {maxUnavailable: some}", "at '/podDisruptionBudget/maxUnavailable'"),
        // What it cannot.
        ("replicas: 0", "replicas is 0, so nothing would be served: set it to at least 1"),
        (
            "{workload: DaemonSet, autoscaling: {enabled: true}}",
            "autoscaling.enabled is true and workload is DaemonSet, which has one pod for each node: set workload to Deployment",
        ),
        (
            "autoscaling: {enabled: true, minReplicas: 5, maxReplicas: 3}",
            "autoscaling.minReplicas (5) is more than autoscaling.maxReplicas (3)",
        ),
        (
            "autoscaling: {enabled: true, targetCPUUtilizationPercentage: 0}",
            "autoscaling.enabled is true and there is nothing to scale by: set autoscaling.targetCPUUtilizationPercentage",
        ),
        (
            "{autoscaling: {enabled: true}, resources: {requests: {cpu: null}}}",
            "autoscaling.targetCPUUtilizationPercentage is a part of resources.requests.cpu, which is not set",
        ),
        ("hostPorts: {http: 80}", "hostPorts (or extraPorts[].hostPort) are asked for and workload is Deployment"),
        (
            "{workload: DaemonSet, hostPorts: {http: 80}, updateStrategy: {rollingUpdate: {maxSurge: 1}}}",
            "updateStrategy.rollingUpdate.maxSurge is 1, and a new pod cannot have the host ports",
        ),
        ("ports: {https: 8080}", "ports.http and ports.https are both 8080: give each listener a port of its own"),
        ("ports: {http: 9901}", "ports.admin and ports.http are both 9901"),
        ("extraPorts: [{name: alt, port: 8443}]", "ports.https and extraPorts[0].port are both 8443"),
        ("extraPorts: [{name: http, port: 81}]", "extraPorts[0]: the name \"http\" is taken by ports.http"),
        ("service: {httpsPort: 80}", "ports.http and ports.https both ask for port 80 of the Service"),
        (
            "service: {nodePorts: {http: 30000, https: 30000}}",
            "ports.http and ports.https both ask for node port 30000",
        ),
        (
            "service: {type: ClusterIP, nodePorts: {http: 30000}}",
            "the node port 30000 is asked for and service.type is ClusterIP",
        ),
        (
            "extraPorts: [{name: alt, port: 81, nodePort: 30000}]",
            "extraPorts[0].nodePort is 30000 and extraPorts[0].servicePort is not set",
        ),
        (
            "{workload: DaemonSet, hostPorts: {http: 80, https: 80}}",
            "ports.http and ports.https both ask for port 80 of the node",
        ),
        (
            "service: {type: NodePort, loadBalancerClass: a/b}",
            "service.loadBalancerClass or service.loadBalancerSourceRanges is set and service.type is NodePort",
        ),
        (
            "service: {ipFamilyPolicy: SingleStack, ipFamilies: [IPv4, IPv6]}",
            "service.ipFamilyPolicy is SingleStack and service.ipFamilies has two",
        ),
        ("podDisruptionBudget: {minAvailable: 2}", "podDisruptionBudget.minAvailable is 2 of 2 replicas, so no node"),
        ("podDisruptionBudget: {minAvailable: 3}", "podDisruptionBudget.minAvailable is 3 of 2 replicas, so no node"),
        ("podDisruptionBudget: {minAvailable: 100%}", "podDisruptionBudget.minAvailable is 100% of 2 replicas"),
        (
            "{autoscaling: {enabled: true, minReplicas: 3}, podDisruptionBudget: {minAvailable: 3}}",
            "podDisruptionBudget.minAvailable is 3 of 3 replicas",
        ),
        (
            "podDisruptionBudget: {maxUnavailable: 0}",
            "podDisruptionBudget.maxUnavailable is 0, so no node could ever be drained",
        ),
        (
            "monitoring: {serviceMonitor: {enabled: true}, podMonitor: {enabled: true}}",
            "monitoring.serviceMonitor.enabled and monitoring.podMonitor.enabled are both true",
        ),
        (
            "{networkPolicy: {enabled: true}, monitoring: {podMonitor: {enabled: true}}}",
            "networkPolicy.admin.from is empty, so Prometheus could not scrape",
        ),
        (
            "networkPolicy: {enabled: true, egress: {restricted: true}}",
            "networkPolicy.egress.rules is empty, so no endpoint could be reached",
        ),
        ("settings: {className: edge}", "settings.className is written by the chart: set the value className instead"),
        ("settings: {drain: {grace: 1m}}", "settings.drain is written by the chart: set the value drain instead"),
        (
            "settings: {listeners: {http: ['0.0.0.0:80']}}",
            "settings.listeners.http is written by the chart: set ports.http, bindAddress and extraPorts instead",
        ),
        ("injector: {enabled: true, replicas: 0}", "injector.replicas is 0, so no pod would get the sidecar"),
        ("injector: {enabled: true, port: 9901}", "injector.port and ports.admin are both 9901"),
        ("injector: {failurePolicy: Open}", "at '/injector/failurePolicy': value must be one of 'Ignore', 'Fail'"),
        ("injector: {defaultMode: Local}", "at '/injector/defaultMode': value must be one of 'local', 'transparent'"),
        ("injector: {certificateLifetime: 90d}", "at '/injector/certificateLifetime': '90d' does not match pattern"),
        ("sidecar: {namespaces: [edge]}", "sidecar.namespaces has edge, in which pods get no sidecar: leave it out"),
        ("sidecar: {namespaces: [kube-system]}", "sidecar.namespaces has kube-system, in which pods get no sidecar"),
        // What an API server would refuse, or a pod not start with.
        (
            "image: {repository: 'registry.example.com/floodway:0.1.0'}",
            "image.repository is registry.example.com/floodway:0.1.0, with a tag: move that to image.tag",
        ),
        (
            "image: {repository: 'a/floodway@sha256:1'}",
            "image.repository is a/floodway@sha256:1, with a digest: move that",
        ),
        (
            "image: {repository: 'https://registry.example.com/floodway'}",
            "image.repository is https://registry.example.com/floodway: leave out what is in front of the name",
        ),
        (
            "image: {repository: My Image}",
            "image.repository is \"My Image\", which is no name of an image: write it as",
        ),
        ("injector: {capture: {image: a b}}", "injector.capture.image is \"a b\", which is no name of an image"),
        ("className: Blue", "className is \"Blue\", which no ProxyRoute can have: write lower-case letters"),
        ("settings: {log: {level: verbose}}", "settings.log.level is \"verbose\": write off, error, warn, info"),
        ("sidecar: {log: 'info,floodway='}", "sidecar.log is \"info,floodway=\": write off, error, warn, info"),
        ("resources: {request: {cpu: 1}}", "resources.request is not known: write requests or limits"),
        (
            "resources: {limits: {memory: 512mb}}",
            "resources.limits.memory is 512mb, which is no amount of memory: write 256Mi or 1Gi",
        ),
        (
            "resources: {limits: {memory: 512}}",
            "resources.limits.memory is 512, in which the program has no room: write it with its unit",
        ),
        (
            "injector: {resources: {requests: {cpu: one}}}",
            "injector.resources.requests.cpu is one, which is no amount of processors: write 500m or 1",
        ),
        ("extraEnv: [{name: POD_NAME, value: x}]", "extraEnv: POD_NAME is set by the chart"),
    ] {
        let said = render(values, &[]).err().unwrap_or_else(|| panic!("nobody minds {values}"));
        assert!(said.contains(sentence), "{values}: {said}");
    }
}

#[test]
fn an_old_cluster_is_refused() {
    let said = render("", &["--kube-version", "1.29.0"]).unwrap_err();
    assert!(said.contains("kubeVersion: >=1.30.0-0") && said.contains("1.29.0"), "{said}");
}

/// What looks odd and is right.
#[test]
fn a_value_that_makes_sense_is_taken() {
    for values in [
        "image: {repository: 'registry.example.com:5000/edge/floodway'}",
        "injector: {capture: {image: 'localhost:5000/floodway-capture:0.1.0'}}",
        "settings: {log: {level: 'info, floodway::proxy=Debug'}}",
        "resources: {limits: {memory: 536870912, cpu: 0.5}, requests: {cpu: null}}",
        "resources: null",
        "{replicas: 1, podDisruptionBudget: {minAvailable: 1}}",
    ] {
        assert!(render(values, &[]).is_ok(), "{values}: {}", render(values, &[]).unwrap_err());
    }
}
