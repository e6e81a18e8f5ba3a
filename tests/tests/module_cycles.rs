//! No module of a crate uses itself through other modules. Parents and children may use each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{Attribute, ItemMod, ItemUse, UseTree};

/// Modules by their paths below the crate, such as `method::inner`, with the modules they use.
type Graph = BTreeMap<String, BTreeSet<String>>;

/// Every path below the crate that the sources of a module name.
struct Paths {
    /// The module that the visitor is in, an inline one too.
    module: Vec<String>,
    found: BTreeSet<Vec<String>>,
}

impl Paths {
    /// Adds a path that begins with `crate`, `self` or `super`.
    fn add(&mut self, path: &[String]) {
        let mut base = self.module.clone();
        let mut rest = path;
        match rest.first().map(String::as_str) {
            Some("crate") => base.clear(),
            Some("self") => {}
            Some("super") => {
                while rest.get(1).is_some_and(|next| next == "super") {
                    base.pop();
                    rest = &rest[1..];
                }
                base.pop();
            }
            _ => return,
        }
        base.extend_from_slice(&rest[1..]);
        self.found.insert(base);
    }

    fn add_tree(&mut self, mut prefix: Vec<String>, tree: &UseTree) {
        match tree {
            UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.add_tree(prefix, &path.tree);
            }
            UseTree::Name(name) => {
                prefix.push(name.ident.to_string());
                self.add(&prefix);
            }
            UseTree::Rename(name) => {
                prefix.push(name.ident.to_string());
                self.add(&prefix);
            }
            UseTree::Glob(_) => self.add(&prefix),
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.add_tree(prefix.clone(), tree);
                }
            }
        }
    }
}

fn is_of_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Ident>().is_ok_and(|condition| condition == "test")
    })
}

impl<'a> Visit<'a> for Paths {
    fn visit_item_mod(&mut self, module: &'a ItemMod) {
        if module.content.is_some() && !is_of_tests(&module.attrs) {
            self.module.push(module.ident.to_string());
            visit::visit_item_mod(self, module);
            self.module.pop();
        }
    }

    fn visit_item_use(&mut self, item: &'a ItemUse) {
        self.add_tree(Vec::new(), &item.tree);
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        let segments: Vec<_> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        self.add(&segments);
        visit::visit_path(self, path);
    }
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let files = entries.flat_map(|path| if path.is_dir() { rust_files(&path) } else { vec![path] });
    files.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

/// The modules of the crate whose sources are in `folder`.
fn graph(folder: &Path) -> Graph {
    let name = |file: &Path| -> Vec<String> {
        let below =
            file.strip_prefix(folder).expect("the file is in the folder").with_extension("");
        below.iter().map(|part| part.to_str().expect("UTF-8").to_owned()).collect()
    };
    let files = rust_files(folder).into_iter().map(|file| (name(&file), file));
    let files: Vec<_> = files.filter(|(name, _)| *name != ["lib"] && *name != ["main"]).collect();
    let names: BTreeSet<&[String]> = files.iter().map(|(name, _)| name.as_slice()).collect();
    let uses = |(name, file): &(Vec<String>, PathBuf)| {
        let text = fs::read_to_string(file).expect("the file is readable");
        let mut paths = Paths { module: name.clone(), found: BTreeSet::new() };
        paths.visit_file(&syn::parse_file(&text).expect("the file is Rust"));
        let module = |path: &Vec<String>| {
            (0..=path.len())
                .rev()
                .map(|n| &path[..n])
                .find(|start| names.contains(start))
                .map(<[String]>::to_vec)
        };
        let used = paths.found.iter().filter_map(module);
        let is_relative = |other: &Vec<String>| other.starts_with(name) || name.starts_with(other);
        let used = used.filter(|other| !is_relative(other)).map(|other| other.join("::"));
        (name.join("::"), used.collect())
    };
    files.iter().map(uses).collect()
}

/// A way from a module back to itself.
fn cycle(graph: &Graph) -> Option<Vec<&str>> {
    fn visit<'a>(
        graph: &'a Graph,
        module: &'a str,
        way: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> Option<Vec<&'a str>> {
        if let Some(start) = way.iter().position(|other| *other == module) {
            return Some(way[start..].to_vec());
        }
        if done.contains(module) {
            return None;
        }
        way.push(module);
        let found = graph.get(module)?.iter().find_map(|used| visit(graph, used, way, done));
        way.pop();
        done.insert(module);
        found
    }
    let mut done = BTreeSet::new();
    graph.keys().find_map(|module| visit(graph, module, &mut Vec::new(), &mut done))
}

#[test]
fn no_crate_has_a_cycle_of_modules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let mut n_crates = 0;
    for entry in fs::read_dir(root).expect("the workspace is readable") {
        let source = entry.expect("an entry").path().join("src");
        if source.join("lib.rs").exists() {
            let graph = graph(&source);
            assert_eq!(cycle(&graph), None, "modules of `{}` use each other", source.display());
            n_crates += 1;
        }
    }
    assert!(n_crates >= 7, "{n_crates} crates found");
}

#[test]
fn a_cycle_is_found_through_nested_imports_and_paths_in_code() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("it is writable");
        fs::write(path, text).expect("it is writable");
    };
    write("lib.rs", "mod a; mod b;");
    write("a.rs", "mod inner; use crate::b::{self, deep::{Thing as Other}};");
    write("a/inner.rs", "use super::Parent; fn f() { super::super::b::g(); }");
    write("b.rs", "#[cfg(test)] mod tests { use crate::a::Only; }");
    assert_eq!(cycle(&graph(folder.path())), None, "tests and parents do not count");
    write("b.rs", "fn g() { let _ = crate::a::inner::f; }");
    let graph = graph(folder.path());
    assert_eq!(cycle(&graph), Some(vec!["b", "a::inner"]));
}
