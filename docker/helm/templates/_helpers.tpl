{{- define "sapnet.name" -}}
{{- printf "%s" .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "sapnet.labels" -}}
app.kubernetes.io/name: sapnet-service
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* The image, for GPUs where so many are asked for. */}}
{{- define "sapnet.image" -}}
{{- $tag := .root.Values.image.tag | default .root.Chart.AppVersion -}}
{{- if .gpus -}}
{{- $tag = .root.Values.image.gpuTag | default (printf "%s-gpu" $tag) -}}
{{- end -}}
{{ .root.Values.image.repository }}:{{ $tag }}
{{- end -}}

{{/* What every pod has. */}}
{{- define "sapnet.pod" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
automountServiceAccountToken: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{- define "sapnet.container" -}}
image: {{ include "sapnet.image" . | quote }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
envFrom:
  - configMapRef: { name: {{ include "sapnet.name" .root }}-settings }
  - secretRef: { name: {{ .root.Values.secret | quote }} }
securityContext:
  allowPrivilegeEscalation: false
  capabilities: { drop: [ALL] }
{{- end -}}

{{/* Requests and limits, with GPUs among the limits. */}}
{{- define "sapnet.resources" -}}
{{- $given := .resources | default dict -}}
{{- $limits := deepCopy ($given.limits | default dict) -}}
{{- if .gpus }}{{ $_ := set $limits "nvidia.com/gpu" (.gpus | int) }}{{ end -}}
resources:
  {{- with $given.requests }}
  requests: {{- toYaml . | nindent 4 }}
  {{- end }}
  limits: {{- toYaml $limits | nindent 4 }}
{{- end -}}
