// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was typed in one file: every value with its place, nothing replaced, joined or opened.

use toml::de::{DeTable, DeValue};

use super::error::{PolicyErrors, quote};
use super::model::{Place, Verb};
use super::tree::{At, Raw, Reader, Section};

/// One file of a policy.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    /// `version`.
    pub version: Option<At<i64>>,
    /// `name`.
    pub name: Option<At<String>>,
    /// `extends`.
    pub extends: Vec<At<String>>,
    /// `task.purpose`.
    pub purpose: Option<At<String>>,
    /// `task.owner`.
    pub owner: Option<At<String>>,
    /// `task.review_by`.
    pub review_by: Option<At<toml::value::Date>>,
    /// `task.environment`.
    pub environment: Option<At<String>>,
    /// `task.strict`.
    pub strict: Option<At<bool>>,
    /// `[command]`.
    pub command: Option<CommandText>,
    /// `[invoke]`.
    pub invoke: Option<InvokeText>,
    /// `[valid]`.
    pub valid: Option<ValidText>,
    /// `[params]`.
    pub params: Vec<ParamText>,
    /// `identity.user`.
    pub user: Option<At<String>>,
    /// `identity.home`.
    pub home: Option<At<String>>,
    /// `identity.terminal`.
    pub terminal: Option<At<String>>,
    /// `identity.stdio`.
    pub stdio: Option<At<String>>,
    /// `identity.view`.
    pub view: Option<At<String>>,
    /// `env.pass`.
    pub env_pass: Option<Vec<At<String>>>,
    /// `env.set`, names in `key`'s last part.
    pub env_set: Vec<(At<String>, At<String>)>,
    /// `env.path`.
    pub env_path: Vec<At<String>>,
    /// `[files]`, list by list.
    pub files: Vec<FileText>,
    /// `network.allow`, `network.deny`.
    pub network: Vec<NetworkText>,
    /// `network.listen`.
    pub listen: Vec<NetworkText>,
    /// `network.resolver`.
    pub resolver: Vec<At<String>>,
    /// `network.unix`.
    pub unix: Vec<UnixText>,
    /// `[limits]`.
    pub limits: LimitsText,
    /// `syscalls.profile`.
    pub profile: Option<At<String>>,
    /// `enforcement.degrade`.
    pub degrade: Vec<DegradeText>,
    /// `[audit]`.
    pub audit: AuditText,
    /// `[[secret]]`.
    pub secrets: Vec<SecretText>,
}

/// One `[[secret]]`.
#[derive(Clone, Debug)]
pub struct SecretText {
    /// `name`.
    pub name: At<String>,
    /// `from`.
    pub from: At<String>,
    /// `as`.
    pub form: Option<At<String>>,
    /// `max_age`.
    pub max_age: Option<At<String>>,
}

/// `[command]`.
#[derive(Clone, Debug)]
pub struct CommandText {
    /// Where the section begins.
    pub place: Place,
    /// `run`.
    pub run: Vec<At<String>>,
    /// `args = "append"`.
    pub append: bool,
}

/// `[invoke]`.
#[derive(Clone, Debug)]
pub struct InvokeText {
    /// Where the section begins.
    pub place: Place,
    /// `users`.
    pub users: Option<Vec<At<String>>>,
    /// `groups`.
    pub groups: Option<Vec<At<String>>>,
}

/// `[valid]`.
#[derive(Clone, Debug)]
pub struct ValidText {
    /// Where the section begins.
    pub place: Place,
    /// `not_before`.
    pub not_before: Option<At<toml::value::Date>>,
    /// `not_after`.
    pub not_after: Option<At<toml::value::Date>>,
    /// `hours`.
    pub hours: Option<At<String>>,
    /// `tz`.
    pub tz: Option<At<String>>,
    /// `action`.
    pub action: Option<At<String>>,
}

/// One parameter.
#[derive(Clone, Debug)]
pub struct ParamText {
    /// Its name.
    pub name: At<String>,
    /// `pattern`.
    pub pattern: Option<At<String>>,
    /// `values`.
    pub values: Option<Vec<At<String>>>,
    /// `default`.
    pub default: Option<At<String>>,
    /// `help`.
    pub help: Option<At<String>>,
}

/// What every rule may say.
#[derive(Clone, Debug, Default)]
pub struct RuleText {
    /// `id`.
    pub id: Option<At<String>>,
    /// `because`.
    pub because: Option<At<String>>,
    /// `owner`.
    pub owner: Option<At<String>>,
    /// `quiet`.
    pub quiet: bool,
}

