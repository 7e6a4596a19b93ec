//! Templates over a payload: `spec.data[].template`, in the language of Jinja.
//!
//! Guarantees: no file, network or environment is reached, since there is no loader and no function; time, output and memory
//! are bounded, whatever the author wrote; numbers print as they were written; no value of the payload is in an error.

mod filters;
mod grammar;
mod value;

use crate::domain::content::StampKey;
use crate::domain::secret_value::SecretValue;
use filters::Budget;
use grammar::Facts;
use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior, Value};
use std::io;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Bytes of a template; the schema says the same.
const MAX_TEMPLATE: usize = 16 * 1024;
/// Bytes that one template may give, and one filter.
const MAX_OUTPUT: usize = 1024 * 1024;
/// Bytes that may be copied to join texts with `~`: what one expression can hold at a time.
const MAX_JOINED: usize = 8 * 1024 * 1024;
/// Steps of the engine for one template. 64 bytes that it copies are one, or 4 of an object that it writes: enough for 1 MiB.
const STEPS: u64 = 300_000;
/// Steps for all templates of a binding.
const STEPS_TOGETHER: u64 = 20 * STEPS;
/// Bytes that the filters of all templates of a binding take and give.
const FILTERED_TOGETHER: usize = 64 * 1024 * 1024;
/// So many comparisons of texts cost less than reading the payload did.
const FEW_COMPARISONS: usize = 8;
const TOGETHER: &str = "the templates of this binding take too many steps together";

/// A template that was read and found to stay within its bounds.
#[derive(Clone, Debug)]
pub struct Template {
    source: Arc<str>,
    facts: Arc<Facts>,
}

impl PartialEq for Template {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

/// Why a template gave no text. Names stand in it, never values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateError {
    /// Names that the payload does not have.
    Missing(Vec<String>),
    /// Anything else.
    Failed(String),
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// A sentence with the line: what is not understood, or not allowed.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_TEMPLATE {
            return Err(format!("it is {} bytes long, at most {MAX_TEMPLATE} are taken", text.len()));
        }
        Ok(Self { source: text.into(), facts: Arc::new(grammar::read(text)?) })
    }

    /// How often `htpasswd` stands in it, which is what takes longest.
    pub fn htpasswds(&self) -> usize {
        self.facts.htpasswds
    }
}

/// Renders the templates of one binding over one payload, which is read once. What they may take, they share.
#[derive(Debug)]
pub struct Renderer<'a> {
    payload: &'a str,
    key: &'a StampKey,
    root: Option<Result<Value, &'static str>>,
    steps: u64,
    filtered: usize,
}

impl<'a> Renderer<'a> {
    /// For a payload, which is one JSON object. `key` salts what has to be salted.
    pub fn new(payload: &'a str, key: &'a StampKey) -> Self {
        Self { payload, key, root: None, steps: STEPS_TOGETHER, filtered: 0 }
    }

