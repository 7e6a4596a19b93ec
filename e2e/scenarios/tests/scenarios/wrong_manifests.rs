//! Manifests that the API server has to refuse, each with the rule that it breaks and the sentence that a person reads.

/// A spec, the rule of the schema that it breaks, and the sentence that a person reads.
pub(crate) struct Wrong {
    pub(crate) spec: String,
    pub(crate) breaks: String,
    pub(crate) sentence: String,
}

pub(crate) fn wrong(breaks: impl Into<String>, spec: impl Into<String>, sentence: impl Into<String>) -> Wrong {
    Wrong { spec: spec.into(), breaks: breaks.into(), sentence: sentence.into() }
}

/// The table. What the schema holds without a row here fails `manifests`.
pub(crate) fn wrongs() -> Vec<Wrong> {
    const BLANKS: &str = "secret must be the name of a secret in Ennote, without blanks at either end";
    const NAME: &str = "name must be a Secret's name: lower case letters, digits, '-' and '.', starting and ending with a letter or digit";
    const KEY: &str = "key must be a key that a Secret can hold: letters, digits, '-', '_' and '.'";
    const ONE_OF: &str = "each entry of data takes its value from a pointer or from a template: give one of the two";
    const DEFAULT: &str = "default stands in for an optional key that is missing: set optional: true with it";
    const POINTER: &str =
        "pointer must be a JSON Pointer (RFC 6901): empty, or '/' before each name, for example /keysValues/url";
    let target = |name: &str| format!("source: {{secret: s}}\n  target: {{name: {name:?}}}");
    let data = |entries: &str| format!("source: {{secret: s}}\n  data: [{entries}]");
    let entry = |key: &str, pointer: &str| data(&format!("{{key: {key:?}, pointer: {pointer:?}}}"));
    let many: Vec<String> = (0..513).map(|n| format!("{{key: k{n}, pointer: /a}}")).collect();
    let mut all = vec![
        wrong("spec required source", "target: {name: x}", "spec.source: Required value"),
        wrong("spec.source type", "source: name", "spec.source in body must be of type object: \"string\""),
        wrong("spec.source required secret", "source: {workspace: w}", "spec.source.secret: Required value"),
        wrong("spec.source.secret rule", "source: {secret: ''}", BLANKS),
        wrong("spec.source.secret rule", "source: {secret: ' a'}", BLANKS),
        wrong("spec.source.secret rule", "source: {secret: \"a\\n\"}", BLANKS),
        wrong(
            "spec.source.secret maxLength",
            format!("source: {{secret: {}}}", "s".repeat(513)),
            "spec.source.secret: Too long: may not be more than 512 bytes",
        ),
        wrong(
            "spec.source.secret type",
            "source: {secret: 7}",
            "spec.source.secret in body must be of type string: \"integer\"",
        ),
        wrong(
            "spec.source.version type",
            "source: {secret: s, version: newest}",
            "spec.source.version in body must be of type integer: \"string\"",
        ),
        wrong(
            "spec.source.version rule",
            "source: {secret: s, version: 0}",
            "version must be the number of a version, 1 or higher; leave it out to follow the newest",
        ),
        wrong(
            "spec.source.version format",
            "source: {secret: s, version: 99999999999999999999}",
            "spec.source.version in body must be of type int64",
        ),
        wrong(
            "spec.source.workspace rule",
            "source: {secret: s, workspace: ''}",
            "workspace must not be empty; leave it out for the agent's own workspace",
        ),
        wrong(
            "spec.source.workspace maxLength",
            format!("source: {{secret: s, workspace: {}}}", "w".repeat(254)),
            "spec.source.workspace: Too long: may not be more than 253 bytes",
        ),
        wrong(
            "spec.source.workspace type",
            "source: {secret: s, workspace: [w]}",
            "spec.source.workspace in body must be of type string: \"array\"",
        ),
        wrong(
            "spec.target type",
            "source: {secret: s}\n  target: name",
            "spec.target in body must be of type object: \"string\"",
        ),
        wrong(
            "spec.target.name maxLength",
            target(&"n".repeat(254)),
            "spec.target.name: Too long: may not be more than 253 bytes",
        ),
        wrong(
            "spec.target.name type",
            "source: {secret: s}\n  target: {name: true}",
            "spec.target.name in body must be of type string: \"boolean\"",
        ),
        wrong(
            "spec.data rule",
            data(""),
            "data must list at least one key; leave it out to take every key of the secret",
        ),
        wrong("spec.data maxItems", data(&many.join(", ")), "spec.data: Too many: 513: must have at most 512 items"),
        wrong(
            "spec.data x-kubernetes-list-map-keys",
            data("{key: A, pointer: /a}, {key: A, pointer: /b}"),
            "spec.data[1]: Duplicate value: {\"key\":\"A\"}",
        ),
        wrong(
            "spec.data type",
            "source: {secret: s}\n  data: A",
            "spec.data in body must be of type array: \"string\"",
        ),
        wrong("spec.data[] type", data("A"), "spec.data[0] in body must be of type object: \"string\""),
        wrong("spec.data[] required key", data("{pointer: /a}"), "spec.data[0].key: Required value"),
        wrong("spec.data[] rule", data("{key: A}"), ONE_OF),
        wrong("spec.data[] rule", data("{key: A, pointer: /a, template: t}"), ONE_OF),
        wrong(
            "spec.data[] rule",
            data("{key: A, template: t, format: json}"),
            "format is for the value of a pointer; a template writes its own text",
        ),
        wrong("spec.data[] rule", data("{key: A, pointer: /a, default: x}"), DEFAULT),
        wrong("spec.data[] rule", data("{key: A, pointer: /a, default: x, optional: false}"), DEFAULT),
        wrong(
            "spec.data[].format enum",
            data("{key: A, pointer: /a, format: xml}"),
            "spec.data[0].format: Unsupported value: \"xml\": supported values: \"raw\", \"json\", \"yaml\", \"dotenv\", \"properties\", \"base64\"",
        ),
        wrong("spec.data[].template rule", data("{key: A, template: ''}"), "template must not be empty"),
        wrong(
            "spec.data[].template maxLength",
            data(&format!("{{key: A, template: {}}}", "t".repeat(16_385))),
            "spec.data[0].template: Too long: may not be more than 16384 bytes",
        ),
        wrong(
            "spec.data[].default maxLength",
            data(&format!("{{key: A, pointer: /a, optional: true, default: {}}}", "d".repeat(4097))),
            "spec.data[0].default: Too long: may not be more than 4096 bytes",
        ),
        wrong(
            "spec.data[].key maxLength",
            entry(&"k".repeat(254), "/a"),
            "spec.data[0].key: Too long: may not be more than 253 bytes",
        ),
        wrong(
            "spec.data[].key type",
            data("{key: 1, pointer: /a}"),
            "spec.data[0].key in body must be of type string: \"integer\"",
        ),
        wrong(
            "spec.data[].pointer maxLength",
            entry("A", &format!("/{}", "p".repeat(1024))),
            "spec.data[0].pointer: Too long: may not be more than 1024 bytes",
        ),
        wrong(
            "spec.data[].pointer type",
            data("{key: A, pointer: [a]}"),
            "spec.data[0].pointer in body must be of type string: \"array\"",
        ),
    ];
    all.extend(
        ["Upper", "", "-a", "a-", "a..b", "a/b", "a_b"].map(|name| wrong("spec.target.name rule", target(name), NAME)),
    );
    all.extend(
        ["", "export A", ".", "..", "..data", "a/b"].map(|key| wrong("spec.data[].key rule", entry(key, "/a"), KEY)),
    );
    all.extend(["keysValues", "a/b", "/a~2", "/a~"].map(|p| wrong("spec.data[].pointer rule", entry("A", p), POINTER)));
    all.extend(wrong_shapes());
    all.extend(wrong_types());
    all.extend(crate::wrong_rollouts::wrongs());
    // Strict decoding: a typo is no silent nothing.
    for (field, spec) in [
        ("spec.sorce", "source: {secret: s}\n  sorce: {}"),
        ("spec.source.name", "source: {secret: s, name: s}"),
        ("spec.target.namespace", "source: {secret: s}\n  target: {namespace: other}"),
        ("spec.data[0].value", "source: {secret: s}\n  data: [{key: A, pointer: /a, value: b}]"),
    ] {
        let sentence = format!("strict decoding error: unknown field \"{field}\"");
        all.push(wrong("unknown field", spec, sentence));
    }
    all
}

