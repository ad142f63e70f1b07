{{/* Names. */}}
{{- define "valkey-cluster.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{/*
A pod's label holds the name of its StatefulSet and ten characters more, and takes 63. What is cut off leaves a trace, so that
two long names that begin alike stay two.
*/}}
{{- define "valkey-cluster.fullname" -}}
{{- $name := default (include "valkey-cluster.name" .) .Values.nameOverride -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- $full = default $full .Values.fullnameOverride -}}
{{- if gt (len $full) 52 -}}
{{- $full = printf "%s-%s" (trunc 43 $full | trimSuffix "-") (sha256sum $full | trunc 8) -}}
{{- end -}}
{{- $full | trimSuffix "-" -}}
{{- end -}}

{{- define "valkey-cluster.headless" -}}
{{ include "valkey-cluster.fullname" . }}-headless
{{- end -}}

{{/* The headless Service's full name: no search list is gone through for it. */}}
{{- define "valkey-cluster.service" -}}
{{ include "valkey-cluster.headless" . }}.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}.
{{- end -}}

{{- define "valkey-cluster.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "valkey-cluster.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "valkey-cluster.secret" -}}
{{- default (include "valkey-cluster.fullname" .) .Values.auth.existingSecret -}}
{{- end -}}

{{- define "valkey-cluster.secretKey" -}}
{{- ternary .Values.auth.existingSecretPasswordKey "password" (ne .Values.auth.existingSecret "") -}}
{{- end -}}

{{- define "valkey-cluster.configMap" -}}
{{- default (include "valkey-cluster.fullname" .) .Values.config.existingConfigMap -}}
{{- end -}}

{{/* Labels. */}}
{{- define "valkey-cluster.selector" -}}
app.kubernetes.io/name: {{ include "valkey-cluster.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "valkey-cluster.serverSelector" -}}
{{ include "valkey-cluster.selector" . }}
app.kubernetes.io/component: server
{{- end -}}

{{/* Labels of an object or a pod: (dict "root" $ "component" … "labels" …). Each key once; those that are selected by are the chart's. */}}
{{- define "valkey-cluster.labels" -}}
{{- $root := .root -}}
{{- $own := include "valkey-cluster.selector" $root | fromYaml -}}
{{- with .component }}{{ $_ := set $own "app.kubernetes.io/component" . }}{{ end -}}
{{- $more := dict "app.kubernetes.io/managed-by" $root.Release.Service "app.kubernetes.io/version" $root.Chart.AppVersion "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_") -}}
{{- if .bare }}{{ $more = dict }}{{ end -}}
{{- toYaml (merge $own $more (default dict .labels) $root.Values.commonLabels) -}}
{{- end -}}

{{/* The head of an object: (dict "root" $ "name" … "component" … "labels" … "annotations" …). */}}
{{- define "valkey-cluster.metadata" -}}
{{- $root := .root -}}
name: {{ .name | quote }}
namespace: {{ $root.Release.Namespace | quote }}
labels:
  {{- include "valkey-cluster.labels" . | nindent 2 }}
{{- with merge (dict) (default dict .annotations) $root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Numbers. */}}
{{- define "valkey-cluster.port" -}}
{{- ternary .Values.tls.port .Values.port .Values.tls.enabled | int -}}
{{- end -}}

{{- define "valkey-cluster.busPort" -}}
{{- add (include "valkey-cluster.port" . | int) 10000 -}}
{{- end -}}

{{- define "valkey-cluster.pods" -}}
{{- if eq .Values.mode "standalone" -}}1{{- else -}}{{ mul .Values.shards (add .Values.replicas 1) }}{{- end -}}
{{- end -}}

{{/* A number of a file of values is a fraction to Helm, and would be written with an exponent. */}}
{{- define "valkey-cluster.plain" -}}
{{- if kindIs "float64" . }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- end -}}

{{/* The bytes of a quantity. */}}
{{- define "valkey-cluster.bytes" -}}
{{- $text := include "valkey-cluster.plain" . -}}
{{- $units := dict "" 1 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- $number := regexFind "^[0-9.]+([eE][0-9]+)?" $text -}}
{{- $unit := trimPrefix $number $text -}}
{{- if or (not $number) (not (hasKey $units $unit)) -}}
{{- fail (printf "resources.limits.memory: %q is no quantity like 512Mi or 4Gi" $text) -}}
{{- end -}}
{{- mulf (float64 $number) (get $units $unit | float64) | floor | int64 -}}
{{- end -}}

{{- define "valkey-cluster.maxmemory" -}}
{{- $limit := dig "limits" "memory" "" .Values.resources -}}
{{- if .Values.config.maxmemory -}}
{{- include "valkey-cluster.plain" .Values.config.maxmemory -}}
{{- else if $limit -}}
{{- div (mul (include "valkey-cluster.bytes" $limit | int64) (int64 .Values.config.maxmemoryPercent)) 100 -}}
{{- end -}}
{{- end -}}

{{/* The server's configuration, but for what `valkeeper run` tells it. */}}
{{- define "valkey-cluster.conf" -}}
dir {{ .Values.persistence.mountPath }}
{{- if ne .Values.mode "standalone" }}
cluster-enabled yes
cluster-node-timeout {{ .Values.config.nodeTimeout | int }}
{{- end }}
{{- if not .Values.auth.enabled }}
# There is no password: whoever reaches the port may ask.
protected-mode no
{{- end }}
{{- if .Values.tls.enabled }}
tls-auth-clients {{ .Values.tls.authClients }}
tls-cluster {{ ternary "yes" "no" .Values.tls.clusterEnabled }}
{{- end }}
{{- with include "valkey-cluster.maxmemory" . }}
maxmemory {{ . }}
{{- end }}
maxmemory-policy {{ .Values.config.maxmemoryPolicy }}
save {{ .Values.persistence.rdb.save | default "\"\"" }}
appendonly {{ ternary "yes" "no" .Values.persistence.aof.enabled }}
{{- if .Values.persistence.aof.enabled }}
appendfsync {{ .Values.persistence.aof.fsync }}
{{- end }}
{{- with .Values.config.extra }}
{{- . | trim | nindent 0 }}
{{- end }}
{{- end -}}