    /// The text that a template gives.
    ///
    /// # Errors
    /// All names that are missing at once, or what failed.
    pub fn render(&mut self, template: &Template) -> Result<SecretValue, TemplateError> {
        let failed = |text: &str| Err(TemplateError::Failed(text.to_owned()));
        let facts = &template.facts;
        if (facts.joins + 1) * (self.payload.len() + template.source.len()) > MAX_JOINED {
            return failed("it joins more texts with ~ than the payload's size allows; write them after each other");
        }
        let payload = self.payload;
        let root = match self.root.get_or_insert_with(|| value::read(payload)) {
            Ok(root) => root.clone(),
            Err(why) => return failed(why),
        };
        // The engine does not count what a comparison walks: such a step costs as much as the payload is long.
        let price = if facts.comparisons > FEW_COMPARISONS { 1 + self.payload.len() as u64 / 512 } else { 1 };
        let steps = STEPS.min(self.steps) / price;
        if steps == 0 {
            // What is missing is still told.
            return Err(template.missing(&root).unwrap_or_else(|| TemplateError::Failed(TOGETHER.to_owned())));
        }
        let budget = Arc::new(Budget::new(FILTERED_TOGETHER - self.filtered));
        let mut engine = Environment::empty();
        engine.set_undefined_behavior(UndefinedBehavior::Strict);
        engine.set_auto_escape_callback(|_| AutoEscape::None);
        engine.set_fuel(Some(steps));
        engine.set_recursion_limit(64);
        engine.set_formatter(|out, _, value| {
            if value.is_undefined() {
                return Err(ErrorKind::UndefinedError.into());
            }
            value::show(value, out).map_err(|_| ErrorKind::WriteFailure.into())
        });
        filters::install(&mut engine, &budget, self.key);
        engine.set_syntax(grammar::syntax());
        let Ok(parsed) = engine.template_from_str(&template.source) else { return failed("it is not a template") };
        let mut out = Capped(Zeroizing::new(Vec::new()));
        let rendered = parsed.render_captured_to(root.clone(), &mut out);
        let taken = match &rendered {
            Ok(done) => done.state().fuel_levels().map_or(steps, |(taken, _)| taken),
            // The engine does not say how many. Without a loop each word is one at most, and what is copied is bounded.
            Err(_) if !facts.loops => {
                let copied = budget.spent() + facts.joins * (self.payload.len() + template.source.len());
                (template.source.len() + copied / 64 + out.0.len() / 4) as u64
            }
            Err(_) => steps,
        };
        self.steps -= taken.min(steps) * price;
        self.filtered = (self.filtered + budget.spent()).min(FILTERED_TOGETHER);
        match rendered {
            Ok(_) => Ok(SecretValue::copy_of(&out.0)),
            Err(error) => Err(template.told(&error, &root, &budget)),
        }
    }
}

impl Template {
    fn missing(&self, root: &Value) -> Option<TemplateError> {
        let missing: Vec<String> =
            self.facts.paths.iter().filter(|path| !path.is_in(root)).map(ToString::to_string).collect();
        (!missing.is_empty()).then_some(TemplateError::Missing(missing))
    }

    /// The engine's own sentences may quote values: what went wrong is told by the kind, the line and our own words.
    fn told(&self, error: &minijinja::Error, root: &Value, budget: &Budget) -> TemplateError {
        if error.kind() == ErrorKind::UndefinedError
            && let Some(missing) = self.missing(root)
        {
            return missing;
        }
        let why = budget.said().unwrap_or_else(|| {
            match error.kind() {
                ErrorKind::OutOfFuel => "it takes too many steps",
                ErrorKind::WriteFailure => "it gives more than 1 MiB",
                ErrorKind::UndefinedError => "a name in it has no value",
                ErrorKind::MissingArgument | ErrorKind::TooManyArguments => {
                    "a filter has the wrong number of arguments"
                }
                ErrorKind::CannotUnpack => "a for loop has the wrong number of names",
                _ => "an operation does not fit the value that it is given",
            }
            .to_owned()
        });
        let line = error.line().map(|line| format!("line {line}: ")).unwrap_or_default();
        TemplateError::Failed(format!("{line}{why}"))
    }
}

/// Takes no more than a value may have.
struct Capped(Zeroizing<Vec<u8>>);