/// What the target shall be, and the rules of its keys.
fn wrong_shapes() -> Vec<Wrong> {
    const KEPT: &str = "keys of ennote.io/, kubernetes.io/ and k8s.io/ are kept for the agent and for Kubernetes, \
         app.kubernetes.io/managed-by and instance for the tool that applies; choose another";
    const LABEL: &str =
        "each label must be a name of letters, digits, '-', '_' and '.', with or without PREFIX/ before it";
    const VALUE: &str = "each label's value must be at most 63 letters, digits, '-', '_' and '.', starting and ending with a letter or digit";
    const ANNOTATION: &str =
        "each annotation must be a name of letters, digits, '-', '_' and '.', with or without PREFIX/ before it";
    const TOKEN: &str = "type must not be that of a token: Kubernetes would take the Secret as a credential of its own";
    const KIND: &str = "type must be a Secret's type, for example Opaque or kubernetes.io/tls";
    const PREFIX: &str = "prefix must be of letters, digits, '-', '_' and '.'";
    let target = |fields: &str| format!("source: {{secret: s}}\n  target: {{{fields}}}");
    let typed = |kind: &str| {
        format!("source: {{secret: s}}\n  target: {{type: {kind}}}\n  data: [{{key: tls.crt, pointer: /a}}]")
    };
    let keys = |fields: &str| format!("source: {{secret: s}}\n  keys: {{{fields}}}");
    let many = |n: usize| (0..n).map(|n| format!("k{n}: v")).collect::<Vec<_>>().join(", ");
    let list = |n: usize| vec!["a"; n].join(", ");
    let mut all = vec![
        wrong(
            "spec.mode enum",
            "source: {secret: s}\n  mode: Watch",
            "spec.mode: Unsupported value: \"Watch\": supported values: \"Sync\", \"Observe\"",
        ),
        wrong("spec.target.type rule", target("type: 'a b'"), KIND),
        wrong("spec.target.type rule", target("type: kubernetes.io/service-account-token"), TOKEN),
        wrong("spec.target.type rule", target("type: bootstrap.kubernetes.io/token"), TOKEN),
        wrong(
            "spec.target.type maxLength",
            target(&format!("type: {}", "t".repeat(254))),
            "spec.target.type: Too long: may not be more than 253 bytes",
        ),
        wrong("spec.target.labels rule", target("labels: {'a b': c}"), LABEL),
        wrong("spec.target.labels rule", target("labels: {a: '-'}"), VALUE),
        wrong(
            "spec.target.labels{} maxLength",
            target(&format!("labels: {{a: {}}}", "v".repeat(64))),
            "spec.target.labels.a: Too long: may not be more than 63 bytes",
        ),
        wrong(
            "spec.target.labels maxProperties",
            target(&format!("labels: {{{}}}", many(33))),
            "spec.target.labels: Too many: 33: must have at most 32 items",
        ),
        wrong("spec.target.annotations rule", target("annotations: {'a b': c}"), ANNOTATION),
        wrong(
            "spec.target.annotations{} maxLength",
            target(&format!("annotations: {{a: {}}}", "v".repeat(1025))),
            "spec.target.annotations.a: Too long: may not be more than 1024 bytes",
        ),
        wrong(
            "spec.target.annotations maxProperties",
            target(&format!("annotations: {{{}}}", many(33))),
            "spec.target.annotations: Too many: 33: must have at most 32 items",
        ),
        wrong(
            "spec.target.deletionPolicy enum",
            target("deletionPolicy: Keep"),
            "spec.target.deletionPolicy: Unsupported value: \"Keep\": supported values: \"Delete\", \"Retain\"",
        ),
        wrong(
            "spec.target.whenSourceDeleted enum",
            target("whenSourceDeleted: Keep"),
            "spec.target.whenSourceDeleted: Unsupported value: \"Keep\": supported values: \"Delete\", \"Retain\"",
        ),
        wrong(
            "spec rule",
            "source: {secret: s}\n  keys: {prefix: a}\n  data: [{key: A, pointer: /a}]",
            "keys picks and renames the keys of the secret; leave it out where data lists them",
        ),
        wrong(
            "spec rule",
            typed("kubernetes.io/tls"),
            "a Secret of type kubernetes.io/tls needs the keys tls.crt and tls.key in data",
        ),
        wrong(
            "spec rule",
            typed("kubernetes.io/dockerconfigjson"),
            "a Secret of type kubernetes.io/dockerconfigjson needs the key .dockerconfigjson in data",
        ),
        wrong(
            "spec rule",
            typed("kubernetes.io/dockercfg"),
            "a Secret of type kubernetes.io/dockercfg needs the key .dockercfg in data",
        ),
        wrong(
            "spec rule",
            typed("kubernetes.io/basic-auth"),
            "a Secret of type kubernetes.io/basic-auth needs the key username or password in data",
        ),
        wrong(
            "spec rule",
            typed("kubernetes.io/ssh-auth"),
            "a Secret of type kubernetes.io/ssh-auth needs the key ssh-privatekey in data",
        ),
        wrong(
            "spec.keys.include rule",
            keys("include: ['(']"),
            "each entry of include must be a regular expression in RE2 syntax",
        ),
        wrong(
            "spec.keys.exclude rule",
            keys("exclude: ['a', '[']"),
            "each entry of exclude must be a regular expression in RE2 syntax",
        ),
        wrong(
            "spec.keys.include maxItems",
            keys(&format!("include: [{}]", list(33))),
            "spec.keys.include: Too many: 33: must have at most 32 items",
        ),
        wrong(
            "spec.keys.exclude maxItems",
            keys(&format!("exclude: [{}]", list(33))),
            "spec.keys.exclude: Too many: 33: must have at most 32 items",
        ),
        wrong(
            "spec.keys.include[] maxLength",
            keys(&format!("include: [{}]", "a".repeat(257))),
            "spec.keys.include[0]: Too long: may not be more than 256 bytes",
        ),
        wrong(
            "spec.keys.exclude[] maxLength",
            keys(&format!("exclude: [{}]", "a".repeat(257))),
            "spec.keys.exclude[0]: Too long: may not be more than 256 bytes",
        ),
        wrong(
            "spec.keys.rename enum",
            keys("rename: Shout"),
            "spec.keys.rename: Unsupported value: \"Shout\": supported values: \"UpperSnake\", \"LowerSnake\", \"LowerKebab\", \"Camel\", \"UpperCamel\", \"DotnetEnv\", \"TfVar\"",
        ),
        wrong("spec.keys.prefix rule", keys("prefix: 'a b'"), PREFIX),
        wrong("spec.keys.prefix rule", keys("prefix: '..'"), PREFIX),
        wrong(
            "spec.keys.prefix maxLength",
            keys(&format!("prefix: {}", "p".repeat(129))),
            "spec.keys.prefix: Too long: may not be more than 128 bytes",
        ),
    ];
    for key in [
        "ennote.io/x",
        "kubernetes.io/x",
        "k8s.io/x",
        "node.kubernetes.io/x",
        "applyset.k8s.io/x",
        "kubectl.kubernetes.io/last-applied-configuration",
        "app.kubernetes.io/managed-by",
        "app.kubernetes.io/instance",
    ] {
        for of in ["labels", "annotations"] {
            all.push(Wrong {
                spec: target(&format!("{of}: {{{key}: a}}")),
                breaks: format!("spec.target.{of} rule"),
                sentence: KEPT.to_owned(),
            });
        }
    }
    all
}

