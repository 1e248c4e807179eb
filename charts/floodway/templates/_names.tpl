{{- define "floodway.name" -}}
{{- if contains "floodway" .Release.Name }}{{ .Release.Name | trunc 53 | trimSuffix "-" }}{{ else }}{{ printf "%s-floodway" .Release.Name | trunc 53 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "floodway.account" -}}
{{ .Values.serviceAccount.name | default (include "floodway.name" .) }}
{{- end }}

{{- define "floodway.image" -}}
{{ .Values.image.repository }}{{ with .Values.image.digest }}@{{ . }}{{ else }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "floodway.selector" -}}
app.kubernetes.io/name: floodway
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* What all objects have that are not chosen by the selector. */}}
{{- define "floodway.origin" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "floodway.labels" -}}
{{ include "floodway.selector" . }}
{{ include "floodway.origin" . }}
{{- end }}

{{/* The listeners for clients, as a list in JSON: {listeners: [{name, port, protocol, servicePort, nodePort, hostPort}]}; 0 is none. */}}
{{- define "floodway.listeners" -}}
{{- $v := .Values -}}
{{- $all := list
  (dict "name" "http" "protocol" "http" "port" $v.ports.http "servicePort" $v.service.port
    "nodePort" $v.service.nodePorts.http "hostPort" $v.hostPorts.http "value" "ports.http")
  (dict "name" "https" "protocol" "https" "port" $v.ports.https "servicePort" $v.service.httpsPort
    "nodePort" $v.service.nodePorts.https "hostPort" $v.hostPorts.https "value" "ports.https")
-}}
{{- range $index, $extra := $v.extraPorts }}
{{- $all = append $all (merge (deepCopy $extra)
  (dict "protocol" "http" "servicePort" 0 "nodePort" 0 "hostPort" 0 "value" (printf "extraPorts[%d].port" $index))) -}}
{{- end }}
{{- dict "listeners" $all | toJson }}
{{- end }}

{{/* Not empty if a port of the node is asked for. */}}
{{- define "floodway.hasHostPorts" -}}
{{- range (include "floodway.listeners" . | fromJson).listeners }}{{ if .hostPort }}yes{{ end }}{{ end }}
{{- end }}

{{/* Not empty if there is more than one pod at any time. */}}
{{- define "floodway.several" -}}
{{- if .Values.autoscaling.enabled }}{{ if gt (int .Values.autoscaling.minReplicas) 1 }}yes{{ end }}
{{- else if gt (int .Values.replicas) 1 }}yes{{ end }}
{{- end }}

{{/* Not empty if kinds of the Prometheus operator may be made. */}}
{{- define "floodway.operator" -}}
{{- if or .Values.monitoring.force (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1") }}yes{{ end }}
{{- end }}

{{/* The settings file. What the chart decides wins over .Values.settings, which `floodway.check` holds to not saying it. */}}
{{- define "floodway.settings" -}}
{{- $http := list -}}
{{- $https := list -}}
{{- range (include "floodway.listeners" . | fromJson).listeners }}
{{- $address := printf "%s:%d" $.Values.bindAddress (int .port) -}}
{{- if eq .protocol "https" }}{{ $https = append $https $address }}{{ else }}{{ $http = append $http $address }}{{ end }}
{{- end }}
{{- $own := dict
  "className" .Values.className
  "watchNamespaces" .Values.watchNamespaces
  "kubernetes" (dict "secrets" (dict "watch" .Values.secrets.watch "namespaces" .Values.secrets.namespaces))
  "listeners" (dict
    "http" $http
    "https" $https
    "admin" (printf "%s:%d" .Values.bindAddress (int .Values.ports.admin)))
  "drain" (dict
    "delay" (printf "%ds" (int .Values.drain.delaySeconds))
    "grace" (printf "%ds" (int .Values.drain.graceSeconds))
    "spreadPercent" (int .Values.drain.spreadPercent))
-}}
{{- mergeOverwrite (deepCopy (.Values.settings | default dict)) $own | toYaml }}
{{- end }}

{{/* What is watched and written in the namespaces of routes. */}}
{{- define "floodway.rules" -}}
- apiGroups: [floodway.dev]
  resources: [proxyroutes, proxyupstreams, proxypolicies]
  verbs: [list, watch]
- apiGroups: [floodway.dev]
  resources: [proxyroutes/status, proxyupstreams/status, proxypolicies/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [services]
  verbs: [list, watch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{/* What is watched of what routes and policies refer to. RBAC knows neither types nor labels: Floodway asks for no others. */}}
{{- define "floodway.secretRules" -}}
- apiGroups: [""]
  resources: [secrets, configmaps]
  verbs: [list, watch]
{{- end }}

{{/* The pod of `helm test`, which no Service leads to. */}}
{{- define "floodway.testSelector" -}}
app.kubernetes.io/name: floodway-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* How a monitor scrapes. */}}
{{- define "floodway.scrape" -}}
path: /metrics
interval: {{ .interval }}
scrapeTimeout: {{ .scrapeTimeout }}
{{- with .relabelings }}
relabelings: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .metricRelabelings }}
metricRelabelings: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The bytes of an amount of memory such as 512Mi; empty if there is none, or it is written in another way. Plain numbers are floats. */}}
{{- define "floodway.bytes" -}}
{{- $text := ternary (int64 .) . (kindIs "float64" .) | toString -}}
{{- if regexMatch "^[0-9]+([KMGT]i|[kMGT])?$" $text -}}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- mul (regexFind "^[0-9]+" $text | int64) (get $units (regexFind "[A-Za-z]*$" $text)) -}}
{{- end -}}
{{- end }}

{{/* The injector, whose pods no Service of the gateway may lead to. */}}
{{- define "floodway.injectorName" -}}
{{ include "floodway.name" . | trunc 44 | trimSuffix "-" }}-injector
{{- end }}

{{- define "floodway.injectorSelector" -}}
app.kubernetes.io/name: floodway-injector
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "floodway.injectorLabels" -}}
{{ include "floodway.injectorSelector" . }}
{{ include "floodway.origin" . }}
{{- end }}

{{/* What the injector puts into pods, as `floodway injector --template` reads it. */}}
{{- define "floodway.sidecarTemplate" -}}
image: {{ include "floodway.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- with .Values.injector.capture.image }}
captureImage: {{ . | quote }}
{{- end }}
legacyIptables: {{ .Values.injector.capture.legacyIptables }}
defaultMode: {{ .Values.injector.defaultMode }}
bindAddress: {{ .Values.bindAddress | trimPrefix "[" | trimSuffix "]" | quote }}
log: {{ .Values.sidecar.log | quote }}
{{- with .Values.sidecar.resources }}
resources: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
