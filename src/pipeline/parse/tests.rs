use super::*;
use crate::recipe::Layers;

const GOOD: &str = r#"
[pipeline]
name = "sentiment"
schedule = "0 */2 * * *"
seed = 42
[model]
base = "minilm"
labels = ["negative", "positive"]
[data.reviews]
path = "data/train.csv"
text = "text"
label = "label"
[holdout]
gate = "data/gate.csv"
[task.learn]
kind = "lora"
data = "reviews"
needs = ["refresh"]
budget_joules = 4_000
[task.learn.lora]
rank = 4
learning_rate = 5e-4
[task.learn.accept]
min_delta = 0.002
[task.refresh]
kind = "index"
data = "reviews"
budget_joules = 400.5
"#;

fn read(text: &str) -> (Option<Pipeline>, Vec<String>) {
    let source = SourceText {
        path: "p.toml".into(),
        text: text.into(),
    };
    let (pipeline, diagnostics) = parse(&source);
    let lines = diagnostics
        .iter()
        .map(|diagnostic| {
            let (line, column) = source.line_column(diagnostic.span.start);
            let hint = diagnostic
                .hint
                .as_deref()
                .map(|hint| format!(" | {hint}"))
                .unwrap_or_default();
            format!("{line}:{column} {}{hint}", diagnostic.message)
        })
        .collect();
    (pipeline, lines)
}

#[test]
fn a_good_file_is_read_and_needs_order_its_tasks() {
    let (pipeline, errors) = read(GOOD);
    assert_eq!(errors, Vec::<String>::new());
    let pipeline = pipeline.unwrap();
    let names: Vec<&str> = pipeline
        .tasks
        .iter()
        .map(|task| task.name.value.as_str())
        .collect();
    assert_eq!(names, ["refresh", "learn"]);
    let Work::Lora(lora, accept) = &pipeline.task("learn").unwrap().work else {
        panic!("learn is a lora task");
    };
    assert_eq!((lora.rank, lora.max_steps), (4, 120));
    assert_eq!(accept.min_delta.to_string(), "0.002000000");
    assert_eq!(pipeline.tasks[0].budget.to_string(), "400.500000");
}

#[test]
fn every_error_is_found_with_its_place() {
    let text = GOOD
        .replace("rank = 4", "rnak = 4")
        .replace("seed = 42", "seed = \"42\"")
        .replace("base = \"minilm\"\n", "")
        .replace("[\"refresh\"]", "[\"refersh\"]")
        .replace("0 */2 * * *", "0 0 */2 * * *")
        .replace(
            "data = \"reviews\"\nbudget_joules = 400.5",
            "data = \"revews\"\nbudget_joules = -1",
        );
    let (_, errors) = read(&text);
    assert_eq!(errors.len(), 7, "{errors:#?}");
    let all = errors.join("\n");
    for part in [
        "this has 6 | leave out the seconds field",
        "5:8 `seed` must be a whole number, not a string",
        "[model] has no `base` | add `base = \"minilm\"`",
        "task `learn` needs `refersh`, but there is no such task | did you mean `refresh`?",
        "unknown key `rnak` in [task.learn.lora] | did you mean `rank`?",
        "task `refresh` uses data `revews`, which is not declared | did you mean `reviews`?",
        "`budget_joules` must be at least 0.001",
    ] {
        assert!(all.contains(part), "`{part}` is not in:\n{all}");
    }
}

#[test]
fn circles_bad_kinds_and_broken_toml_are_errors() {
    let circle = GOOD.replace("kind = \"index\"", "kind = \"index\"\nneeds = [\"learn\"]");
    let (_, errors) = read(&circle);
    assert!(
        errors[0].contains("need each other in a circle"),
        "{errors:?}"
    );
    let (_, errors) = read(&GOOD.replace("kind = \"index\"", "kind = \"idnex\""));
    assert!(
        errors[0].contains("unknown kind `idnex` | did you mean `index`?"),
        "{errors:?}"
    );
    let (_, errors) = read("[pipeline\nname = ");
    assert!(
        !errors.is_empty() && errors[0].starts_with("1:"),
        "{errors:?}"
    );
    let (_, errors) = read("");
    assert_eq!(errors.len(), 3, "{errors:?}");
}

#[test]
fn the_words_of_a_recipe_are_read_and_wrong_ones_explained() {
    let with = |lines: &str| GOOD.replace("rank = 4\n", &format!("rank = 4\n{lines}\n"));
    let (pipeline, errors) = read(&with(
        "scaling = \"rslora\"\nlayers = \"last:2\"\ndecay = \"cosine\"\nlora_plus_ratio = 4\nstop = \"eta\"\n\
         tune_every_steps = 5\nmicro_batch_size = 2\nmax_grad_norm = 1\nprecision = \"bf16\"",
    ));
    assert_eq!(errors, Vec::<String>::new());
    let Work::Lora(lora, _) = pipeline.unwrap().tasks.remove(1).work else {
        panic!("learn is a lora task");
    };
    assert_eq!(lora.scaling, Scaling::RsLora);
    assert_eq!(lora.layers, Layers::Last(2));
    assert_eq!(lora.decay, Decay::Cosine);
    assert_eq!(lora.stop, StopRule::Eta);
    assert_eq!(lora.precision, Precision::Bf16);
    assert_eq!((lora.tune_every_steps, lora.micro_batch_size), (5, Some(2)));
    assert_eq!((lora.lora_plus_ratio, lora.max_grad_norm), (4.0, Some(1.0)));

    let (_, errors) = read(&with(
        "scaling = \"rs-lora\"\nlayers = \"last:0\"\ndecay = \"cosinus\"\nprecision = 16\nmax_grad_norm = 0",
    ));
    let all = errors.join("\n");
    for part in [
        "unknown scaling `rs-lora` | did you mean `rslora`?",
        "unknown layers `last:0` | write \"all\", or \"last:2\" for the last two",
        "unknown decay `cosinus` | did you mean `cosine`?",
        "`precision` must be a string, not an integer",
        "`max_grad_norm` must be at least",
    ] {
        assert!(all.contains(part), "`{part}` is not in:\n{all}");
    }
    assert_eq!(errors.len(), 5, "{all}");
}

#[test]
fn the_key_list_is_what_is_read() {
    for (section, keys) in KEYS {
        for key in keys {
            let found = GOOD.contains(&format!("{key} =")) || GOOD.contains(&format!("[{key}"));
            let optional = [
                "models",
                "timezone",
                "sources",
                "sha256",
                "files",
                "tune",
                "audit",
                "alpha",
                "scaling",
                "layers",
                "decay",
                "lora_plus_ratio",
                "stop",
                "tune_every_steps",
                "micro_batch_size",
                "max_grad_norm",
                "precision",
                "dropout",
                "target_modules",
                "weight_decay",
                "warmup_steps",
                "max_steps",
                "batch_size",
                "max_tokens",
                "rule",
                "looks",
                "lora",
                "accept",
            ];
            assert!(found || optional.contains(key), "{section} {key}");
        }
    }
}
