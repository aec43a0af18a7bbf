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

/// Two accepted versions, and the folder of each.
fn two_versions(lab: &Lab) -> [std::path::PathBuf; 2] {
    lab.apply();
    lab.apply();
    let hashes: Vec<String> = lab
        .history()
        .iter()
        .filter_map(|receipt| Some(receipt["new_model_hash"].as_str()?.to_owned()))
        .filter(|hash| lab.path(&folder_of(hash)).exists())
        .collect();
    let mut folders = hashes.iter().map(|hash| lab.path(&folder_of(hash)));
    [folders.next().unwrap(), folders.next_back().unwrap()]
}

fn folder_of(hash: &str) -> String {
    format!(".cryo/versions/{}", hash.trim_start_matches("sha256:"))
}

#[test]
fn a_version_that_was_changed_or_deleted_is_a_broken_record() {
    let lab = Lab::new();
    let [first, head] = two_versions(&lab);
    fs::write(head.join("model.safetensors"), "changed").unwrap();
    for line in ["cryo predict 'a good film'", "cryo export out"] {
        let run = lab.paste(line).expect(14);
        assert!(
            run.stderr.contains("has the digest") && run.stderr.contains("hint: restore it"),
            "{}",
            run.stderr
        );
    }
    fs::remove_dir_all(first).unwrap();
    let run = lab.paste("cryo predict --version 1 good").expect(14);
    assert!(
        run.stderr.contains("version 1 (sha256:")
            && run.stderr.contains("hint: restore .cryo/versions"),
        "{}",
        run.stderr
    );
}

#[test]
fn a_dash_is_no_standard_input() {
    let lab = Lab::new();
    lab.apply().expect(0);
    let run = lab.paste("echo good | cryo predict -").expect(0);
    assert!(
        run.stderr.contains("note: `-` is not standard input"),
        "{}",
        run.stderr
    );
}

#[test]
fn rows_that_only_leave_the_index_are_counted_and_cost_nothing() {
    let lab = Lab::new();
    lab.cryo(&["apply", "p.toml", "--task", "index"]).expect(0);
    let rows = fs::read_to_string(lab.path("data/train.csv")).unwrap();
    let fewer: Vec<&str> = rows.lines().take(1500).collect();
    lab.write("data/train.csv", &fewer.join("\n"));
    let plan = lab.cryo(&["plan", "p.toml"]).expect(0);
    assert!(plan.stdout.contains("about 0 J"), "{}", plan.stdout);
    assert!(plan.stdout.contains("1 row to remove"), "{}", plan.stdout);
    let run = lab.cryo(&["apply", "p.toml", "--task", "index"]).expect(0);
    assert!(!run.stderr.contains("0 to do"), "{}", run.stderr);
}

#[test]
fn a_model_that_nobody_declares_says_where_to_add_it() {
    let lab = Lab::new();
    lab.write("cryo.toml", "");
    let run = lab.cryo(&["validate", "p.toml"]).expect(3);
    assert!(
        run.stderr
            .contains("add [models.tiny] to cryo.toml, see docs/settings.md"),
        "{}",
        run.stderr
    );
}

#[test]
fn a_failed_task_is_told_once() {
    let lab = Lab::new();
    lab.edit(
        "p.toml",
        "budget_joules = 4000\n[task.learn.lora]",
        "budget_joules = 0.001\n[task.learn.lora]",
    );
    let run = lab.apply().expect(13);
    let told = format!("{}{}", run.stdout, run.stderr);
    assert_eq!(told.matches("the budget was used up").count(), 1, "{told}");
    assert!(
        run.stderr.contains("hint: raise the task's budget_joules"),
        "{}",
        run.stderr
    );
}
