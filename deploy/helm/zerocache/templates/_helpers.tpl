{{/* The labels that select the nodes. */}}
{{- define "zerocache.selector" -}}
app.kubernetes.io/name: zerocache
{{- end }}

{{- define "zerocache.labels" -}}
{{ include "zerocache.selector" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end }}

{{/* The time that a shutdown takes: the drain plus 3 s, and the time to write a snapshot. */}}
{{- define "zerocache.grace" -}}
{{ add .Values.drainSeconds (ternary 50 5 .Values.snapshot.enabled) }}
{{- end }}

{{/* The nodes of all regions, as peers of a NetworkPolicy. */}}
{{- define "zerocache.nodes" }}
- podSelector:
    matchLabels: {{- include "zerocache.selector" . | nindent 6 }}
{{- range .Values.otherRegions.namespaces }}
- namespaceSelector:
    matchLabels: { kubernetes.io/metadata.name: {{ . | quote }} }
  podSelector:
    matchLabels: {{- include "zerocache.selector" $ | nindent 6 }}
{{- end }}
{{- range .Values.otherRegions.cidrs }}
- ipBlock: { cidr: {{ . | quote }} }
{{- end }}
{{- end }}