/// One entry of `[files]`.
#[derive(Clone, Debug)]
pub struct FileText {
    /// The list.
    pub verb: Verb,
    /// The path or pattern; the key is the rule's place.
    pub path: At<String>,
    /// What every rule may say.
    pub rule: RuleText,
    /// `optional = true`.
    pub optional: bool,
    /// `create = "dir"`.
    pub create: bool,
    /// `exec = true`.
    pub exec: bool,
    /// `dangerous`.
    pub dangerous: Option<At<String>>,
    /// `fallback = "mask-existing"`.
    pub mask_fallback: bool,
}

/// One entry of `network.allow`, `deny` or `listen`.
#[derive(Clone, Debug)]
pub struct NetworkText {
    /// An entry of `deny`.
    pub takes_away: bool,
    /// The address; the key is the rule's place.
    pub to: At<String>,
    /// What every rule may say.
    pub rule: RuleText,
    /// `private = true`.
    pub private: bool,
    /// `verify`.
    pub verify: Option<At<String>>,
}

/// One entry of `network.unix`.
#[derive(Clone, Debug)]
pub struct UnixText {
    /// The path; the key is the rule's place.
    pub path: At<String>,
    /// What every rule may say.
    pub rule: RuleText,
    /// `dangerous`.
    pub dangerous: Option<At<String>>,
}

/// `[limits]`.
#[derive(Clone, Debug, Default)]
pub struct LimitsText {
    /// `wall_time`.
    pub wall_time: Option<At<String>>,
    /// `memory`.
    pub memory: Option<At<String>>,
    /// `processes`.
    pub processes: Option<At<i64>>,
    /// `cpu`.
    pub cpu: Option<At<String>>,
    /// `open_files`.
    pub open_files: Option<At<i64>>,
    /// `file_size`.
    pub file_size: Option<At<String>>,
    /// `tmp`.
    pub tmp: Option<At<String>>,
    /// `shm`.
    pub shm: Option<At<String>>,
    /// `stop_signal`.
    pub stop_signal: Option<At<String>>,
    /// `stop_grace`.
    pub stop_grace: Option<At<String>>,
    /// `denials`.
    pub denials: Option<At<DenialsText>>,
}

/// `limits.denials`.
#[derive(Clone, Debug)]
pub struct DenialsText {
    /// `count`.
    pub count: At<i64>,
    /// `per`.
    pub per: At<String>,
    /// `action`.
    pub action: Option<At<String>>,
}

/// One entry of `enforcement.degrade`.
#[derive(Clone, Debug)]
pub struct DegradeText {
    /// `protection`.
    pub protection: At<String>,
    /// `because`.
    pub because: Option<At<String>>,
}

/// `[audit]`.
#[derive(Clone, Debug, Default)]
pub struct AuditText {
    /// `log`.
    pub log: Option<At<String>>,
    /// `on_failure`.
    pub on_failure: Option<At<String>>,
    /// `tell_agent`.
    pub tell_agent: Option<At<bool>>,
    /// `count_files`.
    pub count_files: Option<At<String>>,
    /// `require_counts`.
    pub require_counts: Option<At<bool>>,
}

/// Reads `text`; `file` is how messages call it. A text that is not TOML gives its syntax
/// errors alone, an empty schema and `true`.
pub fn parse(file: &str, text: &str, kit: bool) -> (Schema, PolicyErrors, bool) {
    let mut reader = Reader::new(file, text, kit);
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        reader.syntax(&errors);
        return (Schema::default(), reader.errors, true);
    }
    let top = reader.top(table.get_ref());
    reader.check_keys(&top, "");
    let schema = read(&mut reader, &top);
    (schema, reader.errors, false)
}

