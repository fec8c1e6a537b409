{{/* What the chart reads from egret.toml. */}}

{{- define "egret.configuration" -}}
{{- $configuration := .Values.config | fromToml -}}
{{- with $configuration.Error }}{{ fail (printf "config: %s" .) }}{{ end -}}
{{- toJson $configuration -}}
{{- end }}

{{/* The port that an address ends in; none of a Unix socket. */}}
{{- define "egret.port" -}}
{{- if not (hasPrefix "unix:" .) }}{{ regexFind "[0-9]+$" . }}{{ end -}}
{{- end }}

{{/* Listeners that other pods can reach: a list of name and port. */}}
{{- define "egret.listeners" -}}
{{- $listeners := list -}}
{{- range (include "egret.configuration" . | fromJson).listeners -}}
{{- $port := include "egret.port" .listen -}}
{{- if and $port (not (or (hasPrefix "127." .listen) (hasPrefix "[::1]" .listen))) -}}
{{- $listeners = append $listeners (dict "name" (.name | default (printf "tcp-%s" $port) | trunc 15 | trimSuffix "-") "port" (int $port)) -}}
{{- end -}}
{{- end -}}
{{- toJson $listeners -}}
{{- end }}

{{/* The port of metrics: that of the first admin address that is no Unix socket. */}}
{{- define "egret.metrics" -}}
{{- $admin := (include "egret.configuration" . | fromJson).admin -}}
{{- range (kindIs "slice" $admin | ternary $admin (list $admin) | compact) -}}
{{- include "egret.port" .listen -}}
{{- end -}}
{{- end }}

{{/* The ports of all servers, without doubles. */}}
{{- define "egret.servers" -}}
{{- $ports := list -}}
{{- range (include "egret.configuration" . | fromJson).upstreams -}}
{{- range .servers -}}
{{- $address := kindIs "string" . | ternary . (get (kindIs "map" . | ternary . dict) "address") -}}
{{- with include "egret.port" $address }}{{ $ports = append $ports (int .) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- $ports | uniq | sortAlpha | toJson -}}
{{- end }}

{{/* drain_timeout in seconds, rounded up. */}}
{{- define "egret.drain" -}}
{{- $text := get (include "egret.configuration" . | fromJson) "drain_timeout" | default "30s" -}}
{{- $total := 0 -}}
{{- range regexFindAll "[0-9]+(ms|[smhd])" $text -1 -}}
{{- $number := regexFind "[0-9]+" . | int -}}
{{- $unit := regexFind "[a-z]+" . -}}
{{- $total = add $total (eq $unit "ms" | ternary (div (add $number 999) 1000) (mul $number (get (dict "ms" 0 "s" 1 "m" 60 "h" 3600 "d" 86400) $unit))) -}}
{{- end -}}
{{- $total -}}
{{- end }}