/// Each field with a value of another type.
fn wrong_types() -> Vec<Wrong> {
    const FIELDS: &[(&str, &str, &str, &str)] = &[
        ("spec.mode type", "mode: 1", "spec.mode", "string: \"integer\""),
        ("spec.suspend type", "suspend: 'yes'", "spec.suspend", "boolean: \"string\""),
        ("spec.target.type type", "target: {type: 1}", "spec.target.type", "string: \"integer\""),
        ("spec.target.labels type", "target: {labels: [a]}", "spec.target.labels", "object: \"array\""),
        ("spec.target.labels{} type", "target: {labels: {a: 1}}", "spec.target.labels.a", "string: \"integer\""),
        ("spec.target.annotations type", "target: {annotations: a}", "spec.target.annotations", "object: \"string\""),
        (
            "spec.target.annotations{} type",
            "target: {annotations: {a: true}}",
            "spec.target.annotations.a",
            "string: \"boolean\"",
        ),
        ("spec.target.immutable type", "target: {immutable: 1}", "spec.target.immutable", "boolean: \"integer\""),
        (
            "spec.target.deletionPolicy type",
            "target: {deletionPolicy: 1}",
            "spec.target.deletionPolicy",
            "string: \"integer\"",
        ),
        (
            "spec.target.whenSourceDeleted type",
            "target: {whenSourceDeleted: 1}",
            "spec.target.whenSourceDeleted",
            "string: \"integer\"",
        ),
        (
            "spec.data[].format type",
            "data: [{key: A, pointer: /a, format: 1}]",
            "spec.data[0].format",
            "string: \"integer\"",
        ),
        ("spec.data[].template type", "data: [{key: A, template: 1}]", "spec.data[0].template", "string: \"integer\""),
        (
            "spec.data[].optional type",
            "data: [{key: A, pointer: /a, optional: 1}]",
            "spec.data[0].optional",
            "boolean: \"integer\"",
        ),
        (
            "spec.data[].default type",
            "data: [{key: A, pointer: /a, optional: true, default: 1}]",
            "spec.data[0].default",
            "string: \"integer\"",
        ),
        ("spec.keys type", "keys: [a]", "spec.keys", "object: \"array\""),
        ("spec.keys.include type", "keys: {include: a}", "spec.keys.include", "array: \"string\""),
        ("spec.keys.exclude type", "keys: {exclude: a}", "spec.keys.exclude", "array: \"string\""),
        ("spec.keys.include[] type", "keys: {include: [1]}", "spec.keys.include[0]", "string: \"integer\""),
        ("spec.keys.exclude[] type", "keys: {exclude: [1]}", "spec.keys.exclude[0]", "string: \"integer\""),
        ("spec.keys.rename type", "keys: {rename: 1}", "spec.keys.rename", "string: \"integer\""),
        ("spec.keys.prefix type", "keys: {prefix: 1}", "spec.keys.prefix", "string: \"integer\""),
    ];
    let row = |(breaks, field, path, types): &(&str, &str, &str, &str)| {
        wrong(*breaks, format!("source: {{secret: s}}\n  {field}"), format!("{path} in body must be of type {types}"))
    };
    FIELDS.iter().map(row).collect()
}