fn read(reader: &mut Reader<'_>, top: &Section<'_>) -> Schema {
    let mut schema = Schema {
        version: reader.integer(top, "version"),
        name: reader.string(top, "name"),
        extends: reader.strings(top, "extends").unwrap_or_default(),
        ..Schema::default()
    };
    if let Some(task) = reader.section(top, "task") {
        schema.purpose = reader.string(&task, "purpose");
        schema.owner = reader.string(&task, "owner");
        schema.review_by = reader.day(&task, "review_by");
        schema.environment = reader.string(&task, "environment");
        schema.strict = reader.boolean(&task, "strict");
    }
    if let Some(command) = reader.section(top, "command") {
        schema.command = read_command(reader, &command);
    }
    if let Some(invoke) = reader.section(top, "invoke") {
        schema.invoke = Some(InvokeText {
            users: reader.strings(&invoke, "users"),
            groups: reader.strings(&invoke, "groups"),
            place: invoke.place,
        });
    }
    if let Some(valid) = reader.section(top, "valid") {
        schema.valid = Some(ValidText {
            not_before: reader.day(&valid, "not_before"),
            not_after: reader.day(&valid, "not_after"),
            hours: reader.string(&valid, "hours"),
            tz: reader.string(&valid, "tz"),
            action: reader.word(&valid, "action", &["kill", "freeze"]),
            place: valid.place,
        });
    }
    if let Some(params) = reader.section(top, "params") {
        schema.params = read_params(reader, &params);
    }
    if let Some(identity) = reader.section(top, "identity") {
        schema.user = reader.string(&identity, "user");
        schema.home = reader.word(&identity, "home", &["temp", "state", "caller"]);
        schema.terminal = reader.word(&identity, "terminal", &["auto", "none"]);
        schema.stdio = reader.word(&identity, "stdio", &["auto", "direct"]);
        schema.view = reader.word(&identity, "view", &["private", "host"]);
    }
    if let Some(env) = reader.section(top, "env") {
        read_env(reader, &env, &mut schema);
    }
    if let Some(files) = reader.section(top, "files") {
        schema.files = read_files(reader, &files);
    }
    if let Some(network) = reader.section(top, "network") {
        read_network(reader, &network, &mut schema);
    }
    if let Some(limits) = reader.section(top, "limits") {
        schema.limits = read_limits(reader, &limits);
    }
    if let Some(syscalls) = reader.section(top, "syscalls") {
        schema.profile = reader.word(&syscalls, "profile", &["default", "strict"]);
    }
    if let Some(enforcement) = reader.section(top, "enforcement") {
        schema.degrade = read_degrade(reader, &enforcement);
    }
    for raw in reader.list(top, "secret").unwrap_or_default() {
        schema.secrets.extend(read_secret(reader, &raw));
    }
    if let Some(audit) = reader.section(top, "audit") {
        schema.audit = AuditText {
            log: reader.string(&audit, "log"),
            on_failure: reader.word(&audit, "on_failure", &["stop", "continue"]),
            tell_agent: reader.boolean(&audit, "tell_agent"),
            count_files: reader.word(&audit, "count_files", &["auto", "off"]),
            require_counts: reader.boolean(&audit, "require_counts"),
        };
    }
    schema
}

fn read_secret(reader: &mut Reader<'_>, raw: &Raw<'_>) -> Option<SecretText> {
    let table = reader.as_section(raw)?;
    reader.check_keys(&table, "secret[]");
    let name = required(reader, &table, "name", "\"kb-token\"");
    let from = required(
        reader,
        &table,
        "from",
        "\"file:/etc/lp-run/secrets/kb-token\"",
    );
    let form = reader.string(&table, "as");
    let max_age = reader.string(&table, "max_age");
    Some(SecretText {
        name: name?,
        from: from?,
        form,
        max_age,
    })
}

