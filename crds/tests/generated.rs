//! The files under `deploy/crds/` are what the types say.

use std::path::PathBuf;

/// Set to write the files instead of comparing them.
const UPDATE: &str = "UPDATE_CRDS";

#[test]
fn deployed_definitions_are_those_of_the_types() {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy/crds");
    let update = std::env::var_os(UPDATE).is_some();
    let mut expected = Vec::new();
    for definition in caracal_crds::all() {
        let name = caracal_crds::file_name(&definition);
        let yaml = caracal_crds::yaml(&definition).unwrap();
        let path = directory.join(&name);
        if update {
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(&path, &yaml).unwrap();
        } else {
            let found = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(
                found == yaml,
                "{} is out of date: run `make crds`",
                path.display()
            );
        }
        expected.push(name);
    }
    expected.sort();
    let mut found: Vec<String> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    assert_eq!(found, expected, "files in {}", directory.display());
}