impl io::Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_OUTPUT {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAYLOAD: &str = r#"{"keysValues":{"user":"app","pass":"p@ss/wörd","n":12345678901234567890123,"e":1e3,"one":1.0,"i":7,
        "a b":"blank","list":["x","y"],"t":true,"z":null,"o":{"k":"v","n":1.50},"ml":"one\ntwo"},"securityNotes":"canary"}"#;

    fn made(template: &str, payload: &str) -> Result<String, String> {
        let parsed = Template::parse(template)?;
        match Renderer::new(payload, &StampKey::new(&[7; 32])).render(&parsed) {
            Ok(value) => Ok(String::from_utf8(value.expose().to_vec()).unwrap()),
            Err(TemplateError::Missing(names)) => Err(format!("missing {}", names.join(", "))),
            Err(TemplateError::Failed(why)) => Err(why),
        }
    }

    #[test]
    fn values_print_as_they_were_written() {
        for (template, want) in [
            (
                "postgres://{{ keysValues.user }}:{{ keysValues.pass | urlencode }}@db/app",
                "postgres://app:p%40ss%2Fw%C3%B6rd@db/app",
            ),
            (
                "{{ keysValues.n }} {{ keysValues.e }} {{ keysValues.one }} {{ keysValues.i }}",
                "12345678901234567890123 1e3 1.0 7",
            ),
            ("{{ keysValues[\"a b\"] }} {{ keysValues.t }} {{ keysValues.z }}", "blank true null"),
            ("{{ keysValues.o }} {{ keysValues.list }}", r#"{"k":"v","n":1.50} ["x","y"]"#),
            ("line\n", "line\n"),
            ("{% for k, v in keysValues.o | items %}{{ k }}={{ v }};{% endfor %}", "k=v;n=1.50;"),
            ("{% for x in keysValues.list %}{{ x }}{% if not loop.last %},{% endif %}{% endfor %}", "x,y"),
            ("{% if keysValues.nope is defined %}a{% else %}b{% endif %}", "b"),
            ("{{ keysValues.nope | default('d') }} {{ keysValues.user | default('d') }}", "d app"),
            ("{{ (keysValues.user ~ ':' ~ keysValues.i) | b64encode }}", "YXBwOjc="),
            ("{{ 'yes' if keysValues.i > 5 and keysValues.user == 'app' else 'no' }}", "yes"),
        ] {
            assert_eq!(made(template, PAYLOAD).as_deref(), Ok(want), "{template}");
        }
    }

    #[test]
    fn every_filter() {
        for (expression, want) in [
            ("'aGk=' | b64decode", "hi"),
            ("keysValues.o | tojson", r#"{"k":"v","n":1.50}"#),
            ("'a\"b' | tojson", r#""a\"b""#),
            ("'a\"b' | quote", r#""a\"b""#),
            ("\"it's\" | squote", r#"'it'\''s'"#),
            ("keysValues.ml | indent(2)", "one\n  two"),
            ("keysValues.ml | nindent(2)", "\n  one\n  two"),
            ("'  x ' | trim", "x"),
            ("'aB' | upper", "AB"),
            ("'aB' | lower", "ab"),
            ("'aXbX' | replace('X', '--')", "a--b--"),
            ("keysValues.list | join('+')", "x+y"),
            ("['a', keysValues.user] | join", "aapp"),
            ("'a,b' | split(',') | join(';')", "a;b"),
            ("keysValues.ml | lines | join('|')", "one|two"),
            ("keysValues.list | length", "2"),
            ("'wörd' | length", "4"),
            ("keysValues.list | first", "x"),
            ("keysValues.list | last", "y"),
            ("keysValues.o | keys | join(',')", "k,n"),
            ("'abc' | sha256", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        ] {
            assert_eq!(made(&format!("{{{{ {expression} }}}}"), PAYLOAD).as_deref(), Ok(want), "{expression}");
        }
    }

    #[test]
    fn htpasswd_is_bcrypt_with_a_salt_that_equal_data_gives_again() {
        let one = made("{{ keysValues.user | htpasswd(keysValues.pass) }}", PAYLOAD).unwrap();
        assert!(one.starts_with("app:$2y$10$"), "{one}");
        assert_eq!(made("{{ 'app' | htpasswd(keysValues.pass) }}", PAYLOAD), Ok(one.clone()));
        assert_ne!(made("{{ 'app' | htpasswd('other') }}", PAYLOAD), Ok(one.clone()));
        let hash = one.strip_prefix("app:").unwrap();
        assert!(bcrypt::verify("p@ss/wörd", hash).unwrap() && !bcrypt::verify("x", hash).unwrap());
        for (bad, why) in [
            ("{{ 'a:b' | htpasswd('x') }}", "colon"),
            (&*format!("{{{{ 'a' | htpasswd('{}') }}}}", "x".repeat(73)), "72 bytes"),
            ("{% for x in keysValues.list %}{{ x | htpasswd('p') }}{% endfor %}", "loop"),
            (&*"{{ 'a' | htpasswd('b') }}".repeat(5), "at most 4"),
        ] {
            assert!(made(bad, PAYLOAD).unwrap_err().contains(why), "{bad}");
        }
    }

    #[test]
    fn every_missing_name_is_told_at_once() {
        let template = "{{ keysValues.x }}{{ keysValues.user }}{{ other }}{{ keysValues['a c'].d }}{{ keysValues.q | default('') }}";
        assert_eq!(made(template, PAYLOAD).unwrap_err(), "missing keysValues.x, other, keysValues[\"a c\"].d");
        assert_eq!(made("{{ keysValues.user.deeper }}", PAYLOAD).unwrap_err(), "missing keysValues.user.deeper");
    }

    #[test]
    fn what_reaches_out_or_grows_is_refused_with_its_line() {
        for (bad, why) in [
            ("{% include 'x' %}", "line 1"),
            ("\n{% set x = 'a' %}", "line 2"),
            ("{% macro m() %}{% endmacro %}", "line 1"),
            ("{% with x = 'a' %}{% endwith %}", "with"),
            ("{{ range(10) }}", "call"),
            ("{{ keysValues.user.upper() }}", "call"),
            ("{{ 'a' * 1000000000 }}", "*"),
            ("{{ 9 ** 999999999 }}", "**"),
            ("{{ 'a' + 'b' }}", "+"),
            ("{{ x | nosuch }}", "nosuch"),
            ("{{ x is nosuch }}", "nosuch"),
            ("{{ ", "line 1"),
            ("{% for x in [[1, 2]] %}{% for y in [x, x] %}{{ y }}{% endfor %}{% endfor %}", "for"),
            ("{% for x in keysValues recursive %}{% endfor %}", "recursive"),
            ("{% filter upper %}a{% endfilter %}", "filter"),
            ("{{ keysValues.user[1:] }}", "slice"),
            ("{{ keysValues.list[::-999999] }}", "slice"),
        ] {
            let told = Template::parse(bad).unwrap_err();
            assert!(told.contains(why), "{bad}: {told}");
        }
        assert!(Template::parse(&format!("{{{{ {}1{} }}}}", "(".repeat(8000), ")".repeat(8000))).is_err());
        assert!(Template::parse(&"{% if a %}".repeat(1600)).is_err());
        assert!(Template::parse(&"x".repeat(16 * 1024 + 1)).is_err());
    }

    #[test]
    fn a_hostile_template_is_cut_short() {
        let big = format!(r#"{{"a":"{}","list":[{}1]}}"#, "x".repeat(200_000), "1,".repeat(5_000));
        for (bad, why) in [
            ("{% for x in list %}{{ a }}{% endfor %}", "1 MiB"),
            ("{% for x in list %}{% for y in list %}{% endfor %}{% endfor %}", "steps"),
            ("{{ a | replace('x', 'yyyyyyyyyy') }}", "1 MiB"),
            ("{{ a | indent(99999999) }}", "columns"),
            ("{{ a | split('') | length }}", "separator"),
            ("{% for x in list %}{{ (a | upper) == 'X' }}{% endfor %}", "together"),
            (&*format!("{{{{ {} }}}}", vec!["a"; 50].join("~")), "~"),
            (&*format!("{{{{ [{}] | join }}}}", vec!["a"; 50].join(",")), "1 MiB"),
        ] {
            assert!(made(bad, &big).unwrap_err().contains(why), "{bad}: {:?}", made(bad, &big).unwrap_err());
        }
    }

    #[test]
    fn what_templates_take_they_share() {
        let payload =
            format!(r#"{{"a":"{0}","b":"{0}","list":[{1}1],"k":"v"}}"#, "x".repeat(200_000), "1,".repeat(20_000));
        let key = StampKey::new(&[7; 32]);
        let mut renderer = Renderer::new(&payload, &key);
        let mut told = |template: &str, times: usize| {
            let template = Template::parse(template).unwrap();
            let each = (0..times).map(|_| renderer.render(&template).map(|value| value.expose().len()));
            each.last().unwrap().map_err(|error| format!("{error:?}"))
        };
        // What fails without a loop costs no more than it did, so that keys may be optional.
        assert!(told("{{ nope }}", 1000).unwrap_err().contains("nope"));
        assert_eq!(told("{{ k }}", 1000), Ok(1));
        assert!(told("{% for x in list %}{% if a == b %}{% endif %}{% endfor %}", 1).unwrap_err().contains("steps"));
        assert_eq!(told("{% for x in list %}{% if x == 2 %}{% endif %}{% endfor %}", 1), Ok(0));
        assert!(told("{{ a | upper | lower | upper | lower | length }}", 100).unwrap_err().contains("64 MiB together"));
        assert!(
            told("{% for x in list %}{% for y in list %}{% endfor %}{% endfor %}", 60)
                .unwrap_err()
                .contains("together")
        );
        assert!(told("{{ nope }}{{ nor }}", 1).unwrap_err().contains("nor"), "what is missing is told all the same");
        assert!(told("{{ k }}", 1).unwrap_err().contains("together"));
    }

    /// How many steps of all that a binding has this template leaves, in percent, and what it gives.
    fn left_after(template: &str, payload: &str) -> (u64, Result<String, String>) {
        let key = StampKey::new(&[7; 32]);
        let mut renderer = Renderer::new(payload, &key);
        let value = renderer.render(&Template::parse(template).unwrap());
        let text = value.map(|value| String::from_utf8(value.expose().to_vec()).unwrap());
        (renderer.steps * 100 / STEPS_TOGETHER, text.map_err(|error| format!("{error:?}")))
    }

    #[test]
    fn what_the_engine_walks_uncounted_costs_steps() {
        let payload = format!(
            r#"{{"big":"{}","list":[{}1],"o":{{"{}":1}},"long":["{2}"],"word":"abc"}}"#,
            "x".repeat(500_000),
            "1,".repeat(3000),
            "n".repeat(10_000),
        );
        // Each of these walked a long text or object 3000 times, for 3 steps each.
        for inner in [
            "big[400000]",
            "big[-1]",
            "'' if big[400000] is defined else ''",
            "big[400000] | default('')",
            "o[long[0]] is defined",
            "'' if o in 'abc' else ''",
        ] {
            let template = format!("{{% for x in list %}}{{{{ {inner} }}}}{{% endfor %}}");
            let (left, made) = left_after(&template, &payload);
            assert!(made.as_ref().is_err_and(|why| why.contains("steps")) && left <= 95, "{inner}: {left}% {made:?}");
        }
        // What is next to nothing still is.
        for (inner, want) in [("word[0]", "a"), ("word[2]", "c"), ("o['n'] is defined", "false"), ("x in [2]", "false")]
        {
            let template = format!("{{% for x in list %}}{{{{ {inner} }}}}{{% endfor %}}");
            let (left, made) = left_after(&template, &payload);
            assert!(made.as_deref() == Ok(&*want.repeat(3001)) && left >= 99, "{inner}: {left}% {made:?}");
        }
        assert!(left_after("{{ big[900000] }}{{ word[2] }}{{ nope }}", &payload).1.unwrap_err().contains("big.900000"));
        // What fails after it has written costs what it has written.
        assert!(left_after("{{ big }}{{ nope }}", &payload).0 <= 98);
    }

    #[test]
    fn the_length_of_names_is_what_filters_over_them_take() {
        let names: Vec<String> = (0..50).map(|n| format!(r#""{}{n}":1"#, "n".repeat(10_000))).collect();
        let payload = format!(r#"{{"o":{{{}}},"list":[{}1]}}"#, names.join(","), "1,".repeat(50));
        for filter in ["items", "dictsort", "keys"] {
            let template = format!("{{% for x in list %}}{{{{ o | {filter} | length }}}}{{% endfor %}}");
            let made = made(&template, &payload);
            assert!(made.as_ref().is_err_and(|why| why.contains("8 MiB together")), "{filter}: {made:?}");
        }
    }

    #[test]
    fn numbers_compare_as_they_are() {
        let payload = r#"{"half":0.5,"one":1.0,"again":1.0,"big":12345678901234567890123,"same":12345678901234567890123,"e":1e3,"n":1000}"#;
        for (expression, want) in [
            ("half < 1", true),
            ("half == 0.5", true),
            ("one == again", true),
            ("one == 1", true),
            ("big == same", true),
            ("big < e", false),
            ("n > 999.5", true),
        ] {
            let made = made(&format!("{{{{ 1 if {expression} else 0 }}}}"), payload);
            assert_eq!(made.as_deref(), Ok(if want { "1" } else { "0" }), "{expression}");
        }
    }

    #[test]
    fn an_object_of_very_many_names_costs_no_more_than_its_text() {
        let names: Vec<String> = (0..40_000).map(|n| format!(r#""k{}":{n}"#, n * 7919 % 40_000)).collect();
        let payload = format!("{{{}}}", names.join(","));
        assert!(payload.len() < MAX_OUTPUT);
        assert!(made("{{ o }}", &format!(r#"{{"o":{payload}}}"#)) == Ok(payload.clone()));
        assert_eq!(made("{% if k7 in [39999] %}{{ k7919 }}{% endif %}{{ k0 }}", &payload).as_deref(), Ok("0"));
    }

    #[test]
    fn a_payload_of_very_many_values_is_given_to_no_template() {
        // Each `{"":` was 280 bytes of memory: 60 MB for a payload of 1 MiB.
        let chain = format!("{}1{}", "{\"\":".repeat(60), "}".repeat(60));
        let chains = |count: usize| format!(r#"{{"k":"v","x":[{}]}}"#, vec![chain.as_str(); count].join(","));
        assert!(chains(2800).len() < MAX_OUTPUT);
        assert!(made("{{ k }}", &chains(2800)).unwrap_err().contains("more than 50,000 values"));
        assert_eq!(made("{{ k }}", &chains(800)).as_deref(), Ok("v"));
    }

    #[test]
    fn a_deep_template_is_refused_before_it_is_parsed() {
        let mut hostile = vec![
            ("not", format!("{{{{ {}a }}}}", "not ".repeat(4000))),
            ("minus", format!("{{{{ {}a }}}}", "-".repeat(16_000))),
            ("elif", format!("{{% if a %}}{}{{% endif %}}", "{%elif a%}".repeat(1600))),
            ("filters", format!("{{{{ a{} }}}}", "|trim".repeat(3200))),
            ("joins", format!("{{{{ a{} }}}}", "~a".repeat(8000))),
            ("fields", format!("{{{{ a{} }}}}", ".a".repeat(8000))),
            ("items", format!("{{{{ a{} }}}}", "[0]".repeat(5000))),
            ("or", format!("{{{{ a{} }}}}", " or a".repeat(3200))),
            ("else", format!("{{{{ a{} }}}}", " if a else a".repeat(1300))),
            ("tests", format!("{{{{ a{} }}}}", " is none".repeat(2000))),
            ("set", format!("{{% set {}a", "(".repeat(16_000))),
            ("for", format!("{{% for {}a", "(".repeat(16_000))),
            ("lists", format!("{{{{ {}1{} }}}}", "[".repeat(8000), "]".repeat(8000))),
            ("parentheses", format!("{{{{ {}1{} }}}}", "(".repeat(140), ")".repeat(140))),
            ("ifs", format!("{}{}", "{%if a%}".repeat(140), "{%endif%}".repeat(140))),
            ("fors", format!("{}{}", "{%for x in a%}".repeat(100), "{%endfor%}".repeat(100))),
        ];
        hostile.push(("both", format!("{}{{{{ {}1{} }}}}", "{%if a%}".repeat(140), "(".repeat(140), ")".repeat(140))));
        for (name, text) in hostile {
            // As deep as a thread of the agent is.
            let run = std::thread::Builder::new().stack_size(2 * 1024 * 1024).spawn(move || made(&text, PAYLOAD));
            assert!(run.unwrap().join().unwrap().is_err(), "{name}");
        }
    }

    #[test]
    fn no_value_is_in_an_error() {
        for bad in [
            "{{ securityNotes.x.y }}",
            "{{ securityNotes | b64decode }}",
            "{{ -securityNotes }}",
            "{{ securityNotes | first(1, 2, 3) }}",
            "{% for a, b in securityNotes %}{% endfor %}",
            "{{ 'x:y' | htpasswd(securityNotes) }}",
            "{{ keysValues[securityNotes] }}",
        ] {
            let told = made(bad, PAYLOAD).unwrap_err();
            assert!(!told.contains("canary"), "{bad}: {told}");
        }
    }

    #[test]
    fn the_reference_page_tells_the_truth() {
        let page = include_str!("../../../docs/templates.md");
        let mut rows = 0;
        for line in page.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<&str> =
                line.trim_matches('|').split(" | ").map(|cell| cell.trim().trim_matches('`')).collect();
            let [template, result, ..] = cells[..] else { panic!("{line}") };
            let (template, result) = (template.replace("\\|", "|"), result.replace("\\|", "|").replace("\\n", "\n"));
            assert_eq!(made(&template, PAYLOAD_OF_THE_PAGE).as_deref(), Ok(result.as_str()), "{line}");
            rows += 1;
        }
        assert!(rows >= 20, "{rows} rows");
        assert!(page.contains(PAYLOAD_OF_THE_PAGE));
        for filter in filters::NAMES {
            assert!(page.contains(&format!("| {filter}")), "{filter} is not on the page");
        }
    }

    const PAYLOAD_OF_THE_PAGE: &str = r#"{"keysValues":{"user":"app","pass":"p@ss word","port":5432,"a b":"c","hosts":["h1","h2"],"cert":"one\ntwo"}}"#;

    proptest! {
        #[test]
        fn any_text_is_a_template_or_refused(text in "[ -~\n{}%|.]{0,80}") {
            let _ = made(&text, PAYLOAD);
        }

        #[test]
        fn any_expression_stays_within_its_bounds(
            of in prop_oneof![Just("keysValues.user"), Just("keysValues.ml"), Just("keysValues.list"), Just("keysValues.o"), Just("keysValues.n"), Just("x"), Just("'a'")],
            chain in proptest::collection::vec(proptest::sample::select(filters::NAMES), 0..4),
            argument in prop_oneof![Just(""), Just("('a')"), Just("('a', 'b')"), Just("(7)"), Just("(keysValues.list)")],
        ) {
            let cheap = chain.iter().filter(|name| **name != "htpasswd");
            let filters: String = cheap.map(|name| format!(" | {name}{argument}")).collect();
            match made(&format!("{{{{ {of}{filters} }}}}"), PAYLOAD) {
                Ok(text) => prop_assert!(text.len() <= MAX_OUTPUT),
                Err(told) => prop_assert!(!told.contains("canary")),
            }
        }
    }
}
