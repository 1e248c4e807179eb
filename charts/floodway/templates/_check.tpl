{{/* What no schema can say: combinations that make no sense. Each sentence names the values and the remedy. */}}
{{- define "floodway.check" -}}
{{- $v := .Values -}}
{{- $listeners := (include "floodway.listeners" . | fromJson).listeners -}}

{{- if and (eq $v.workload "Deployment") (not $v.autoscaling.enabled) (lt (int $v.replicas) 1) }}
{{- fail "replicas is 0, so nothing would be served: set it to at least 1, or use `helm uninstall` to take Floodway away" }}
{{- end }}
{{- if $v.autoscaling.enabled }}
{{- $a := $v.autoscaling }}
{{- if eq $v.workload "DaemonSet" }}
{{- fail "autoscaling.enabled is true and workload is DaemonSet, which has one pod for each node: set workload to Deployment, or autoscaling.enabled to false" }}
{{- end }}
{{- if gt (int $a.minReplicas) (int $a.maxReplicas) }}
{{- fail (printf "autoscaling.minReplicas (%d) is more than autoscaling.maxReplicas (%d): raise the latter, or lower the former" (int $a.minReplicas) (int $a.maxReplicas)) }}
{{- end }}
{{- if not (or $a.targetCPUUtilizationPercentage $a.targetMemoryUtilizationPercentage $a.metrics) }}
{{- fail "autoscaling.enabled is true and there is nothing to scale by: set autoscaling.targetCPUUtilizationPercentage, autoscaling.targetMemoryUtilizationPercentage or autoscaling.metrics" }}
{{- end }}
{{- if and $a.targetCPUUtilizationPercentage (not (dig "requests" "cpu" "" ($v.resources | default dict))) }}
{{- fail "autoscaling.targetCPUUtilizationPercentage is a part of resources.requests.cpu, which is not set: set it, or set the target to 0" }}
{{- end }}
{{- if and $a.targetMemoryUtilizationPercentage (not (dig "requests" "memory" "" ($v.resources | default dict))) }}
{{- fail "autoscaling.targetMemoryUtilizationPercentage is a part of resources.requests.memory, which is not set: set it, or set the target to 0" }}
{{- end }}
{{- end }}

{{- if and (include "floodway.hasHostPorts" .) (ne $v.workload "DaemonSet") }}
{{- fail "hostPorts (or extraPorts[].hostPort) are asked for and workload is Deployment, whose pods would fight over the nodes' ports: set workload to DaemonSet, or the host ports to 0" }}
{{- end }}
{{- if include "floodway.hasHostPorts" . }}
{{- $surge := dig "rollingUpdate" "maxSurge" 0 ($v.updateStrategy | default dict) | toString }}
{{- if not (has $surge (list "0" "0%")) }}
{{- fail (printf "updateStrategy.rollingUpdate.maxSurge is %s, and a new pod cannot have the host ports before the old one is gone: set it to 0, or leave updateStrategy empty" $surge) }}
{{- end }}
{{- end }}

{{- $names := dict "admin" "ports.admin" }}
{{- $ports := dict (toString (int $v.ports.admin)) "ports.admin" }}
{{- $servicePorts := dict }}
{{- $nodePorts := dict }}
{{- $hostPorts := dict }}
{{- range $listeners }}
{{- if hasKey $names .name }}
{{- fail (printf "%s: the name %q is taken by %s: choose another one" (trimSuffix ".port" .value) .name (get $names .name)) }}
{{- end }}
{{- $_ := set $names .name .value }}
{{- $port := toString (int .port) }}
{{- if hasKey $ports $port }}
{{- fail (printf "%s and %s are both %s: give each listener a port of its own" (get $ports $port) .value $port) }}
{{- end }}
{{- $_ := set $ports $port .value }}
{{- $where := trimSuffix ".port" .value }}
{{- if .servicePort }}
{{- $port := toString (int .servicePort) }}
{{- if hasKey $servicePorts $port }}
{{- fail (printf "%s and %s both ask for port %s of the Service: give each one of its own (service.port, service.httpsPort, extraPorts[].servicePort)" (get $servicePorts $port) $where $port) }}
{{- end }}
{{- $_ := set $servicePorts $port $where }}
{{- end }}
{{- if .nodePort }}
{{- $port := toString (int .nodePort) }}
{{- if eq $v.service.type "ClusterIP" }}
{{- fail (printf "the node port %s is asked for and service.type is ClusterIP, which has none: set service.type to NodePort or LoadBalancer, or the node port to 0" $port) }}
{{- end }}
{{- if not .servicePort }}
{{- fail (printf "%s.nodePort is %s and %s.servicePort is not set: a node port belongs to a port of the Service; set both" $where $port $where) }}
{{- end }}
{{- if hasKey $nodePorts $port }}
{{- fail (printf "%s and %s both ask for node port %s: give each one of its own (service.nodePorts, extraPorts[].nodePort)" (get $nodePorts $port) $where $port) }}
{{- end }}
{{- $_ := set $nodePorts $port $where }}
{{- end }}
{{- if .hostPort }}
{{- $port := toString (int .hostPort) }}
{{- if hasKey $hostPorts $port }}
{{- fail (printf "%s and %s both ask for port %s of the node: give each one of its own (hostPorts, extraPorts[].hostPort)" (get $hostPorts $port) $where $port) }}
{{- end }}
{{- $_ := set $hostPorts $port $where }}
{{- end }}
{{- end }}

