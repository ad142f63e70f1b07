{{/* Names. */}}
{{- define "valkey-cluster.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "valkey-cluster.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "valkey-cluster.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "valkey-cluster.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
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
app.kubernetes.io/name: {{ include "valkey-cluster.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "valkey-cluster.serverSelector" -}}
{{ include "valkey-cluster.selector" . }}
app.kubernetes.io/component: server
{{- end -}}

{{- define "valkey-cluster.labels" -}}
{{ include "valkey-cluster.selector" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The head of an object: (dict "root" $ "name" … "component" … "labels" … "annotations" …). */}}
{{- define "valkey-cluster.metadata" -}}
{{- $root := .root -}}
name: {{ .name }}
namespace: {{ $root.Release.Namespace }}
labels:
  {{- include "valkey-cluster.labels" $root | nindent 2 }}
  {{- with .component }}
  app.kubernetes.io/component: {{ . }}
  {{- end }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
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

{{/* The bytes of a quantity. */}}
{{- define "valkey-cluster.bytes" -}}
{{- $text := toString . -}}
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
{{- .Values.config.maxmemory -}}
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

{{/* Images: (dict "image" … "tag" …). */}}
{{- define "valkey-cluster.image" -}}
{{- with .image.registry }}{{ . }}/{{ end -}}
{{ .image.repository }}
{{- if .image.digest }}@{{ .image.digest }}{{ else }}:{{ default .tag .image.tag }}{{ end -}}
{{- end -}}

{{/* A container that is valkeeper and nothing else: image and command. */}}
{{- define "valkey-cluster.tool" -}}
{{- if eq .Values.binary.source "server" -}}
image: {{ include "valkey-cluster.image" (dict "image" .Values.image "tag" "") | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
command: [{{ .Values.binary.path | quote }}]
{{- else -}}
image: {{ include "valkey-cluster.image" (dict "image" .Values.binary.image "tag" .Chart.AppVersion) | quote }}
imagePullPolicy: {{ .Values.binary.image.pullPolicy }}
command: ["/valkeeper"]
{{- end }}
securityContext:
  {{- toYaml .Values.containerSecurityContext | nindent 2 }}
{{- with .Values.binary.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Where valkeeper is in the server's container. */}}
{{- define "valkey-cluster.program" -}}
{{- ternary .Values.binary.path "/opt/valkeeper/valkeeper" (eq .Values.binary.source "server") -}}
{{- end -}}

{{/* What every pod of ours has: (dict "root" $ "component" …). */}}
{{- define "valkey-cluster.podBase" -}}
{{- $root := .root -}}
serviceAccountName: {{ include "valkey-cluster.serviceAccount" $root }}
automountServiceAccountToken: false
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- $context := $root.Values.podSecurityContext }}
  {{- if $root.Values.arbitraryUser }}{{ $context = omit $context "runAsUser" "runAsGroup" "fsGroup" }}{{ end }}
  {{- toYaml $context | nindent 2 }}
{{- with $root.Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $root.Values.schedulerName }}
schedulerName: {{ . }}
{{- end }}
{{- end -}}

{{/* How to be let in, for every container of ours: variables, mounts, volumes. */}}
{{- define "valkey-cluster.accessEnv" -}}
- { name: VALKEEPER_PORT, value: {{ include "valkey-cluster.port" . | quote }} }
{{- if .Values.auth.enabled }}
- { name: VALKEEPER_PASSWORD_FILE, value: /etc/valkeeper/password/password }
{{- with .Values.auth.username }}
- { name: VALKEEPER_USERNAME, value: {{ . | quote }} }
{{- end }}
{{- end }}
{{- if .Values.tls.enabled }}
- { name: VALKEEPER_TLS, value: "true" }
- { name: VALKEEPER_TLS_CA, value: /etc/valkeeper/tls/ca.crt }
- { name: VALKEEPER_TLS_CERT, value: /etc/valkeeper/tls/tls.crt }
- { name: VALKEEPER_TLS_KEY, value: /etc/valkeeper/tls/tls.key }
{{- end }}
- { name: VALKEEPER_LOG_FORMAT, value: {{ .Values.log.format }} }
- { name: VALKEEPER_LOG_LEVEL, value: {{ .Values.log.level }} }
{{- end -}}

{{/* Whom to find, and what they are to be. */}}
{{- define "valkey-cluster.clusterEnv" -}}
- { name: VALKEEPER_SERVICE, value: {{ include "valkey-cluster.service" . | quote }} }
- { name: VALKEEPER_SHARDS, value: {{ .Values.shards | int | quote }} }
- { name: VALKEEPER_REPLICAS, value: {{ .Values.replicas | int | quote }} }
{{- end -}}

{{- define "valkey-cluster.accessMounts" -}}
{{- if .Values.auth.enabled }}
- { name: password, mountPath: /etc/valkeeper/password, readOnly: true }
{{- end }}
{{- if .Values.tls.enabled }}
- { name: tls, mountPath: /etc/valkeeper/tls, readOnly: true }
{{- end }}
{{- end -}}

{{- define "valkey-cluster.accessVolumes" -}}
{{- if .Values.auth.enabled }}
- name: password
  secret:
    secretName: {{ include "valkey-cluster.secret" . }}
    defaultMode: 0440
    items: [{ key: {{ include "valkey-cluster.secretKey" . | quote }}, path: password }]
{{- end }}
{{- if .Values.tls.enabled }}
- name: tls
  secret:
    secretName: {{ .Values.tls.existingSecret }}
    defaultMode: 0440
    items:
      - { key: {{ .Values.tls.keys.ca | quote }}, path: ca.crt }
      - { key: {{ .Values.tls.keys.cert | quote }}, path: tls.crt }
      - { key: {{ .Values.tls.keys.key | quote }}, path: tls.key }
{{- end }}
{{- end -}}

{{/* A pod that runs one command of valkeeper and ends: (dict "root" $ "name" … "args" … "env" …). */}}
{{- define "valkey-cluster.toolPod" -}}
{{- $root := .root -}}
restartPolicy: Never
{{ include "valkey-cluster.podBase" (dict "root" $root) }}
containers:
  - name: {{ .name }}
    {{- include "valkey-cluster.tool" $root | nindent 4 }}
    args: {{ toJson .args }}
    env:
      {{- include "valkey-cluster.accessEnv" $root | nindent 6 }}
      {{- .env | nindent 6 }}
    {{- with include "valkey-cluster.accessMounts" $root | trim }}
    volumeMounts:
      {{- . | nindent 6 }}
    {{- end }}
{{- with include "valkey-cluster.accessVolumes" $root | trim }}
volumes:
  {{- . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* A Job's pods are not tried again over what a rerun does not change: a wrong option, a refusal. */}}
{{- define "valkey-cluster.failurePolicy" -}}
podFailurePolicy:
  rules:
    - action: Ignore
      onPodConditions: [{ type: DisruptionTarget, status: "True" }]
    - action: FailJob
      # Without it, Kubernetes before 1.29 does not take the rule.
      onPodConditions: []
      onExitCodes: { containerName: {{ . }}, operator: In, values: [64, 76] }
{{- end -}}

{{/* What cannot be said by the schema. */}}
{{- define "valkey-cluster.validate" -}}
{{- $auth := .Values.auth -}}
{{- if $auth.enabled -}}
{{- $sources := list $auth.password $auth.existingSecret $auth.autoGenerate | compact -}}
{{- if not $sources -}}
{{- fail "auth.enabled needs a password: name a Secret in auth.existingSecret, or set auth.password, or auth.autoGenerate=true" -}}
{{- else if gt (len $sources) 1 -}}
{{- fail "auth.existingSecret, auth.password and auth.autoGenerate exclude each other: keep one" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.tls.enabled (not .Values.tls.existingSecret) -}}
{{- fail "tls.enabled needs tls.existingSecret: a Secret with the certificate, its key and its authority" -}}
{{- end -}}
{{- end -}}
