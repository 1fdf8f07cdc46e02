{{/* What the pod runs from: the file, and its digest, so that a change of it rolls the pods. */}}
{{- define "customhouse-sidecar.configFile" -}}
{{- if eq .Values.mode "ledger" }}{{ toYaml .Values.ledger.config }}{{ else }}{{ toYaml .Values.config }}{{ end }}
{{- end }}

{{- define "customhouse-sidecar.configName" -}}
{{- if eq .Values.mode "ledger" }}ledger.yaml{{ else }}sidecar.yaml{{ end }}
{{- end }}

{{- define "customhouse-sidecar.checksums" -}}
customhouse.io/config-sha256: {{ include "customhouse-sidecar.configFile" . | sha256sum }}
{{- if include "customhouse-sidecar.opa" . }}
customhouse.io/opa-sha256: {{ include "customhouse-sidecar.opaPolicy" . | sha256sum }}
{{- end }}
{{- end }}

{{/* The port of HOST:PORT. */}}
{{- define "customhouse-sidecar.port" -}}
{{- regexFind "[0-9]+$" . }}
{{- end }}

{{/* The port of a URL. */}}
{{- define "customhouse-sidecar.urlPort" -}}
{{- $url := urlParse . }}
{{- $port := regexFind ":[0-9]+$" $url.host }}
{{- if $port }}{{ trimPrefix ":" $port }}{{ else if eq $url.scheme "http" }}80{{ else }}443{{ end }}
{{- end }}

{{/* Not empty if only this pod reaches the address. */}}
{{- define "customhouse-sidecar.local" -}}
{{- if or (hasPrefix "unix:" .) (hasPrefix "127." .) (hasPrefix "localhost:" .) (hasPrefix "[::1]:" .) }}yes{{ end }}
{{- end }}

{{/* Not empty if OPA runs beside the sidecar. */}}
{{- define "customhouse-sidecar.opa" -}}
{{- $opa := dig "decision" "opa" "url" "" .Values.config }}
{{- if and (ne .Values.mode "ledger") $opa (include "customhouse-sidecar.local" (urlParse $opa).host) }}yes{{ end }}
{{- end }}

{{- define "customhouse-sidecar.opaPolicy" -}}
# Who may ask this OPA: whoever holds the token. Other containers of the pod reach its port too.
package system.authz

default allow := false

allow if {
	token := opa.runtime().env.CUSTOMHOUSE_OPA_TOKEN
	count(token) >= 16
	input.identity == token
}
{{- end }}

{{/* The listeners on TCP ports: a list of {name, port} under `ports`. */}}
{{- define "customhouse-sidecar.doors" -}}
{{- $ports := list }}
{{- range $index, $one := .Values.config.listen }}
{{- if not (include "customhouse-sidecar.local" $one.address) }}
{{- $name := printf "%s-%d" ($one.door | replace "_" "-") $index }}
{{- $ports = append $ports (dict "name" $name "port" (include "customhouse-sidecar.port" $one.address | int)) }}
{{- end }}
{{- end }}
{{- dict "ports" $ports | toJson }}
{{- end }}

{{/* The port of metrics, if anybody outside the pod may scrape. */}}
{{- define "customhouse-sidecar.metricsPort" -}}
{{- $config := ternary .Values.ledger.config .Values.config (eq .Values.mode "ledger") }}
{{- $listen := dig "metrics" "listen" "" $config }}
{{- if and $listen (not (include "customhouse-sidecar.local" $listen)) }}{{ include "customhouse-sidecar.port" $listen }}{{ end }}
{{- end }}