{{- if ne $v.service.type "LoadBalancer" }}
{{- if or $v.service.loadBalancerClass $v.service.loadBalancerSourceRanges }}
{{- fail (printf "service.loadBalancerClass or service.loadBalancerSourceRanges is set and service.type is %s: set service.type to LoadBalancer, or leave them empty" $v.service.type) }}
{{- end }}
{{- end }}
{{- if and (eq $v.service.ipFamilyPolicy "SingleStack") (gt (len $v.service.ipFamilies) 1) }}
{{- fail "service.ipFamilyPolicy is SingleStack and service.ipFamilies has two: name one, or set service.ipFamilyPolicy to PreferDualStack or RequireDualStack" }}
{{- end }}

{{- $p := $v.podDisruptionBudget }}
{{- $pods := ternary (int $v.autoscaling.minReplicas) (int $v.replicas) $v.autoscaling.enabled }}
{{- $least := toString $p.minAvailable }}
{{- if and $p.enabled (eq $v.workload "Deployment") (or (eq $least "100%") (and (regexMatch "^[0-9]+$" $least) (ge (int $least) $pods) (include "floodway.several" .))) }}
{{- fail (printf "podDisruptionBudget.minAvailable is %s of %d replicas, so no node could ever be drained: lower it, or set podDisruptionBudget.maxUnavailable instead" $least $pods) }}
{{- end }}
{{- if and $p.enabled (eq (toString $p.minAvailable) "") (has (toString $p.maxUnavailable) (list "0" "0%")) }}
{{- fail "podDisruptionBudget.maxUnavailable is 0, so no node could ever be drained: set it to at least 1, or podDisruptionBudget.enabled to false" }}
{{- end }}

{{- $m := $v.monitoring }}
{{- if and $m.serviceMonitor.enabled $m.podMonitor.enabled }}
{{- fail "monitoring.serviceMonitor.enabled and monitoring.podMonitor.enabled are both true, and every series would be there twice: set one of them to false" }}
{{- end }}
{{- if and $v.networkPolicy.enabled (not $v.networkPolicy.admin.from) (or $m.serviceMonitor.enabled $m.podMonitor.enabled) }}
{{- fail "networkPolicy.admin.from is empty, so Prometheus could not scrape what monitoring asks for: name its pods there, for example [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}]" }}
{{- end }}
{{- if and $v.networkPolicy.enabled $v.networkPolicy.egress.restricted (not $v.networkPolicy.egress.rules) }}
{{- fail "networkPolicy.egress.restricted is true and networkPolicy.egress.rules is empty, so no endpoint could be reached: say where endpoints are, for example [{to: [{namespaceSelector: {}}]}]" }}
{{- end }}

