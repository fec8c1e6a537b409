{{/* The pod of a gateway, and what it shares with the pod of an application. */}}

{{- define "egret.gateway" -}}
metadata:
  labels:
    {{- include "egret.selector" . | nindent 4 }}
    app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
  {{- with .Values.podAnnotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- include "egret.pod" . | nindent 2 }}
  # preStop, the drain, 5 s to deliver and reset, and 5 s to spare: a pod that is killed cuts its streams.
  terminationGracePeriodSeconds: {{ add .Values.preStopSeconds (include "egret.drain" .) 10 }}
  topologySpreadConstraints:
    {{- range $key, $unsatisfiable := dict "topology.kubernetes.io/zone" "ScheduleAnyway" "kubernetes.io/hostname" "ScheduleAnyway" }}
    - topologyKey: {{ $key }}
      maxSkew: 1
      whenUnsatisfiable: {{ $unsatisfiable }}
      labelSelector:
        matchLabels: {{- include "egret.selector" $ | nindent 10 }}
    {{- end }}
  containers:
    - {{- include "egret.container" . | nindent 6 }}
      readinessProbe:
        exec: { command: [/egret, health] }
        periodSeconds: 5
        timeoutSeconds: 6
      lifecycle:
        preStop: { sleep: { seconds: {{ .Values.preStopSeconds }} } }
{{- end }}

{{- define "egret.pod" -}}
serviceAccountName: {{ .Release.Name }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- if or .Values.priorityClass.create .Values.priorityClass.name }}
priorityClassName: {{ include "egret.priorityClass" . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  # Keys belong to root and are readable for this group: mode 0440.
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: { type: RuntimeDefault }
  sysctls:
    - { name: net.ipv4.ip_local_port_range, value: {{ .Values.localPorts | quote }} }
    {{- $privileged := false }}
    {{- range include "egret.listeners" . | fromJsonArray }}
    {{- if lt (int .port) 1024 }}{{ $privileged = true }}{{ end }}
    {{- end }}
    {{- if $privileged }}
    # A listener below 1024: in place of a capability.
    - { name: net.ipv4.ip_unprivileged_port_start, value: "0" }
    {{- end }}
volumes:
  {{- include "egret.volumes" . | nindent 2 }}
{{- end }}

{{/* One volume: the kubelet replaces configuration, keys and roots together. */}}
{{- define "egret.volumes" -}}
- name: egret
  projected:
    defaultMode: 0440
    sources:
      - configMap: { name: {{ .Release.Name }} }
      {{- range $name, $identity := .Values.identities }}
      - secret:
          name: {{ $identity.secret }}
          items:
            - { key: tls.crt, path: identity/{{ $name }}/tls.crt }
            - { key: tls.key, path: identity/{{ $name }}/tls.key }
      {{- end }}
      {{- range $name, $trust := .Values.trust }}
      - configMap:
          name: {{ $trust.configMap }}
          items:
            - { key: {{ $trust.key }}, path: trust/{{ $name }}.pem }
      {{- end }}
{{- end }}

{{/* Without readiness: a gateway is ready when it listens, a sidecar when its upstreams are reached. */}}
{{- define "egret.container" -}}
name: egret
image: {{ include "egret.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: [run, /etc/egret/egret.toml]
{{- $metrics := include "egret.metrics" . }}
{{- $listeners := include "egret.listeners" . | fromJsonArray }}
{{- if or $metrics $listeners }}
ports:
  {{- range $listeners }}
  - { name: {{ .name }}, containerPort: {{ .port }} }
  {{- end }}
  {{- with $metrics }}
  - { name: metrics, containerPort: {{ . }} }
  {{- end }}
{{- end }}
resources: {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
volumeMounts:
  - { name: egret, mountPath: /etc/egret, readOnly: true }
# A process that has stopped does not answer. Three times in half a minute: longer than any pause of a busy node.
livenessProbe:
  exec: { command: [/egret, health, --live] }
  periodSeconds: 10
  timeoutSeconds: 6
  failureThreshold: 3
{{- end }}

{{/* The native sidecar: it starts before the containers of the pod, once its upstreams have answered, and ends after them. */}}
{{- define "egret.sidecar" -}}
{{ include "egret.container" . }}
restartPolicy: Always
# The application starts once this has succeeded: every upstream was reached, and has accepted the client certificate.
startupProbe:
  exec: { command: [/egret, health, --upstreams] }
  periodSeconds: 1
  timeoutSeconds: 6
  failureThreshold: 60
readinessProbe:
  exec: { command: [/egret, health, --upstreams] }
  periodSeconds: 5
  timeoutSeconds: 6
{{- end }}
