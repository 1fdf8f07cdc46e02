{{- define "customhouse-oversight.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "customhouse-oversight.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{/* Its own namespace, and never the one that everything else falls into. */}}
{{- define "customhouse-oversight.namespace" -}}
{{- $namespace := default .Release.Namespace .Values.namespaceOverride }}
{{- if eq $namespace "default" }}
{{- fail "the store has a namespace of its own, not `default`: give --namespace or namespaceOverride" }}
{{- end }}
{{- $namespace }}
{{- end }}

{{- define "customhouse-oversight.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "customhouse-oversight.selectorLabels" . }}
{{- if .Chart.AppVersion }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}
app.kubernetes.io/part-of: customhouse
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* Never change these between versions: a workload's selector cannot be changed. */}}
{{- define "customhouse-oversight.selectorLabels" -}}
app.kubernetes.io/name: {{ include "customhouse-oversight.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "customhouse-oversight.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "customhouse-oversight.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "customhouse-oversight.port" -}}
{{- regexFind "[0-9]+$" . }}
{{- end }}

{{/* The port of metrics, if anybody outside the pod may scrape. */}}
{{- define "customhouse-oversight.metricsPort" -}}
{{- $listen := dig "metrics" "listen" "" .Values.config }}
{{- if and $listen (not (or (hasPrefix "127." $listen) (hasPrefix "localhost:" $listen) (hasPrefix "[::1]:" $listen))) }}
{{- include "customhouse-oversight.port" $listen }}
{{- end }}
{{- end }}

{{/* What values.schema.json cannot say. */}}
{{- define "customhouse-oversight.check" -}}
{{- $config := .Values.config }}
{{- range $key, $path := dict "storage.sqlite" $config.storage.sqlite "tiles.folder" $config.tiles.folder "producers.file" $config.producers.file "secrets.database" $config.secrets.database }}
{{- if not (hasPrefix "/var/lib/customhouse/" $path) }}
{{- fail (printf "config.%s is %q, which is not on the store's volume: put it below /var/lib/customhouse/" $key $path) }}
{{- end }}
{{- end }}
{{- range $key, $path := dict "log.key" $config.log.key "secrets.sealing_key" $config.secrets.sealing_key "secrets.key_encryption_key" $config.secrets.key_encryption_key }}
{{- if hasPrefix "/var/lib/customhouse/" $path }}
{{- fail (printf "config.%s lies on the volume with the databases: whoever takes the volume would have both. Mount it from a Secret (mounts)" $key) }}
{{- end }}
{{- end }}
{{- range $key, $address := dict "append" $config.listen.append "keys" $config.listen.keys "query" $config.listen.query }}
{{- if or (hasPrefix "127." $address) (hasPrefix "localhost:" $address) (hasPrefix "[::1]:" $address) }}
{{- fail (printf "config.listen.%s is %q, which nobody outside the pod reaches: write 0.0.0.0:PORT" $key $address) }}
{{- end }}
{{- end }}
{{- if and .Values.metrics.serviceMonitor.enabled (not (include "customhouse-oversight.metricsPort" .)) }}
{{- fail "metrics.serviceMonitor needs config.metrics.listen on an address outside the pod, such as 0.0.0.0:9464" }}
{{- end }}
{{- if and .Values.metrics.serviceMonitor.enabled (not .Values.service.enabled) }}
{{- fail "metrics.serviceMonitor finds the store by the chart's Service: service.enabled: true" }}
{{- end }}
{{- if and .Values.metrics.serviceMonitor.enabled .Values.networkPolicy.enabled (not .Values.networkPolicy.scrapers) }}
{{- fail "metrics.serviceMonitor needs networkPolicy.scrapers: whom the network policy lets scrape" }}
{{- end }}
{{- if and .Values.backup.enabled (has "ReadWriteOncePod" .Values.persistence.accessModes) }}
{{- fail "persistence.accessModes: ReadWriteOncePod lets no backup run beside the store: ReadWriteOnce, or backup.enabled: false" }}
{{- end }}
{{- $ports := list (include "customhouse-oversight.port" $config.listen.append) (include "customhouse-oversight.port" $config.listen.keys) (include "customhouse-oversight.port" $config.listen.query) }}
{{- if ne (len ($ports | uniq)) 3 }}
{{- fail "config.listen: append, keys and query are three ports, since different people may reach them" }}
{{- end }}
{{- end }}

{{/* Image, limits and security of every container of the store. */}}
{{- define "customhouse-oversight.container" -}}
{{- $tag := default .Chart.AppVersion .Values.image.tag -}}
image: {{ ternary (printf "%s:%s" .Values.image.repository $tag) (printf "%s:%s@%s" .Values.image.repository $tag .Values.image.digest) (empty .Values.image.digest) | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
{{- end }}

{{- define "customhouse-oversight.placement" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "customhouse-oversight.claim" -}}
accessModes:
  {{- toYaml .accessModes | nindent 2 }}
{{- with .storageClass }}
storageClassName: {{ . }}
{{- end }}
resources:
  requests:
    storage: {{ .size }}
{{- end }}
