{{/* Of {peers, ports, key, word}: one rule. A rule without peers would let everybody in or out, so there is none. */}}
{{- define "customhouse-sidecar.rule" -}}
{{- if not .peers }}
{{- fail (printf "networkPolicy.%s is empty, and %s: name the peers, or networkPolicy.enabled: false" .key .why) }}
{{- end }}
- {{ .word }}:
    {{- toYaml .peers | nindent 4 }}
  ports:
    {{- range .ports | uniq }}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
{{- end }}

{{- define "customhouse-sidecar.ingress" -}}
{{- $policy := .Values.networkPolicy }}
{{- if eq .Values.mode "ledger" }}
{{ include "customhouse-sidecar.rule" (dict "peers" .Values.ledger.sidecars "word" "from" "key" "… ledger.sidecars" "why" "sidecars must reach the ledger" "ports" (list (include "customhouse-sidecar.port" .Values.ledger.config.listen.address))) }}
{{- else }}
{{- $ports := list }}
{{- range (include "customhouse-sidecar.doors" . | fromJson).ports }}{{ $ports = append $ports (int .port) }}{{ end }}
{{- if $ports }}
{{ include "customhouse-sidecar.rule" (dict "peers" $policy.callers "word" "from" "key" "callers" "why" "callers must reach the door" "ports" $ports) }}
{{- end }}
{{- end }}
{{- if and $policy.scrapers (include "customhouse-sidecar.metricsPort" .) }}
{{ include "customhouse-sidecar.rule" (dict "peers" $policy.scrapers "word" "from" "key" "scrapers" "why" "" "ports" (list (include "customhouse-sidecar.metricsPort" .))) }}
{{- end }}
{{- end }}

{{- define "customhouse-sidecar.egress" -}}
{{- if ne .Values.mode "ledger" }}
{{- $to := .Values.networkPolicy.egress }}
{{- $config := .Values.config }}
{{ include "customhouse-sidecar.rule" (dict "peers" $to.store "word" "to" "key" "egress.store" "why" "records go to the store" "ports" (list (include "customhouse-sidecar.port" $config.oversight.address) (include "customhouse-sidecar.port" $config.oversight.keys))) }}
{{- with $config.ledger }}
{{ include "customhouse-sidecar.rule" (dict "peers" $to.ledger "word" "to" "key" "egress.ledger" "why" "config.ledger names one" "ports" (list (include "customhouse-sidecar.port" .address))) }}
{{- end }}
{{- $jwks := list }}
{{- range $config.identity.issuers }}
{{- with .jwks.url }}{{ $jwks = append $jwks (include "customhouse-sidecar.urlPort" .) }}{{ end }}
{{- end }}
{{- if $jwks }}
{{ include "customhouse-sidecar.rule" (dict "peers" $to.jwks "word" "to" "key" "egress.jwks" "why" "an issuer's keys are at a URL" "ports" $jwks) }}
{{- end }}
{{- $policy := list }}
{{- range (list $config.policy.bundle (dig "shadow" "bundle" (dict) $config)) }}
{{- with .url }}{{ $policy = append $policy (include "customhouse-sidecar.urlPort" .) }}{{ end }}
{{- if .s3 }}{{ $policy = append $policy (include "customhouse-sidecar.urlPort" (default "https://s3" .endpoint)) }}{{ end }}
{{- end }}
{{- if $policy }}
{{ include "customhouse-sidecar.rule" (dict "peers" $to.policy "word" "to" "key" "egress.policy" "why" "the policy's source is elsewhere" "ports" $policy) }}
{{- end }}
{{- with dig "decision" "opa" "url" "" $config }}
{{- if not (include "customhouse-sidecar.local" (urlParse .).host) }}
{{ include "customhouse-sidecar.rule" (dict "peers" $to.opa "word" "to" "key" "egress.opa" "why" "config.decision.opa.url is outside the pod" "ports" (list (include "customhouse-sidecar.urlPort" .))) }}
{{- end }}
{{- end }}
{{- with dig "upstream" "address" "" $config }}
{{- if not (include "customhouse-sidecar.local" .) }}
{{ include "customhouse-sidecar.rule" (dict "peers" $to.upstream "word" "to" "key" "egress.upstream" "why" "the service is outside the pod" "ports" (list (include "customhouse-sidecar.port" .))) }}
{{- end }}
{{- end }}
{{- with $to.dns }}
- to:
    {{- toYaml . | nindent 4 }}
  ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
{{- end }}
{{- end }}
{{- with .Values.networkPolicy.extraEgress }}
{{ toYaml . }}
{{- end }}
{{- end }}
