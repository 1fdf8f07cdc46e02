{{/* What the webhook puts into a pod, and nothing else. */}}
{{- define "customhouse-sidecar.injection" -}}
initContainers:
  {{- include "customhouse-sidecar.initContainers" . | trim | nindent 2 }}
volumes:
  {{- include "customhouse-sidecar.volumes" . | trim | nindent 2 }}
annotations:
  {{- include "customhouse-sidecar.checksums" . | nindent 2 }}
# Given to the pod if it names none: secrets and the spool belong to it.
fsGroup: {{ .Values.podSecurityContext.fsGroup }}
# The service's containers may mount these of our volumes, for sockets.
shared: [customhouse-sockets]
{{- end }}