fn read_command(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<CommandText> {
    let run = reader.strings(section, "run").unwrap_or_default();
    let args = reader.word(section, "args", &["none", "append"]);
    if run.is_empty() {
        let what = "names no program; write run = [\"/path/to/program\"] under [command]";
        reader.errors.add(&section.place, "command.run", what);
        return None;
    }
    let append = args.is_some_and(|args| args.value == "append");
    Some(CommandText {
        place: section.place.clone(),
        run,
        append,
    })
}

fn read_params(reader: &mut Reader<'_>, section: &Section<'_>) -> Vec<ParamText> {
    let mut params = Vec::new();
    for (name, raw) in reader.entries(section) {
        let Some(table) = reader.as_section(&raw) else {
            continue;
        };
        reader.check_keys(&table, "params.*");
        params.push(ParamText {
            pattern: reader.string(&table, "pattern"),
            values: reader.strings(&table, "values"),
            default: reader.string(&table, "default"),
            help: reader.string(&table, "help"),
            name,
        });
    }
    params
}

fn read_env(reader: &mut Reader<'_>, section: &Section<'_>, schema: &mut Schema) {
    schema.env_pass = reader.strings(section, "pass");
    schema.env_path = reader.strings(section, "path").unwrap_or_default();
    if let Some(raw) = reader.raw(section, "set")
        && let Some(set) = reader.as_section(&raw)
    {
        for (name, raw) in reader.entries(&set) {
            if let Some(value) = reader.as_string(&raw) {
                schema.env_set.push((name, value));
            }
        }
    }
}

fn read_files(reader: &mut Reader<'_>, section: &Section<'_>) -> Vec<FileText> {
    let verbs = [
        ("read", Verb::Read),
        ("exec", Verb::Exec),
        ("write", Verb::Write),
        ("protect", Verb::Protect),
        ("deny", Verb::Deny),
    ];
    let mut files = Vec::new();
    for (list, verb) in verbs {
        for raw in reader.list(section, list).unwrap_or_default() {
            files.extend(read_file(reader, &raw, list, verb));
        }
    }
    files
}

fn read_file(reader: &mut Reader<'_>, raw: &Raw<'_>, list: &str, verb: Verb) -> Option<FileText> {
    let plain = |path| FileText {
        verb,
        path,
        rule: RuleText::default(),
        optional: false,
        create: false,
        exec: false,
        dangerous: None,
        mask_fallback: false,
    };
    if let DeValue::String(text) = raw.value {
        return Some(plain(raw.with(text.to_string())));
    }
    let entry = entry(reader, raw, &format!("files.{list}[]"), "path")?;
    let path = required(reader, &entry, "path", "\"/absolute/path\"")?;
    Some(FileText {
        rule: read_rule(reader, &entry),
        optional: flag(reader, &entry, "optional"),
        create: reader.word(&entry, "create", &["dir"]).is_some(),
        exec: flag(reader, &entry, "exec"),
        dangerous: reader.string(&entry, "dangerous"),
        mask_fallback: reader
            .word(&entry, "fallback", &["mask-existing"])
            .is_some(),
        ..plain(raw.with(path.value))
    })
}

fn read_network(reader: &mut Reader<'_>, section: &Section<'_>, schema: &mut Schema) {
    for (list, takes_away) in [("allow", false), ("deny", true)] {
        for raw in reader.list(section, list).unwrap_or_default() {
            schema
                .network
                .extend(read_address(reader, &raw, list, takes_away));
        }
    }
    for raw in reader.list(section, "listen").unwrap_or_default() {
        schema
            .listen
            .extend(read_address(reader, &raw, "listen", false));
    }
    schema.resolver = reader.strings(section, "resolver").unwrap_or_default();
    for raw in reader.list(section, "unix").unwrap_or_default() {
        schema.unix.extend(read_unix(reader, &raw));
    }
}

fn read_address(
    reader: &mut Reader<'_>,
    raw: &Raw<'_>,
    list: &str,
    takes_away: bool,
) -> Option<NetworkText> {
    if let DeValue::String(text) = raw.value {
        let (to, rule) = (raw.with(text.to_string()), RuleText::default());
        return Some(NetworkText {
            takes_away,
            to,
            rule,
            private: false,
            verify: None,
        });
    }
    let entry = entry(reader, raw, &format!("network.{list}[]"), "to")?;
    let to = required(reader, &entry, "to", "\"10.0.0.1:443\"")?;
    Some(NetworkText {
        takes_away,
        to: raw.with(to.value),
        rule: read_rule(reader, &entry),
        private: flag(reader, &entry, "private"),
        verify: reader.word(&entry, "verify", &["sni", "address"]),
    })
}

fn read_unix(reader: &mut Reader<'_>, raw: &Raw<'_>) -> Option<UnixText> {
    if let DeValue::String(text) = raw.value {
        let path = raw.with(text.to_string());
        return Some(UnixText {
            path,
            rule: RuleText::default(),
            dangerous: None,
        });
    }
    let entry = entry(reader, raw, "network.unix[]", "path")?;
    let path = required(reader, &entry, "path", "\"/run/service.sock\"")?;
    Some(UnixText {
        path: raw.with(path.value),
        rule: read_rule(reader, &entry),
        dangerous: reader.string(&entry, "dangerous"),
    })
}

fn read_rule(reader: &mut Reader<'_>, entry: &Section<'_>) -> RuleText {
    RuleText {
        id: reader.string(entry, "id"),
        because: reader.string(entry, "because"),
        owner: reader.string(entry, "owner"),
        quiet: flag(reader, entry, "quiet"),
    }
}

fn read_limits(reader: &mut Reader<'_>, section: &Section<'_>) -> LimitsText {
    LimitsText {
        wall_time: reader.string(section, "wall_time"),
        memory: reader.string(section, "memory"),
        processes: reader.integer(section, "processes"),
        cpu: reader.string(section, "cpu"),
        open_files: reader.integer(section, "open_files"),
        file_size: reader.string(section, "file_size"),
        tmp: reader.string(section, "tmp"),
        shm: reader.string(section, "shm"),
        stop_signal: reader.string(section, "stop_signal"),
        stop_grace: reader.string(section, "stop_grace"),
        denials: read_denials(reader, section),
    }
}

fn read_denials(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<At<DenialsText>> {
    let raw = reader.raw(section, "denials")?;
    let table = reader.section(section, "denials")?;
    for (key, example) in [("count", "100"), ("per", "\"1m\"")] {
        if reader.raw(&table, key).is_none() {
            let what = format!("is missing; write {key} = {example}");
            reader.errors.add(&table.place, &table.full(key), what);
        }
    }
    let count = reader.integer(&table, "count");
    let per = reader.string(&table, "per");
    let action = reader.word(&table, "action", &["report", "freeze", "kill"]);
    Some(raw.with(DenialsText {
        count: count?,
        per: per?,
        action,
    }))
}

fn read_degrade(reader: &mut Reader<'_>, section: &Section<'_>) -> Vec<DegradeText> {
    let mut degrade = Vec::new();
    for raw in reader.list(section, "degrade").unwrap_or_default() {
        if let DeValue::String(text) = raw.value {
            let protection = raw.with(text.to_string());
            degrade.push(DegradeText {
                protection,
                because: None,
            });
            continue;
        }
        let Some(entry) = entry(reader, &raw, "enforcement.degrade[]", "protection") else {
            continue;
        };
        if let Some(protection) = required(reader, &entry, "protection", "\"file-deny-pattern\"") {
            let because = reader.string(&entry, "because");
            degrade.push(DegradeText {
                protection,
                because,
            });
        }
    }
    degrade
}

/// An entry of a list that is a table.
fn entry<'t>(
    reader: &mut Reader<'_>,
    raw: &Raw<'t>,
    kind: &str,
    main: &str,
) -> Option<Section<'t>> {
    if !raw.value.is_table() {
        return reader.wrong(raw, "a string or a table", &format!("{{ {main} = \"…\" }}"));
    }
    let section = reader.as_section(raw)?;
    reader.check_keys(&section, kind);
    Some(section)
}

