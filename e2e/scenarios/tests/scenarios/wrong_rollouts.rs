//! What is wrong with `spec.rollout`, for the table of wrong manifests.

use crate::wrong_manifests::{Wrong, wrong};

/// Times, numbers, words and windows.
pub(crate) fn wrongs() -> Vec<Wrong> {
    let rollout = |fields: &str| format!("source: {{secret: s}}\n  rollout: {{{fields}}}");
    let window = |fields: &str| rollout(&format!("windows: [{{{fields}}}]"));
    let whole = |cron: &str, duration: &str| window(&format!("cron: {cron:?}, duration: {duration:?}"));
    let many = vec!["{cron: 0 2 * * *, duration: 1h}"; 17].join(", ");
    let enums = [
        ("policy", "\"Automatic\", \"Manual\", \"Disabled\""),
        ("workloads", "\"Annotated\", \"Consumers\""),
        ("match", "\"Any\", \"ChangedKeys\""),
        ("onFailure", "\"Halt\", \"Continue\", \"Revert\""),
    ];
    let spans = [
        ("quietPeriod", "quietPeriod must be a time of at most 1h, for example 2s", ["2", "-1s", "61m", ""]),
        ("minInterval", "minInterval must be a time of at most 168h, for example 30s", ["30", "1d", "169h", ""]),
        ("timeout", "timeout must be a time from 1s to 24h, for example 10m", ["10", "0s", "25h", ""]),
    ];
    const CRON: &str =
        "cron must have five fields: minute, hour, day of month, month, day of week; for example 0 2 * * SAT";
    const ZONE: &str = "timeZone must be the name of a time zone, for example Europe/Berlin";
    let mut all = vec![
        wrong(
            "spec.rollout.maxConcurrent rule",
            rollout("maxConcurrent: -1"),
            "maxConcurrent must be a number of workloads, or 0 for all at once",
        ),
        wrong(
            "spec.rollout.maxConcurrent format",
            rollout("maxConcurrent: 99999999999"),
            "Checked value must be of type integer with format int32 in spec.rollout.maxConcurrent",
        ),
        wrong(
            "spec.rollout.windows maxItems",
            rollout(&format!("windows: [{many}]")),
            "spec.rollout.windows: Too many: 17: must have at most 16 items",
        ),
        wrong(
            "spec.rollout.windows[] required cron",
            window("duration: 1h"),
            "spec.rollout.windows[0].cron: Required value",
        ),
        wrong(
            "spec.rollout.windows[] required duration",
            window("cron: 0 2 * * *"),
            "spec.rollout.windows[0].duration: Required value",
        ),
        wrong(
            "spec.rollout.windows[].cron maxLength",
            whole(&"0".repeat(129), "1h"),
            "spec.rollout.windows[0].cron: Too long: may not be more than 128 bytes",
        ),
        wrong(
            "spec.rollout.windows[].duration maxLength",
            whole("0 2 * * *", &"0".repeat(33)),
            "spec.rollout.windows[0].duration: Too long: may not be more than 32 bytes",
        ),
        wrong(
            "spec.rollout.windows[].timeZone maxLength",
            window(&format!("cron: 0 2 * * *, duration: 1h, timeZone: {}", "z".repeat(65))),
            "spec.rollout.windows[0].timeZone: Too long: may not be more than 64 bytes",
        ),
    ];
    for (field, supported) in enums {
        all.push(wrong(
            format!("spec.rollout.{field} enum"),
            rollout(&format!("{field}: Never")),
            format!("spec.rollout.{field}: Unsupported value: \"Never\": supported values: {supported}"),
        ));
    }
    for (field, sentence, values) in spans {
        for value in values {
            all.push(wrong(format!("spec.rollout.{field} rule"), rollout(&format!("{field}: {value:?}")), sentence));
        }
        all.push(wrong(
            format!("spec.rollout.{field} maxLength"),
            rollout(&format!("{field}: {:?}", "0".repeat(33))),
            format!("spec.rollout.{field}: Too long: may not be more than 32 bytes"),
        ));
    }
    all.extend(
        ["", "0 2 * *", "0 0 2 * * *", "@daily"]
            .map(|cron| wrong("spec.rollout.windows[].cron rule", whole(cron, "1h"), CRON)),
    );
    all.extend(["0s", "59s", "169h", "1"].map(|duration| {
        let sentence = "duration must be a time from 1m to 168h, for example 2h";
        wrong("spec.rollout.windows[].duration rule", whole("0 2 * * *", duration), sentence)
    }));
    all.extend(["''", "'+2'", "'Europe/New York'"].map(|zone| {
        wrong(
            "spec.rollout.windows[].timeZone rule",
            window(&format!("cron: 0 2 * * *, duration: 1h, timeZone: {zone}")),
            ZONE,
        )
    }));
    all.extend(types());
    all
}

/// Fields that hold something of another type.
fn types() -> Vec<Wrong> {
    let fields = [
        ("rollout", "rollout: fast", "spec.rollout", "object: \"string\""),
        ("rollout.policy", "rollout: {policy: 1}", "spec.rollout.policy", "string: \"integer\""),
        ("rollout.workloads", "rollout: {workloads: 1}", "spec.rollout.workloads", "string: \"integer\""),
        ("rollout.match", "rollout: {match: 1}", "spec.rollout.match", "string: \"integer\""),
        ("rollout.onFailure", "rollout: {onFailure: 1}", "spec.rollout.onFailure", "string: \"integer\""),
        ("rollout.quietPeriod", "rollout: {quietPeriod: 2}", "spec.rollout.quietPeriod", "string: \"integer\""),
        ("rollout.minInterval", "rollout: {minInterval: 2}", "spec.rollout.minInterval", "string: \"integer\""),
        ("rollout.timeout", "rollout: {timeout: 2}", "spec.rollout.timeout", "string: \"integer\""),
        ("rollout.maxConcurrent", "rollout: {maxConcurrent: one}", "spec.rollout.maxConcurrent", "integer: \"string\""),
        ("rollout.windows", "rollout: {windows: night}", "spec.rollout.windows", "array: \"string\""),
        ("rollout.windows[]", "rollout: {windows: [night]}", "spec.rollout.windows[0]", "object: \"string\""),
        (
            "rollout.windows[].cron",
            "rollout: {windows: [{cron: 1, duration: 1h}]}",
            "spec.rollout.windows[0].cron",
            "string: \"integer\"",
        ),
        (
            "rollout.windows[].duration",
            "rollout: {windows: [{cron: 0 2 * * *, duration: 1}]}",
            "spec.rollout.windows[0].duration",
            "string: \"integer\"",
        ),
        (
            "rollout.windows[].timeZone",
            "rollout: {windows: [{cron: 0 2 * * *, duration: 1h, timeZone: 1}]}",
            "spec.rollout.windows[0].timeZone",
            "string: \"integer\"",
        ),
    ];
    let row = |(field, spec, path, kinds): (&str, &str, &str, &str)| {
        let sentence = format!("{path} in body must be of type {kinds}");
        wrong(format!("spec.{field} type"), format!("source: {{secret: s}}\n  {spec}"), sentence)
    };
    fields.map(row).into()
}
