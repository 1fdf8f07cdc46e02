{{- define "customhouse-sidecar.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "customhouse-sidecar.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "customhouse-sidecar.chart" -}}
{{- printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "customhouse-sidecar.labels" -}}
helm.sh/chart: {{ include "customhouse-sidecar.chart" . }}
{{ include "customhouse-sidecar.selectorLabels" . }}
{{- if .Chart.AppVersion }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}
app.kubernetes.io/part-of: customhouse
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* Never change these between versions: a workload's selector cannot be changed. */}}
{{- define "customhouse-sidecar.selectorLabels" -}}
app.kubernetes.io/name: {{ include "customhouse-sidecar.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- if ne .Values.mode "sidecar" }}
app.kubernetes.io/component: {{ .Values.mode }}
{{- end }}
{{- end }}

{{- define "customhouse-sidecar.webhookSelectorLabels" -}}
app.kubernetes.io/name: {{ include "customhouse-sidecar.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: webhook
{{- end }}

{{/* The pods that are guarded or that guard: what Service, network policy and disruption budget select. */}}
{{- define "customhouse-sidecar.targetLabels" -}}
{{- if eq .Values.mode "sidecar" }}
{{- if not .Values.guarded.podLabels }}
{{- fail "guarded.podLabels is missing: the labels of your service's pods, which Service, network policy and disruption budget select; none would select every pod" }}
{{- end }}
{{- toYaml .Values.guarded.podLabels }}
{{- else }}
{{- include "customhouse-sidecar.selectorLabels" . }}
{{- end }}
{{- end }}

{{- define "customhouse-sidecar.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "customhouse-sidecar.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* Of {image, appVersion}. */}}
{{- define "customhouse-sidecar.image" -}}
{{- $tag := default .appVersion .image.tag -}}
{{- if .image.digest }}{{ printf "%s:%s@%s" .image.repository $tag .image.digest }}{{ else }}{{ printf "%s:%s" .image.repository $tag }}{{ end }}
{{- end }}
