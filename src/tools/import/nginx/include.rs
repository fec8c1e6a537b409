//! A configuration of nginx with everything it includes, as one tree.

use std::path::{Component, Path, PathBuf};

use crate::config::{Problem, Source};
use crate::tools::import::files::{Files, ReadError};
use crate::tools::import::nginx::parse::{self, Directive};

#[derive(Clone, Debug, Default)]
pub(crate) struct Whole {
    /// The main file first.
    pub(crate) sources: Vec<Source>,
    /// The directives of an included file follow the `include`, which stays.
    pub(crate) tree: Vec<Directive>,
    pub(crate) count: usize,
    /// By the id of an `include`: the number of its files, or why there are none.
    pub(crate) includes: Vec<(usize, Result<usize, String>)>,
    /// Numbers of the files that were a pasted diff.
    pub(crate) differences: Vec<usize>,
}

/// Why nothing could be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file that was asked for.
    #[error("{} cannot be read: {error}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: ReadError,
    },
    /// An include that cannot be part of a configuration; the whole is not what it seems.
    #[error("{at}: this includes {}: {why}", .path.display())]
    Include {
        /// File and line of the include.
        at: String,
        /// What is included.
        path: PathBuf,
        /// Why it is not read.
        why: String,
    },
    /// The file that was asked for is no configuration of nginx.
    #[error("{} is no configuration that nginx would read", .0.origin())]
    Syntax(Box<Source>, Box<Problem>),
    /// An included file is none; its text is not shown, as it may be anything.
    #[error("{at}: {problem}; nginx would not read this included file")]
    IncludedSyntax {
        /// File, line and column.
        at: String,
        /// What is wrong there.
        problem: parse::Error,
    },
}

/// Files of one configuration: more are a loop, or not written by people.
const MOST_FILES: usize = 1000;
/// Bytes of all files together: the bound of one file, since a configuration may be in one.
const MOST_BYTES: usize = 16 << 20;
/// Nested includes; nginx itself stops when descriptors run out.
const DEEPEST: usize = 16;

/// Reads a file and what it includes. Patterns are relative to the folder of the file, as in nginx.
///
/// # Errors
/// The file cannot be read, or one of the files is no configuration; an include that is missing or elsewhere is
/// noted in [`Whole::includes`].
pub(crate) fn read(files: &dyn Files, path: &Path) -> Result<Whole, Error> {
    let text = files.main(path).map_err(|error| Error::Unreadable { path: path.to_path_buf(), error })?;
    let folder = path.parent().unwrap_or_else(|| Path::new("")).to_path_buf();
    let mut reading = Reading { files, folder, open: Vec::new(), bytes: 0, whole: Whole::default() };
    reading.whole.tree = reading.file(path, &text)?;
    Ok(reading.whole)
}

struct Reading<'a> {
    files: &'a dyn Files,
    folder: PathBuf,
    /// The files being read: the current one and those that include it.
    open: Vec<PathBuf>,
    bytes: usize,
    whole: Whole,
}

