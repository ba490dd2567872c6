//! What the README and the guides name is there.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The folder with the README.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("this crate lies in the workspace")
        .to_owned()
}

/// README.md and the files in docs/.
fn guides() -> Vec<PathBuf> {
    let docs = fs::read_dir(root().join("docs")).expect("there is a folder docs");
    let mut guides: Vec<_> = docs
        .map(|entry| entry.expect("it can be listed").path())
        .filter(|path| path.extension().is_some_and(|end| end == "md"))
        .collect();
    guides.push(root().join("README.md"));
    guides
}

/// What stands between two marks, each time that it does within a line.
fn between<'a>(text: &'a str, open: &str, close: &str) -> Vec<&'a str> {
    let within = |line: &'a str| {
        let mut rest = line;
        let mut found = Vec::new();
        while let Some((_, behind)) = rest.split_once(open) {
            let Some((inner, after)) = behind.split_once(close) else {
                break;
            };
            found.push(inner);
            rest = after;
        }
        found
    };
    text.lines().flat_map(within).collect()
}

/// Whether it is the path of a file or folder of this repository, as `core/src/live.rs` and `examples/core` are.
fn is_path(word: &str) -> bool {
    let folders = [
        "core/",
        "gst-plugin/",
        "examples/",
        "tests/",
        "docs/",
        "scripts/",
        ".ci/",
    ];
    folders.iter().any(|folder| word.starts_with(folder)) && !word.contains([' ', '*', '<', '{'])
}

#[test]
fn files_that_are_named_exist() {
    let mut named = 0;
    for guide in guides() {
        let text = fs::read_to_string(&guide).expect("it can be read");
        let folder = guide.parent().expect("it lies in a folder");
        let paths = between(&text, "`", "`")
            .into_iter()
            .filter(|word| is_path(word));
        let links = between(&text, "](", ")")
            .into_iter()
            .filter(|link| !link.contains("://"));
        let paths = paths.map(|path| root().join(path));
        let links = links.map(|link| folder.join(link.split('#').next().unwrap_or(link)));
        for path in paths.chain(links) {
            assert!(
                path.exists(),
                "{} names {}, which is not there",
                guide.display(),
                path.display()
            );
            named += 1;
        }
    }
    assert!(
        named >= 40,
        "only {named} files are named: is the check blind?"
    );
}

/// In pictures modules go by their short names, as `transport/quic` and `sink/` do.
#[test]
fn modules_in_pictures_exist() {
    let sources =
        ["core/src", "core/src/media", "gst-plugin/src"].map(|folder| root().join(folder));
    let exists = |module: &str| {
        sources.iter().any(|source| {
            let path = source.join(module);
            path.is_dir() || path.with_extension("rs").is_file()
        })
    };
    let mut named = 0;
    for guide in guides() {
        let text = fs::read_to_string(&guide).expect("it can be read");
        let pictures = text
            .split("```text")
            .skip(1)
            .filter_map(|rest| rest.split("```").next());
        let is_part = |c: char| c.is_ascii_lowercase() || c == '_' || c == '/';
        for word in pictures.flat_map(|picture| picture.split(|c| !is_part(c))) {
            if word.contains('/') {
                assert!(
                    exists(word),
                    "{} shows {word}, which is not there",
                    guide.display()
                );
                named += 1;
            }
        }
    }
    assert!(
        named >= 15,
        "only {named} modules are shown: is the check blind?"
    );
}