{{- range $key, $instead := dict "className" "className" "watchNamespaces" "watchNamespaces" "kubernetes" "secrets" "drain" "drain" }}
{{- if hasKey ($v.settings | default dict) $key }}
{{- fail (printf "settings.%s is written by the chart: set the value %s instead" $key $instead) }}
{{- end }}
{{- end }}
{{- range $key, $instead := dict "http" "ports.http, bindAddress and extraPorts" "https" "ports.https, bindAddress and extraPorts" "admin" "ports.admin and bindAddress" }}
{{- if hasKey (dig "listeners" (dict) ($v.settings | default dict)) $key }}
{{- fail (printf "settings.listeners.%s is written by the chart: set %s instead" $key $instead) }}
{{- end }}
{{- end }}
{{- if and $v.injector.enabled (lt (int $v.injector.replicas) 1) }}
{{- fail "injector.replicas is 0, so no pod would get the sidecar: set it to at least 1, or injector.enabled to false" }}
{{- end }}
{{- if and $v.injector.enabled (eq (int $v.injector.port) (int $v.ports.admin)) }}
{{- fail (printf "injector.port and ports.admin are both %d: give each a port of its own" (int $v.injector.port)) }}
{{- end }}
{{- range $v.sidecar.namespaces }}
{{- if has . (list "kube-system" "kube-public" "kube-node-lease" $.Release.Namespace) }}
{{- fail (printf "sidecar.namespaces has %s, in which pods get no sidecar: leave it out" .) }}
{{- end }}
{{- end }}

{{- if not (regexMatch "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$" $v.className) }}
{{- fail (printf "className is %q, which no ProxyRoute can have: write lower-case letters, digits, '-' and '.'" $v.className) }}
{{- end }}

{{- $image := $v.image.repository }}
{{- if contains "://" $image }}
{{- fail (printf "image.repository is %s: leave out what is in front of the name, as in registry.example.com/floodway" $image) }}
{{- else if contains "@" $image }}
{{- fail (printf "image.repository is %s, with a digest: move that to image.digest" $image) }}
{{- else if regexMatch ":[^/]*$" $image }}
{{- fail (printf "image.repository is %s, with a tag: move that to image.tag" $image) }}
{{- end }}
{{- range $value, $image := dict "image.repository" $image "injector.capture.image" $v.injector.capture.image }}
{{- if and $image (not (regexMatch "^([A-Za-z0-9.-]+(:[0-9]+)?/)?[a-z0-9._/-]+(:[A-Za-z0-9._-]+)?(@sha256:[0-9a-f]{64})?$" $image)) }}
{{- fail (printf "%s is %q, which is no name of an image: write it as registry.example.com/floodway" $value $image) }}
{{- end }}
{{- end }}

{{- range $value, $level := dict "settings.log.level" (dig "log" "level" "" ($v.settings | default dict)) "injector.log" $v.injector.log "sidecar.log" $v.sidecar.log }}
{{- $each := "([^=, ]+=)?(off|error|warn|info|debug|trace|[0-5])" }}
{{- if and $level (not (regexMatch (printf "^(?i)%s( *, *%s)*$" $each $each) $level)) }}
{{- fail (printf "%s is %q: write off, error, warn, info, debug or trace, or levels of modules, for example info,floodway::proxy=debug" $value $level) }}
{{- end }}
{{- end }}

{{- range $value, $resources := dict "resources" $v.resources "injector.resources" $v.injector.resources "sidecar.resources" $v.sidecar.resources }}
{{- range $kind, $amounts := $resources }}
{{- if not (has $kind (list "requests" "limits" "claims")) }}
{{- fail (printf "%s.%s is not known: write requests or limits" $value $kind) }}
{{- end }}
{{- if kindIs "map" $amounts }}
{{- range $of, $amount := $amounts }}
{{- $path := printf "%s.%s.%s" $value $kind $of }}
{{- if and (eq $of "cpu") (not (kindIs "invalid" $amount)) (not (regexMatch "^[0-9]+([.][0-9]+)?m?$" (toString $amount))) }}
{{- fail (printf "%s is %v, which is no amount of processors: write 500m or 1" $path $amount) }}
{{- end }}
{{- if and (eq $of "memory") (not (kindIs "invalid" $amount)) }}
{{- if not (regexMatch "^[0-9]+([.][0-9]+)?([eE][+]?[0-9]+|[KMGTPE]i|[kMGTPE])?$" (toString $amount)) }}
{{- fail (printf "%s is %v, which is no amount of memory: write 256Mi or 1Gi" $path $amount) }}
{{- end }}
{{- $bytes := include "floodway.bytes" $amount }}
{{- if and (eq $kind "limits") $bytes (lt (int64 $bytes) 16777216) }}
{{- fail (printf "%s is %v, in which the program has no room: write it with its unit, for example 256Mi" $path $amount) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- range $v.extraEnv }}
{{- if has .name (list "POD_NAME" "POD_NAMESPACE" "FLOODWAY_ZONE") }}
{{- fail (printf "extraEnv: %s is set by the chart: leave it out (settings.zone says another zone)" .name) }}
{{- end }}
{{- end }}
{{- end }}
