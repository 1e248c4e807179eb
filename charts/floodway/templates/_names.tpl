{{- define "floodway.name" -}}
{{- if contains "floodway" .Release.Name }}{{ .Release.Name | trunc 53 | trimSuffix "-" }}{{ else }}{{ printf "%s-floodway" .Release.Name | trunc 53 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "floodway.account" -}}
{{ .Values.serviceAccount.name | default (include "floodway.name" .) }}
{{- end }}

{{- define "floodway.selector" -}}
app.kubernetes.io/name: floodway
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "floodway.labels" -}}
{{ include "floodway.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* The settings file. What the chart decides wins over .Values.settings. */}}
{{- define "floodway.settings" -}}
{{- $own := dict
  "className" .Values.className
  "watchNamespaces" .Values.watchNamespaces
  "kubernetes" (dict "secrets" (dict "watch" .Values.secrets.watch "namespaces" .Values.secrets.namespaces))
  "listeners" (dict
    "http" (list (printf "%s:%d" .Values.bindAddress (int .Values.ports.http)))
    "https" (list (printf "%s:%d" .Values.bindAddress (int .Values.ports.https)))
    "admin" (printf "%s:%d" .Values.bindAddress (int .Values.ports.admin)))
  "drain" (dict
    "delay" (printf "%ds" (int .Values.drain.delaySeconds))
    "grace" (printf "%ds" (int .Values.drain.graceSeconds))
    "spreadPercent" (int .Values.drain.spreadPercent))
-}}
{{- mergeOverwrite (deepCopy .Values.settings) $own | toYaml }}
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
