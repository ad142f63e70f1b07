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
serviceAccountName: {{ include "valkey-cluster.serviceAccount" $root | quote }}
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
priorityClassName: {{ . | quote }}
{{- end }}
{{- with $root.Values.schedulerName }}
schedulerName: {{ . | quote }}
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
    secretName: {{ include "valkey-cluster.secret" . | quote }}
    defaultMode: 0440
    items: [{ key: {{ include "valkey-cluster.secretKey" . | quote }}, path: password }]
{{- end }}
{{- if .Values.tls.enabled }}
- name: tls
  secret:
    secretName: {{ .Values.tls.existingSecret | quote }}
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
