{{- define "egret.release" -}}
app.kubernetes.io/name: egret
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "egret.labels" -}}
{{ include "egret.release" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{/* Pods of another workload of the same release are not selected. */}}
{{- define "egret.selector" -}}
{{ include "egret.release" . }}
app.kubernetes.io/component: {{ .Values.workload }}
{{- end }}

{{- define "egret.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{/* Objects of the cluster have the namespace in their name. */}}
{{- define "egret.priorityClass" -}}
{{ .Values.priorityClass.name | default (printf "%s-%s" .Release.Namespace .Release.Name) }}
{{- end }}
