{{/* Names follow the released chart, so that `helm upgrade` from it keeps every object (a Deployment's selector cannot change). */}}
{{- define "ennote-agent.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* The release name, with the chart name behind it unless it is already in it. */}}
{{- define "ennote-agent.fullname" -}}
{{- $name := .Values.nameOverride | default .Chart.Name -}}
{{- $default := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- .Values.fullnameOverride | default $default | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "ennote-agent.selectorLabels" -}}
app.kubernetes.io/name: {{ include "ennote-agent.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "ennote-agent.labels" -}}
{{ include "ennote-agent.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{- define "ennote-agent.serviceAccountName" -}}
{{- $default := .Values.serviceAccount.create | ternary (include "ennote-agent.fullname" .) "default" -}}
{{- .Values.serviceAccount.name | default $default -}}
{{- end -}}

{{/* Tag or digest; the digest wins. */}}
{{- define "ennote-agent.image" -}}
{{- $tag := .Values.image.tag | default .Chart.AppVersion -}}
{{- .Values.image.digest | empty | ternary (printf "%s:%s" .Values.image.repository $tag) (printf "%s@%s" .Values.image.repository .Values.image.digest) -}}
{{- end -}}

{{/* The Secret with the bootstrap token. It need not exist: the volume is optional. */}}
{{- define "ennote-agent.authSecretName" -}}
{{- .Values.ennote.auth.existingSecretName | default (printf "%s-auth" (include "ennote-agent.fullname" .)) -}}
{{- end -}}

{{/* Host of the cloud, without scheme and port, lower case. */}}
{{- define "ennote-agent.apiHost" -}}
{{- $authority := .Values.ennote.api.url | trimPrefix "https://" | trimPrefix "dns:///" | trimSuffix "/" | lower -}}
{{- regexReplaceAll ":[0-9]+$" $authority "" -}}
{{- end -}}

{{/* Port of the cloud: 443 where its address names none. */}}
{{- define "ennote-agent.apiPort" -}}
{{- regexFind ":[0-9]+$" (.Values.ennote.api.url | trimSuffix "/") | trimPrefix ":" | default "443" -}}
{{- end -}}

{{- define "ennote-agent.audience" -}}
{{- .Values.ennote.auth.audience | default (printf "https://%s/agent-join" (include "ennote-agent.apiHost" .)) -}}
{{- end -}}

{{/* The watched namespaces as a JSON list: {{ include "..." . | fromJsonArray }}. */}}
{{- define "ennote-agent.watchNamespaces" -}}
{{- .Values.watchNamespaces | default (list .Release.Namespace) | toJson -}}
{{- end -}}

{{/* "true" when this release brings the CustomResourceDefinition: asked for, and no other release has brought it. */}}
{{- define "ennote-agent.bringsCrd" -}}
{{- if .Values.crds.install -}}
{{- $found := lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" "ennotesecretbindings.ennote.io" -}}
{{- $owner := dig "metadata" "annotations" dict ($found | default dict) -}}
{{- $name := get $owner "meta.helm.sh/release-name" -}}
{{- $namespace := get $owner "meta.helm.sh/release-namespace" -}}
{{- if or (not $found) (and (eq $name .Release.Name) (eq $namespace .Release.Namespace)) -}}
true
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Begins the names of the admission policies. A namespace holds no dot, so no two installations share one. */}}
{{- define "ennote-agent.policy" -}}
{{- .Values.admissionPolicy.name | default (printf "%s.%s" (include "ennote-agent.fullname" .) .Release.Namespace) -}}
{{- end -}}

{{/* "true" when this release brings the admission policies: asked for, and served by the cluster (Kubernetes 1.30). */}}
{{- define "ennote-agent.bringsPolicy" -}}
{{- $served := .Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy" -}}
{{- if and .Values.admissionPolicy.create $served (not .Values.admissionPolicy.installedByPlatform) -}}
true
{{- end -}}
{{- end -}}

{{/* strict where the admission policies are, else compatible. */}}
{{- define "ennote-agent.rbacMode" -}}
{{- $stands := or (eq (include "ennote-agent.bringsPolicy" .) "true") .Values.admissionPolicy.installedByPlatform -}}
{{- if and (eq .Values.rbac.mode "strict") (not $stands) -}}
{{- fail "rbac.mode strict is safe only under the admission policies: leave admissionPolicy.create true on Kubernetes 1.30 or newer (for helm template: --api-versions admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy), or have the platform team apply examples/platform/admission-policy.yaml and set admissionPolicy.installedByPlatform to true, or set rbac.mode to compatible" -}}
{{- end -}}
{{- .Values.rbac.mode | default (ternary "strict" "compatible" $stands) -}}
{{- end -}}

{{/* A text of someone else's in a refusal: as it is where it can be told without quoting, else empty. */}}
{{- define "ennote-agent.told" -}}
({{ . }}.matches('^[A-Za-z0-9._/:-]{1,253}$') ? {{ . }} : '')
{{- end -}}

{{/* Whether a workload may be restarted at all: by its own word, or by what the settings allow beyond it. */}}
{{- define "ennote-agent.optIn" -}}
- name: says
  expression: "'ennote.io/restart' in variables.oldA ? variables.oldA['ennote.io/restart'].trim() : ''"
{{- if .Values.rollouts.consumers }}
- name: optedIn
  expression: "!(variables.says in ['never', 'false'])"
{{- else if .Values.rollouts.reloader }}
- name: optedIn
  expression: >-
    variables.says == ''
    ? ['reloader.stakater.com/auto', 'secret.reloader.stakater.com/auto', 'secret.reloader.stakater.com/reload'].exists(k,
    k in variables.oldA || k in {{ .template }})
    : !(variables.says in ['never', 'false'])
{{- else }}
- name: optedIn
  expression: "!(variables.says in ['', 'never', 'false'])"
{{- end }}
{{- end -}}
