//! What a newcomer typed, and the words that should come back.

use std::fs;

use crate::lab::Lab;

fn with_pipeline() -> Lab {
    let lab = Lab::new();
    let text = fs::read_to_string(lab.path("p.toml")).unwrap();
    lab.write("pipelines/one.toml", &text);
    lab
}

#[test]
fn a_folder_of_pipelines_works_from_inside_and_by_name() {
    let lab = with_pipeline();
    let inside = lab.paste("cd pipelines && cryo validate").expect(0);
    assert!(
        inside.stderr.starts_with("one.toml: valid"),
        "{}",
        inside.stderr
    );
    for line in [
        "cryo plan pipelines",
        "cryo plan pipelines/",
        "cd pipelines && cryo plan .",
        "cd data && cryo plan pipelines",
    ] {
        let plan = lab.paste(line).expect(0);
        assert!(plan.stdout.contains("no version yet"), "{}", plan.stdout);
    }
    let root = lab.path("").display().to_string();
    let root = root.trim_end_matches('/');
    let far = lab
        .paste(&format!("cd / && cryo --project {root} validate"))
        .expect(0);
    assert!(
        far.stderr
            .starts_with(&format!("{root}/pipelines/one.toml")),
        "{}",
        far.stderr
    );
    let text = fs::read_to_string(lab.path("p.toml")).unwrap();
    lab.write("pipelines/two.toml", &text);
    let several = lab.paste("cryo plan pipelines").expect(3);
    assert!(
        several
            .stderr
            .contains("there are several pipelines: pipelines/one.toml, pipelines/two.toml"),
        "{}",
        several.stderr
    );
}

#[test]
fn a_project_without_pipelines_says_where_to_write_one() {
    let lab = Lab::new();
    for line in ["cryo validate", "cryo plan"] {
        let run = lab.paste(line).expect(3);
        assert!(
            run.stderr
                .contains("no pipeline files in pipelines/\nhint: write one"),
            "{}",
            run.stderr
        );
    }
}

#[test]
fn a_gate_that_nothing_passes_is_named_in_the_plan() {
    let lab = Lab::new();
    lab.write("data/gate.csv", &crate::lab::rows(5, 100_000));
    let plan = lab.cryo(&["plan", "p.toml"]).expect(0);
    assert!(
        plan.stderr
            .contains("practically no update can pass: the test value must exceed 10.31"),
        "{}",
        plan.stderr
    );
}
