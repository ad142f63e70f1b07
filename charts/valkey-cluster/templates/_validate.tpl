{{/* How many pods the release has now; 0 where it has none, or nobody can be asked. */}}
{{- define "valkey-cluster.there" -}}
{{- $there := lookup "apps/v1" "StatefulSet" .Release.Namespace (include "valkey-cluster.fullname" .) | default dict -}}
{{- default (dig "spec" "replicas" 0 $there | int) (.Values.scaleIn.from | int) -}}
{{- end -}}

{{/* The milliseconds of a time like `1m 30s`. */}}
{{- define "valkey-cluster.milliseconds" -}}
{{- $sum := 0.0 -}}
{{- $units := dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 "d" 86400000 -}}
{{- range regexFindAll "[0-9.]+[a-z]+" . -1 -}}
{{- $number := regexFind "^[0-9.]+" . -}}
{{- $sum = addf $sum (mulf (float64 $number) (get $units (trimPrefix $number .) | float64)) -}}
{{- end -}}
{{- int64 $sum -}}
{{- end -}}

{{/* What cannot be said by the schema. */}}
{{- define "valkey-cluster.validate" -}}
{{- $name := include "valkey-cluster.fullname" . -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) -}}
{{- fail (printf "%q cannot be the name of a Service, which begins with a letter and has small letters, digits and dashes: set fullnameOverride" $name) -}}
{{- end -}}
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
{{- if has .Values.persistence.volumeName (list "config" "password" "tls" "valkeeper") -}}
{{- fail (printf "persistence.volumeName: the chart has another volume with the name %q; choose another" .Values.persistence.volumeName) -}}
{{- end -}}
{{- include "valkey-cluster.validateGrace" . -}}
{{- include "valkey-cluster.validateScaleIn" . -}}
{{- end -}}

{{/* How valkeeper splits a grace period: a second in reserve, a tenth of it to stop in (one to five seconds), three to hand over and save. */}}
{{- define "valkey-cluster.validateGrace" -}}
{{- $delay := include "valkey-cluster.milliseconds" .Values.lifecycle.preStop.delay | int64 -}}
{{- $hook := ternary 5000 0 .Values.lifecycle.preStop.enabled -}}
{{- $grace := sub (mul 1000 (int64 .Values.terminationGracePeriodSeconds)) $hook -}}
{{- $stop := min 5000 (max 1000 (div $grace 10)) -}}
{{- if lt (sub $grace (add 4000 $stop $delay)) 0 -}}
{{- $least := add 5000 $delay -}}
{{- if gt $least 10000 }}{{ $least = min (add 9000 $delay) (div (add (mul 10 (add 4000 $delay)) 8) 9) }}{{ end -}}
{{- fail (printf "terminationGracePeriodSeconds: %d s do not hold a lifecycle.preStop.delay of %s and the time to hand over, save and stop: %d at least, or a shorter delay" (int64 .Values.terminationGracePeriodSeconds) .Values.lifecycle.preStop.delay (div (add $least $hook 999) 1000)) -}}
{{- end -}}
{{- end -}}

{{/* Pods that are to give slots to new shards would give them back to those that are being emptied. */}}
{{- define "valkey-cluster.validateScaleIn" -}}
{{- if and .Values.scaleIn.enabled (ne .Values.mode "standalone") (gt (include "valkey-cluster.there" . | int) (include "valkey-cluster.pods" . | int)) -}}
{{- $set := lookup "apps/v1" "StatefulSet" .Release.Namespace (include "valkey-cluster.fullname" .) | default dict -}}
{{- $rebalance := .Values.autoRebalance -}}
{{- range dig "spec" "template" "spec" "containers" list $set -}}
{{- range .env }}{{ if eq .name "VALKEEPER_AUTO_REBALANCE" }}{{ $rebalance = true }}{{ end }}{{ end -}}
{{- end -}}
{{- if $rebalance -}}
{{- fail "autoRebalance gives slots back to pods that are being emptied: set autoRebalance=false first, upgrade, then scale in" -}}
{{- end -}}
{{- end -}}
{{- end -}}