/// A string that must be there.
fn required(
    reader: &mut Reader<'_>,
    entry: &Section<'_>,
    key: &str,
    example: &str,
) -> Option<At<String>> {
    if reader.raw(entry, key).is_none() {
        let what = format!("is missing; write {key} = {example}");
        reader.errors.add(&entry.place, &entry.full(key), what);
    }
    reader.string(entry, key)
}

/// A boolean that is false when it is not written.
fn flag(reader: &mut Reader<'_>, entry: &Section<'_>, key: &str) -> bool {
    reader.boolean(entry, key).is_some_and(|value| value.value)
}

/// What `value` should have been, for a name of `[a-z0-9][a-z0-9-]{0,62}`.
pub fn check_name(value: &str) -> Result<(), String> {
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    match !value.is_empty()
        && value.len() <= 63
        && !value.starts_with('-')
        && value.chars().all(fine)
    {
        true => Ok(()),
        false => Err(format!(
            "{} is not a name; write lower-case letters, digits and -, at most 63",
            quote(value)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(text: &str) -> String {
        parse("p.toml", text, false).1.to_string()
    }

    #[test]
    fn finds_all_mistakes_at_once_with_their_places() {
        let text = "version = \"1\"\nnmae = \"x\"\n[files]\nreads = []\nread = [1]\n[limits]\nmemory = \"1G\"\n";
        let mut found = parse("p.toml", text, false).1;
        found.sort();
        expect_test::expect![[r#"
            p.toml:1:11: version: expected a whole number, found a string; write version = 1
            p.toml:2:1: nmae: unknown key; did you mean `name`?
            p.toml:4:1: files.reads: unknown key; did you mean `read`?
            p.toml:5:9: files.read[0]: expected a string or a table, found an integer; write { path = "…" }"#]]
        .assert_eq(&found.to_string());
    }

    #[test]
    fn a_text_that_is_not_toml_shows_positions_and_no_content() {
        let shadow = "root:$y$j9T$secret:19000:0:99999:7:::\ndaemon:*:19000:0:99999:7:::\n";
        let found = errors(shadow);
        assert!(found.contains("p.toml:1:5: not TOML"), "{found}");
        assert!(
            !found.contains("secret") && !found.contains("daemon"),
            "{found}"
        );
    }

    #[test]
    fn a_key_given_twice_is_an_error() {
        assert!(
            errors("version = 1\nversion = 1\n").contains("p.toml:2:1: not TOML: duplicate key")
        );
    }

    #[test]
    fn a_kit_has_no_identity() {
        let found = parse("@x", "version = 1\n[identity]\nuser = \"caller\"\n", true)
            .1
            .to_string();
        assert!(
            found.starts_with("@x:2:2: identity: a kit has only"),
            "{found}"
        );
    }
}
