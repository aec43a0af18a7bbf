//! Who uses whom: each path of a file, followed to the file that defines what it names.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::Delimiter;

use super::circles::Graph;
use super::source::{Source, Token};

/// `crate`, `super` and the names after them.
type Path = Vec<String>;

/// What the files say of each other.
pub struct Arrows<'a> {
    sources: &'a [Source],
    by_module: BTreeMap<&'a [String], usize>,
    /// Per file, what each of its imported names stands for.
    imports: Vec<BTreeMap<String, Path>>,
    /// Per file, the files that it uses.
    used: Vec<BTreeSet<usize>>,
}

/// The paths of one file.
#[derive(Default)]
struct Paths {
    /// Names that a `use` brings in, private ones and re-exports, with what they stand for.
    named: Vec<(String, Path, bool)>,
    /// Paths in the code.
    spoken: Vec<Path>,
}

impl<'a> Arrows<'a> {
    /// Reads all files.
    pub fn of(sources: &'a [Source]) -> Self {
        let paths: Vec<Paths> = sources.iter().map(Paths::of).collect();
        let imports = paths.iter().map(|paths| {
            let named = paths.named.iter();
            named
                .map(|(name, path, _)| (name.clone(), path.clone()))
                .collect()
        });
        let by_module = sources.iter().enumerate();
        let mut arrows = Self {
            sources,
            by_module: by_module
                .map(|(at, source)| (source.module.as_slice(), at))
                .collect(),
            imports: imports.collect(),
            used: Vec::new(),
        };
        for (at, paths) in paths.iter().enumerate() {
            let used = arrows.used_by(at, paths);
            arrows.used.push(used);
        }
        arrows
    }

    /// From each file the files that it uses.
    pub fn between_files(&self) -> Graph {
        self.graph(|source| source.path.clone())
    }

    /// From each room the rooms that it uses.
    pub fn between_rooms(&self) -> Graph {
        self.graph(|source| source.room().to_owned())
    }

    fn graph(&self, name: impl Fn(&Source) -> String) -> Graph {
        let mut graph = Graph::new();
        for (from, used) in self.used.iter().enumerate() {
            let from = name(&self.sources[from]);
            let to = used.iter().map(|&to| name(&self.sources[to]));
            let to: Vec<String> = to.filter(|to| *to != from).collect();
            graph.entry(from).or_default().extend(to);
        }
        graph
    }

    fn used_by(&self, at: usize, paths: &Paths) -> BTreeSet<usize> {
        let named = paths.named.iter();
        let imported = named.filter_map(|(_, path, is_public)| {
            let to = self.follow(at, path, &mut BTreeSet::new())?;
            let is_below = self.sources[to]
                .module
                .starts_with(&self.sources[at].module);
            // A room's face shows what its files have; that is no use of them.
            (!(*is_public && is_below)).then_some(to)
        });
        let spoken = paths.spoken.iter();
        let spoken = spoken.filter_map(|path| self.follow(at, path, &mut BTreeSet::new()));
        imported.chain(spoken).filter(|&to| to != at).collect()
    }

    /// The file that defines what a path in a file names; nothing for what is not of this crate.
    fn follow(
        &self,
        at: usize,
        path: &[String],
        seen: &mut BTreeSet<(usize, String)>,
    ) -> Option<usize> {
        let (first, rest) = path.split_first()?;
        let mut module = self.sources[at].module.clone();
        match first.as_str() {
            "crate" => self.walk(Vec::new(), rest, seen),
            "self" => self.walk(module, rest, seen),
            "super" => {
                let ups = path.iter().take_while(|part| *part == "super").count();
                module.truncate(module.len().checked_sub(ups)?);
                self.walk(module, &path[ups..], seen)
            }
            name => {
                module.push(name.to_owned());
                if self.by_module.contains_key(module.as_slice()) {
                    return self.walk(module, rest, seen);
                }
                if !seen.insert((at, name.to_owned())) {
                    return None;
                }
                let import = self.imports[at].get(name)?;
                let whole: Path = import.iter().chain(rest).cloned().collect();
                self.follow(at, &whole, seen)
            }
        }
    }

    /// Goes down from a module as far as modules go, then through what the last one re-exports.
    fn walk(
        &self,
        mut module: Vec<String>,
        path: &[String],
        seen: &mut BTreeSet<(usize, String)>,
    ) -> Option<usize> {
        let mut rest = path;
        while let Some((name, after)) = rest.split_first() {
            module.push(name.clone());
            if !self.by_module.contains_key(module.as_slice()) {
                module.pop();
                break;
            }
            rest = after;
        }
        let here = *self.by_module.get(module.as_slice())?;
        let Some(name) = rest.first() else {
            return Some(here);
        };
        let is_imported = self.imports[here].contains_key(name);
        let through = is_imported.then(|| self.follow(here, rest, seen)).flatten();
        Some(through.unwrap_or(here))
    }
}

impl Paths {
    fn of(source: &Source) -> Self {
        let mut paths = Self::default();
        paths.look(&source.tokens);
        paths
    }

    fn look(&mut self, mut tokens: &[Token]) {
        let mut is_public = false;
        while let Some((token, after)) = tokens.split_first() {
            tokens = after;
            match token {
                Token::Word(word, _) if word == "pub" => {
                    is_public = true;
                    if let [Token::Group(Delimiter::Parenthesis, ..), rest @ ..] = tokens {
                        tokens = rest;
                    }
                    continue;
                }
                Token::Word(word, _) if word == "use" => {
                    let end = tokens.iter().position(|token| *token == Token::Mark(';'));
                    let (tree, rest) = tokens.split_at(end.unwrap_or(tokens.len()));
                    self.tree(tree, &[], is_public);
                    tokens = rest;
                }
                Token::Word(..) => {
                    let mut path = vec![token.clone()];
                    while let [
                        Token::Mark(':'),
                        Token::Mark(':'),
                        next @ Token::Word(..),
                        rest @ ..,
                    ] = tokens
                    {
                        path.push(next.clone());
                        tokens = rest;
                    }
                    if path.len() > 1 {
                        let names = path.iter().filter_map(Token::word);
                        self.spoken.push(names.map(str::to_owned).collect());
                    }
                }
                Token::Group(_, inner, _) => self.look(inner),
                Token::Mark(_) => {}
            }
            is_public = false;
        }
    }

    /// Reads what follows `use`, below `before`.
    fn tree(&mut self, tokens: &[Token], before: &[String], is_public: bool) {
        for branch in tokens.split(|token| *token == Token::Mark(',')) {
            let mut path = before.to_vec();
            let mut words = branch.iter();
            let mut alias = None;
            while let Some(token) = words.next() {
                match token {
                    Token::Word(word, _) if word == "as" => {
                        alias = words.next().and_then(Token::word).map(str::to_owned);
                    }
                    Token::Word(word, _) if word == "self" && !path.is_empty() => {}
                    Token::Word(word, _) => path.push(word.clone()),
                    Token::Group(_, inner, _) => {
                        self.tree(inner, &path, is_public);
                        path.clear();
                    }
                    Token::Mark(_) => {}
                }
            }
            if let Some(name) = alias.or_else(|| path.last().cloned()) {
                self.named.push((name, path, is_public));
            }
        }
    }
}
