{{/*
For your own workload: its init containers (first of them), volumes, pod annotations, and volumeClaimTemplates.
With this chart as a dependency under the name `guard`:
  initContainers: {{- include "customhouse-sidecar.initContainers" .Subcharts.guard | nindent 8 }}
*/}}
{{- define "customhouse-sidecar.initContainers" -}}
{{- include "customhouse-sidecar.check" . }}
{{- if include "customhouse-sidecar.opa" . }}
- {{ include "customhouse-sidecar.opaContainer" . | nindent 2 | trim }}
{{- end }}
- {{ include "customhouse-sidecar.container" (dict "root" . "native" true) | nindent 2 | trim }}
{{- end }}

{{/* Of {root, native}: the sidecar's container; native: as an init container that stays. */}}
{{- define "customhouse-sidecar.container" -}}
{{- $root := .root }}
{{- with $root -}}
name: customhouse
image: {{ include "customhouse-sidecar.image" (dict "image" .Values.image "appVersion" .Chart.AppVersion) | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- if $.native }}
restartPolicy: Always
{{- end }}
args:
  - run
  - --config
  - /etc/customhouse/sidecar.yaml
  {{- range .Values.extraArgs }}
  - {{ . | quote }}
  {{- end }}
{{- if or .Values.extraEnv (eq .Values.producer.nameFrom "pod") }}
env:
  {{- if eq .Values.producer.nameFrom "pod" }}
  - name: CUSTOMHOUSE_PRODUCER__NAME
    valueFrom: {fieldRef: {fieldPath: metadata.name}}
  {{- end }}
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- $doors := (include "customhouse-sidecar.doors" . | fromJson).ports }}
{{- $metrics := include "customhouse-sidecar.metricsPort" . }}
{{- if or $doors $metrics }}
ports:
  {{- range $doors }}
  - name: {{ .name }}
    containerPort: {{ .port }}
    protocol: TCP
  {{- end }}
  {{- if $metrics }}
  - name: metrics
    containerPort: {{ $metrics }}
    protocol: TCP
  {{- end }}
{{- end }}
{{- with .Values.startupProbe }}
startupProbe:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.readinessProbe }}
readinessProbe:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.livenessProbe }}
livenessProbe:
  {{- toYaml . | nindent 2 }}
{{- end }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
volumeMounts:
  - name: customhouse-config
    mountPath: /etc/customhouse/sidecar.yaml
    subPath: sidecar.yaml
    readOnly: true
  - name: customhouse-run
    mountPath: /run/customhouse
  - name: customhouse-sockets
    mountPath: /run/customhouse/sockets
  - name: customhouse-tmp
    mountPath: /tmp
  - name: customhouse-spool
    mountPath: {{ .Values.spool.mountPath }}
  {{- range .Values.mounts }}
  - name: customhouse-{{ .name }}
    mountPath: /etc/customhouse/{{ .name }}
    readOnly: true
  {{- end }}
{{- end }}
{{- end }}

{{/* A path of the settings, as the container sees it. */}}
{{- define "customhouse-sidecar.path" -}}
{{- if isAbs . }}{{ . }}{{ else }}/etc/customhouse/{{ . }}{{ end }}
{{- end }}

{{- define "customhouse-sidecar.opaContainer" -}}
{{- $bundle := .Values.config.policy.bundle -}}
name: customhouse-opa
image: {{ include "customhouse-sidecar.image" (dict "image" .Values.opa.image "appVersion" .Chart.AppVersion) | quote }}
imagePullPolicy: {{ .Values.opa.image.pullPolicy }}
restartPolicy: Always
args:
  - run
  - --server
  - --addr={{ (urlParse .Values.config.decision.opa.url).host }}
  - --authentication=token
  - --authorization=basic
  - --log-level=error
  - --skip-version-check
  {{- if $bundle.file }}
  - --set=bundles.customhouse.resource=file://{{ include "customhouse-sidecar.path" $bundle.file }}
  {{- else }}
  {{- $url := urlParse $bundle.url }}
  - --set=services.policy.url={{ $url.scheme }}://{{ $url.host }}
  {{- with $bundle.ca }}
  - --set=services.policy.tls.ca_cert={{ include "customhouse-sidecar.path" . }}
  {{- end }}
  {{- with $bundle.token_file }}
  - --set=services.policy.credentials.bearer.token_path={{ include "customhouse-sidecar.path" . }}
  {{- end }}
  - --set=bundles.customhouse.service=policy
  - --set=bundles.customhouse.resource={{ trimPrefix "/" $url.path }}{{ with $url.query }}?{{ . }}{{ end }}
  # The sidecar waits 30 s at most until OPA has the bundle that it has.
  - --set=bundles.customhouse.polling.min_delay_seconds=5
  - --set=bundles.customhouse.polling.max_delay_seconds=10
  {{- end }}
  - /etc/customhouse-opa/authz.rego
env:
  - name: CUSTOMHOUSE_OPA_TOKEN
    valueFrom:
      secretKeyRef:
        name: {{ .Values.opa.existingSecret }}
        key: {{ .Values.opa.tokenKey }}
resources:
  {{- toYaml .Values.opa.resources | nindent 2 }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
volumeMounts:
  - name: customhouse-opa-authz
    mountPath: /etc/customhouse-opa
    readOnly: true
  {{- $paths := list }}
  {{- range (list $bundle.file $bundle.ca $bundle.token_file) }}
  {{- with . }}{{ $paths = append $paths (include "customhouse-sidecar.path" .) }}{{ end }}
  {{- end }}
  {{- range $mount := .Values.mounts }}
  {{- $needed := false }}
  {{- range $paths }}{{ if hasPrefix (printf "/etc/customhouse/%s/" $mount.name) . }}{{ $needed = true }}{{ end }}{{ end }}
  {{- if $needed }}
  - name: customhouse-{{ $mount.name }}
    mountPath: /etc/customhouse/{{ $mount.name }}
    readOnly: true
  {{- end }}
  {{- end }}
{{- end }}

{{- define "customhouse-sidecar.volumes" -}}
- name: customhouse-config
  configMap:
    name: {{ include "customhouse-sidecar.fullname" . }}
- name: customhouse-run
  emptyDir: {medium: Memory, sizeLimit: 16Mi}
- name: customhouse-sockets
  emptyDir: {medium: Memory, sizeLimit: 16Mi}
- name: customhouse-tmp
  emptyDir: {sizeLimit: 256Mi}
{{- if include "customhouse-sidecar.opa" . }}
- name: customhouse-opa-authz
  configMap:
    name: {{ include "customhouse-sidecar.fullname" . }}-opa
{{- end }}
{{- with .Values.spool }}
{{- if not .persistence.enabled }}
- name: customhouse-spool
  emptyDir: {sizeLimit: {{ .emptyDir.sizeLimit }}}
{{- else if .persistence.existingClaim }}
- name: customhouse-spool
  persistentVolumeClaim:
    claimName: {{ .persistence.existingClaim }}
{{- else if .persistence.perPod }}
- name: customhouse-spool
  ephemeral:
    volumeClaimTemplate:
      spec:
        {{- include "customhouse-sidecar.claim" .persistence | nindent 8 }}
{{- end }}
{{- end }}
{{- if .Values.mounts }}
{{ include "customhouse-sidecar.mountVolumes" . }}
{{- end }}
{{- end }}

{{- define "customhouse-sidecar.mountVolumes" -}}
{{- range .Values.mounts }}
- name: customhouse-{{ .name }}
  {{- with omit . "name" }}
  {{- if .secret }}
  secret: {{ mergeOverwrite (dict "defaultMode" 288) .secret | toYaml | nindent 4 }}
  {{- else }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Of a persistence block: the claim's spec. */}}
{{- define "customhouse-sidecar.claim" -}}
accessModes:
  {{- toYaml .accessModes | nindent 2 }}
{{- with .storageClass }}
storageClassName: {{ . }}
{{- end }}
resources:
  requests:
    storage: {{ .size }}
{{- end }}

{{/* For a StatefulSet: a claim for each pod, which outlives it. */}}
{{- define "customhouse-sidecar.volumeClaimTemplates" -}}
{{- with .Values.spool.persistence }}
{{- if and .enabled (not .existingClaim) (not .perPod) }}
- metadata:
    name: customhouse-spool
    {{- with .annotations }}
    annotations:
      {{- toYaml . | nindent 6 }}
    {{- end }}
  spec:
    {{- include "customhouse-sidecar.claim" . | nindent 4 }}
{{- end }}
{{- end }}
{{- end }}

{{/* Where a pod goes. */}}
{{- define "customhouse-sidecar.placement" -}}
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
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