impl Reading<'_> {
    fn file(&mut self, path: &Path, text: &str) -> Result<Vec<Directive>, Error> {
        let source = Source::new(&path.display().to_string(), text);
        let number = self.whole.sources.len();
        let changed = parse::apply_difference(text);
        if changed.is_some() {
            self.whole.differences.push(number);
        }
        let parsed = parse::parse(changed.as_deref().unwrap_or(text), number, &mut self.whole.count);
        let tree = parsed.map_err(|error| syntax(&source, number, error))?;
        self.whole.sources.push(source);
        self.bytes += text.len();
        self.open.push(self.files.identity(path));
        let tree = self.expand(tree);
        self.open.pop();
        tree
    }

    fn expand(&mut self, tree: Vec<Directive>) -> Result<Vec<Directive>, Error> {
        let mut expanded = Vec::with_capacity(tree.len());
        for mut directive in tree {
            directive.block = directive.block.take().map(|block| self.expand(block)).transpose()?;
            let brought = match directive.name.text == "include" && directive.block.is_none() {
                true => self.include(&directive)?,
                false => Vec::new(),
            };
            expanded.push(directive);
            expanded.extend(brought);
        }
        Ok(expanded)
    }

    fn include(&mut self, include: &Directive) -> Result<Vec<Directive>, Error> {
        let paths = self.matching(include.argument(0));
        let mut brought = (0, Vec::new());
        let mut wrong = paths.as_ref().err().cloned();
        for path in paths.unwrap_or_default() {
            self.bound(include, &path)?;
            match self.files.read(&path) {
                Ok(text) => {
                    brought.0 += 1;
                    brought.1.extend(self.file(&path, &text)?);
                }
                Err(error) if error.is_no_configuration() => {
                    return Err(self.refused(include, &path, error.to_string()));
                }
                Err(error) => wrong = Some(format!("{} is not read: {error}", path.display())),
            }
        }
        self.whole.includes.push((include.id, wrong.map_or(Ok(brought.0), Err)));
        Ok(brought.1)
    }

    /// Refuses a file that includes itself, and more files, bytes or levels than a configuration has.
    fn bound(&self, include: &Directive, path: &Path) -> Result<(), Error> {
        let why = if self.open.contains(&self.files.identity(path)) {
            "it includes itself, so that it has no end".to_owned()
        } else if self.open.len() > DEEPEST {
            format!("includes nest deeper than {DEEPEST}")
        } else if self.whole.sources.len() >= MOST_FILES {
            format!("there are more than {MOST_FILES} files")
        } else if self.bytes > MOST_BYTES {
            format!("the files have more than {} MiB together", MOST_BYTES >> 20)
        } else {
            return Ok(());
        };
        Err(self.refused(include, path, why))
    }

    fn refused(&self, include: &Directive, path: &Path, why: String) -> Error {
        let source = &self.whole.sources[include.file];
        let at = format!("{}:{}", source.origin(), source.position(include.name.span.start).line);
        Error::Include { at, path: path.to_path_buf(), why }
    }

    /// Sorted. A pattern with wildcards may match none.
    fn matching(&self, pattern: &str) -> Result<Vec<PathBuf>, String> {
        let path = self.folder.join(pattern);
        if !pattern.contains(['*', '?', '[']) {
            return Ok(vec![path]);
        }
        let mut found = vec![PathBuf::new()];
        for component in path.components() {
            let Component::Normal(name) = component else {
                found.iter_mut().for_each(|path| path.push(component));
                continue;
            };
            let name = name.to_str().ok_or("the pattern is no UTF-8")?;
            if !name.contains(['*', '?', '[']) {
                found.iter_mut().for_each(|path| path.push(name));
                continue;
            }
            found = found.iter().flat_map(|folder| self.names(folder, name)).take(MOST_FILES).collect();
        }
        Ok(found)
    }

    /// Sorted; empty if the folder does not exist.
    fn names(&self, folder: &Path, pattern: &str) -> Vec<PathBuf> {
        let letters: Vec<char> = pattern.chars().collect();
        let mut names = self.files.list(folder).unwrap_or_default();
        names.retain(|name| fits(&letters, &name.chars().collect::<Vec<_>>()));
        names.sort();
        names.into_iter().map(|name| folder.join(name)).collect()
    }
}

fn syntax(source: &Source, number: usize, error: parse::Error) -> Error {
    if number > 0 {
        let at = source.position(error.span().start);
        return Error::IncludedSyntax { at: format!("{}:{}:{}", source.origin(), at.line, at.column), problem: error };
    }
    let repair = "`nginx -t` names the same place; mend it there first";
    let problem = Problem::new(error.span().clone(), error.to_string(), "here", repair);
    Error::Syntax(Box::new(source.clone()), Box::new(problem))
}

/// Whether a name matches a pattern of `*`, `?` and `[a-z]`. A `*` does not match a leading dot, as in glob(3).
fn fits(pattern: &[char], name: &[char]) -> bool {
    if name.first() == Some(&'.') && pattern.first() != Some(&'.') {
        return false;
    }
    // Where to go on if the last `*` has to take one more: no recursion, so that no pattern takes exponential time.
    let mut at = 0;
    let mut of = 0;
    let mut star = None;
    while of < name.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at + 1, of));
                at += 1;
                continue;
            }
            Some('?') => at += 1,
            Some('[') => match class(&pattern[at..], name[of]) {
                Some((length, true)) => at += length,
                _ if star.is_some() => {
                    (at, of) = again(&mut star);
                    continue;
                }
                _ => return false,
            },
            Some(letter) if *letter == name[of] => at += 1,
            _ if star.is_some() => {
                (at, of) = again(&mut star);
                continue;
            }
            _ => return false,
        }
        of += 1;
    }
    pattern[at..].iter().all(|letter| *letter == '*')
}

fn again(star: &mut Option<(usize, usize)>) -> (usize, usize) {
    let (at, of) = star.expect("only called after a star");
    *star = Some((at, of + 1));
    (at, of + 1)
}

/// Length of a bracket expression, and whether it has the letter; `None`: it is none.
fn class(pattern: &[char], letter: char) -> Option<(usize, bool)> {
    let end = 2 + pattern.get(2..)?.iter().position(|other| *other == ']')?;
    let inner = &pattern[1..end];
    let (negated, inner) = match inner.split_first() {
        Some(('!' | '^', rest)) => (true, rest),
        _ => (false, inner),
    };
    let range = inner.windows(3).any(|part| part[1] == '-' && (part[0]..=part[2]).contains(&letter));
    Some((end + 1, (range || inner.contains(&letter)) != negated))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        fits(&pattern.chars().collect::<Vec<_>>(), &name.chars().collect::<Vec<_>>())
    }

    #[test]
    fn patterns_fit_as_in_the_shell() {
        for (pattern, name) in
            [("*.conf", "a.conf"), ("?-*", "1-x"), ("[a-c]*", "b"), ("*", ""), ("a*b*c", "axbybzc"), ("*[!0]", "a1")]
        {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("*.conf", "a.conf~"), ("*", ".hidden"), ("[a-c]*", "d"), ("a*b", "a"), ("[", "[")] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }
}