{{/* What values.schema.json cannot say. Each ends the rendering with what to mend. */}}
{{- define "customhouse-sidecar.check" -}}
{{- $config := .Values.config }}
{{- if ne .Values.mode "ledger" }}
{{- if not (hasPrefix (printf "%s/" .Values.spool.mountPath) $config.record.spool) }}
{{- fail (printf "config.record.spool is %q, which is not on the spool's volume: put it below %s/" $config.record.spool .Values.spool.mountPath) }}
{{- end }}
{{- if not (hasPrefix "/run/customhouse/" (dig "admin" "socket" "" $config)) }}
{{- fail "config.admin.socket is missing or elsewhere: write /run/customhouse/admin, where the probes ask" }}
{{- end }}
{{- range $config.listen }}
{{- if and (hasPrefix "unix:" .address) (not (hasPrefix "unix:/run/customhouse/sockets/" .address)) }}
{{- fail (printf "config.listen: %q is in no volume that callers may mount: write unix:/run/customhouse/sockets/NAME, and mount the volume customhouse-sockets there" .address) }}
{{- end }}
{{- end }}
{{- $upstream := dig "upstream" "address" "" $config }}
{{- if and (eq .Values.mode "sidecar") $upstream (not (include "customhouse-sidecar.local" $upstream)) }}
{{- fail (printf "config.upstream.address is %q, outside the pod: in mode sidecar the service is in the same pod (127.0.0.1:PORT or unix:PATH); for another, mode: gateway" $upstream) }}
{{- end }}
{{- if and (eq .Values.mode "gateway") (eq .Values.producer.nameFrom "config") (or .Values.autoscaling.enabled (gt (int .Values.replicaCount) 1)) }}
{{- fail "several pods cannot share one producer name, or the log holds two chains of one producer: producer.nameFrom: pod, and register each pod's name" }}
{{- end }}
{{- $kept := and .Values.spool.persistence.enabled (not .Values.spool.persistence.existingClaim) (not .Values.spool.persistence.perPod) }}
{{- if and (eq .Values.mode "gateway") (eq .Values.producer.nameFrom "pod") (not $kept) }}
{{- fail "producer.nameFrom: pod needs the fixed names of a StatefulSet: spool.persistence.enabled: true, without existingClaim and perPod" }}
{{- end }}
{{- if and (eq .Values.mode "sidecar") (hasPrefix "customhouse" (include "customhouse-sidecar.fullname" .)) }}
{{- fail (printf "a Service named %q would give pods variables CUSTOMHOUSE_…, which the sidecar reads as settings: choose another release name or fullnameOverride" (include "customhouse-sidecar.fullname" .)) }}
{{- end }}
{{- $drain := default "10s" $config.drain }}
{{- $seconds := mulf (regexFind "^[0-9.]+" $drain | float64) (get (dict "ms" 0.001 "s" 1 "m" 60 "h" 3600 "d" 86400) (regexFind "[a-z]+$" $drain)) }}
{{- if and (eq .Values.mode "gateway") (gt (addf $seconds 15) (float64 .Values.terminationGracePeriodSeconds)) }}
{{- fail (printf "terminationGracePeriodSeconds is %v: calls under way have config.drain (%s), and records 3 s more; give it 15 s more than that" .Values.terminationGracePeriodSeconds $drain) }}
{{- end }}
{{- if and .Values.autoscaling.enabled (ne .Values.mode "gateway") }}
{{- fail "autoscaling is for mode gateway; your own workload has its own" }}
{{- end }}
{{- if and .Values.webhook.enabled (ne .Values.mode "sidecar") }}
{{- fail "the webhook is for mode sidecar" }}
{{- end }}
{{- if include "customhouse-sidecar.opa" . }}
{{- if not .Values.opa.existingSecret }}
{{- fail "opa.existingSecret is missing: the Secret with the token of OPA in this pod (config.decision.opa.token_file is the same token)" }}
{{- end }}
{{- if not (dig "decision" "opa" "token_file" "" $config) }}
{{- fail "config.decision.opa.token_file is missing: every container of the pod reaches OPA's port, so it asks for a token" }}
{{- end }}
{{- if not (or (dig "policy" "bundle" "file" "" $config) (dig "policy" "bundle" "url" "" $config)) }}
{{- fail "OPA in the pod reads the bundle from config.policy.bundle.url or .file, and neither is set; with another source run OPA yourself and name it in config.decision.opa.url" }}
{{- end }}
{{- end }}
{{- end }}
{{- if and .Values.metrics.serviceMonitor.enabled (not (include "customhouse-sidecar.metricsPort" .)) }}
{{- fail "metrics.serviceMonitor needs metrics.listen in the settings on an address outside the pod, such as 0.0.0.0:9464" }}
{{- end }}
{{- if and .Values.metrics.serviceMonitor.enabled (not .Values.service.enabled) }}
{{- fail "metrics.serviceMonitor finds pods by the chart's Service: service.enabled: true" }}
{{- end }}
{{- if and .Values.metrics.serviceMonitor.enabled .Values.networkPolicy.enabled (not .Values.networkPolicy.scrapers) }}
{{- fail "metrics.serviceMonitor needs networkPolicy.scrapers: whom the network policy lets scrape" }}
{{- end }}
{{- $names := dict }}
{{- range .Values.mounts }}
{{- if hasKey $names .name }}{{ fail (printf "mounts: %q is there twice" .name) }}{{ end }}
{{- $_ := set $names .name "" }}
{{- end }}
{{- end }}
